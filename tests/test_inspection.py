"""Tests of the inspection of crops that somebody else anonymized."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import installed

from ageveil import inspection
from ageveil.alignment import LEFT_EYE, RIGHT_EYE
from ageveil.anonymization import (
    APPROACHES,
    anonymize_crop,
    blur,
    eye_region,
    face_region,
    mosaic,
    usable_approaches,
)
from ageveil.errors import InspectionError
from ageveil.image import read_image
from ageveil.inspection import CHECKS, inspect, is_eye_region, sharpness
from ageveil.pipeline import Pipeline
from ageveil.types import CanonicalCrop, Receipt

SIZES = APPROACHES["blur"].sizes(224)
WHOLE_CROP = ["grid", "dp-pix", "veil"]
WHOLE = (0, 0, 224, 224)
MEAN_EYES = (16, 20, 205, 82)  # by hand in tests/test_anonymization.py


@pytest.fixture(scope="module", params=["astronaut", "grace_hopper"])
def crop(request):
    picture = read_image(request.getfixturevalue(request.param))
    return Pipeline("mask").align_viewer(picture)[1]


@pytest.fixture(scope="module")
def portrait(astronaut):
    return Pipeline("mask").align_viewer(read_image(astronaut))[1]


def moved(crop, right=0, down=0, scale=1.0):
    """The crop of a client that places the face wrongly; the landmarks stay where they should be."""
    matrix = np.array([[scale, 0, right], [0, scale, down]], np.float64)
    pixels = cv2.warpAffine(crop.pixels, matrix, (224, 224), borderMode=cv2.BORDER_REPLICATE)
    return CanonicalCrop(pixels, crop.landmarks, crop.to_image, crop.outside)


def edited(face, row, column):
    """One pixel of an anonymized crop is another one."""
    pixels = face.pixels.copy()
    pixels[row, column] ^= 0x80
    return pixels


# --- What passes ---


@pytest.mark.parametrize("approach", installed(CHECKS))
def test_an_anonymized_portrait_passes_as_it_was_made(crop, approach):
    face = anonymize_crop(crop, approach)
    receipt = Receipt.from_json(face.receipt.to_json())  # as it crosses the network
    seen = inspect(face.pixels, receipt, approach=approach)
    assert np.array_equal(seen.pixels, face.pixels)
    assert np.array_equal(seen.eye_mask, face.eye_mask)
    assert seen.receipt == face.receipt


def test_what_passes_can_no_longer_be_changed_by_the_sender(portrait):
    face = anonymize_crop(portrait, "mask")
    sent = face.pixels.copy()
    seen = inspect(sent, face.receipt, approach="mask")
    sent[:] = portrait.pixels
    assert np.array_equal(seen.pixels, face.pixels)


def test_every_approach_is_inspected_or_refused_by_name(portrait):
    for name, entry in APPROACHES.items():
        assert (name in CHECKS) == (entry.hides != "nothing" and entry.cipher is None)
    face = anonymize_crop(portrait, "mask")
    for name in ("original", "permutation", "encryption", "des-ecb", "des-cbc", "des-ctr"):
        with pytest.raises(
            ValueError, match=r"cannot be inspected; choose one of mosaic, mask, blur, grid, dp-pix, veil"
        ):
            inspect(face.pixels, face.receipt, approach=name)
    with pytest.raises(ValueError, match="unknown approach"):
        inspect(face.pixels, face.receipt, approach="nothing")


# --- The pixels' form ---


def test_what_is_no_picture_is_a_bad_argument(portrait):
    face = anonymize_crop(portrait, "mask")
    with pytest.raises(ValueError, match="uint8"):
        inspect(face.pixels.astype(np.float32), face.receipt, approach="mask")


@pytest.mark.parametrize("shape", [(1, 1, 3), (223, 224, 3), (224, 225, 3), (448, 448, 3)])
def test_a_crop_of_another_size_is_refused(portrait, shape):
    receipt = anonymize_crop(portrait, "mask").receipt
    with pytest.raises(InspectionError, match="expected a crop of"):
        inspect(np.zeros(shape, np.uint8), receipt, approach="mask")


# --- The receipt ---


@pytest.mark.parametrize("approach", installed(CHECKS))
def test_a_receipt_of_another_approach_is_refused(portrait, approach):
    for other in {*usable_approaches()} - {approach}:
        face = anonymize_crop(portrait, other)
        with pytest.raises(InspectionError, match="expected a receipt of"):
            inspect(face.pixels, face.receipt, approach=approach)


def test_a_receipt_for_another_size_is_refused(portrait):
    face = anonymize_crop(portrait, "mask")
    with pytest.raises(InspectionError, match="expected a receipt for 224 x 224"):
        inspect(face.pixels, replace(face.receipt, size=(225, 224)), approach="mask")


@pytest.mark.parametrize(
    ("approach", "parameters"),
    [
        ("mosaic", {}),
        ("mosaic", {"cell": 10}),
        ("mosaic", {"cell": 1}),
        ("mosaic", {"cell": 0}),
        ("mosaic", {"cell": "11"}),
        ("mosaic", {"cell": 11, "more": 1}),
        ("mask", {"cell": 11}),
        ("blur", {"radius": 13}),
        ("blur", {"radius": 13, "sigma": 2.3}),
        ("blur", {"radius": 12, "sigma": SIZES["sigma"]}),
        ("grid", {"cell": 11}),
        ("dp-pix", {"cell": 28}),
        ("dp-pix", {"cell": 28, "pixels": 16, "epsilon": 25.0}),
        ("dp-pix", {"cell": 28, "pixels": 1, "epsilon": 0.25}),
    ],
)
def test_other_parameters_are_refused(portrait, approach, parameters):
    face = anonymize_crop(portrait, approach)
    with pytest.raises(InspectionError, match="expected the parameters"):
        inspect(face.pixels, replace(face.receipt, parameters=parameters), approach=approach)


@pytest.mark.parametrize("approach", installed(CHECKS))
def test_no_text_of_the_sender_stands_in_a_message(portrait, approach):
    face = anonymize_crop(portrait, approach)
    for change in ({"approach": "sent\nthis"}, {"parameters": {"sent": "this"}}):
        with pytest.raises(InspectionError) as caught:
            inspect(face.pixels, replace(face.receipt, **change), approach=approach)
        assert "sent" not in str(caught.value)


@pytest.mark.parametrize("approach", ["mosaic", "mask"])
def test_a_hidden_region_elsewhere_is_refused(portrait, approach):
    face = anonymize_crop(portrait, approach)
    for region in ((18, 140, 206, 202), (0, 0, 224, 20), (0, 0, 1, 1), (0, 0, 224, 224)):
        receipt = replace(face.receipt, region=region, eye_region=region)
        with pytest.raises(InspectionError, match="expected an eye region"):
            inspect(face.pixels, receipt, approach=approach)
        with pytest.raises(InspectionError, match="expected the region"):
            inspect(face.pixels, replace(face.receipt, region=region), approach=approach)


def test_the_blurred_region_is_the_face_box_and_nothing_else(portrait):
    face = anonymize_crop(portrait, "blur")
    x0, y0, x1, y1 = face_region(224)
    for region in ((x0 + 1, y0, x1, y1), (x0, y0, x1, y1 - 1), (0, 0, 224, 224), face.receipt.eye_region):
        with pytest.raises(InspectionError, match="expected the region"):
            inspect(face.pixels, replace(face.receipt, region=region), approach="blur")


def test_a_receipt_without_eyes_is_refused(portrait):
    face = anonymize_crop(portrait, "blur")
    with pytest.raises(InspectionError, match="expected an eye region"):
        inspect(face.pixels, replace(face.receipt, eye_region=None), approach="blur")


@pytest.mark.parametrize("side", range(4))
def test_the_eye_region_ends_where_the_page_says(side):
    # By hand: eyes at x = 66.528 and 153.216, y = 66.976, 86.688 apart. Beside the corners 0.415 of that is
    # 35.98, above 0.545 is 47.24, below 0.16 is 13.87: so 30.55, 19.73, 189.19 and 80.85 around two points.
    # The first pixel that such a rectangle touches is 31, 20; the last ones are 189 and 81.
    last = [31, 20, 190, 82]
    beyond = [32, 21, 189, 81]
    assert is_eye_region(tuple(last))
    worse = last.copy()
    worse[side] = beyond[side]
    assert not is_eye_region(tuple(worse))


corners = st.floats(0, 25)


@given(st.tuples(corners, corners), st.tuples(corners, corners))
def test_the_region_of_any_eyes_at_their_places_passes(left, right):
    # Corners lie on both sides of their eye's centre, level or up to a tilt of 45 degrees.
    eyes = 224 * np.array([LEFT_EYE, RIGHT_EYE])
    (left, right) = (np.array([reach, min(reach, rise)]) for reach, rise in (left, right))
    points = np.array([eyes[1] + right, eyes[1] - right, eyes[0] - left, eyes[0] + left, [112, 112]])
    assert is_eye_region(eye_region(points, 224))


def test_the_eye_region_stays_above_the_middle():
    assert is_eye_region((0, 0, 224, 112))
    assert not is_eye_region((0, 0, 224, 113))


# --- The hidden pixels ---


@pytest.mark.parametrize("approach", installed(CHECKS))
def test_a_bare_crop_with_a_true_receipt_is_refused(crop, approach):
    receipt = anonymize_crop(crop, approach).receipt
    with pytest.raises(InspectionError, match=r"expected (cells|a hidden|nothing finer|grey)"):
        inspect(crop.pixels, receipt, approach=approach)


@pytest.mark.parametrize("approach", ["mosaic", "mask"])
def test_every_pixel_of_the_hidden_region_counts_and_no_other(portrait, approach):
    face = anonymize_crop(portrait, approach)
    x0, y0, x1, y1 = face.receipt.region
    for row, column in ((y0, x0), (y0, x1 - 1), (y1 - 1, x0), (y1 - 1, x1 - 1), (y0 + 11, x0 + 10)):
        with pytest.raises(InspectionError, match=r"expected (cells|a hidden)"):
            inspect(edited(face, row, column), face.receipt, approach=approach)
    for row, column in ((y0 - 1, x0), (y1, x1 - 1), (y0, x0 - 1), (y1 - 1, x1)):
        inspect(edited(face, row, column), face.receipt, approach=approach)


def test_cells_that_start_elsewhere_or_are_smaller_are_refused(portrait):
    receipt = anonymize_crop(portrait, "mosaic").receipt
    x0, y0, x1, y1 = receipt.region
    rng = np.random.default_rng(1)
    for region, cell in (((x0 - 1, y0, x1, y1), 11), ((x0, y0 - 1, x1, y1), 11), (receipt.region, 5)):
        with pytest.raises(InspectionError, match="expected cells of 11 pixels"):
            inspect(mosaic(portrait.pixels, region, cell=cell, rng=rng), receipt, approach="mosaic")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_cells_are_told_as_a_slow_loop_tells_them(height, width, cell, seed, spoil):
    rng = np.random.default_rng(seed)
    hidden = mosaic(
        rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0, width, height), cell=cell, rng=rng
    )
    if spoil:
        hidden[rng.integers(height), rng.integers(width), rng.integers(3)] ^= 1
    constant = all(
        (hidden[y, x] == hidden[y // cell * cell, x // cell * cell]).all()
        for y in range(height)
        for x in range(width)
    )
    if constant:
        CHECKS["mosaic"](hidden, {"cell": cell})
    else:
        with pytest.raises(InspectionError):
            CHECKS["mosaic"](hidden, {"cell": cell})


def slow_sharpness(hidden):
    """By loops, from the text: every second pixel's fourth difference, averaged across by a Gaussian."""
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 1.2**2))
    weights /= weights.sum()
    padded = np.pad(hidden.astype(np.float64), ((3, 3), (3, 3), (0, 0)), mode="reflect")
    largest = 0.0
    for picture in (padded, padded.transpose(1, 0, 2)):
        height, width = picture.shape[0] - 6, picture.shape[1] - 6
        for y in range(4, height - 4):
            for x in range(4, width - 4):
                differences = [
                    sum(
                        f * picture[y + 3 + d, x + 3 + s]
                        for f, s in zip((1, -4, 6, -4, 1), range(-4, 5, 2), strict=True)
                    )
                    for d in range(-3, 4)
                ]
                largest = max(largest, np.abs(weights @ np.array(differences) / 16).max())
    return largest


@pytest.mark.parametrize("shape", [(17, 17), (17, 24)])
def test_sharpness_is_what_slow_loops_say(shape):
    hidden = np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)
    assert sharpness(hidden) == pytest.approx(slow_sharpness(hidden), rel=1e-5)


def test_sharpness_of_plain_and_sloping_pixels_is_none():
    slope = np.arange(40, dtype=np.uint8)[:, None, None].repeat(40, 1).repeat(3, 2)
    assert sharpness(np.full((40, 40, 3), 200, np.uint8)) == pytest.approx(0, abs=1e-4)
    assert sharpness(slope) == pytest.approx(0, abs=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_no_blurred_picture_is_sharper_than_the_page_says(seed, grain):
    # The steepest pictures there are: black and white, in grains of any size.
    rng = np.random.default_rng(seed)
    small = rng.choice(np.array([0, 255], np.uint8), (-(-224 // grain), -(-224 // grain), 3))
    picture = small.repeat(grain, 0).repeat(grain, 1)[:224, :224]
    x0, y0, x1, y1 = region = face_region(224)
    assert sharpness(blur(picture, region, **SIZES)[y0:y1, x0:x1]) <= 1.41


def test_the_limit_of_any_blurred_picture():
    # Rounding is off by 0.5 at most, and the filter's weights sum to 1; the largest answer to levels within
    # 127.5 of grey is the sum of the absolute weights of blur and filter together.
    taps = np.exp(-(np.arange(-13, 14) ** 2) / (2 * SIZES["sigma"] ** 2))
    together = np.convolve(taps / taps.sum(), np.array([1, 0, -4, 0, 6, 0, -4, 0, 1]) / 16)
    assert 0.5 + 127.5 * np.abs(together).sum() == pytest.approx(1.405, abs=0.001)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_weaker_blur_is_refused(crop, share):
    receipt = anonymize_crop(crop, "blur").receipt
    weak = blur(crop.pixels, receipt.region, radius=13, sigma=share * SIZES["sigma"])
    with pytest.raises(InspectionError, match="nothing finer"):
        inspect(weak, receipt, approach="blur")


def test_bare_eyes_in_a_blurred_face_and_noise_over_it_are_refused(crop):
    face = anonymize_crop(crop, "blur")
    x0, y0, x1, y1 = face.receipt.eye_region
    eyes = face.pixels.copy()
    eyes[y0:y1, x0:x1] = crop.pixels[y0:y1, x0:x1]
    noise = np.random.default_rng(4).normal(0, 1, eyes.shape)
    noisy = np.clip(np.rint(face.pixels + noise), 0, 255).astype(np.uint8)
    for pixels in (eyes, noisy):
        with pytest.raises(InspectionError, match="nothing finer"):
            inspect(pixels, face.receipt, approach="blur")


# --- Whole crops ---


def shaded(left, right):
    """Two grey halves."""
    pixels = np.empty((224, 224, 3), np.uint8)
    pixels[:, :112], pixels[:, 112:] = left, right
    return pixels


def claim(approach):
    """The receipt of an approach that hides the whole crop, as its sender may write it without a face."""
    return Receipt(approach, APPROACHES[approach].sizes(224), WHOLE, MEAN_EYES, (224, 224))


@pytest.mark.parametrize("approach", WHOLE_CROP)
def test_a_whole_crop_has_the_mean_faces_eyes_and_all_as_its_region(approach):
    pixels = shaded(8, 8)  # which is cells, grey cells and a veil at once
    inspect(pixels, claim(approach), approach=approach)
    for eyes in ((15, 20, 205, 82), (16, 20, 205, 83), (16, 19, 206, 82)):
        with pytest.raises(InspectionError, match="of the mean face"):
            inspect(pixels, replace(claim(approach), eye_region=eyes), approach=approach)
    for region in ((0, 0, 224, 223), (1, 0, 224, 224), MEAN_EYES):
        with pytest.raises(InspectionError, match="expected the region"):
            inspect(pixels, replace(claim(approach), region=region), approach=approach)


@pytest.mark.parametrize("approach", installed(WHOLE_CROP))
def test_every_pixel_of_a_whole_crop_counts(portrait, approach):
    face = anonymize_crop(portrait, approach)
    for row, column in ((0, 1), (0, 223), (223, 0), (223, 223), (111, 111), (112, 113), (27, 28)):
        for channel in range(3):
            pixels = face.pixels.copy()
            pixels[row, column, channel] ^= 1
            with pytest.raises(InspectionError, match=r"expected (cells|grey|two halves)"):
                inspect(pixels, face.receipt, approach=approach)


@pytest.mark.parametrize("approach", ["grid", "dp-pix"])
def test_cells_of_a_whole_crop_have_28_pixels(portrait, approach):
    rng = np.random.default_rng(1)
    grey = portrait.pixels[..., :1].repeat(3, 2)
    for cell in (14, 27, 29, 56):
        pixels = mosaic(grey, WHOLE, cell=cell, rng=rng)
        if cell == 56:  # as if two cells were alike
            inspect(pixels, claim(approach), approach=approach)
        else:
            with pytest.raises(InspectionError, match="expected cells of 28 pixels"):
                inspect(pixels, claim(approach), approach=approach)


def test_noisy_cells_are_grey_and_a_grids_may_be_coloured(portrait):
    pixels = anonymize_crop(portrait, "grid").pixels
    inspect(pixels, claim("grid"), approach="grid")
    with pytest.raises(InspectionError, match="expected grey levels alone"):
        inspect(pixels, claim("dp-pix"), approach="dp-pix")


def test_a_veil_has_two_halves_of_the_16_greys():
    permitted = [16 * level + 8 for level in range(16)]
    for value in range(256):
        for pixels in (shaded(value, 8), shaded(8, value)):
            if value in permitted:
                seen = inspect(pixels, claim("veil"), approach="veil")
                assert np.array_equal(seen.pixels, pixels)
            else:
                with pytest.raises(InspectionError, match="of one of 16 greys each"):
                    inspect(pixels, claim("veil"), approach="veil")


@pytest.mark.parametrize("middle", [0, 111, 113, 224])
def test_the_halves_of_a_veil_meet_in_the_middle(middle):
    pixels = shaded(40, 40)
    pixels[:, middle:] = 200
    if middle in {0, 224}:  # halves may be alike
        inspect(pixels, claim("veil"), approach="veil")
    else:
        with pytest.raises(InspectionError, match="expected two halves"):
            inspect(pixels, claim("veil"), approach="veil")
    with pytest.raises(InspectionError, match="expected two halves"):
        inspect(shaded(40, 200).transpose(1, 0, 2), claim("veil"), approach="veil")


def test_a_coloured_veil_is_refused():
    with pytest.raises(InspectionError, match="expected grey levels alone"):
        inspect(shaded((8, 8, 24), 8), claim("veil"), approach="veil")


def test_no_detector_looks_at_a_crop_of_which_nothing_is_left(monkeypatch, portrait):
    monkeypatch.setattr(inspection.detection, "find_boxes", lambda *_: pytest.fail("it was asked"))
    inspect(shaded(8, 24), claim("veil"), approach="veil")
    for approach in ("grid", "dp-pix"):
        face = anonymize_crop(portrait, approach)
        inspect(face.pixels, face.receipt, approach=approach)


# --- Bare eyes elsewhere ---


@pytest.mark.parametrize("approach", ["mosaic", "mask"])
@pytest.mark.parametrize("place", [{"down": 60}, {"right": 60, "down": 110, "scale": 0.5}])
def test_a_face_whose_eyes_are_not_in_the_hidden_region_is_refused(crop, approach, place):
    face = anonymize_crop(moved(crop, **place), approach)
    with pytest.raises(InspectionError, match="a detector sees one elsewhere"):
        inspect(face.pixels, face.receipt, approach=approach)


@pytest.mark.parametrize("approach", ["mosaic", "mask"])
def test_a_second_bare_face_is_refused(crop, approach):
    face = anonymize_crop(crop, approach)
    pixels = face.pixels.copy()
    pixels[130:220, 5:95] = cv2.resize(crop.pixels, (90, 90), interpolation=cv2.INTER_AREA)
    with pytest.raises(InspectionError, match="a detector sees one elsewhere"):
        inspect(pixels, face.receipt, approach=approach)
