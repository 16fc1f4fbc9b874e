"""Split labelled pictures into parts that share nobody."""

from __future__ import annotations

import hashlib
import os.path
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ageveil.errors import DataError
from ageveil.estimation import Split
from ageveil.training.labels import LabelledImage

Indices = NDArray[np.int64]
"""Positions in a sequence of pictures, ascending, shape (n,)."""

_UTKFACE_WHOLE = re.compile(r"[0-9]+_[0-9](_[0-9])?_[0-9]{12,}\.jpg")

NO_HOLD_OUT: Mapping[tuple[int, int], float] = {}


def split_validation(
    images: Sequence[LabelledImage],
    *,
    share: float,
    hold_out: Mapping[tuple[int, int], float] = NO_HOLD_OUT,
    seed: int,
) -> tuple[Indices, Indices]:
    """Carve a validation part out of training pictures. All pictures of an identity stay together.

    A keyed hash of the identity decides, or of the file's name (without its folders) where there is none; a
    picture of UTKFace as it was taken goes with its crop. So
    a picture goes to the same part whatever the order, whatever other pictures there are, wherever they lie,
    unless `hold_out` gives an identity's ages different shares: then who has a picture of such an age may
    validate with all others. Whoever is in the validation part at one share is in it at every larger one.

    Args:
        images: Pictures of one data set or of several.
        share: Of the identities (or pictures) that validate, above 0 and below 1.
        hold_out: Interval of exact ages, both ends included -> a share for it that takes the place of
            `share`, in [0, 1]: few faces of an age can then still calibrate. Where several intervals hold an
            age, and where one identity's pictures differ, the largest share counts.
        seed: Another one draws another split.

    Returns:
        Indices of the training part and of the validation part.

    Raises:
        ValueError: A share lies outside its bounds.
        DataError: A part is empty.
    """
    _check_shares(share, hold_out)
    shares: dict[str, float] = {}
    for image in images:
        unit = _unit(image)
        shares[unit] = max(shares.get(unit, 0), _share(image.age, share, hold_out))
    chosen = {unit for unit, limit in shares.items() if _position(unit, seed) < limit}
    validating = np.array([_unit(image) in chosen for image in images], np.bool_)
    return _parts(validating, f"of {len(images)} pictures at a validation share of {share}")


def left_out(
    images: Sequence[LabelledImage],
    *,
    share: float,
    seed: int,
    hold_out: Mapping[tuple[int, int], float] = NO_HOLD_OUT,
    test_fold: int | None = None,
) -> Indices:
    """Indices of the pictures on which a run with this split was not trained: they validate, or test.

    The run may have had fewer pictures, since some show no face, so only what validated in any company is
    here: a person's picture by the share of its own age, not by that of others'.

    Arguments as `split_validation`; `test_fold` as `ageveil.estimation.Split` has it.

    Raises:
        ValueError: A share lies outside its bounds.
        DataError: There are none.
    """
    _check_shares(share, hold_out)
    found = [
        index
        for index, image in enumerate(images)
        if _position(_unit(image), seed) < _share(image.age, share, hold_out)
        or (test_fold is not None and image.fold == test_fold)
    ]
    if not found:
        raise DataError(f"none of {len(images)} pictures was kept out of training at a share of {share}")
    return np.array(found, np.int64)


def covers(kept: Split, asked: Split) -> bool:
    """Whether every picture that one split leaves out is left out by another too.

    Draws with one seed put the pictures of a smaller share among those of a larger one. That is so for any
    pictures, but where a person has some of ages with unlike shares: then both splits must be of the same.

    Args:
        kept: The split that is to leave out as much or more.
        asked: The other.
    """
    # Shares change only where a span begins and behind its end; None stands for a label without an exact age.
    ages = [None, *(age for low, high in (*kept.hold_out, *asked.hold_out) for age in (low, high + 1))]
    return (
        kept.seed == asked.seed
        and asked.test_fold in (None, kept.test_fold)
        and all(
            _share(age, kept.share, kept.hold_out) >= _share(age, asked.share, asked.hold_out) for age in ages
        )
    )


def folds_of(images: Iterable[LabelledImage]) -> tuple[int, ...]:
    """The folds that a data set states, in order; none where it states none.

    Raises:
        DataError: Some of its pictures state one and others do not.
    """
    folds = {image.fold for image in images}
    stated = tuple(sorted(fold for fold in folds if fold is not None))
    if stated and None in folds:
        raise DataError("some pictures of the data set state a fold and others do not")
    return stated


def split_fold(images: Sequence[LabelledImage], fold: int) -> tuple[Indices, Indices]:
    """Split by a data set's own folds, as the five of Adience.

    Args:
        images: Pictures that all state their fold.
        fold: The one to test on.

    Returns:
        Indices of the other folds' pictures and of this fold's.

    Raises:
        DataError: A picture states no fold, the folds share a person or a picture, or a part is empty.
    """
    testing = np.array([image.fold == fold for image in images], np.bool_)
    if any(image.fold is None for image in images):
        raise DataError("expected pictures with a fold, got some without: this data set cannot leave one out")
    faces = [
        {face_of(image) for image, here in zip(images, testing, strict=True) if here == side}
        for side in (0, 1)
    ]
    if shared := sorted(faces[0] & faces[1]):
        raise DataError(f"fold {fold} shares a face with the others: {shared[0]}")
    return _parts(testing, f"of {len(images)} pictures at fold {fold}")


def _parts(second: NDArray[np.bool_], what: str) -> tuple[Indices, Indices]:
    parts = np.flatnonzero(~second), np.flatnonzero(second)
    for part, name in zip(parts, ("training", "held-out"), strict=True):
        if not len(part):
            raise DataError(f"the {name} part is empty {what}")
    return parts


def _check_shares(share: float, hold_out: Mapping[tuple[int, int], float]) -> None:
    if not 0 < share < 1:
        raise ValueError(f"a validation part has a share above 0 and below 1, got {share}")
    for held in hold_out.values():
        if not 0 <= held <= 1:
            raise ValueError(f"a held-out share lies in [0, 1], got {held}")


def face_of(image: LabelledImage) -> str:
    """What counts as one face however often it is listed: the person, or the picture where none is named.

    A picture is known by its place; one of UTKFace by its name, wherever it lies, as it was taken or as its
    crop. Splits go by names alone, since folders move; here `16/1.jpg` and `17/1.jpg` are two faces.
    """
    unit = _unit(image)
    if image.identity is not None or _UTKFACE_WHOLE.fullmatch(image.path.name.removesuffix(".chip.jpg")):
        return unit
    return f"{unit} of {os.path.normpath(image.path.parent)}"


def _unit(image: LabelledImage) -> str:
    """What never stands on both sides."""
    if image.identity is not None:
        return f"identity {image.identity}"
    name = image.path.name
    # UTKFace gives every face out twice, as it was taken and as a crop: both count as the crop.
    return f"file {name}.chip.jpg" if _UTKFACE_WHOLE.fullmatch(name) else f"file {name}"


def _share(age: int | None, share: float, hold_out: Mapping[tuple[int, int], float]) -> float:
    held = [part for (low, high), part in hold_out.items() if age is not None and low <= age <= high]
    return max(held, default=share)


def _position(unit: str, seed: int) -> float:
    """Where an identity or a file falls in [0, 1), as good as at random."""
    # A name that is no valid text must hash as well.
    digest = hashlib.sha256(f"{seed} {unit}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
