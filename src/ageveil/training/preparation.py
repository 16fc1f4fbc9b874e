"""Find, align and crop every face of a data set once, and keep the crops for training and evaluation.

What is written holds bare faces: see `ageveil.training.prepared`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ageveil import alignment, detection
from ageveil.alignment import CROP_SIZE
from ageveil.errors import (
    AgeveilError,
    DataError,
    FaceError,
    ImageError,
    MissingImageError,
    NoFaceError,
    OutputError,
    SeveralFacesError,
)
from ageveil.files import DRAFT
from ageveil.image import read_image
from ageveil.pipeline import Pipeline, map_ordered
from ageveil.training.labels import Dataset, LabelledImage
from ageveil.training.prepared import (
    HEAD,
    SHARD,
    VERSION,
    WEIGHTS,
    PreparedFaces,
    is_done,
    label_record,
    load_prepared,
    read_json,
    relative_name,
    shard_count,
    write_json,
    write_shard,
)
from ageveil.types import CanonicalCrop, Image

__all__ = ["PreparedFaces", "canonical_crop", "left_out_reason", "load_prepared", "prepare"]


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


def left_out_reason(error: AgeveilError) -> str:
    """Why a face is left out, in a few words. An error of neither the face nor the picture is raised."""
    for kind, reason in (
        (NoFaceError, "no face found"),
        (SeveralFacesError, "several faces"),
        (FaceError, "unusable face"),
        (MissingImageError, "missing picture"),
        (ImageError, "unreadable picture"),
    ):
        if isinstance(error, kind):
            return reason
    raise error


def prepare(
    dataset: Dataset,
    folder: Path,
    pipeline: Pipeline,
    *,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> PreparedFaces:
    """Crop every usable face of a data set into a folder; go on where an earlier run was stopped.

    One run at a time may write to a folder.

    Args:
        dataset: Whose faces.
        folder: Where to; made where it is missing.
        pipeline: Says how faces are found; its approach and model do not matter.
        workers: Threads; by default one for each core.
        advance: Called after each picture, those of an earlier run included.

    Returns:
        The prepared faces.

    Raises:
        ValueError: `workers` is below 1.
        DataError: The folder was made for other pictures, labels or choices, or with other weights of the
            detector or the landmarks; it is unfinished and does not say with which; it is damaged; or not one
            face can be used.
        OutputError: The folder cannot be written, as on a full disk, or holds other files. Finished shards
            stay.
    """
    head = _describe(dataset, pipeline)
    _claim(folder, head)
    single = replace(pipeline, options=replace(pipeline.options, threads=1))
    root = Path(head["root"])
    for number in range(shard_count(head)):
        images = dataset.images[number * SHARD : (number + 1) * SHARD]
        if is_done(folder, number):
            for _ in images:
                advance()
        else:
            _prepare_shard(folder, number, images, root, single, workers, advance)
    return load_prepared(folder)


def _prepare_shard(
    folder: Path,
    number: int,
    images: Sequence[LabelledImage],
    root: Path,
    pipeline: Pipeline,
    workers: int | None,
    advance: Callable[[], None],
) -> None:
    def crop(labelled: LabelledImage) -> CanonicalCrop:
        picture = read_image(labelled.path, limits=pipeline.limits)
        return canonical_crop(picture, pipeline, aligned=labelled.aligned)

    pixels = np.empty((len(images), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    faces: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    with contextlib.closing(map_ordered(crop, images, workers)) as crops:
        for labelled, found in zip(images, crops, strict=True):
            if isinstance(found, AgeveilError):
                left_out.append(
                    {"file": relative_name(labelled.path, root), "reason": left_out_reason(found)}
                )
            else:
                pixels[len(faces)] = found.pixels
                geometry = {
                    "landmarks": found.landmarks.tolist(),
                    "to_image": found.to_image.tolist(),
                    "outside": found.outside,
                }
                faces.append({**label_record(labelled, root), **geometry})
            advance()
    write_shard(folder, number, pixels[: len(faces)], faces, left_out)


def _describe(dataset: Dataset, pipeline: Pipeline) -> dict[str, Any]:
    """What a prepared folder is made for, as JSON values."""
    root = Path(os.path.commonpath([os.path.abspath(image.path.parent) for image in dataset.images]))
    # Sizes tell apart releases that use the same names, as FairFace's two paddings; -1 is a missing file.
    sources = [[label_record(image, root), _size(image.path)] for image in dataset.images]
    options = asdict(pipeline.options)
    del options["threads"]
    if options["pyramid"]:
        del options["pyramid"]  # as folders say that were prepared before there was a choice
    if not options["tiles"]:
        del options["tiles"]  # likewise
    weights = detection.get_detector(pipeline.detector).weights
    return {
        "version": VERSION,
        "dataset": dataset.name,
        "pictures": len(dataset.images),
        "labels_left_out": dict(dataset.left_out),
        "sources": hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest(),
        "pipeline": {
            "detector": pipeline.detector,
            "landmarks": pipeline.landmarks,
            "allow_others": pipeline.allow_others,
            "options": options,
            "limits": asdict(pipeline.limits),
        },
        WEIGHTS: {
            "detector": None if weights is None else weights.sha256,
            "landmarks": detection.get_landmarks(pipeline.landmarks).sha256,
        },
        "crop": CROP_SIZE,
        "shard": SHARD,
        "root": str(root),
    }


def _claim(folder: Path, head: Mapping[str, Any]) -> None:
    """Make the folder, or check that it was made for the same pictures and choices.

    Raises:
        DataError: It was made for others.
        OutputError: It cannot be made, or holds other files.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = os.listdir(folder)
        if HEAD in names:
            stored = read_json(folder / HEAD)
            _check_same(folder, stored, head)
            if WEIGHTS not in stored:
                head = {key: said for key, said in head.items() if key != WEIGHTS}  # what is unknown stays so
            for name in filter(DRAFT.fullmatch, names):  # of a run that was killed
                (folder / name).unlink()
            if stored == head:
                return
        elif not all(name.startswith(".") for name in names):
            raise OutputError(f"{str(folder)!r} holds other files; choose a folder for prepared faces alone")
    except OSError as error:
        raise OutputError(f"cannot prepare faces in {str(folder)!r}: {error.strerror}") from error
    write_json(folder / HEAD, head)


def _check_same(folder: Path, stored: Mapping[str, Any], head: Mapping[str, Any]) -> None:
    """Check that a folder was made for the same pictures and choices; they may lie elsewhere now.

    Raises:
        DataError: It was made for others.
    """
    for key, what in (
        ("version", "by another version of Ageveil"),
        ("pipeline", "with other choices of detector, landmarks or limits"),
        ("crop", "with crops of another size"),
        ("shard", "with shards of another size"),
        ("dataset", "for another data set"),
        ("pictures", "for other pictures"),
        ("labels_left_out", "for other pictures"),
        ("sources", "for other pictures or labels"),
    ):
        if stored.get(key) != head[key]:
            raise DataError(f"{str(folder)!r} was made {what}; choose another folder")
    if WEIGHTS in stored:
        same = stored[WEIGHTS] == head[WEIGHTS]
    else:  # by an earlier Ageveil: other weights may have found its faces, and those to come would differ
        same = all(is_done(folder, number) for number in range(shard_count(head)))
    if not same:
        raise DataError(
            f"{str(folder)!r} was made with other weights of the detector or the landmarks, or does not say "
            "with which; choose another folder"
        )


def _size(path: Path) -> int:
    try:
        return os.path.getsize(path)
    except (OSError, ValueError):
        return -1
