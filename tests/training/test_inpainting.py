"""The network that paints hidden faces back: what it touches, what it learns from, and how a run goes on."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ageveil.anonymization import anonymize_crop
from ageveil.errors import DataError, ModelError, OutputError
from ageveil.runtime import Session
from ageveil.training import inpainting
from ageveil.training.faces import FacePool
from ageveil.training.inpainter import SIDE, Inpainter
from ageveil.training.inpainting import BEST_FILE, LAST_FILE, Pairs, Plan, export, loss, pair, train

SMALL = Plan(
    {"mask": 1.0, "mosaic": 1.0}, widths=(4, 6), epochs=3, batch=4, learning_rate=3e-3, share=0.3,
    every=4, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def pool(faces):
    return FacePool.of([faces])


def halved(picture):
    """The mean of every four pixels, by hand."""
    height, width = picture.shape[:2]
    return picture.reshape(height // 2, 2, width // 2, 2, -1).astype(float).mean((1, 3))


def test_a_pair_is_a_face_hidden_and_bare(pool):
    crop = pool.crop(0)
    face = anonymize_crop(crop, "mask")
    given, bare, hidden = (part.numpy() for part in pair(crop.pixels, face))
    assert given.shape == bare.shape == (SIDE, SIDE, 3)
    np.testing.assert_allclose(given, halved(face.pixels), atol=0.5)
    np.testing.assert_allclose(bare, halved(crop.pixels), atol=0.5)
    np.testing.assert_allclose(hidden, halved(face.eye_mask[..., None])[..., 0])
    assert not given[hidden == 1].any()


def test_pairs_depend_on_seed_epoch_and_face_alone(pool):
    one, two = (Pairs(pool, SMALL, varied=True) for _ in range(2))
    other = Pairs(pool, replace(SMALL, seed=4), varied=True)
    for index in range(6):
        for first, second in zip(one[1, index], two[1, index], strict=True):
            assert torch.equal(first, second)
        assert not torch.equal(one[1, index][1], one[2, index][1])
        assert not torch.equal(one[1, index][1], other[1, index][1])
    plain = Pairs(pool, SMALL, varied=False)
    np.testing.assert_allclose(plain[0, 5][1], halved(pool.crop(5).pixels), atol=0.5)


def test_the_loss_is_that_of_a_slow_loop():
    rng = np.random.default_rng(1)
    painted, bare = rng.uniform(0, 255, (2, 2, 3, 5, 6))
    hidden = np.zeros((2, 1, 5, 6))
    hidden[0, 0, 1:4, 2:5] = 1
    hidden[1, 0, 2:, :] = 0.5
    found = loss(*(torch.from_numpy(array) for array in (painted, bare, hidden)))
    for face in range(2):
        error, where = (painted - bare)[face], hidden[face, 0]
        totals, weights = np.zeros(3), np.zeros(3)
        for y in range(5):
            for x in range(6):
                for colour in range(3):
                    here = error[colour, y, x]
                    steps = [here, here - error[colour, y, x - 1], here - error[colour, y - 1, x]]
                    there = [True, x > 0, y > 0]
                    totals += np.abs(steps) * there * where[y, x]
                    weights += np.array(there) * where[y, x]
        assert found[face].item() == pytest.approx(np.sum(totals / weights), rel=1e-5)


def test_only_what_is_hidden_is_painted(pool):
    torch.manual_seed(0)
    network = Inpainter((4, 6, 8)).eval()
    for side in (224, 97):
        crops = torch.from_numpy(pool.crop(0).pixels[:side, :side][None].copy())
        hidden = torch.zeros(1, side, side, dtype=torch.bool)
        hidden[:, 20:50, 10:70] = True
        with torch.inference_mode():
            painted = network(crops, hidden)
        assert painted.shape == crops.shape
        assert torch.equal(painted[~hidden], crops[~hidden].float())
        assert not torch.equal(painted[hidden], crops[hidden].float())
        assert 0 <= painted.min() <= painted.max() <= 255


@pytest.mark.parametrize("widths", [(8,), (4,) * 5])
def test_a_side_halves_one_to_four_times(widths):
    with pytest.raises(ValueError, match="halves one to four times"):
        Inpainter(widths)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"approaches": {}}, {"approaches": {"mask": 0.0}}, {"every": 0}]
)
def test_a_plan_that_does_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="above 0"):
        Plan(**wrong)


@pytest.fixture(scope="module")
def whole(pool, tmp_path_factory):
    """A run from its start to its end, with what it announced."""
    said = []
    folder = tmp_path_factory.mktemp("whole")
    run = train(pool, SMALL, folder, device="cpu", workers=0, announce=lambda *what: said.append(what))
    return folder, run, said


def test_a_run_learns_and_keeps_its_best(whole, pool):
    folder, run, said = whole
    steps = SMALL.epochs * (run.training_faces // SMALL.batch)
    assert [step for step, *_ in said] == [*range(4, steps, 4), steps]
    assert {total for _, total, _ in said} == {steps}
    assert run.best == min(judged for *_, judged in said) < said[0][2]
    assert run.training_faces + run.held_out == len(pool)
    assert {path.name for path in folder.iterdir()} == {BEST_FILE, LAST_FILE}


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(whole, pool, tmp_path):
    def stop(step, *_):
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(pool, SMALL, tmp_path, device="cpu", workers=0, announce=stop)
    said = []
    run = train(pool, SMALL, tmp_path, device="cpu", workers=0, announce=lambda *what: said.append(what))
    assert said == whole[2][2:]
    for name, tensor in whole[1].network.state_dict().items():
        assert torch.equal(tensor, run.network.state_dict()[name]), name
    # A finished one is not trained again.
    assert train(pool, SMALL, tmp_path, device="cpu", workers=0, announce=stop).best == run.best


def test_a_run_of_another_plan_is_left_alone(whole, pool):
    with pytest.raises(DataError, match="another plan or of other faces"):
        train(pool, replace(SMALL, epochs=4), whole[0], device="cpu", workers=0)


@pytest.mark.parametrize("name", [BEST_FILE, LAST_FILE])
@pytest.mark.parametrize("damage", ["empty", "zeros", "half"])
def test_a_file_that_is_damaged_is_named(whole, pool, tmp_path, name, damage):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(
        {"empty": b"", "zeros": bytes(len(content)), "half": content[: len(content) // 2]}[damage]
    )
    with pytest.raises(
        DataError, match=rf"{re.escape(name)} is damaged.*: remove .*, and training starts anew"
    ):
        train(pool, SMALL, folder, device="cpu", workers=0)


def test_the_best_weights_that_are_gone_are_named(whole, pool, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    (folder / BEST_FILE).unlink()
    with pytest.raises(DataError, match=r"best\.safetensors is damaged or missing: remove last\.pt"):
        train(pool, SMALL, folder, device="cpu", workers=0)
    (folder / LAST_FILE).unlink()  # what the message says does help
    assert train(pool, SMALL, folder, device="cpu", workers=0).best == whole[1].best


def test_too_few_faces_are_refused(pool, tmp_path):
    with pytest.raises(DataError, match="40 faces or more to learn from"):
        train(pool, replace(SMALL, batch=40), tmp_path, workers=0)


def test_a_run_that_goes_astray_is_an_error(pool, tmp_path):
    with pytest.raises(ModelError, match="went astray"):
        train(pool, replace(SMALL, learning_rate=1e30, every=1), tmp_path, device="cpu", workers=0)


def test_a_folder_that_cannot_be_made_is_an_error(pool, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        train(pool, SMALL, tmp_path / "file" / "run", device="cpu", workers=0)


@pytest.fixture(scope="module")
def sample(pool):
    faces = [anonymize_crop(pool.crop(index), "mask") for index in range(3)]
    return np.stack([face.pixels for face in faces]), np.stack([face.eye_mask for face in faces])


def test_the_graph_paints_as_the_network_does(whole, sample, tmp_path):
    path, network = tmp_path / "inpainter.onnx", whole[1].network
    digest = export(network, path, sample=sample, metadata={"approaches": ["mask"]})
    assert len(digest) == 64
    session = Session(path)
    assert session.metadata == {"approaches": '["mask"]'}
    for side in (224, 150):
        crops, hidden = (np.ascontiguousarray(array[:1, :side, :side]) for array in sample)
        (painted,) = session.run(crops=crops, hidden=hidden)
        with torch.inference_mode():
            expected = network(torch.from_numpy(crops), torch.from_numpy(hidden)).numpy()
        np.testing.assert_array_equal(painted[~hidden], expected[~hidden])
        assert np.abs(painted - expected)[hidden].mean() < 1


def test_weights_that_do_not_bear_rounding_are_not_written(whole, sample, tmp_path, monkeypatch):
    monkeypatch.setattr(inpainting, "ROUNDING", 0.0)
    with pytest.raises(ModelError, match="weights in int8 change the picture"):
        export(whole[1].network, tmp_path / "inpainter.onnx", sample=sample, metadata={})
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_are_not_written(whole, sample, tmp_path):
    network = Inpainter(SMALL.widths)
    network.load_state_dict(whole[1].network.state_dict())
    torch.nn.init.constant_(network.last.bias, torch.nan)
    with pytest.raises(ModelError, match="PyTorch and ONNX Runtime differ"):
        export(network, tmp_path / "inpainter.onnx", sample=sample, metadata={})
    assert not list(tmp_path.iterdir())
