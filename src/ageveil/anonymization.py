"""Hide a face: every approach of the paper, and the receipt that says what was done.

All approaches work on the canonical crop, so near and far faces lose equal detail. What an approach protects
against, and what it does not, stands in docs/approaches.md: none of them makes a face anonymous to software.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil import ciphers
from ageveil.draws import ChaChaDraws
from ageveil.errors import ModelError, UnusableFaceError
from ageveil.runtime import Weights, is_installed, open_session, research_weights
from ageveil.types import AnonymizedFace, CanonicalCrop, Draws, Image, Receipt, check_image

Region = tuple[int, int, int, int]
Key = ciphers.PermutationKey | ciphers.DesKey
Parameters = dict[str, int | float | str]

# Sizes of the approaches are stated at this side and scale with the crop.
_REFERENCE_SIZE = 200
# The blurred face box, as fractions of the crop: the mean HOG face box of the UTKFace crops.
_FACE_BOX = (0.06, 0.04, 0.95, 0.94)
VEIL_LEVELS = 16
"""Grey levels that each half of a veil may have."""

VEIL = research_weights(
    "veil.onnx",
    "c032c9db76d3636246cee6ad3dadd0f541e0501d7cacd919e7f2cc72bc57a0f8",
    "trained by recipes/veil of Ageveil; docs/models.md tells on what",
)

# How far the eye region reaches beyond the outer eye corners to both sides, above the highest corner and
# below the lowest one, in distances between the eye centres. So the rectangle is as wide as the mean
# 68-point one; it is taller, because brows rise, lower lids sink, and eye corners do not tell how far
# (tests/test_anonymization.py states what it covers).
_BESIDE_CORNERS, _ABOVE_CORNERS, _BELOW_CORNERS = 0.415, 0.545, 0.16
# Where the mean face's eye corners lie in a crop, as fractions of its side, from left to right.
_MEAN_CORNERS, _MEAN_HEIGHT = (0.230, 0.364, 0.617, 0.751), 0.299
# The noise of "dp-pix" hides a change of any so many pixels, at this budget for each picture that leaves.
_DP_PIXELS, _DP_EPSILON = 16, 0.25
# In whole levels; numbers up to here and their sums are exact in 64 bits and in floating point.
_WIDEST_NOISE = 2.0**40
# Pixels across that the veil's network needs at least; a smaller face is enlarged for it.
_LEAST_VEILED = 32
# Points of the eyebrows and eyes in the 68-point set.
_EYES_AND_BROWS = [*range(17, 27), *range(36, 48)]
_MARGIN = 0.10


def _round(value: float) -> int:
    """Round half up, as other languages do; Python's own rounds half to even."""
    return math.floor(value + 0.5)


def _scaled(size: int, at_reference: float) -> int:
    return max(1, _round(at_reference * size / _REFERENCE_SIZE))


def eye_region(landmarks: NDArray[np.float64], size: int) -> Region:
    """The rectangle around both eyes and eyebrows.

    Args:
        landmarks: In pixels of an upright crop. Of 68 points, the rectangle around the brows and eyes, each
            side moved outward by 10 % of its width or height. Of 5 points, the same rectangle predicted from
            the eye corners.
        size: Side S of the crop in pixels; the region is clipped to it.

    Returns:
        The region, xyxy in whole pixels, half open.

    Raises:
        ValueError: The landmarks are of another shape.
        UnusableFaceError: A point of the eyes, or of the brows where they are known, lies outside the crop.

    Source:
        Ye et al. 2018, section III-A1.
    """
    if landmarks.shape == (68, 2):
        points = landmarks[_EYES_AND_BROWS]
        low, high = points.min(0), points.max(0)
        margin = _MARGIN * (high - low)
        low, high = low - margin, high + margin
    elif landmarks.shape == (5, 2):
        points = landmarks[:4]
        distance = float(np.linalg.norm(points[:2].mean(0) - points[2:].mean(0)))
        low = points.min(0) - distance * np.array([_BESIDE_CORNERS, _ABOVE_CORNERS])
        high = points.max(0) + distance * np.array([_BESIDE_CORNERS, _BELOW_CORNERS])
    else:
        raise ValueError(f"landmarks have shape (5, 2) or (68, 2), got {landmarks.shape}")
    if (points.min(0) < 0).any() or (points.max(0) > size - 1).any():
        raise UnusableFaceError("the landmarks lie outside the crop: the eye region is not known")
    # Landmarks are pixel centres: the region holds every pixel that the rectangle touches.
    x0, y0 = (max(0, math.floor(value + 0.5)) for value in low)
    x1, y1 = (min(size, math.ceil(value + 0.5)) for value in high)
    if x1 <= x0 or y1 <= y0:
        raise UnusableFaceError("the eye region has no area in the crop")
    return x0, y0, x1, y1


def face_region(size: int) -> Region:
    """The face box of a canonical crop, fixed: 6 to 95 % across and 4 to 94 % down.

    >>> face_region(200)
    (12, 8, 190, 188)
    """
    x0, y0, x1, y1 = (_round(share * size) for share in _FACE_BOX)
    return x0, y0, x1, y1


def mean_eye_region(size: int) -> Region:
    """The eye region of the mean face in a canonical crop, for approaches that leave no eyes to point at.

    >>> mean_eye_region(200)
    (14, 18, 183, 73)
    """
    corners = np.array([(x, _MEAN_HEIGHT) for x in reversed(_MEAN_CORNERS)])
    return eye_region(size * np.vstack([corners[[0, 1]], corners[[3, 2]], corners[:1]]), size)


def _check_region(image: Image, region: Region) -> None:
    x0, y0, x1, y1 = region
    height, width = check_image(image).shape[:2]
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"a region has an area within {width} x {height} pixels, got {region}")


def mosaic(crop: Image, region: Region, *, cell: int, rng: Draws) -> Image:
    """Hide a region under cells that each repeat one of their own pixels.

    Args:
        crop: Picture, shape (H, W, 3), uint8 RGB.
        region: What is hidden, xyxy in whole pixels, half open. Cells start at its top left corner.
        cell: Side of a cell in pixels, at least 2; the last row and column may be smaller.
        rng: Draws the pixel each cell keeps, row by row. Predictable draws help an attacker: seed it only in
            tests.

    Returns:
        A new array like `crop`; pixels outside `region` are unchanged.

    Raises:
        ValueError: `region` has no area or leaves the crop, or `cell` is under 2.

    Source:
        Ye et al. 2018, section III-A1.
    """
    _check_region(crop, region)
    if cell < 2:
        raise ValueError(f"a cell has a side of at least 2 pixels, got {cell}")
    x0, y0, x1, y1 = region
    tops, lefts = np.arange(y0, y1, cell), np.arange(x0, x1, cell)
    heights, widths = np.minimum(cell, y1 - tops), np.minimum(cell, x1 - lefts)
    draws = rng.integers((heights[:, None] * widths[None, :]).astype(np.int64))
    rows = tops[:, None] + draws // widths
    columns = lefts[None, :] + draws % widths
    result = crop.copy()
    result[y0:y1, x0:x1] = crop[rows, columns].repeat(heights, axis=0).repeat(widths, axis=1)
    return result


def mask(crop: Image, region: Region) -> Image:
    """Black out a region.

    Args:
        crop: Picture, shape (H, W, 3), uint8 RGB.
        region: What is hidden, xyxy in whole pixels, half open.

    Returns:
        A new array like `crop`, (0, 0, 0) inside `region` and unchanged outside.

    Raises:
        ValueError: `region` has no area or leaves the crop.

    Source:
        Ye et al. 2018, section III-A2.
    """
    _check_region(crop, region)
    x0, y0, x1, y1 = region
    result = crop.copy()
    result[y0:y1, x0:x1] = 0
    return result


def blur(crop: Image, region: Region, *, radius: int, sigma: float) -> Image:
    """Replace a region by its Gaussian blur.

    Args:
        crop: Picture, shape (H, W, 3), uint8 RGB; its borders are reflected without repeating the edge.
        region: What is blurred, xyxy in whole pixels, half open; pixels around it take part in the average.
        radius: Half the kernel in pixels, 1 or more: the kernel has 2 radius + 1 pixels across.
        sigma: Standard deviation in pixels, above 0.

    Returns:
        A new array like `crop`, within 0.5 of the exact average; pixels outside `region` are unchanged.

    Raises:
        ValueError: `region` has no area or leaves the crop, or a size is out of range.

    Source:
        Ye et al. 2018, section III-A3 ("noise on face": a 25 x 25 Gaussian).
    """
    _check_region(crop, region)
    if radius < 1 or not sigma > 0:
        raise ValueError(f"a blur has a radius of at least 1 and a sigma above 0, got {radius} and {sigma}")
    x0, y0, x1, y1 = region
    height, width = crop.shape[:2]
    # Only what the kernel reaches from the region is read. OpenCV's own 8-bit blur is off by up to 1.4.
    left, top = max(0, x0 - radius), max(0, y0 - radius)
    right, bottom = min(width, x1 + radius), min(height, y1 + radius)
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).astype(np.float32)
    part = crop[top:bottom, left:right].astype(np.float32)
    smooth = cv2.sepFilter2D(part, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REFLECT_101)
    result = crop.copy()
    inner = smooth[y0 - top : y1 - top, x0 - left : x1 - left]
    result[y0:y1, x0:x1] = np.clip(np.rint(inner), 0, 255).astype(np.uint8)
    return result


def noisy_cells(crop: Image, region: Region, *, cell: int, pixels: int, epsilon: float, rng: Draws) -> Image:
    """Average grey cells and add noise, so that no few pixels can be read off the result.

    The sum of a cell's grey values gets two-sided geometric noise: a step k has a probability in proportion
    to exp(-|k| `epsilon` / (255 `pixels`)). Two crops that differ in at most `pixels` pixels, in one cell or
    in several, move the sums by 255 `pixels` in total, so they give any result with probabilities that differ
    by a factor of at most exp(`epsilon`), but for rounding: draws have 64 bits, which moves the probability
    of a cell's level by less than 2^-50. That is said of a few pixels of a region that is known, not of a
    person, and the budgets of several pictures of one face add up.

    Args:
        crop: Picture, shape (H, W, 3), uint8 RGB.
        region: What is hidden, xyxy in whole pixels, half open. Cells start at its top left corner.
        cell: Side of a cell in pixels, at least 2; the last row and column may be smaller.
        pixels: How many pixels' change is hidden, 1 or more.
        epsilon: Privacy budget, above 0.
        rng: Draws the noise, four words a cell: high and low half of the first geometric number for all
            cells row by row, then of the second, which is subtracted. Predictable draws undo the noise: seed
            it only in tests.

    Returns:
        A new array like `crop`, with equal channels in the region; pixels outside `region` are unchanged.

    Raises:
        ValueError: `region` has no area or leaves the crop, or a number is out of range.

    Source:
        Fan 2018, "Image pixelization with differential privacy"; Ghosh et al. 2012, "Universally
        utility-maximizing privacy mechanisms", for the geometric noise.
    """
    _check_region(crop, region)
    if cell < 2 or pixels < 1 or not (epsilon > 0 and 0 < 255 * pixels / epsilon <= _WIDEST_NOISE):
        raise ValueError(
            "expected a cell of 2 or more, a pixel or more and a budget above 0 that noise can be drawn for, "
            f"got {cell}, {pixels} and {epsilon}"
        )
    x0, y0, x1, y1 = region
    grey = cv2.cvtColor(crop[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY).astype(np.int64)
    tops, lefts = np.arange(0, y1 - y0, cell), np.arange(0, x1 - x0, cell)
    heights, widths = np.diff(tops, append=y1 - y0), np.diff(lefts, append=x1 - x0)
    sums = np.add.reduceat(np.add.reduceat(grey, tops, 0), lefts, 1)
    first, second = (_geometric(255 * pixels / epsilon, sums.shape, rng) for _ in range(2))
    means = (sums + first - second) / (heights[:, None] * widths)
    levels = np.clip(np.rint(means), 0, 255).astype(np.uint8)
    result = crop.copy()
    result[y0:y1, x0:x1] = levels.repeat(heights, 0).repeat(widths, 1)[..., None]
    return result


def _geometric(scale: float, shape: tuple[int, ...], rng: Draws) -> NDArray[np.int64]:
    """Whole numbers from 0, each k or more with probability exp(-k / scale): by the inverse distribution.

    A uniform number of 64 bits lies above 0 and is at most 1; two draws of 32 bits make it.
    """
    high, low = rng.integers(np.full((2, *shape), 2**32, np.int64))
    uniform = (high * 2.0**32 + (low + 1)) / 2.0**64
    steps: NDArray[np.int64] = np.floor(np.log(uniform) * -scale).astype(np.int64)
    return steps


def veil(crop: Image, region: Region, *, threads: int = 1) -> Image:
    """Put two grey halves in place of a face: they tell an age to who can read them, and hold one byte.

    A network looks at the bare face and says what it sees in two numbers from 0 to 15; each paints a half.
    One of 256 pictures comes out, whatever the face: the bound on what anybody can learn from it.

    Args:
        crop: Picture, shape (H, W, 3), uint8 RGB.
        region: What is looked at and painted over, xyxy in whole pixels, half open, at least 32 pixels
            across and down; for an age it must show a canonical crop.
        threads: Of the network; 0 uses all cores.

    Returns:
        A new array like `crop`; pixels outside `region` are unchanged.

    Raises:
        ValueError: `region` has no area or leaves the crop.
        ModelError: The weights are not installed or damaged, or they paint another level.
    """
    _check_region(crop, region)
    x0, y0, x1, y1 = region
    left, right = _look(crop[y0:y1, x0:x1], threads)
    middle = x0 + (x1 - x0) // 2
    result = crop.copy()
    result[y0:y1, x0:middle] = veil_shade(left)
    result[y0:y1, middle:x1] = veil_shade(right)
    return result


def veil_shade(level: int) -> int:
    """The grey of a level: the middle of one of 16 equal spans.

    >>> veil_shade(0), veil_shade(15)
    (8, 248)
    """
    return level * (256 // VEIL_LEVELS) + 128 // VEIL_LEVELS


def _look(face: Image, threads: int) -> tuple[int, int]:
    """The two levels that the veil's network gives a bare face, shape (H, W, 3)."""
    side = max(_LEAST_VEILED, min(face.shape[:2]))
    if face.shape[:2] != (side, side):
        face = np.asarray(cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    unused = np.zeros((1, side, side), np.bool_)  # the mask that estimators take
    levels = open_session(VEIL, threads).run(crops=np.ascontiguousarray(face[None]), eye_mask=unused)[1][0]
    # Any other number would make more pictures than those that hold one byte.
    if levels.shape != (2,) or not all(level in range(VEIL_LEVELS) for level in levels.tolist()):
        raise ModelError(f"{VEIL.file} gave other levels than two whole numbers below {VEIL_LEVELS}")
    return int(levels[0]), int(levels[1])


Apply = Callable[[Image, Region, Parameters, Draws | None, Key | None], tuple[Image, Parameters]]
"""(picture, region, sizes, draws, key) -> (new picture, parameters for the receipt).

Draws and key of None stand for fresh ones, which are made only where an approach uses them.
"""


@dataclass(frozen=True, slots=True)
class Approach:
    """An entry of `APPROACHES`.

    Attributes:
        name: Its key.
        hides: "eyes", "face" (the face box), "all" (the whole crop) or "nothing".
        summary: One plain sentence.
        reversible: Undone by whoever has the key.
        cipher: Key type it needs, None for most.
        smooth: Its result may be interpolated when it is put back into a picture.
        sizes: (side of the crop) -> sizes in pixels.
        apply: The pixels' part.
        weights: Of the network that it needs; None for most.
    """

    name: str
    hides: Literal["eyes", "face", "all", "nothing"]
    summary: str
    sizes: Callable[[int], Parameters]
    apply: Apply
    reversible: bool = False
    cipher: type[Key] | None = None
    smooth: bool = False
    weights: Weights | None = None

    @property
    def usable(self) -> bool:
        """Whether all that it needs is installed."""
        return self.weights is None or is_installed(self.weights)

    def region(self, eyes: Region, size: int) -> Region:
        """What it processes of a canonical crop of that side, in which the eyes lie there."""
        return {"eyes": eyes, "face": face_region(size)}.get(self.hides, (0, 0, size, size))

    @property
    def hides_crop(self) -> bool:
        """Whether it leaves nothing of the crop, for good: neither eyes nor a cipher's key bring it back."""
        return self.hides == "all" and self.cipher is None


def _none(_: int) -> Parameters:
    return {}


def _apply_original(crop: Image, region: Region, sizes: Parameters, *_: object) -> tuple[Image, Parameters]:
    _check_region(crop, region)
    return crop.copy(), sizes


def _apply_mosaic(
    crop: Image, region: Region, sizes: Parameters, rng: Draws | None, _: Key | None
) -> tuple[Image, Parameters]:
    return mosaic(crop, region, cell=int(sizes["cell"]), rng=rng or ChaChaDraws()), sizes


def _apply_mask(crop: Image, region: Region, sizes: Parameters, *_: object) -> tuple[Image, Parameters]:
    return mask(crop, region), sizes


def _apply_blur(crop: Image, region: Region, sizes: Parameters, *_: object) -> tuple[Image, Parameters]:
    return blur(crop, region, radius=int(sizes["radius"]), sigma=float(sizes["sigma"])), sizes


def _apply_permutation(
    crop: Image, region: Region, sizes: Parameters, _: Draws | None, key: Key | None
) -> tuple[Image, Parameters]:
    _check_region(crop, region)
    x0, y0, x1, y1 = region
    result = crop.copy()
    result[y0:y1, x0:x1] = ciphers.encrypt_permutation(crop[y0:y1, x0:x1], _permutation_key(key))
    return result, sizes


def _apply_dp_pix(
    crop: Image, region: Region, sizes: Parameters, rng: Draws | None, _: Key | None
) -> tuple[Image, Parameters]:
    cell, pixels, epsilon = int(sizes["cell"]), int(sizes["pixels"]), float(sizes["epsilon"])
    noisy = noisy_cells(crop, region, cell=cell, pixels=pixels, epsilon=epsilon, rng=rng or ChaChaDraws())
    return noisy, sizes


def _apply_veil(crop: Image, region: Region, sizes: Parameters, *_: object) -> tuple[Image, Parameters]:
    return veil(crop, region), sizes


def _permutation_key(key: Key | None) -> ciphers.PermutationKey:
    if key is None:
        return ciphers.draw_permutation_key()
    if not isinstance(key, ciphers.PermutationKey):
        raise ValueError(f"the permutation takes a key with k1 and k2, got a {type(key).__name__}")
    return key


def _des_key(key: Key | None) -> ciphers.DesKey:
    if key is None:
        return ciphers.draw_des_key()
    if not isinstance(key, ciphers.DesKey):
        raise ValueError(f"DES takes a key of 8 bytes, got a {type(key).__name__}")
    return key


def _apply_des(mode: ciphers.DesMode) -> Apply:
    def apply(
        crop: Image, region: Region, sizes: Parameters, _: Draws | None, key: Key | None
    ) -> tuple[Image, Parameters]:
        _check_region(crop, region)
        x0, y0, x1, y1 = region
        inner, iv = ciphers.encrypt_des(crop[y0:y1, x0:x1], _des_key(key), mode)
        result = crop.copy()
        result[y0:y1, x0:x1] = inner
        return result, {**sizes, "iv": iv.hex()} if iv else sizes

    return apply


def _des(mode: ciphers.DesMode, weakness: str) -> Approach:
    return Approach(
        name=f"des-{mode}",
        hides="all",
        summary=f"DES in {mode.upper()} mode over the pixel bytes; {weakness}",
        sizes=_none,
        apply=_apply_des(mode),
        reversible=True,
        cipher=ciphers.DesKey,
    )


APPROACHES: Mapping[str, Approach] = MappingProxyType(
    {
        approach.name: approach
        for approach in (
            Approach(
                "original",
                "nothing",
                "the bare face; for evaluation only",
                _none,
                _apply_original,
                smooth=True,
            ),
            Approach(
                "mosaic",
                "eyes",
                "eyes and brows under coarse cells, each repeating one of its pixels",
                lambda size: {"cell": max(2, _scaled(size, 10))},
                _apply_mosaic,
            ),
            Approach("mask", "eyes", "eyes and brows blacked out", _none, _apply_mask),
            Approach(
                "blur",
                "face",
                "the whole face box under a Gaussian blur",
                lambda size: {"radius": _scaled(size, 12), "sigma": 4.1 * size / _REFERENCE_SIZE},
                _apply_blur,
                smooth=True,
            ),
            Approach(
                "grid",
                "all",
                "the whole crop under coarse cells, 8 across, each repeating one of its pixels",
                lambda size: {"cell": max(2, _scaled(size, 25))},
                _apply_mosaic,
            ),
            Approach(
                "dp-pix",
                "all",
                "the whole crop as noisy grey cells, 8 across; no few pixels can be read off it",
                lambda size: {
                    "cell": max(2, _scaled(size, 25)),
                    "pixels": _DP_PIXELS,
                    "epsilon": _DP_EPSILON,
                },
                _apply_dp_pix,
            ),
            Approach(
                "veil",
                "all",
                "two grey halves painted by a network that looked at the age: one byte leaves",
                lambda _: {"levels": VEIL_LEVELS, "filter": VEIL.sha256[:16]},
                _apply_veil,
                weights=VEIL,
            ),
            Approach(
                "permutation",
                "all",
                "the two-key pixel permutation of ImageEncryptor; broken in seconds",
                _none,
                _apply_permutation,
                reversible=True,
                cipher=ciphers.PermutationKey,
            ),
            _des("ecb", "equal blocks stay equal, and 56 bits can be searched"),
            _des("cbc", "56 bits can be searched"),
            _des("ctr", "56 bits can be searched"),
        )
    }
)
"""Approaches by name. "encryption" is an alias of "permutation"."""

ALIASES: Mapping[str, str] = MappingProxyType({"encryption": "permutation"})


def get_approach(name: str) -> Approach:
    """The approach of that name or alias.

    Raises:
        ValueError: There is none; the message lists the choices.
    """
    name = ALIASES.get(name, name)
    if name not in APPROACHES:
        raise ValueError(f"unknown approach {name!r}; choose one of {', '.join(APPROACHES)}")
    return APPROACHES[name]


def usable_approaches() -> list[str]:
    """Names of the approaches that all is installed for, in order."""
    return [name for name, entry in APPROACHES.items() if entry.usable]


def protective_approach(name: str) -> Approach:
    """The approach of that name, if it hides anything: what every way of saving a picture asks for.

    Raises:
        ValueError: Unknown, or "original", which leaves the face bare.
    """
    approach = get_approach(name)
    if approach.hides == "nothing":
        raise ValueError(f"{name!r} leaves the face bare: it serves evaluation in memory and is never saved")
    return approach


def draw_key(approach: Approach) -> Key:
    """A fresh key for a cipher.

    Raises:
        ValueError: The approach takes no key.
    """
    if approach.cipher is None:
        raise ValueError(f"{approach.name} takes no key: it cannot be undone")
    return ciphers.draw_des_key() if approach.cipher is ciphers.DesKey else ciphers.draw_permutation_key()


def _check_key(approach: Approach, key: Key | None) -> None:
    """A key that nothing uses would promise that the face can be brought back."""
    if key is not None and approach.cipher is None:
        raise ValueError(f"{approach.name} takes no key: it cannot be undone")


def anonymize_crop(
    crop: CanonicalCrop, approach: str, *, rng: Draws | None = None, key: Key | None = None
) -> AnonymizedFace:
    """Anonymize a canonical crop.

    Args:
        crop: The face, shape (S, S, 3).
        approach: Name in `APPROACHES`, or the alias "encryption". "original" leaves the face bare and serves
            estimation in memory.
        rng: Source of the draws of cells and noise; by default a fresh cryptographic one.
        key: For a cipher; by default a fresh one that is thrown away, so that nobody can undo it.

    Returns:
        The anonymized crop, the mask of its eye region, and the receipt. Where nothing of the crop is left,
        the eye region is that of the mean face.

    Raises:
        ValueError: Unknown approach, or a key of another kind than it takes.
        UnusableFaceError: The eye region lies outside the crop.
        ModelError: The approach is a network whose weights are not installed or damaged.
    """
    entry = get_approach(approach)
    _check_key(entry, key)
    size = crop.size
    eyes = eye_region(crop.landmarks, size)
    if entry.hides_crop:
        eyes = mean_eye_region(size)  # what the crop no longer shows, its receipt must not tell
    region = entry.region(eyes, size)
    pixels, parameters = entry.apply(crop.pixels, region, entry.sizes(size), rng, key)
    eye_mask = np.zeros((size, size), np.bool_)
    eye_mask[eyes[1] : eyes[3], eyes[0] : eyes[2]] = True
    pixels.flags.writeable = eye_mask.flags.writeable = False  # so that the record need not copy them
    return AnonymizedFace(pixels, eye_mask, Receipt(entry.name, parameters, region, eyes, (size, size)))


def paste(picture: Image, crop: CanonicalCrop, face: AnonymizedFace) -> tuple[Image, Receipt]:
    """Put the processed region of an anonymized crop back into the picture it came from.

    Every pixel of the picture that the region touches is replaced, from processed pixels alone.

    Args:
        picture: Shape (H, W, 3), uint8 RGB.
        crop: The crop that `face` was made from.
        face: Its anonymized form.

    Returns:
        A new picture, and a receipt whose region is the replaced pixels' bounding box in it.

    Raises:
        ValueError: `picture` is no RGB picture, `face` is bare ("original"), or it is of another size than
            `crop`.
        UnusableFaceError: Nothing of the region lies in the picture.
    """
    height, width = check_image(picture).shape[:2]
    smooth = protective_approach(face.approach).smooth
    if face.receipt.size != (crop.size, crop.size):
        raise ValueError(f"the anonymized face is of size {face.receipt.size}, the crop of {crop.size}")
    x0, y0, x1, y1 = face.receipt.region
    # Corners of the region's pixels, not their centres.
    corners = np.array([[x, y] for x in (x0 - 0.5, x1 - 0.5) for y in (y0 - 0.5, y1 - 0.5)])
    corners = corners @ crop.to_image[:, :2].T + crop.to_image[:, 2]
    left, top = (max(0, math.floor(value)) for value in corners.min(0))
    right, bottom = (
        min(limit, math.ceil(v) + 1) for limit, v in zip((width, height), corners.max(0), strict=True)
    )
    if right <= left or bottom <= top:
        raise UnusableFaceError("the region to hide lies outside the picture")
    to_crop = cv2.invertAffineTransform(crop.to_image)
    columns, rows = np.meshgrid(np.arange(left, right), np.arange(top, bottom))
    x, y = (to_crop[axis, 0] * columns + to_crop[axis, 1] * rows + to_crop[axis, 2] for axis in (0, 1))
    # Half a diagonal of the picture's pixel, in pixels of the crop: a pixel that is touched is replaced.
    reach = float(np.hypot(*to_crop[:, 0])) / math.sqrt(2)
    inside = (
        (x >= x0 - 0.5 - reach) & (x <= x1 - 0.5 + reach) & (y >= y0 - 0.5 - reach) & (y <= y1 - 0.5 + reach)
    )
    if not inside.any():
        raise UnusableFaceError("the region to hide lies outside the picture")
    values = cv2.remap(
        np.ascontiguousarray(face.pixels[y0:y1, x0:x1]),
        (x - x0).astype(np.float32),
        (y - y0).astype(np.float32),
        cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )
    result = picture.copy()
    result[top:bottom, left:right][inside] = values[inside]
    rows_hit, columns_hit = (np.flatnonzero(inside.any(axis)).tolist() for axis in (1, 0))
    box = (left + columns_hit[0], top + rows_hit[0], left + columns_hit[-1] + 1, top + rows_hit[-1] + 1)
    return result, Receipt(face.approach, face.receipt.parameters, box, None, (width, height))


def anonymize_region(
    picture: Image, region: Region, approach: str, *, rng: Draws | None = None, key: Key | None = None
) -> tuple[Image, Receipt]:
    """Apply an approach to a whole rectangle of a picture, without warping.

    Serves ciphers, which act on the axis-aligned face box so that they can be undone, and regions that the
    caller names. Sizes are those of a canonical crop whose face box is as large as the region.

    Args:
        picture: Shape (H, W, 3), uint8 RGB.
        region: xyxy in whole pixels, half open; its bytes are a multiple of 8 for DES in ECB and CBC mode.
        approach: Name in `APPROACHES` that hides something.
        rng: As `anonymize_crop`.
        key: As `anonymize_crop`.

    Returns:
        A new picture, and its receipt.

    Raises:
        ValueError: Unknown approach, "original", a region without area or outside, or a key of another kind.
        ModelError: As `anonymize_crop`.
    """
    entry = protective_approach(approach)
    _check_key(entry, key)
    x0, y0, x1, y1 = region
    sizes = entry.sizes(_round(max(x1 - x0, y1 - y0) / (_FACE_BOX[2] - _FACE_BOX[0])))
    pixels, parameters = entry.apply(picture, region, sizes, rng, key)
    height, width = picture.shape[:2]
    return pixels, Receipt(entry.name, parameters, region, None, (width, height))


def decrypt_region(picture: Image, receipt: Receipt, key: Key) -> Image:
    """Undo a cipher in the region that its receipt names. The result shows a bare face.

    Args:
        picture: Shape (H, W, 3), uint8 RGB, losslessly kept.
        receipt: From `anonymize_region` or `anonymize_crop`.
        key: The key that was used. A wrong one is not noticed: it gives noise.

    Returns:
        A new picture: for DES the original pixels, for the permutation each value with its lowest bit set.

    Raises:
        ValueError: The approach has no key, the key is of another kind, or the receipt does not fit.
    """
    entry = get_approach(receipt.approach)
    if entry.cipher is None:
        raise ValueError(f"{receipt.approach} cannot be undone: it keeps too little of the face")
    if not isinstance(key, entry.cipher):
        raise ValueError(f"{entry.name} is undone with a {entry.cipher.__name__}, got a {type(key).__name__}")
    _check_region(picture, receipt.region)
    if receipt.size != (picture.shape[1], picture.shape[0]):
        raise ValueError(
            f"the receipt is for a picture of {receipt.size}, this one has {picture.shape[1::-1]}"
        )
    x0, y0, x1, y1 = receipt.region
    inner = np.ascontiguousarray(picture[y0:y1, x0:x1])
    result = picture.copy()
    if entry.cipher is ciphers.PermutationKey:
        result[y0:y1, x0:x1] = ciphers.decrypt_permutation(inner, _permutation_key(key))
    else:
        mode = DES_MODES[entry.name]
        iv = bytes.fromhex(str(receipt.parameters.get("iv", ""))) or None
        result[y0:y1, x0:x1] = ciphers.decrypt_des(inner, _des_key(key), mode, iv)
    return result


DES_MODES: Mapping[str, ciphers.DesMode] = MappingProxyType(
    {"des-ecb": "ecb", "des-cbc": "cbc", "des-ctr": "ctr"}
)


def cipher_region(box: tuple[float, float, float, float], width: int, height: int) -> Region:
    """The face box with its sides rounded up to multiples of 8, moved into the picture.

    Args:
        box: Face box, xyxy in pixels.
        width: Of the picture.
        height: Of the picture.

    Returns:
        xyxy in whole pixels, half open; each side is a multiple of 8 and at most the picture's.

    Raises:
        UnusableFaceError: The picture is smaller than 8 pixels, or the box lies outside it.

    >>> cipher_region((10.2, 5, 20, 22), 100, 24)
    (10, 0, 26, 24)
    """
    if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
        raise UnusableFaceError("the face box lies outside the picture")
    spans = []
    for low, high, limit in ((box[0], box[2], width), (box[1], box[3], height)):
        start, stop = max(0, math.floor(low)), min(limit, math.ceil(high))
        length = min(-(-(stop - start) // 8) * 8, limit // 8 * 8)
        if length < 8:
            raise UnusableFaceError("the picture is too small for a cipher: a side is under 8 pixels")
        spans.append((min(start, limit - length), length))
    (x0, across), (y0, down) = spans
    return x0, y0, x0 + across, y0 + down
