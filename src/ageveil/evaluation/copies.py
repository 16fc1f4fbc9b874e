"""Find photographs that a data set holds again under other names.

Names cannot tell: UTKFace has one photograph under several, even with other ages. So crops are compared,
which look alike even where the photograph was scaled or stored again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil.errors import AgeveilError
from ageveil.pipeline import map_ordered
from ageveil.training.preparation import left_out_reason
from ageveil.types import CanonicalCrop

ALIKE = 0.98
"""Correlation of two sketches from which on they count as one photograph.

What scaling and JPEG leave of a photograph reaches it, other faces of UTKFace do not, as
tests/evaluation/test_copies.py holds.
"""

_SIDE = 24  # grey levels of a sketch: enough to tell people apart, too few for what JPEG adds
_ROWS = 512  # compared at a time

Sketches = NDArray[np.float32]
"""Faces made small, shape (N, 576): zero mean, length 1, so that a product of two is their correlation.

Where there is no crop, or one without contrast, a row is zero, which is like no other.
"""


def unseen(
    crop: Callable[[int], CanonicalCrop],
    count: int,
    kept: Collection[int],
    *,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[int]:
    """Those of the faces kept out of a training whose photograph is not among the others, which trained.

    Args:
        crop: Number of a face -> its crop, as `ageveil.evaluation.accuracy.Faces` has it.
        count: How many faces there are.
        kept: Numbers of those kept out.
        workers: Threads; by default one for each core.
        advance: Called after each face.

    Returns:
        Numbers in ascending order.
    """
    rows = sketch(crop, range(count), workers=workers, advance=advance)
    out = np.isin(np.arange(count), list(kept))
    left = np.flatnonzero(out)[~are_among(rows[out], rows[~out])]
    return [int(index) for index in left]


def sketch(
    crop: Callable[[int], CanonicalCrop],
    indices: Sequence[int],
    *,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Sketches:
    """Sketches of some faces, in the order of `indices`; arguments as `unseen`.

    Raises:
        AgeveilError: As `crop` does, where it is no error of the face or of the picture.
    """
    rows = np.zeros((len(indices), _SIDE * _SIDE), np.float32)

    def draw(index: int) -> Sketches:
        return _sketch(crop(index))

    with contextlib.closing(map_ordered(draw, indices, workers)) as drawn:
        for row, found in zip(rows, drawn, strict=True):
            advance()
            if not isinstance(found, AgeveilError):
                row[:] = found
            else:  # where no face is found, none is counted; what is no error of the picture ends it
                left_out_reason(found)
    return rows


def _sketch(crop: CanonicalCrop) -> Sketches:
    grey = cv2.cvtColor(crop.pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    length = np.linalg.norm(small)
    return small / length if length > 0 else small


def are_among(sketches: Sketches, others: Sketches) -> NDArray[np.bool_]:
    """Whether each shows a photograph that one of the others shows, shape (N,).

    Args:
        sketches: Shape (N, 576).
        others: Shape (M, 576); 0 or more.
    """
    found = np.zeros(len(sketches), np.bool_)
    for start in range(0, len(others), _ROWS):
        found |= (sketches @ others[start : start + _ROWS].T >= ALIKE).any(axis=1)
    return found


def are_repeated(sketches: Sketches) -> NDArray[np.bool_]:
    """Whether each shows a photograph that an earlier one shows, shape (N,)."""
    found = np.zeros(len(sketches), np.bool_)
    for start in range(0, len(sketches), _ROWS):
        rows = sketches[start : start + _ROWS]
        alike = rows @ sketches[: start + len(rows)].T >= ALIKE
        found[start : start + len(rows)] = np.tril(alike, start - 1).any(axis=1)
    return found
