"""Print the constants measured on real faces: `_UPRIGHT_POINTS`, `_CHIP_SCALE`, `_CHIP_SHIFT` and `_FLAT`.

    python benchmarks/landmarks.py --data $AGEVEIL_DATA

The first three come from a seeded sample of UTKFace's training part, of which those pictures count in which
dlib's HOG detector sees exactly one face; the last from samples of three data sets. Nothing is written.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil import alignment, detection, estimation, pipeline
from ageveil.alignment import LEFT_EYE, RIGHT_EYE
from ageveil.detection import DetectorOptions
from ageveil.errors import UnusableFaceError
from ageveil.image import read_image
from ageveil.types import CanonicalCrop, Image

SEED = 5
FACES = 1500
CROPS = 4000
"""Photographs of each data set in the sample for `_FLAT`."""
AS_IT_IS = DetectorOptions(max_side=0, threads=1)

# dlib's mean face of its five landmarks (dlib/image_transforms/interpolation.h, get_face_chip_details), in
# the order of its predictor. A chip leaves 20 % of padding around it on all sides.
MEAN_FACE = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
PADDING = 0.2


def sample(paths: Sequence[Path], count: int) -> list[Path]:
    """So many of them, seeded."""
    return random.Random(SEED).sample(paths, min(count, len(paths)))  # noqa: S311 - no secret


def to_canonical(points: NDArray[np.float64], landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 2) of a picture in fractions of the canonical crop that the five landmarks span.

    In the complex plane, the similarity that takes the means of the eye corners to their places in the crop.
    """
    z = points[:, 0] + 1j * points[:, 1]
    right, left = (complex(*landmarks[pair].mean(0)) for pair in ([0, 1], [2, 3]))
    w = (z - left) / (right - left) * (complex(*RIGHT_EYE) - complex(*LEFT_EYE)) + complex(*LEFT_EYE)
    return np.stack([w.real, w.imag], -1)


def seen_once(paths: Sequence[Path]) -> Iterator[tuple[Image, NDArray[np.float64]]]:
    """Pictures with one HOG face, and its five landmarks."""
    for path in paths:
        image = read_image(path)
        found = detection.detect(image, "dlib-hog", options=AS_IT_IS)
        if len(found) == 1:
            yield image, found[0].landmarks


def rough_points(image: Image) -> NDArray[np.float64]:
    """CenterFace's five points of the face that it is surest of, at the picture's own size."""
    found = detection._find_centerface(image, 0.05, AS_IT_IS)
    best = max(found, key=lambda proposal: proposal.score)
    assert best.points is not None
    return best.points


def fit_chip(mean: NDArray[np.float64]) -> tuple[float, float, NDArray[np.float64]]:
    """Scale, rotation in degrees and shift of the similarity from mean landmarks to dlib's chip.

    Least squares in closed form (Umeyama 1991): in the complex plane, w = turn * z + shift.
    """
    chip = (MEAN_FACE + PADDING) / (1 + 2 * PADDING)
    z, w = (p[:, 0] + 1j * p[:, 1] for p in (mean, chip))
    centred = z - z.mean()
    turn = np.vdot(centred, w - w.mean()) / np.vdot(centred, centred)
    shift = w.mean() - turn * z.mean()
    return abs(turn), float(np.degrees(np.angle(turn))), np.array([shift.real, shift.imag])


def print_geometry(data: Path) -> None:
    """The constants of detection.py and estimation.py."""
    paths = sample(sorted((data / "utkface" / "train").glob("*.jpg")), FACES)
    rough, exact = [], []
    for image, landmarks in seen_once(paths):
        rough.append(to_canonical(rough_points(image), landmarks))
        exact.append(to_canonical(landmarks, landmarks))
    print(f"{len(exact)} of {len(paths)} faces of UTKFace's training part (seed {SEED})")
    print("detection._UPRIGHT_POINTS, medians:", np.median(rough, 0).round(4).tolist())
    print("    in the code:                   ", detection._UPRIGHT_POINTS.tolist())
    scale, rotation, shift = fit_chip(np.mean(exact, 0))
    print(
        f"estimation._CHIP_SCALE, _CHIP_SHIFT: {scale:.4f}, {shift.round(4).tolist()}; {rotation:.2f} degrees"
    )
    print(f"    in the code:                     {estimation._CHIP_SCALE}, {list(estimation._CHIP_SHIFT)}")


def flattest(crop: CanonicalCrop) -> float:
    """Smallest standard deviation of the grey values in a rectangle of a bar's size around the eyes.

    From summed areas, apart from how the pipeline does it; both must agree on what is flat.
    """
    x0, y0, x1, y1 = (round(share * crop.size) for share in pipeline._AROUND_EYES)
    across, down = (round(share * crop.size) for share in pipeline._BAR)
    sums, squares = cv2.integral2(crop.pixels[y0:y1, x0:x1].mean(axis=2))
    mean, square = (
        (t[down:, across:] - t[:-down, across:] - t[down:, :-across] + t[:-down, :-across]) / (across * down)
        for t in (sums, squares)
    )
    return float(np.sqrt(np.maximum(square - mean**2, 0).min()))


def is_refused(crop: CanonicalCrop) -> bool:
    """What the pipeline says."""
    try:
        pipeline._check_eyes_visible(crop)
    except UnusableFaceError:
        return True
    return False


def print_flatness(name: str, paths: Sequence[Path]) -> None:
    """How flat bare eyes can be."""
    values = []
    for path in paths:
        image = read_image(path)
        face = detection.choose_viewer(
            detection.detect(image, options=DetectorOptions(threads=1)), allow_others=True
        )
        if face is None:
            continue
        try:
            crop = alignment.align(image, face)
        except UnusableFaceError:
            continue
        values.append(flattest(crop))
        if is_refused(crop) != (values[-1] < pipeline._FLAT) and abs(values[-1] - pipeline._FLAT) > 1e-3:
            raise AssertionError(f"{path.name}: {values[-1]} is on another side of {pipeline._FLAT}")
    low = np.quantile(values, [0, 0.001, 0.01])
    flat = sum(value < pipeline._FLAT for value in values)
    print(
        f"    {name}: {len(values)} of {len(paths)} usable; smallest {low[0]:.2f}, 0.1 % {low[1]:.2f}, "
        f"1 % {low[2]:.2f}; {flat} below {pipeline._FLAT:g}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds lfw, fairface and utkface"
    )
    data: Path = parser.parse_args().data
    cv2.setNumThreads(1)
    print_geometry(data)
    print("pipeline._FLAT, flattest rectangle around the eyes, standard deviation of grey values:")
    print_flatness("UTKFace train", sample(sorted((data / "utkface" / "train").glob("*.jpg")), CROPS))
    print_flatness("FairFace train", sample(sorted((data / "fairface" / "train").glob("*.jpg")), CROPS))
    print_flatness("LFW", sample(sorted((data / "lfw").glob("*/*.jpg")), CROPS))


if __name__ == "__main__":
    main()
