"""Measure estimators on a data set, through the very pipeline that serves.

Finding a face costs more than estimating it, so each face is cropped once, and every approach and model gets
its anonymized copies: `open_faces` -> `estimate_all` -> `score`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ageveil import anonymization, estimation
from ageveil.draws import ChaChaDraws
from ageveil.errors import AgeveilError, DataError
from ageveil.evaluation import copies, metrics
from ageveil.evaluation.intervals import Estimate, Statistic, bootstrap, clopper_pearson, widened
from ageveil.image import read_image
from ageveil.pipeline import Pipeline, map_ordered
from ageveil.training.datasets import read_dataset
from ageveil.training.labels import LabelledImage
from ageveil.training.preparation import canonical_crop, left_out_reason
from ageveil.training.prepared import PreparedFaces, load_prepared
from ageveil.training.splits import folds_of, left_out
from ageveil.types import AGE_GROUPS, MAX_AGE, AgeDistribution, AnonymizedFace, CanonicalCrop, Resolution

COMPARABLE = 0.015
"""Where more than this share of the faces is left out, a figure is not comparable."""

FEW = 100
"""A part of a data set with fewer faces says little."""

PREPARED = "prepared:"
"""How the name of a folder of prepared faces begins, where a data set is asked for."""

FOLD = "{fold}"
"""Stands in a model's name for the number of a fold: one model for each, and each tests on its own fold."""

_BATCH = 256

_OWN_BINS: Mapping[str, metrics.Bins] = {"fairface": metrics.FAIRFACE_BINS}
_OWN_TAILS: Mapping[str, tuple[int, ...]] = {"fairface": (10, 20)}

Trait = Literal["gender", "race", "group"]
TRAITS: tuple[Trait, ...] = ("gender", "race", "group")
"""What a data set can be parted by."""


# Faces ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Labelled faces and how to get at their crops.

    Attributes:
        dataset: Name in `ageveil.training.datasets.DATASETS`; it says over which bins of ages is scored.
        images: What the data set says of each face.
        crop: Index of a face -> its canonical crop; raises FaceError or ImageError where there is none.
        total: Faces of the data set, or of a draw from it, before any was left out.
        left_out: Which of `total` were left out beforehand, by reason.
        labels_left_out: Pictures whose label states no usable age, by reason; they do not count in `total`,
            and are those of the whole data set even where faces are a draw.
    """

    dataset: str
    images: tuple[LabelledImage, ...]
    crop: Callable[[int], CanonicalCrop]
    total: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    labels_left_out: Mapping[str, int] = field(default_factory=dict)


def open_faces(spec: str, pipeline: Pipeline, *, limit: int | None = None, seed: int = 0) -> Faces:
    """Open a data set, or the folder in which `ageveil prepare` left its crops.

    Args:
        spec: As `ageveil.training.datasets.read_dataset` takes it, or "prepared:DIR".
        pipeline: How faces are found; prepared ones are found already, and must be in that way.
        limit: Only so many faces, drawn at random. Those that are then found unusable, or were so when the
            faces were prepared, count among them.
        seed: Of that draw.

    Raises:
        ValueError: Unknown data set, prepared faces were found in another way, or `limit` is below 1.
        DataError: The folder does not read as that data set.
    """
    if spec.startswith(PREPARED) and len(spec) > len(PREPARED):
        prepared = load_prepared(Path(spec.removeprefix(PREPARED)))
        _check_found(prepared, pipeline)
        # Pictures without a usable face are drawn too, as from a data set that is not prepared. So the share
        # left out is that of the draw, and as large as the folder's but for chance.
        reasons = list(Counter(prepared.left_out).elements())
        drawn = draw(len(prepared) + len(reasons), limit, seed)
        chosen = [place for place in drawn if place < len(prepared)]
        return Faces(
            prepared.dataset,
            tuple(prepared.images[index] for index in chosen),
            lambda index: prepared.crop(chosen[index]),
            len(drawn),
            dict(Counter(reasons[place - len(prepared)] for place in drawn[len(chosen) :])),
            dict(prepared.labels_left_out),
        )
    dataset = read_dataset(spec)
    images = sample(dataset.images, limit, seed=seed)
    return photographs(images, pipeline, dataset=dataset.name, labels_left_out=dataset.left_out)


def _check_found(prepared: PreparedFaces, pipeline: Pipeline) -> None:
    for name, asked in (("detector", pipeline.detector), ("landmarks", pipeline.landmarks)):
        if prepared.pipeline.get(name) != asked:
            raise ValueError(
                f"the prepared faces were found with {name} {prepared.pipeline.get(name)}, asked is {asked}"
            )


def part(faces: Faces, indices: Sequence[int]) -> Faces:
    """Some of the faces, in the order of `indices`; faces that were left out beforehand do not count."""
    chosen = tuple(indices)
    images = tuple(faces.images[index] for index in chosen)
    return Faces(faces.dataset, images, lambda index: faces.crop(chosen[index]), len(chosen))


def split_to_choose_by(model: str) -> estimation.Split:
    """Which faces of its training data a model kept out, so that models can be chosen by them.

    Raises:
        ValueError: Unknown model, or one for each fold.
        DataError: It does not say, or it left a fold out: by folds, every face is tested already.
        ModelError: Its weights are missing or damaged.
    """
    if FOLD in model:
        raise ValueError(f"models by fold test each face already, there is none to choose by: {model}")
    split = estimation.split_of(model)
    if split is None:
        raise DataError(f"{model} does not say which faces it kept out of training")
    if split.test_fold is not None:
        raise DataError(
            f"{model} left fold {split.test_fold} out to be tested on: choose by a model without folds"
        )
    return split


def kept_out(
    faces: Faces,
    split: estimation.Split,
    *,
    limit: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Faces:
    """The faces of a model's training data that it was not trained on: to choose by, before any test.

    Where it kept more of some ages out, only so many are here as of the others, so that every age has its
    share. Photographs that trained it under another name are left away (`ageveil.evaluation.copies`). A
    model's temperatures, and the pass of its training that was kept, were chosen by these very faces: figures
    compare models, and flatter each. Who was left out beforehand does not count.

    Args:
        faces: Of the data on which the model was trained.
        split: From `split_to_choose_by`.
        limit: Only so many of them, drawn at random.
        seed: Of that draw.
        workers: Threads; by default one for each core.
        advance: Called after each face of the data, all of which are looked at.

    Raises:
        ValueError: `limit` is below 1.
        DataError: There are none.
    """
    # No span counts more than the rest; one of which less was kept out counts less.
    capped = {span: min(share, split.share) for span, share in split.hold_out.items()}
    kept = set(left_out(faces.images, share=split.share, seed=split.seed, hold_out=capped).tolist())
    spared = left_out(faces.images, **asdict(split)).tolist()
    unseen = copies.unseen(faces.crop, len(faces.images), spared, workers=workers, advance=advance)
    found = [index for index in unseen if index in kept]
    if not found:
        raise DataError("each face that was kept out of training trained under another name")
    drawn = [found[place] for place in draw(len(found), limit, seed)]
    return replace(part(faces, drawn), labels_left_out=faces.labels_left_out)


def photographs(
    images: Sequence[LabelledImage],
    pipeline: Pipeline,
    *,
    dataset: str,
    labels_left_out: Mapping[str, int] | None = None,
) -> Faces:
    """Faces that are yet to be found in their pictures."""
    single = replace(pipeline, options=replace(pipeline.options, threads=1))
    images = tuple(images)

    def crop(index: int) -> CanonicalCrop:
        labelled = images[index]
        return canonical_crop(
            read_image(labelled.path, limits=single.limits), single, aligned=labelled.aligned
        )

    return Faces(dataset, images, crop, len(images), labels_left_out=labels_left_out or {})


def sample(images: Sequence[LabelledImage], limit: int | None, *, seed: int) -> tuple[LabelledImage, ...]:
    """Draw so many images at random, without replacement, in their own order; all of them without a limit.

    Raises:
        ValueError: `limit` is below 1.
    """
    return tuple(images[index] for index in draw(len(images), limit, seed))


def draw(count: int, limit: int | None, seed: int) -> list[int]:
    """Draw so many of the numbers below `count` at random, in order; all of them without a limit.

    Raises:
        ValueError: `limit` is below 1.
    """
    if limit is None or limit >= count:
        return list(range(count))
    if limit < 1:
        raise ValueError(f"a limit is 1 or more, got {limit}")
    chosen: list[int] = np.random.default_rng(seed).choice(count, limit, replace=False).tolist()
    return sorted(chosen)


# Estimates --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """What one model said of the faces of a data set behind one approach.

    Attributes:
        dataset: As in `Faces`.
        images: The faces that could be used. Estimates of one call of `estimate_all` share them, so that
            they can be compared face by face.
        distributions: One for each of `images`.
        approach: How faces were anonymized.
        model: The estimator.
        total: Faces before any was left out.
        left_out: Number of faces that could not be used, by reason.
    """

    dataset: str
    images: tuple[LabelledImage, ...]
    distributions: tuple[AgeDistribution, ...]
    approach: str
    model: str
    total: int
    left_out: Mapping[str, int]

    @property
    def bins(self) -> metrics.Bins:
        """The ages over which is scored: the paper's eight groups, or the data set's own bins."""
        return _bins(self.dataset)

    @property
    def bin_names(self) -> tuple[str, ...]:
        """Names of `bins`, as "25-32" and "60+"."""
        return _bin_names(self.bins)

    @property
    def true_bins(self) -> NDArray[np.int64]:
        """Shape (N,): index in `bins` of the bin that holds each label, -1 where none does."""
        return _true_bins(self.images, self.bins)

    @property
    def bin_probabilities(self) -> NDArray[np.float64]:
        """Shape (N, B): how probable each bin is."""
        if self.bins is AGE_GROUPS:
            return np.stack([distribution.groups for distribution in self.distributions])
        years = [
            d.years for d in self.distributions if d.years is not None
        ]  # all: `estimate_all` has checked it
        return metrics.bin_probabilities(np.stack(years), self.bins)

    @property
    def exact_ages(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which faces have an exact age, shape (N,), and these ages, shape (M,)."""
        known = np.array([image.age is not None for image in self.images])
        return known, np.array([image.age for image in self.images if image.age is not None], np.int64)

    @property
    def people(self) -> NDArray[np.int64] | None:
        """Whose each face is, as numbers, shape (N,); None where the data set names nobody."""
        if all(image.identity is None for image in self.images):
            return None
        names = [image.identity or f"\0{index}" for index, image in enumerate(self.images)]
        return np.unique(names, return_inverse=True)[1]

    def resampled(
        self, statistic: Statistic, chosen: NDArray[np.bool_], *, seed: int, resamples: int
    ) -> Estimate:
        """A figure of some of the faces with its bootstrap interval; people are drawn where they are known.

        Args:
            statistic: As `ageveil.evaluation.intervals.bootstrap` calls it, on the chosen faces.
            chosen: Shape (N,).
            seed: Of the bootstrap.
            resamples: Of the bootstrap.
        """
        people = self.people
        return bootstrap(
            statistic,
            int(chosen.sum()),
            resamples=resamples,
            seed=seed,
            people=None if people is None else people[chosen],
        )

    def share(
        self, hits: NDArray[np.bool_], chosen: NDArray[np.bool_], *, seed: int, resamples: int
    ) -> Estimate:
        """The share of hits among some of the faces, in percent.

        Its interval is that of Clopper and Pearson, which holds for faces that err each by themselves.
        Where the data set names people, they are drawn: the faces of one err alike.

        Args:
            hits: Of the chosen faces, shape (M,), one or more.
            chosen: Shape (N,).
            seed: Of the bootstrap.
            resamples: Of the bootstrap.
        """
        people = self.people
        if people is None:
            exact = clopper_pearson(int(hits.sum()), len(hits))
            return Estimate(100 * exact.value, 100 * exact.low, 100 * exact.high)
        drawn = self.resampled(
            lambda weights: 100 * float(np.average(hits, weights=weights)),
            chosen,
            seed=seed,
            resamples=resamples,
        )
        return widened(drawn, len(np.unique(people[chosen])))

    @property
    def expected(self) -> NDArray[np.float64]:
        """Shape (N,): expected ages in years."""
        return np.array([distribution.expected for distribution in self.distributions])

    def at_least(self, age: int) -> NDArray[np.float64]:
        """Shape (N,): P(age >= `age`)."""
        return np.array([distribution.at_least(age) for distribution in self.distributions])

    def sides(self, age: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Who is certainly under an age and who has certainly reached it, each of shape (N,).

        A label that reaches over the age on both sides is in neither: `straddling` counts them.
        """
        low = np.array([image.age_low for image in self.images])
        high = np.array([image.age_high for image in self.images])
        return high < age, low >= age

    def straddling(self, age: int) -> int:
        """How many labels begin under an age and end at it or over: they do not tell who has reached it."""
        under, over = self.sides(age)
        return int((~under & ~over).sum())


def _bins(dataset: str) -> metrics.Bins:
    return _OWN_BINS.get(dataset, AGE_GROUPS)


def _bin_names(bins: metrics.Bins) -> tuple[str, ...]:
    return tuple(f"{low}+" if high == MAX_AGE else f"{low}-{high}" for low, high in bins)


def _true_bins(images: Iterable[LabelledImage], bins: metrics.Bins) -> NDArray[np.int64]:
    images = tuple(images)
    return metrics.bin_indices(
        [image.age_low for image in images], [image.age_high for image in images], bins
    )


def check_groups(faces: Faces) -> None:
    """Check that some face can be scored, before the long work: its label lies in a group.

    Faces that were all left out beforehand have no labels here; `estimate_all` tells of them.

    Raises:
        DataError: There are faces, and no label of theirs lies in a group, or in a bin of the data set.
    """
    bins = _bins(faces.dataset)
    if faces.images and (_true_bins(faces.images, bins) == metrics.BETWEEN_GROUPS).all():
        raise DataError(
            f"no face has a label within one of the groups that are scored ({', '.join(_bin_names(bins))}): "
            "there is no accuracy to measure, and an error in years is not given alone"
        )


def estimate_all(
    faces: Faces,
    questions: Iterable[tuple[str, str]],
    *,
    seed: int = 0,
    threads: int = 0,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> dict[tuple[str, str], Estimates]:
    """Estimate every face behind some approaches with some models; each face is cropped once.

    A face that one of the approaches cannot process is left out of all.

    Args:
        faces: From `open_faces` or `photographs`.
        questions: Approach and model: a name or alias in `ageveil.anonymization.APPROACHES`, and a name in
            `ageveil.estimation.MODELS` or a path of an exported file. Where a path has "{fold}" in it, each
            face is answered by the model that left its fold to test on. One that comes twice is answered
            once.
        seed: Of the mosaic's draws (one stream for each face); ciphers draw fresh keys.
        threads: Threads of a network; 0 lets it use all cores.
        workers: Threads that prepare faces; by default one for each core.
        advance: Called after each face.

    Returns:
        (approach, model) -> estimates; the approach by its name.

    Raises:
        ValueError: `seed` lies outside 0..2**64 - 1, an approach or model is unknown or missing, or a model
            that knows the eight groups only is asked about other bins of ages.
        DataError: No face of the data set can be used; or there are models for folds and a face states none,
            or one of them does not say that it left its fold out of training.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"a seed lies from 0 to 2**64 - 1, got {seed}")
    found: dict[tuple[str, str], list[AgeDistribution]] = {
        (anonymization.get_approach(name).name, model): [] for name, model in questions
    }
    if not found:
        raise ValueError("expected one approach and one model or more")
    for model in {model for _, model in found}:
        _check_model(model, faces)
    names = list(dict.fromkeys(name for name, _ in found))

    def prepare(index: int) -> list[AnonymizedFace]:
        crop, key = faces.crop(index), seed.to_bytes(16, "big") + index.to_bytes(16, "big")
        return [anonymization.anonymize_crop(crop, name, rng=ChaChaDraws(key)) for name in names]

    left_out = Counter(faces.left_out)
    images: list[LabelledImage] = []
    # Closed here rather than some time later, so that an error leaves no thread behind.
    with contextlib.closing(map_ordered(prepare, range(len(faces.images)), workers)) as prepared:
        together = zip(faces.images, prepared, strict=True)
        for batch in _batches(together, max(1, _BATCH // len(names)), left_out, advance):
            images += [labelled for labelled, _ in batch]
            for (name, model), distributions in found.items():
                column = [copies[names.index(name)] for _, copies in batch]
                folds = [labelled.fold for labelled, _ in batch]
                distributions.extend(_ask(model, column, folds, threads))
    if not images:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(f"no face of the data set could be used: {reasons}")
    kept, counts = tuple(images), dict(left_out)
    return {
        key: Estimates(faces.dataset, kept, tuple(distributions), *key, faces.total, counts)
        for key, distributions in found.items()
    }


def _batches(
    prepared: Iterable[tuple[LabelledImage, list[AnonymizedFace] | AgeveilError]],
    size: int,
    left_out: Counter[str],
    advance: Callable[[], None],
) -> Iterator[list[tuple[LabelledImage, list[AnonymizedFace]]]]:
    """Gather so many usable faces at a time, counting the others by reason."""
    batch: list[tuple[LabelledImage, list[AnonymizedFace]]] = []
    for labelled, hidden in prepared:
        advance()
        if isinstance(hidden, AgeveilError):
            left_out[left_out_reason(hidden)] += 1
            continue
        batch.append((labelled, hidden))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _ask(
    model: str, faces: Sequence[AnonymizedFace], folds: Sequence[int | None], threads: int
) -> list[AgeDistribution]:
    """Estimate faces, each with the model of its fold where there is one for each."""
    if FOLD not in model:
        return list(estimation.estimate(faces, model, threads=threads))
    answers: dict[int, AgeDistribution] = {}
    for fold in dict.fromkeys(folds):
        places = [place for place, own in enumerate(folds) if own == fold]
        asked = [faces[place] for place in places]
        name = model.replace(FOLD, str(fold))
        answers |= dict(zip(places, estimation.estimate(asked, name, threads=threads), strict=True))
    return [answers[place] for place in range(len(faces))]


def members(model: str, images: Iterable[LabelledImage]) -> tuple[str, ...]:
    """The models that a name stands for: itself, or one for each fold.

    Raises:
        DataError: There is one for each fold, and a picture states no fold.
    """
    if FOLD not in model:
        return (model,)
    folds = folds_of(images)
    if not folds:
        raise DataError(f"{model} stands for one model for each fold, and the data set states no folds")
    return tuple(model.replace(FOLD, str(fold)) for fold in folds)


def has_own_bins(dataset: str) -> bool:
    """Whether a data set is scored over bins of its own, which models over groups do not know."""
    return dataset in _OWN_BINS


def check_resolution(name: str, resolution: Resolution, faces: Faces) -> None:
    """Check that a model's classes can be scored on the faces.

    Raises:
        ValueError: It knows groups, and the data set has bins of its own.
    """
    if resolution == "group" and has_own_bins(faces.dataset):
        raise ValueError(f"{name} knows the paper's eight groups only, {faces.dataset} has bins of its own")


def choose_model(model: str, faces: Faces, licence: estimation.Licence = "any") -> str:
    """A model's name, or one with "{fold}" in it, checked to be usable on the faces under an allowed licence.

    Raises:
        ValueError: As `ageveil.estimation.choose_model`, or the model knows groups, and the data set has bins
            of its own.
        DataError: As `members`, or a model saw faces of another fold than it is asked about.
        ModelError: As `ageveil.estimation.choose_model`.
    """
    for member in members(model, faces.images):
        estimation.choose_model(member, licence)
    _check_model(model, faces)
    return model


def _check_model(model: str, faces: Faces) -> None:
    for member in members(model, faces.images):
        check_resolution(member, estimation.get_model(member).info.resolution, faces)
        split = estimation.split_of(member)
        left_out = None if split is None else split.test_fold
        if FOLD in model:
            if left_out is None or model.replace(FOLD, str(left_out)) != member:
                raise DataError(f"{member} does not say that it left the fold in its name out of training")
        elif left_out is not None and any(image.fold not in {None, left_out} for image in faces.images):
            raise DataError(
                f"{member} left fold {left_out} out of training and saw the others: take one model for each "
                f"fold, with {FOLD} in the name"
            )


# Scores -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TailError:
    """How far P(age >= T) is from the truth.

    Attributes:
        misjudged: Share in percent on the other side of one half than the truth, with its bootstrap interval.
        brier: Mean squared distance from the truth, with its bootstrap interval.
        faces: Faces whose label lies on one side of T.
    """

    misjudged: Estimate
    brier: Estimate
    faces: int

    def to_json(self) -> dict[str, Any]:
        """The error as JSON values."""
        return {
            "misjudged": as_json(self.misjudged), "brier": as_json(self.brier), "faces": self.faces,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """How well ages were estimated. Accuracies in percent, errors in years, with 95 % intervals.

    Groups are the paper's eight, or a data set's own bins of ages (FairFace has nine).

    Attributes:
        exact: Share of `faces` whose most probable group is the true one. Bootstrapped, as the next four.
        one_off: Share whose most probable group is the true one or a neighbour.
        macro_exact: Mean over the groups of the share that is exact.
        log_loss: Mean negative logarithm of the true group's probability, in nats.
        mae_years: Mean absolute error of the expected age over faces of exact age; None where there are none.
        mae_faces: Faces of exact age, between the groups as well.
        recall: Group -> its share that is exact, and its faces; None for a group without.
        tail_error: T -> error of P(age >= T), for data sets whose protocol asks for it.
        faces: Faces whose true age lies in a group.
        faces_all: Faces that were estimated.
        total: Faces before any was left out.
        left_out: Number of faces that could not be used, by reason.
        approach: How faces were anonymized.
        model: The estimator.
        licence: Of its weights.
    """

    exact: Estimate
    one_off: Estimate
    macro_exact: Estimate
    log_loss: Estimate
    mae_years: Estimate | None
    mae_faces: int
    recall: Mapping[str, tuple[Estimate, int] | None]
    tail_error: Mapping[int, TailError]
    faces: int
    faces_all: int
    total: int
    left_out: Mapping[str, int]
    approach: str
    model: str
    licence: str

    @property
    def left_out_share(self) -> float:
        """Share of the faces that was left out, a fraction in [0, 1]."""
        return sum(self.left_out.values()) / self.total

    @property
    def comparable(self) -> bool:
        """Were so few faces left out that the figures can stand beside others?"""
        return self.left_out_share <= COMPARABLE

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "exact": as_json(self.exact),
            "one_off": as_json(self.one_off),
            "macro_exact": as_json(self.macro_exact),
            "log_loss": as_json(self.log_loss),
            "mae_years": as_json(self.mae_years),
            "mae_faces": self.mae_faces,
            "recall": {
                name: None if found is None else {**_figure(found[0]), "faces": found[1]}
                for name, found in self.recall.items()
            },
            "tail_error": {str(age): error.to_json() for age, error in self.tail_error.items()},
            "faces": self.faces,
            "faces_all": self.faces_all,
            "left_out": dict(self.left_out),
            "left_out_share": self.left_out_share,
            "comparable": self.comparable,
            "approach": self.approach,
            "model": self.model,
            "licence": self.licence,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """The scores of a part of a data set, as in `Report`; shares have the intervals of `Estimates.share`.

    Attributes:
        value: What the faces of this part share; None where the data set does not tell.
        faces: Faces whose true age lies in a group.
        faces_all: Faces that were estimated.
        exact: None where no face's age lies in a group.
        one_off: As `exact`.
        mae_years: None where no age is exact.
        mae_faces: Faces of exact age, between the groups as well.
    """

    value: str | None
    faces: int
    faces_all: int
    exact: Estimate | None
    one_off: Estimate | None
    mae_years: Estimate | None
    mae_faces: int

    @property
    def few(self) -> bool:
        """So few faces that the figures say little."""
        return self.faces < FEW

    @property
    def mae_few(self) -> bool:
        """So few exact ages that the error in years says little, however many faces there are."""
        return self.mae_faces < FEW

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {
            "value": self.value,
            "faces": self.faces,
            "faces_all": self.faces_all,
            "few": self.few,
            "exact": as_json(self.exact),
            "one_off": as_json(self.one_off),
            "mae_years": as_json(self.mae_years),
            "mae_faces": self.mae_faces,
            "mae_few": self.mae_few,
        }


def as_json(estimate: Estimate | None) -> dict[str, float] | None:
    """A figure with its interval as JSON values; None stays None."""
    return None if estimate is None else _figure(estimate)


def _figure(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def score(estimates: Estimates, *, seed: int = 0, resamples: int = 2000) -> Report:
    """Compare estimates with the labels.

    Args:
        estimates: From `estimate_all`.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Raises:
        DataError: No face has an age in a group.
    """
    true, predicted = grouped(estimates)
    all_true, classes = estimates.true_bins, len(estimates.bins)
    scored = all_true != metrics.BETWEEN_GROUPS
    probabilities = estimates.bin_probabilities[scored]
    people = estimates.people
    units = np.arange(len(true)) if people is None else people[scored]
    independent = len(np.unique(units))
    # Groups count alike, however few faces one has, so all faces together would bound their mean too closely.
    # Where every face is right, as many trials as if each group had as few as the smallest do bound it: the
    # mean of the groups' chances is no less than the geometric mean, of which those trials tell.
    # Where groups share people, their chances hang together, and one group's trials are all there are.
    groups = [np.unique(units[true == index]) for index in np.unique(true)]
    apart = sum(map(len, groups)) == independent
    balanced = (len(groups) if apart else 1) * min(map(len, groups))

    def percent(metric: Callable[..., float]) -> Estimate:
        return estimates.resampled(
            lambda weights: 100 * metric(predicted, true, weights=weights, classes=classes),
            scored,
            resamples=resamples,
            seed=seed,
        )

    return Report(
        exact=widened(percent(metrics.exact_accuracy), independent),
        one_off=widened(percent(metrics.one_off_accuracy), independent),
        macro_exact=widened(percent(metrics.macro_exact_accuracy), min(independent, balanced)),
        log_loss=estimates.resampled(
            lambda weights: metrics.log_loss(probabilities, true, weights=weights),
            scored,
            resamples=resamples,
            seed=seed,
        ),
        mae_years=_mean_error(estimates, np.ones(len(estimates.images), np.bool_), seed, resamples),
        mae_faces=len(estimates.exact_ages[1]),
        recall={
            name: _share(estimates, (predicted == true)[true == index], all_true == index, seed, resamples)
            for index, name in enumerate(estimates.bin_names)
        },
        tail_error={
            age: _tail_error(estimates, age, seed, resamples) for age in _OWN_TAILS.get(estimates.dataset, ())
        },
        faces=len(true),
        faces_all=len(estimates.images),
        total=estimates.total,
        left_out=estimates.left_out,
        approach=estimates.approach,
        model=estimates.model,
        licence=estimation.get_model(members(estimates.model, estimates.images)[0]).info.licence,
    )


def get_trait(name: str) -> Trait:
    """The trait of that name.

    Raises:
        ValueError: There is none; the message lists the choices.
    """
    for trait in TRAITS:
        if trait == name:
            return trait
    raise ValueError(f"unknown part {name!r}; choose one of {', '.join(TRAITS)}")


def score_by(estimates: Estimates, trait: Trait, *, seed: int = 0, resamples: int = 2000) -> tuple[Row, ...]:
    """Compare estimates with the labels for each gender, race or age group alone.

    Args:
        estimates: From `estimate_all`.
        trait: What the data set is parted by, one of `TRAITS`.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Returns:
        A row for each value that occurs: groups by age, others by name, those whose label says nothing last.
        Ages between groups have no row.

    Raises:
        ValueError: Unknown trait.
    """
    get_trait(trait)
    true, predicted = estimates.true_bins, estimates.bin_probabilities.argmax(axis=1)
    if trait == "group":
        values = [None if index < 0 else estimates.bin_names[index] for index in true.tolist()]
        order: list[str | None] = [name for name in estimates.bin_names if name in values]
    else:
        values = [getattr(image, trait) for image in estimates.images]
        order = sorted({value for value in values if value is not None})
        order += [None] if None in values else []
    rows = []
    for value in order:
        chosen = np.array([found == value for found in values])
        inside = chosen & (true != metrics.BETWEEN_GROUPS)
        off = np.abs(predicted - true)[inside]
        exact, one_off = (_share(estimates, off <= reach, inside, seed, resamples) for reach in (0, 1))
        rows.append(
            Row(
                value,
                int(inside.sum()),
                int(chosen.sum()),
                exact and exact[0],
                one_off and one_off[0],
                _mean_error(estimates, chosen, seed, resamples),
                int((estimates.exact_ages[0] & chosen).sum()),
            )
        )
    return tuple(rows)


def grouped(estimates: Estimates) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True and predicted groups of the faces whose age lies in a group, each of shape (M,).

    Raises:
        DataError: There are none.
    """
    true = estimates.true_bins
    inside = true != metrics.BETWEEN_GROUPS
    if not inside.any():
        raise DataError("no face with an age in one of the groups could be used")
    return true[inside], estimates.bin_probabilities.argmax(axis=1)[inside]


def _share(
    estimates: Estimates, hits: NDArray[np.bool_], chosen: NDArray[np.bool_], seed: int, resamples: int
) -> tuple[Estimate, int] | None:
    """As `Estimates.share`, and out of how many; None without any."""
    if not hits.size:
        return None
    return estimates.share(hits, chosen, seed=seed, resamples=resamples), len(hits)


def _mean_error(
    estimates: Estimates, chosen: NDArray[np.bool_], seed: int, resamples: int
) -> Estimate | None:
    known, ages = estimates.exact_ages
    ages, expected = ages[chosen[known]], estimates.expected[known & chosen]
    if not len(ages):
        return None
    return estimates.resampled(
        lambda weights: metrics.mean_absolute_error(expected, ages, weights=weights),
        known & chosen,
        resamples=resamples,
        seed=seed,
    )


def _tail_error(estimates: Estimates, age: int, seed: int, resamples: int) -> TailError:
    under, over = estimates.sides(age)
    told = under | over
    said, happened = estimates.at_least(age)[told], over[told]

    def estimate(metric: Callable[..., float], unit: float) -> Estimate:
        return estimates.resampled(
            lambda weights: unit * metric(said, happened, weights=weights),
            told,
            resamples=resamples,
            seed=seed,
        )

    return TailError(
        estimate(metrics.misjudged_share, 100), estimate(metrics.brier_score, 1), int(told.sum())
    )


def evaluate(
    images: Sequence[LabelledImage],
    pipeline: Pipeline,
    *,
    dataset: str = "utkface",
    seed: int = 0,
    resamples: int = 2000,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Report:
    """Estimate the age of every face behind the pipeline's approach and compare with the labels.

    Args:
        images: Labelled pictures.
        pipeline: Detector, approach and model.
        dataset: Where they are from; it says over which bins of ages is scored.
        seed: Of the bootstrap and of the mosaic's draws.
        resamples: Of the bootstrap.
        workers: Threads that prepare faces; by default one for each core.
        advance: Called after each face.

    Raises:
        ValueError: As `estimate_all`.
        DataError: No face of the data set can be used, or none has an age in a group.
    """
    faces = photographs(images, pipeline, dataset=dataset)
    check_groups(faces)
    (estimates,) = estimate_all(
        faces,
        [(pipeline.approach, pipeline.model)],
        seed=seed,
        threads=pipeline.options.threads,
        workers=workers,
        advance=advance,
    ).values()
    return score(estimates, seed=seed, resamples=resamples)
