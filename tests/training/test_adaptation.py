"""A recogniser that learns to see behind approaches: it nears the bare faces, and resumes exactly."""

import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from ageveil.audit.recognition import RECOGNISERS, embed, get_recogniser
from ageveil.errors import DataError, ModelError, OutputError
from ageveil.training import adaptation, initial
from ageveil.training.adaptation import (
    Adaptation,
    adapt,
    adaptation_loss,
    bare_embeddings,
    learn,
    look,
    parts,
)
from ageveil.training.export import recogniser_graph
from ageveil.training.faces import FacePool, hide
from ageveil.training.resnet import CropRecogniser, DlibResNet


@pytest.fixture(scope="module")
def state(weights):
    """dlib's weights."""
    return initial.load("dlib-resnet", weights)


@pytest.fixture
def recogniser(state):
    """dlib's recogniser, to be trained."""
    network = DlibResNet()
    initial.fit(network, state)
    return CropRecogniser(network)


@pytest.fixture(scope="module")
def pool(faces):
    return FacePool.of([faces])


def hidden(pool, approach):
    rng = np.random.default_rng(1)
    return np.stack([hide(pool.crop(face), approach, rng).pixels for face in range(len(pool))])


def test_the_loss_is_the_share_that_is_not_explained_and_the_cross_entropy():
    rng = np.random.default_rng(0)
    bare = rng.normal(0.5, 1, (7, 5))
    bare /= np.linalg.norm(bare, axis=1, keepdims=True)
    rows, own = rng.normal(size=(3, 5)), [4, 0, 6]
    centre = sum(bare) / 7
    spread = sum(((row - centre) ** 2).sum() for row in bare) / 7
    total = 0.0
    for row, mine in zip(rows, own, strict=True):
        unit = row / np.sqrt((row**2).sum())
        scores = [
            8 * ((unit - centre) @ (other - centre))
            / np.linalg.norm(unit - centre) / np.linalg.norm(other - centre)
            for other in bare
        ]  # fmt: skip
        surprise = -np.log(np.exp(scores[mine]) / sum(np.exp(scores)))
        total += ((unit - bare[mine]) ** 2).sum() / spread + surprise
    loss = adaptation_loss(torch.tensor(rows), torch.tensor(own), torch.tensor(bare), sharpness=8)
    assert float(loss) == pytest.approx(total / 3, rel=1e-5)


def test_only_the_angle_of_an_embedding_counts():
    bare = torch.nn.functional.normalize(torch.eye(4) + 0.5)
    own = torch.arange(4)
    one, ten = (float(adaptation_loss(scale * bare, own, bare)) for scale in (1, 10))
    assert one == pytest.approx(ten)
    assert one < float(adaptation_loss(bare[[1, 2, 3, 0]], own, bare))


def test_bare_faces_are_seen_as_the_audit_sees_them(recogniser, pool):
    seen = bare_embeddings(recogniser, pool, np.array([0, 1, 5])).numpy()
    expected = embed(np.stack([pool.crop(face).pixels for face in (0, 1, 5)]), RECOGNISERS["dlib-resnet"])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.linalg.norm(seen, axis=1) == pytest.approx(1)
    assert (seen * expected).sum(1).min() > 0.998  # maps of 16 bits, weights of 8


def test_a_few_steps_bring_hidden_faces_nearer_to_bare_ones(recogniser, pool):
    everybody = np.arange(len(pool))
    bare = bare_embeddings(recogniser, pool, everybody)
    crops, own = torch.from_numpy(hidden(pool, "mask")), torch.from_numpy(everybody)
    how = Adaptation({"mask": 1.0})
    optimizer = torch.optim.AdamW(recogniser.parameters(), 2e-5)
    losses = [learn(recogniser, optimizer, crops, own, bare, how) for _ in range(5)]
    assert losses[-1] < 0.9 * losses[0]


def run(recogniser, pool, folder, how, stop=None, workers=0):
    told = []

    def advance(step, loss):
        told.append((step, loss))
        if step == stop:
            raise KeyboardInterrupt

    adapt(recogniser, pool, np.arange(0, 24, 2), how, folder, workers=workers, advance=advance)
    return told


@pytest.fixture(scope="module")
def how():
    return Adaptation({"mask": 1.0, "mosaic": 1.0}, epochs=2, batch=5, learning_rate=1e-4, seed=3)


def test_a_run_that_was_stopped_ends_with_the_same_weights(state, recogniser, pool, how, tmp_path):
    whole = run(recogniser, pool, tmp_path / "whole", how)
    assert [step for step, _ in whole] == [1, 2, 3, 4]
    again = CropRecogniser(DlibResNet())
    initial.fit(again.network, state)
    with pytest.raises(KeyboardInterrupt):
        run(again, pool, tmp_path / "parts", how, stop=3)
    initial.fit(again.network, state)
    rest = run(again, pool, tmp_path / "parts", how, workers=1)
    assert rest == whole[2:]  # the first epoch is not made again
    for name, tensor in recogniser.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    # What a recogniser sees of bare faces tells who they are.
    (kept,) = (tmp_path / "parts").glob("bare-*.npy")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700


def test_another_way_to_train_does_not_go_on_from_this_one(state, recogniser, pool, how, tmp_path):
    run(recogniser, pool, tmp_path, how)
    initial.fit(recogniser.network, state)
    other = Adaptation({"mask": 1.0}, epochs=1, batch=5, seed=3)
    assert len(run(recogniser, pool, tmp_path, other)) == 2
    assert len(list(tmp_path.glob("adaptation-*.pt"))) == 2
    assert len(list(tmp_path.glob("bare-*.npy"))) == 1  # the same faces, the same weights


@pytest.mark.parametrize("kind", ["bare-*.npy", "adaptation-*.pt"])
def test_a_damaged_file_is_named(state, recogniser, pool, how, tmp_path, kind):
    with pytest.raises(KeyboardInterrupt):
        run(recogniser, pool, tmp_path, how, stop=3)
    (kept,) = tmp_path.glob(kind)
    kept.write_bytes(kept.read_bytes()[:200])
    initial.fit(recogniser.network, state)
    with pytest.raises(DataError, match=f"{kept.name} is damaged: remove it"):
        run(recogniser, pool, tmp_path, how)


def test_a_folder_that_cannot_be_made(recogniser, pool, how):
    with pytest.raises(OutputError, match="cannot write to"):
        run(recogniser, pool, Path("/dev/null/run"), how)


def test_faces_that_are_held_out_are_not_learned(pool):
    learned, held_out = parts(pool, Adaptation({"mask": 1.0}))
    assert sorted([*learned, *held_out]) == list(range(len(pool)))
    assert len(learned)
    assert len(held_out)


def test_too_few_faces_to_hold_some_out(pool, monkeypatch):
    monkeypatch.setattr(adaptation, "split_validation", lambda *a, **k: (np.arange(24), np.arange(0)))
    with pytest.raises(DataError, match="expected faces to learn from and to hold out, got 24, 0"):
        parts(pool, Adaptation({"mask": 1.0}))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"approaches": {}}, "an approach, an epoch"),
        ({"epochs": 0}, "an approach, an epoch"),
        ({"batch": 0}, "an approach, an epoch"),
        ({"approaches": {"des-cbc": 1.0}}, "got 'des-cbc'"),
        ({"approaches": {"nothing": 1.0}}, "got 'nothing'"),
    ],
)
def test_training_that_makes_no_sense_is_refused(changes, what):
    with pytest.raises(ValueError, match=what):
        Adaptation(**{"approaches": {"mask": 1.0}} | changes)


def test_the_file_sees_what_the_network_sees(recogniser, pool, tmp_path):
    metadata = {"approaches": ["mask", "grid"], "licence": "CC0-1.0"}
    path = tmp_path / "own.onnx"
    path.write_bytes(recogniser_graph(recogniser, metadata).SerializeToString())
    own = get_recogniser(str(path))
    assert own.approaches == ("mask", "grid")
    crops = hidden(pool, "mask")[:3]
    with torch.inference_mode():
        views = [look(recogniser, torch.from_numpy(view.copy())) for view in (crops, crops[:, :, ::-1])]
        seen = sum(torch.nn.functional.normalize(view) for view in views).numpy()
    rows = embed(crops, own)
    cosines = (rows * seen).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(seen, axis=1)
    assert cosines.min() > 0.998  # weights of 8 bits
    assert str(tmp_path.cwd()).encode() not in path.read_bytes()  # nothing of the machine that wrote it


@pytest.mark.parametrize("stated", ['"mask"', "[1]", "mask"])
def test_a_file_that_names_its_approaches_in_another_form_is_refused(recogniser, tmp_path, stated):
    model = recogniser_graph(recogniser, {})
    model.metadata_props.add(key="approaches", value=stated)
    path = tmp_path / "own.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="should state its approaches as a JSON list"):
        get_recogniser(str(path))
