"""Compose pictures of several faces whose places, sizes and turns are known.

Faces come from Labeled Faces in the Wild; everything is made in memory and nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil import detection
from ageveil.detection import DetectorOptions
from ageveil.image import read_image
from ageveil.types import Box, Image

CANVASES = ((1280, 960), (1920, 1080))
MAIN_HEIGHT = 160
"""Height in pixels of the one large upright face of every picture: as in a photograph of a viewer with others
behind, it is found, so that only the leak check stands between the others and a file."""
FACES_BESIDE = 5

# The main face of a deep-funneled LFW picture, 250 x 250: medians over the four detectors' boxes on people
# whose names begin with A to M.
LFW_BOX = Box(76, 74, 175, 187)
# A head with its hair fits into this many heights of its face box.
_HEAD = 1.8
# Side in pixels of a background patch and its distance from a photograph's upper corners: so far from the
# centre there is no face, and the borders are black where LFW's own alignment turned the photograph.
_PATCH = 56
_FROM_CORNER = (16, 6)
_BLOCK = 256
_SAME = 0.3
_PER_PERSON = 4


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """A photograph with exactly one face.

    Attributes:
        pixels: Shape (250, 250, 3), uint8 RGB.
        box: Of the face, from brows to chin, as dlib's CNN detector gives it.
        eyes: Centres of the left and the right eye in the picture, shape (2, 2), from dlib's five landmarks.
    """

    pixels: Image
    box: Box
    eyes: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PlantedFace:
    """A face in a composed picture.

    Attributes:
        box: Square around the face, as high as the upright face's box, in pixels of the picture.
        eyes: Centres of both eyes in the picture, shape (2, 2).
        height: Of the upright face's box, in pixels.
        turn: In-plane turn in degrees.
    """

    box: Box
    eyes: NDArray[np.float64]
    height: int
    turn: int


@dataclass(frozen=True, slots=True, eq=False)
class GroupPicture:
    """A composed picture. No pixel is (0, 0, 0), so that a mask shows exactly what it covered.

    Attributes:
        pixels: Shape (H, W, 3), uint8 RGB in [1, 255].
        main: The one large upright face.
        beside: The others, all of one size and turned by one angle to either side.
    """

    pixels: Image
    main: PlantedFace
    beside: tuple[PlantedFace, ...]

    @property
    def faces(self) -> tuple[PlantedFace, ...]:
        """All of them."""
        return (self.main, *self.beside)


def intersection_over_union(first: Box, second: Box) -> float:
    """Shared area as a fraction of the area that either box covers.

    >>> intersection_over_union(Box(0, 0, 2, 2), Box(1, 0, 3, 2))
    0.3333333333333333
    """
    shared = first.overlap(second)
    return shared / (first.area + second.area - shared)


def lfw_photographs(folder: Path, initials: str) -> list[Path]:
    """Photographs of the people whose folder begins with one of the letters, sorted."""
    people = sorted(person for person in folder.iterdir() if person.name[0].upper() in initials)
    return [photo for person in people for photo in sorted(person.glob("*.jpg"))]


def find_portraits(photographs: Sequence[Path], count: int, rng: np.random.Generator) -> list[Portrait]:
    """Draw photographs in which dlib's CNN detector and CenterFace each find exactly one face, the main one.

    Args:
        photographs: To draw from, in folders by person; four of a person at most.
        count: How many are wanted; fewer where there are no more.
        rng: Draws the order.
    """
    found: list[Portrait] = []
    taken: dict[str, int] = {}
    for index in rng.permutation(len(photographs)).tolist():
        path = photographs[index]
        if len(found) == count:
            break
        if taken.get(path.parent.name, 0) == _PER_PERSON:
            continue
        portrait = _portrait(read_image(path))
        if portrait is not None:
            found.append(portrait)
            taken[path.parent.name] = taken.get(path.parent.name, 0) + 1
    return found


def _portrait(pixels: Image) -> Portrait | None:
    one_thread = DetectorOptions(max_side=0, threads=1)
    # CenterFace first: it is the faster one.
    if len(detection.find_boxes(pixels, "centerface", one_thread)) != 1:
        return None
    faces = detection.detect(pixels, "dlib-cnn", options=one_thread)
    if len(faces) != 1 or intersection_over_union(faces[0].box, LFW_BOX) < _SAME:
        return None
    right_outer, right_inner, left_outer, left_inner, _ = faces[0].landmarks
    eyes = np.stack([(left_outer + left_inner) / 2, (right_outer + right_inner) / 2])
    return Portrait(pixels, faces[0].box, eyes)


def compose(
    portraits: Sequence[Portrait], height: int, turn: int, canvas: tuple[int, int], rng: np.random.Generator
) -> GroupPicture:
    """Plant one large upright face and five of a given size and turn on a background without faces.

    Args:
        portraits: Six or more.
        height: Of the five faces' boxes before they are turned, in pixels.
        turn: Of the five faces in degrees, to the left or to the right as drawn.
        canvas: (width, height) of the picture.
        rng: Draws backgrounds, faces, places and directions.
    """
    pixels = _background(portraits, canvas, rng)
    heights = (MAIN_HEIGHT, *[height] * FACES_BESIDE)
    turns = (0, *(int(sign) * turn for sign in rng.choice([-1, 1], FACES_BESIDE)))
    # The corner of a turned tile may cover that of another, but reaches no other face's box.
    places = _places([_HEAD * side for side in heights], canvas, rng)
    chosen = rng.choice(len(portraits), len(heights), replace=False)
    faces = []
    for index, size, angle, place in zip(chosen, heights, turns, places, strict=True):
        faces.append(_plant(pixels, portraits[index], size, angle, place, soft=bool(rng.integers(2))))
    return GroupPicture(np.maximum(np.rint(pixels), 1).astype(np.uint8), faces[0], tuple(faces[1:]))


def compose_all(
    portraits: Sequence[Portrait], plan: Sequence[tuple[int, int, int]], seed: int
) -> Iterator[GroupPicture]:
    """Compose pictures one after the other, on both canvases in turn.

    Args:
        portraits: Six or more.
        plan: (height, turn, number of pictures).
        seed: Each picture is drawn from this and its own place in the plan.
    """
    for height, turn, count in plan:
        for index in range(count):
            rng = np.random.default_rng((seed, height, turn, index))
            yield compose(portraits, height, turn, CANVASES[index % len(CANVASES)], rng)


def _background(
    portraits: Sequence[Portrait], canvas: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Blocks of 256 px, each of 1, 4 or 16 upper corners of photographs, enlarged 4.6, 2.3 or 1.1 times."""
    width, height = canvas
    pixels = np.zeros((-(-height // _BLOCK) * _BLOCK, -(-width // _BLOCK) * _BLOCK, 3), np.float32)
    for top in range(0, pixels.shape[0], _BLOCK):
        for left in range(0, pixels.shape[1], _BLOCK):
            side = _BLOCK // int(rng.choice([1, 2, 4]))
            for y in range(top, top + _BLOCK, side):
                for x in range(left, left + _BLOCK, side):
                    photograph = portraits[int(rng.integers(len(portraits)))].pixels
                    if rng.integers(2):
                        photograph = photograph[:, ::-1]
                    row, column = _FROM_CORNER
                    patch = photograph[row : row + _PATCH, column : column + _PATCH]
                    pixels[y : y + side, x : x + side] = cv2.resize(patch, (side, side))
    return pixels[:height, :width]


def _places(
    sides: Sequence[float], canvas: tuple[int, int], rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Centres of squares that lie in the canvas and do not overlap.

    Raises:
        ValueError: Ten thousand tries found no room.
    """
    placed: list[Box] = []
    for _ in range(10_000):
        if len(placed) == len(sides):
            return [((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2) for box in placed]
        side = sides[len(placed)]
        x, y = (float(rng.uniform(side / 2, length - side / 2)) for length in canvas)
        square = Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)
        if not any(square.overlap(other) > 0 for other in placed):
            placed.append(square)
        elif rng.random() < 0.01:  # The squares so far may have left no room.
            placed.clear()
    raise ValueError(f"{len(sides)} faces of {max(sides):.0f} px do not fit into {canvas}")


def _plant(
    pixels: NDArray[np.float32],
    portrait: Portrait,
    height: int,
    turn: int,
    place: tuple[float, float],
    *,
    soft: bool,
) -> PlantedFace:
    """Paste a head into `pixels`, in an ellipse with a soft edge or in a square tile."""
    box = portrait.box
    scale = height / box.height
    source, step = portrait.pixels, scale
    if scale < 1:  # Average first, so that the warp below takes no pixel twice and leaves none out.
        side = max(1, round(source.shape[0] * scale))
        source = np.asarray(cv2.resize(source, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        step = scale * portrait.pixels.shape[0] / side
    shrunk = scale / step
    centre = np.array([(box.x0 + box.x1 - 1) / 2, (box.y0 + box.y1 - 1) / 2])
    angle = math.radians(turn)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    # Portrait pixel p -> picture: rotation @ (p - centre) * scale + place. The shrunken one's pixel centres
    # lie at (p + 0.5) * shrunk - 0.5.
    linear = rotation * step
    shift = np.array(place) - linear @ ((centre + 0.5) * shrunk - 0.5)
    canvas = (pixels.shape[1], pixels.shape[0])
    warped = cv2.warpAffine(
        source, np.column_stack([linear, shift]), canvas, flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    columns, rows = np.meshgrid(np.arange(canvas[0]) - place[0], np.arange(canvas[1]) - place[1])
    across = (columns * rotation[0, 0] + rows * rotation[1, 0]) / (_HEAD / 2 * height)
    down = (columns * rotation[0, 1] + rows * rotation[1, 1]) / (_HEAD / 2 * height)
    if soft:
        weight = np.clip((1 - np.hypot(across / 0.8, down)) / 0.15, 0, 1)
    else:
        weight = ((abs(across) <= 1) & (abs(down) <= 1)).astype(np.float64)
    pixels += weight[..., None].astype(np.float32) * (warped.astype(np.float32) - pixels)
    eyes = (portrait.eyes - centre) * scale @ rotation.T + place
    half = height / 2
    around = Box(place[0] - half, place[1] - half, place[0] + half, place[1] + half)
    return PlantedFace(around, eyes, height, abs(turn))
