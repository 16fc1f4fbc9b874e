"""Damaged portraits through the whole way: a result or an error of ours, and nothing else.

The default run is short and always the same. `AGEVEIL_FUZZ=10000` draws that many fresh examples instead.
"""

import io
import os
import re

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from ageveil.anonymization import usable_approaches
from ageveil.errors import AgeveilError
from ageveil.image import Limits, read_image
from ageveil.pipeline import Pipeline
from ageveil.types import AnonymizedFace, AnonymizedPicture

FRESH = "AGEVEIL_FUZZ" in os.environ
EXAMPLES = int(os.environ.get("AGEVEIL_FUZZ", "200"))
LIMITS = Limits(max_bytes=60_000, max_pixels=60_000, max_side=400)
APPROACHES = usable_approaches()
PROTECTIVE = [name for name in APPROACHES if name != "original"]

SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=not FRESH,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="session")
def small(astronaut):
    """The portrait at 128 x 128: a face of 45 pixels."""
    return cv2.resize(read_image(astronaut)[40:240, 120:320], (128, 128), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="session")
def files(small):
    """The same portrait as JPEG (plain and progressive), PNG (plain and palette) and WebP."""
    picture = PillowImage.fromarray(small)
    exif = PillowImage.Exif()
    exif[274] = 6

    def encoded(source, kind, **options):
        buffer = io.BytesIO()
        source.save(buffer, kind, **options)
        return buffer.getvalue()

    return [
        encoded(picture, "JPEG", quality=85, exif=exif),
        encoded(picture, "JPEG", quality=60, progressive=True, restart_marker_rows=1),
        encoded(picture, "PNG"),
        encoded(picture.quantize(64), "PNG"),
        encoded(picture, "WEBP", quality=80),
    ]


CHANGES = st.lists(
    st.tuples(st.integers(0, 2**20), st.sampled_from(["set", "drop", "double", "cut"]), st.integers(0, 255)),
    max_size=6,
)


def changed(data, changes):
    """Set, drop or double single bytes, or cut the file."""
    content = bytearray(data)
    for place, kind, value in changes:
        at = place % max(1, len(content))
        if kind == "set":
            content[at : at + 1] = bytes([value])
        elif kind == "drop":
            del content[at : at + 1 + value % 16]
        elif kind == "double":
            content[at:at] = content[at : at + 1 + value]
        elif value % 8 == 0:  # rarely: what is left is refused at once
            del content[at:]
    return bytes(content)


def check_message(error):
    message = str(error)
    assert message
    assert "\n" not in message
    assert not re.search(r"\[\s*\d+[,\s]+\d+[,\s]+\d+", message), "a message never holds pixels"


def test_the_portrait_itself_goes_the_whole_way(files):
    # Otherwise all that follows would try nothing but errors.
    for data in files:
        way = Pipeline("mask", limits=LIMITS)
        assert isinstance(way.anonymize_viewer(data)[1], AnonymizedFace)
        assert len(way.anonymize_picture(data).receipts) == 1


@SETTINGS
@given(choice=st.integers(0, 4), changes=CHANGES, approach=st.sampled_from(APPROACHES))
def test_damaged_files_of_a_viewer(files, choice, changes, approach):
    data = changed(files[choice], changes)
    try:
        box, face = Pipeline(approach, limits=LIMITS).anonymize_viewer(data)
    except AgeveilError as error:
        check_message(error)
        return
    assert face.pixels.shape == (224, 224, 3)
    assert np.isfinite(box.as_tuple()).all()


@SETTINGS
@given(choice=st.integers(0, 4), changes=CHANGES, approach=st.sampled_from(PROTECTIVE))
def test_damaged_files_of_a_picture(files, choice, changes, approach):
    data = changed(files[choice], changes)
    try:
        picture = Pipeline(approach, limits=LIMITS).anonymize_picture(data)
    except AgeveilError as error:
        check_message(error)
        return
    check_hidden(read_image(data, limits=LIMITS), picture)


def check_hidden(image, picture):
    """All regions lie in the picture, and nothing else was changed."""
    assert isinstance(picture, AnonymizedPicture)
    assert picture.pixels.shape == image.shape
    outside = np.ones(image.shape[:2], bool)
    for receipt in picture.receipts:
        x0, y0, x1, y1 = receipt.region
        assert 0 <= x0 < x1 <= image.shape[1]
        assert 0 <= y0 < y1 <= image.shape[0]
        outside[y0:y1, x0:x1] = False
    assert picture.receipts
    assert (picture.pixels[outside] == image[outside]).all()


@SETTINGS
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    shift=st.tuples(st.integers(-90, 90), st.integers(-90, 90)),
    turn=st.floats(-180, 180),
    scale=st.floats(0.2, 3),
    approach=st.sampled_from(PROTECTIVE),
)
def test_portraits_at_every_place_size_and_turn(small, size, shift, turn, scale, approach):
    # Half in the picture, upside down, tiny, huge: hidden or refused.
    height, width = size
    matrix = cv2.getRotationMatrix2D((64, 64), turn, scale)
    matrix[:, 2] += np.array([width, height]) / 2 - 64 + shift
    image = cv2.warpAffine(
        small, matrix, (width, height), borderMode=cv2.BORDER_CONSTANT, borderValue=(9, 99, 70)
    )
    try:
        picture = Pipeline(approach).anonymize_picture(image)
    except AgeveilError as error:
        check_message(error)
    else:
        check_hidden(image, picture)
    try:
        Pipeline(approach).estimate(image)
    except AgeveilError as error:
        check_message(error)
