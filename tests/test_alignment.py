"""Tests of the canonical crop. The truth is a slow loop in floats, scikit-image, or a hand calculation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import AffineTransform, warp

from ageveil.alignment import align, crop_transform, eye_corners, frame_aligned
from ageveil.detection import detect
from ageveil.errors import UnusableFaceError
from ageveil.image import read_image
from ageveil.types import Box, Face

SIZES = [200, 224, 64]
LEFT, RIGHT = np.array([0.297, 0.299]), np.array([0.684, 0.299])  # where the eye centres belong


def five(left, right, *, width=0.3):
    """Five landmarks in dlib's order around given eye centres; eyes are `width` eye distances wide."""
    left, right = np.asarray(left, float), np.asarray(right, float)
    half = width / 2 * (right - left)
    across = np.array([left[1] - right[1], right[0] - left[0]])  # down the face
    return np.array([right + half, right - half, left - half, left + half, (left + right) / 2 + 0.6 * across])


def sixty_eight(left, right):
    """68 landmarks whose eye corners are those of `five`; all other points lie elsewhere."""
    points = np.full((68, 2), 1e6)
    outer_right, inner_right, outer_left, inner_left, _ = five(left, right)
    points[[36, 39, 42, 45]] = outer_left, inner_left, inner_right, outer_right
    return points


def face_of(landmarks, **more):
    return Face(Box(0, 0, 10, 10), landmarks, 1.0, "made here", **more)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def apply(transform, points):
    """A (2, 3) transform on points (N, 2), one at a time."""
    (a, b, c), (d, e, f) = transform.tolist()
    return np.array([(a * x + b * y + c, d * x + e * y + f) for x, y in np.asarray(points).tolist()])


# --- Where the eyes go ---


eyes = st.tuples(*[st.floats(-500, 500)] * 4).filter(lambda e: math.hypot(e[2] - e[0], e[3] - e[1]) > 1)


@pytest.mark.parametrize("make", [five, sixty_eight])
@pytest.mark.parametrize("size", SIZES)
@given(eyes)
def test_the_eye_centres_land_in_their_places(size, make, points):
    left, right = points[:2], points[2:]
    to_image = crop_transform(make(left, right), size)
    np.testing.assert_allclose(apply(to_image, [LEFT * size, RIGHT * size]), [left, right], atol=1e-6)
    # A similarity that does not mirror: its columns are equally long, at a right angle, and turn one way.
    (a, b), (c, d) = to_image[:, :2].tolist()
    assert (a, c) == pytest.approx((d, -b))
    assert a * d - b * c > 0


def test_eye_places_at_200_by_hand():
    crop = align(noise(300, 300), face_of(five([100, 150], [180, 150])), size=200)
    right_eye, left_eye = crop.landmarks[:2].mean(0), crop.landmarks[2:4].mean(0)
    np.testing.assert_allclose([left_eye, right_eye], [[59.4, 59.8], [136.8, 59.8]], atol=1e-9)


@given(eyes, st.floats(-math.pi, math.pi), st.floats(0.1, 10), st.floats(-99, 99), st.floats(-99, 99))
def test_a_turned_scaled_and_moved_face_gives_the_same_crop(points, angle, scale, dx, dy):
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    move = np.array([[cosine, -sine, dx], [sine, cosine, dy]])
    before = five(points[:2], points[2:])
    corners = np.array([[0, 0], [223, 0], [0, 223], [223, 223]])
    expected = apply(move, apply(crop_transform(before), corners))
    np.testing.assert_allclose(apply(crop_transform(apply(move, before)), corners), expected, atol=1e-5)


@given(eyes)
def test_a_mirrored_face_gives_the_mirrored_crop(points):
    mirrored = np.array(points) * [-1, 1, -1, 1]
    there = crop_transform(five(points[:2], points[2:]), 200)
    mirror = crop_transform(five(mirrored[2:], mirrored[:2]), 200)  # the left eye is now the right one
    corners = np.array([[0, 0], [199, 0], [0, 199], [199, 199]])
    swapped = np.stack([0.981 * 200 - corners[:, 0], corners[:, 1]], 1)  # the eyes' places change over
    np.testing.assert_allclose(apply(mirror, corners), apply(there, swapped) * [-1, 1], atol=1e-6)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_picture_turned_by_quarters_gives_the_same_pixels(turns):
    image = noise(120, 90)
    landmarks = five([30, 50], [58, 46])
    turned = landmarks
    for step in range(turns):  # np.rot90 takes (x, y) to (y, width - 1 - x)
        width = (90, 120)[step % 2]
        turned = np.stack([turned[:, 1], width - 1 - turned[:, 0]], 1)
    straight = align(image, face_of(landmarks), size=64)
    other = align(np.rot90(image, turns), face_of(turned), size=64)
    assert np.abs(straight.pixels.astype(int) - other.pixels).max() <= 1
    np.testing.assert_allclose(straight.landmarks, other.landmarks, atol=1e-9)


@pytest.mark.parametrize("shape", [(4, 2), (5, 3), (67, 2), (10,)])
def test_other_landmark_sets_are_refused(shape):
    with pytest.raises(ValueError, match="landmarks have shape"):
        eye_corners(np.zeros(shape))


def test_eye_corners_run_from_left_to_right():
    for make in (five, sixty_eight):
        corners = eye_corners(make([10, 20], [30, 20]))
        np.testing.assert_allclose(corners, [[7, 20], [13, 20], [27, 20], [33, 20]])


@pytest.mark.parametrize("size", [0, 31, -200])
def test_a_crop_is_at_least_32_pixels_wide(size):
    with pytest.raises(ValueError, match=f"at least 32 pixels, got {size}"):
        crop_transform(five([10, 20], [30, 20]), size)
    with pytest.raises(ValueError, match=f"at least 32 pixels, got {size}"):
        frame_aligned(noise(40, 40), face_of(five([10, 20], [30, 20])), size=size)


def test_the_smallest_crop():
    assert align(noise(100, 100), face_of(five([40, 40], [60, 40])), size=32).size == 32


def test_eyes_on_one_point_are_unusable():
    with pytest.raises(UnusableFaceError, match="on one point"):
        crop_transform(np.full((5, 2), 7.0))


# --- Pixels ---


def slow_warp(image, to_image, size, *, repeat_border=False):
    """Bilinear samples in floats, one pixel at a time; outside is black, or repeats the border."""
    height, width = image.shape[:2]

    def pixel(x, y):
        if repeat_border:
            x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
        return image[y, x].astype(float) if 0 <= x < width and 0 <= y < height else np.zeros(3)

    result = np.zeros((size, size, 3))
    for row in range(size):
        for column in range(size):
            x, y = apply(to_image, [[column, row]])[0]
            left, top = math.floor(x), math.floor(y)
            right_share, low_share = x - left, y - top
            upper = (1 - right_share) * pixel(left, top) + right_share * pixel(left + 1, top)
            lower = (1 - right_share) * pixel(left, top + 1) + right_share * pixel(left + 1, top + 1)
            result[row, column] = (1 - low_share) * upper + low_share * lower
    return result


FACES = {
    "upright, about as large": ([40, 50], [68, 50]),
    "tilted": ([40, 60], [64, 44]),
    "upside down": ([70, 60], [40, 62]),
    "small": ([50, 50], [57, 51]),
    "large": ([20, 60], [110, 50]),
    "over the corner": ([5, 8], [30, 3]),
}


@pytest.mark.parametrize("place", FACES.values(), ids=FACES.keys())
def test_warp_is_bilinear_with_black_around(place):
    image = noise(120, 140)
    crop = align(image, face_of(five(*place)), size=64, max_outside=1.0)
    assert np.abs(crop.pixels - slow_warp(image, crop.to_image, 64)).max() <= 1
    outside = crop.outside
    assert (outside > 0) == (crop.pixels.max(axis=2) == 0).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("place", FACES.values(), ids=FACES.keys())
def test_warp_agrees_with_scikit_image(place, size):
    image = noise(120, 140, seed=1)
    crop = align(image, face_of(five(*place)), size=size, max_outside=1.0)
    matrix = AffineTransform(matrix=np.vstack([crop.to_image, [0, 0, 1]]))
    expected = warp(image.astype(float), matrix, output_shape=(size, size), order=1, preserve_range=True)
    assert crop.pixels.shape == (size, size, 3)
    assert np.abs(crop.pixels - expected).max() <= 1


def test_a_portrait(astronaut):
    image = read_image(astronaut)
    (face,) = detect(image)
    crop = align(image, face, size=64)
    assert np.abs(crop.pixels - slow_warp(image, crop.to_image, 64)).max() <= 1
    assert crop.outside == 0
    assert crop.landmarks.shape == (5, 2)
    np.testing.assert_allclose(apply(crop.to_image, crop.landmarks), face.landmarks, atol=1e-9)


@pytest.mark.parametrize("make", [np.asfortranarray, lambda image: image[:, ::-1], lambda image: image[::2]])
def test_the_picture_is_never_changed_and_may_lie_in_memory_as_it_likes(make):
    image = make(noise(200, 120))
    image.flags.writeable = False
    kept = image.copy()
    face = face_of(five([40, 40], [68, 44]))
    for cut in (align(image, face, size=64), align(kept, face, size=64)):
        np.testing.assert_array_equal(cut.pixels, align(np.array(kept), face, size=64).pixels)
    np.testing.assert_array_equal(image, kept)


# --- What lies outside ---


def moved_face(across, down, size=200):
    """A face whose crop is the picture moved: crop pixel (x, y) is at (x + across, y + down)."""
    move = np.array([across, down])
    return face_of(five(LEFT * size + move, RIGHT * size + move))


def slow_outside(image, to_image, size):
    """Share of crop pixels whose centre is not between the outermost pixel centres of the picture."""
    height, width = image.shape[:2]
    positions = apply(to_image, [(column, row) for row in range(size) for column in range(size)])
    return sum(not (0 <= x <= width - 1 and 0 <= y <= height - 1) for x, y in positions) / size**2


@pytest.mark.parametrize("place", FACES.values(), ids=FACES.keys())
def test_the_share_outside_is_counted(place):
    image = noise(90, 70)
    crop = align(image, face_of(five(*place)), size=64, max_outside=1.0)
    assert crop.outside == pytest.approx(slow_outside(image, crop.to_image, 64), abs=1e-12)


@pytest.mark.parametrize(
    ("across", "columns"), [(0.25, 0), (-0.25, 1), (-38.25, 39), (-39.25, 40), (40.75, 40)]
)
def test_up_to_a_fifth_may_lie_outside(across, columns):
    crop = align(noise(210, 201), moved_face(across, 0.5), size=200)
    assert crop.outside == columns / 200
    black = (crop.pixels == 0).all(axis=(0, 2))
    assert black.sum() in {columns, columns - 1}  # between the first pixel and the border it fades


@pytest.mark.parametrize("across", [-40.25, 41.75, -1e4, 1e6])
def test_more_than_a_fifth_outside_is_unusable(across):
    with pytest.raises(UnusableFaceError, match=r"of the face's crop lies outside the picture, at most 20"):
        align(noise(210, 201), moved_face(across, 0.5), size=200)


@pytest.mark.parametrize("columns", [0, 20, 60, 140, 200])
def test_the_limit_itself_is_allowed_and_less_is_not(columns):
    face, image = moved_face(0.75 - columns, 0.5), noise(210, 420)
    limit = columns / 200
    assert align(image, face, size=200, max_outside=limit).outside == limit
    if columns:
        with pytest.raises(UnusableFaceError):
            align(image, face, size=200, max_outside=np.nextafter(limit, 0))


@pytest.mark.parametrize("limit", [-0.01, 1.01, float("nan")])
def test_a_limit_is_a_share(limit):
    with pytest.raises(ValueError, match="max_outside is a share"):
        align(noise(210, 210), moved_face(0.5, 0.5), size=200, max_outside=limit)


@pytest.mark.parametrize("disagreement", [0.0, 0.59, 0.6])
def test_landmarks_near_what_the_detector_saw_are_used(disagreement):
    landmarks = moved_face(0.5, 0.5).landmarks
    assert align(noise(210, 210), face_of(landmarks, eye_disagreement=disagreement), size=200).size == 200


@pytest.mark.parametrize("disagreement", [np.nextafter(0.6, 1), 0.61, float("inf")])
def test_landmarks_far_from_what_the_detector_saw_are_unusable(disagreement):
    landmarks = moved_face(0.5, 0.5).landmarks
    with pytest.raises(UnusableFaceError, match="do not fit the face"):
        align(noise(210, 210), face_of(landmarks, eye_disagreement=disagreement), size=200)


@pytest.mark.parametrize("function", [align, frame_aligned])
@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), [[0]]])
def test_what_is_no_picture_is_refused(function, image):
    with pytest.raises(ValueError, match="expected"):
        function(image, face_of(five([2, 2], [5, 2])))


# --- Crops that others aligned ---


def test_an_aligned_crop_of_the_right_size_is_taken_as_it_is():
    image, face = noise(200, 200), face_of(five([60, 60], [140, 62]))
    crop = frame_aligned(image, face, size=200)
    np.testing.assert_array_equal(crop.pixels, image)
    np.testing.assert_allclose(crop.landmarks, face.landmarks)
    assert crop.outside == 0


@pytest.mark.parametrize(("side", "size"), [(96, 48), (40, 80), (50, 64), (64, 33), (1, 32)])
def test_an_aligned_crop_of_another_size_is_resized_edge_to_edge(side, size):
    image, face = noise(side, side), face_of(five([0.3 * side, 0.3 * side], [0.7 * side, 0.35 * side]))
    crop = frame_aligned(image, face, size=size)
    # Edges fall on edges: pixel p of the crop covers the picture from p to p + 1 in units of side / size.
    step = side / size
    to_image = np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]])
    np.testing.assert_allclose(crop.to_image, to_image)
    assert np.abs(crop.pixels - slow_warp(image, to_image, size, repeat_border=True)).max() <= 1
    np.testing.assert_allclose(apply(crop.to_image, crop.landmarks), face.landmarks, atol=1e-9)


@pytest.mark.parametrize("shape", [(200, 199), (199, 200), (1, 2)])
def test_what_is_not_square_is_no_aligned_crop(shape):
    with pytest.raises(UnusableFaceError, match=f"square, got {shape[1]} x {shape[0]} pixels"):
        frame_aligned(noise(*shape), face_of(five([60, 60], [140, 62])), size=200)
