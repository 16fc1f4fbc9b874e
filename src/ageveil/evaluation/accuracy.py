"""Measure an estimator on a data set, through the very pipeline that serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ageveil import alignment, anonymization, detection, estimation
from ageveil.draws import ChaChaDraws
from ageveil.errors import AgeveilError, DataError, FaceError, ImageError, NoFaceError, SeveralFacesError
from ageveil.evaluation import metrics
from ageveil.evaluation.intervals import Estimate, bootstrap
from ageveil.image import read_image
from ageveil.pipeline import Pipeline, map_ordered
from ageveil.training.datasets import LabelledImage
from ageveil.types import AgeDistribution, AnonymizedFace, CanonicalCrop, Image

_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Report:
    """How well ages were estimated. Accuracies in percent, errors in years, with 95 % bootstrap intervals.

    Attributes:
        exact: Share of `faces` whose most probable group is the true one.
        one_off: Share whose most probable group is the true one or a neighbour.
        macro_exact: Mean over the groups of the share that is exact.
        mae_years: Mean absolute error of the expected age, over `faces_all`.
        faces: Faces whose true age lies in a group.
        faces_all: Faces that were estimated.
        left_out: Number of faces that could not be used, by reason.
        approach: How faces were anonymized.
        model: The estimator.
    """

    exact: Estimate
    one_off: Estimate
    macro_exact: Estimate
    mae_years: Estimate
    faces: int
    faces_all: int
    left_out: dict[str, int]
    approach: str
    model: str

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        figures = {
            name: {"value": estimate.value, "low": estimate.low, "high": estimate.high}
            for name, estimate in (
                ("exact", self.exact),
                ("one_off", self.one_off),
                ("macro_exact", self.macro_exact),
                ("mae_years", self.mae_years),
            )
        }
        return {
            **figures,
            "faces": self.faces,
            "faces_all": self.faces_all,
            "left_out": self.left_out,
            "approach": self.approach,
            "model": self.model,
        }


def sample(images: Sequence[LabelledImage], limit: int | None, *, seed: int) -> tuple[LabelledImage, ...]:
    """Draw so many images at random, without replacement, in their own order; all of them without a limit.

    Raises:
        ValueError: `limit` is below 1.
    """
    if limit is None or limit >= len(images):
        return tuple(images)
    if limit < 1:
        raise ValueError(f"a limit is 1 or more, got {limit}")
    chosen = np.random.default_rng(seed).choice(len(images), limit, replace=False)
    return tuple(images[index] for index in sorted(chosen))


def canonical_crop(image: Image, pipeline: Pipeline, *, aligned: bool) -> CanonicalCrop:
    """The viewer's canonical crop of a photograph, or of a picture that is aligned and cropped already.

    Of an aligned picture the whole becomes the crop, as its makers framed it: warping it again would cut
    pixels that lie outside into it. Detection still places the landmarks.

    Args:
        image: Shape (H, W, 3), uint8 RGB.
        pipeline: Says how faces are found.
        aligned: The picture is an aligned crop with the canonical framing.

    Raises:
        FaceError: No face that can be used.
    """
    if not aligned:
        return pipeline.align_viewer(image)[1]
    faces = detection.detect(image, pipeline.detector, landmarks=pipeline.landmarks, options=pipeline.options)
    face = detection.choose_viewer(faces, allow_others=pipeline.allow_others)
    if face is None:
        raise NoFaceError("no face found in the photograph")
    return alignment.frame_aligned(image, face)


def evaluate(
    images: Sequence[LabelledImage],
    pipeline: Pipeline,
    *,
    seed: int = 0,
    resamples: int = 2000,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Report:
    """Estimate the age of every face behind the pipeline's approach and compare with the labels.

    Args:
        images: Faces with exact ages.
        pipeline: Detector, approach and model.
        seed: Of the bootstrap and of the mosaic's draws (one stream for each face); ciphers draw fresh keys.
        resamples: Of the bootstrap.
        workers: Threads that prepare faces; by default one for each core.
        advance: Called after each face.

    Raises:
        ValueError: `seed` lies outside 0..2**64 - 1.
        DataError: No face of the data set can be used, or none has an age in a group.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"a seed lies from 0 to 2**64 - 1, got {seed}")
    single = replace(pipeline, options=replace(pipeline.options, threads=1))

    def prepare(numbered: tuple[int, LabelledImage]) -> AnonymizedFace:
        index, labelled = numbered
        image = read_image(labelled.path, limits=single.limits)
        crop = canonical_crop(image, single, aligned=labelled.aligned)
        draws = ChaChaDraws(seed.to_bytes(16, "big") + index.to_bytes(16, "big"))
        return anonymization.anonymize_crop(crop, single.approach, rng=draws)

    left_out: Counter[str] = Counter()
    ages: list[int] = []
    distributions: list[AgeDistribution] = []
    batch: list[AnonymizedFace] = []
    for labelled, face in zip(images, map_ordered(prepare, enumerate(images), workers), strict=True):
        advance()
        if isinstance(face, AgeveilError):
            left_out[_reason(face)] += 1
            continue
        batch.append(face)
        ages.append(_exact_age(labelled))
        if len(batch) == _CHUNK:
            distributions += estimation.estimate(batch, pipeline.model, threads=pipeline.options.threads)
            batch.clear()
    distributions += estimation.estimate(batch, pipeline.model, threads=pipeline.options.threads)
    return _report(np.array(ages, np.int64), distributions, dict(left_out), pipeline, seed, resamples)


def _exact_age(labelled: LabelledImage) -> int:
    if labelled.age is None:
        raise DataError(f"{labelled.path.name}: an exact age is needed, the label is an interval")
    return labelled.age


def _reason(error: AgeveilError) -> str:
    """Why a face was left out, in a few words. An error that is not of the face ends the evaluation."""
    for kind, reason in (
        (NoFaceError, "no face found"),
        (SeveralFacesError, "several faces"),
        (FaceError, "unusable face"),
        (ImageError, "unreadable picture"),
    ):
        if isinstance(error, kind):
            return reason
    raise error


def _report(
    ages: NDArray[np.int64],
    distributions: Sequence[AgeDistribution],
    left_out: dict[str, int],
    pipeline: Pipeline,
    seed: int,
    resamples: int,
) -> Report:
    groups = metrics.group_indices(ages) if len(ages) else np.empty(0, np.int64)
    inside = groups != metrics.BETWEEN_GROUPS
    if not inside.any():
        raise DataError("no face with an age in one of the eight groups could be used")
    true = groups[inside]
    predicted = np.array([distribution.group for distribution in distributions])[inside]
    expected = np.array([distribution.expected for distribution in distributions])

    def percent(metric: Callable[..., float]) -> Estimate:
        return bootstrap(
            lambda weights: 100 * metric(predicted, true, weights=weights),
            len(true),
            resamples=resamples,
            seed=seed,
        )

    return Report(
        exact=percent(metrics.exact_accuracy),
        one_off=percent(metrics.one_off_accuracy),
        macro_exact=percent(metrics.macro_exact_accuracy),
        mae_years=bootstrap(
            lambda weights: metrics.mean_absolute_error(expected, ages, weights=weights),
            len(ages),
            resamples=resamples,
            seed=seed,
        ),
        faces=len(true),
        faces_all=len(ages),
        left_out=left_out,
        approach=anonymization.get_approach(pipeline.approach).name,
        model=pipeline.model,
    )
