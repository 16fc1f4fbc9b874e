"""Varying crops: what moves together stays together."""

import io

import cv2
import numpy as np
import PIL.Image
import pytest

from ageveil.training import augmentation
from ageveil.training.augmentation import mirrored, vary
from ageveil.types import CanonicalCrop


def test_equal_generators_give_equal_crops(faces):
    crop = faces.crop(0)
    first, second = (vary(crop, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.landmarks, second.landmarks)
    other = vary(crop, np.random.default_rng(6))
    assert (other.pixels != first.pixels).any()


def test_the_crop_is_left_alone_and_its_form_kept(faces):
    crop = faces.crop(1)
    before = crop.pixels.copy()
    for seed in range(30):
        varied = vary(crop, np.random.default_rng(seed))
        assert varied.pixels.shape == crop.pixels.shape
        assert varied.pixels.dtype == np.uint8
        assert varied.landmarks.shape == (5, 2)
    np.testing.assert_array_equal(crop.pixels, before)


def test_compression_is_that_of_a_jpeg_in_its_own_colours():
    rng = np.random.default_rng(0)
    pixels = cv2.resize(
        rng.integers(0, 256, (28, 28, 3), np.uint8), (224, 224), interpolation=cv2.INTER_CUBIC
    )
    seed = next(n for n in range(99) if 0.25 < np.random.default_rng(n).random() < 0.3)
    degraded = augmentation._degraded(pixels, np.random.default_rng(seed))
    draws = np.random.default_rng(seed)
    draws.random()
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=int(draws.integers(35, 90)))
    ours, theirs = (
        np.square(other.astype(float) - pixels).mean((0, 1))
        for other in (degraded, np.asarray(PIL.Image.open(file)))
    )
    # Two encoders round unlike, but lose alike in each colour: more of blue than of red.
    np.testing.assert_allclose(ours, theirs, rtol=0.02)
    assert theirs[2] > 1.05 * theirs[0]


def test_the_rest_is_mirrored_at_most(faces):
    crop = faces.crop(0)
    plain = crop.pixels, mirrored(crop.pixels, crop.landmarks)[0]
    counts = [0, 0, 0]
    for seed in range(200):
        pixels = vary(crop, np.random.default_rng(seed), 0.25).pixels
        same = [np.array_equal(pixels, known) for known in plain]
        counts[same.index(True) if any(same) else 2] += 1
    # 200 draws with chances of 3/8, 3/8 and 1/4: four standard deviations.
    assert abs(counts[0] - 75) < 28
    assert abs(counts[1] - 75) < 28
    assert abs(counts[2] - 50) < 25


def test_a_mirror_image_of_a_mirror_image_is_the_crop(faces):
    crop = faces.crop(0)
    once = mirrored(crop.pixels, crop.landmarks)
    twice = mirrored(*once)
    np.testing.assert_array_equal(twice[0], crop.pixels)
    np.testing.assert_allclose(twice[1], crop.landmarks)
    # dlib's order: the first two points are the eye on the right of the picture.
    assert once[1][:2, 0].mean() > once[1][2:4, 0].mean()


def test_landmarks_move_with_the_pixels():
    # Five white dots on black: wherever they go, the landmarks should lie on them.
    landmarks = np.array([[150.0, 67.0], [130.0, 67.0], [70.0, 67.0], [90.0, 67.0], [111.0, 120.0]])
    pixels = np.zeros((224, 224, 3), np.uint8)
    for x, y in landmarks.astype(int):
        pixels[y - 3 : y + 4, x - 3 : x + 4] = 255
    crop = CanonicalCrop(pixels, landmarks, np.eye(2, 3), 0.0)
    distances = []
    for seed in range(40):
        varied = vary(crop, np.random.default_rng(seed))
        bright = varied.pixels.mean(2)
        rows, columns = np.nonzero(bright > bright.min() + 0.6 * (bright.max() - bright.min()))
        places = np.column_stack([columns, rows])
        for point in varied.landmarks:
            distances.append(np.linalg.norm(places - point, axis=1).min())
    # Landmarks are jittered by 0.005 of 224 = 1.1 pixels a coordinate, the dots reach 3 pixels around.
    assert np.mean(distances) < 1.5
    assert max(distances) < 6


def test_variations_keep_to_their_stated_size(faces):
    crop = faces.crop(0)
    moved = []
    for seed in range(300):
        varied = vary(crop, np.random.default_rng(seed)).landmarks
        reference = min(
            (mirrored(crop.pixels, crop.landmarks)[1], crop.landmarks),
            key=lambda points: np.abs(points - varied).sum(),
        )
        moved.append(varied.mean(0) - reference.mean(0))
    # Shifts of 0.016 of 224 pixels, plus what rotation and scale move the eyes off the centre.
    spread = np.std(moved, 0)
    assert (spread > 0.016 * 224 * 0.8).all()
    assert (spread < 0.016 * 224 * 2.0).all()


def test_sixty_eight_landmarks_are_refused(faces):
    crop = faces.crop(0)
    other = CanonicalCrop(crop.pixels, np.zeros((68, 2)) + 100, crop.to_image, 0.0)
    with pytest.raises(ValueError, match="five landmarks"):
        vary(other, np.random.default_rng(0))
