"""Damaged picture files: `read_image` gives a picture within the limits or an ImageError, and nothing else.

The default run is short and always the same. `AGEVEIL_FUZZ=100000` draws that many fresh examples instead.
"""

import io
import os
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from ageveil.errors import ImageError
from ageveil.image import Limits, read_image
from ageveil.types import check_image

LIMITS = Limits(max_bytes=20_000, max_pixels=10_000, max_side=200)
FRESH = "AGEVEIL_FUZZ" in os.environ
EXAMPLES = int(os.environ.get("AGEVEIL_FUZZ", "1500"))


def encoded(picture: PillowImage.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def seeds() -> list[bytes]:
    """Small real files: every format, its colour modes and compressions, with and without metadata."""
    rng = np.random.default_rng(7)
    smooth = np.add.outer(np.arange(18) * 6, np.arange(24) * 5).astype(np.uint8)
    rgb = PillowImage.fromarray(
        np.stack([smooth, smooth.T.repeat(2, 0)[:18, :18].repeat(2, 1)[:, :24], smooth], 2)
    )
    rgba = rgb.copy()
    rgba.putalpha(PillowImage.fromarray(rng.integers(0, 256, (18, 24), np.uint8)))
    palette = rgb.quantize(16)
    deep = PillowImage.fromarray(smooth.astype(np.uint16) * 257)
    exif = PillowImage.Exif()
    exif[274], exif[272] = 6, "a camera"
    exif.get_ifd(34853)[1] = "N"
    frames = [rgb, rgb.rotate(90)]
    modes = [rgb.convert(mode) for mode in ("L", "1")]
    return [
        *(
            encoded(rgb, "JPEG", exif=exif, progressive=steps, restart_marker_rows=1)
            for steps in (False, True)
        ),
        *(encoded(rgb.convert(mode), "JPEG") for mode in ("L", "CMYK")),
        *(encoded(picture, "PNG", exif=exif) for picture in (rgb, rgba, palette, deep, *modes)),
        encoded(palette, "PNG", transparency=bytes(range(16))),
        encoded(rgb, "PNG", save_all=True, append_images=frames),
        encoded(rgba, "WEBP", lossless=True, exif=exif),
        encoded(rgb, "WEBP", quality=50),
        encoded(rgb, "WEBP", save_all=True, append_images=frames),
        *(encoded(picture, "BMP") for picture in (rgb, rgba, palette, *modes)),
        *(
            encoded(rgb, "TIFF", compression=how, exif=exif)
            for how in ("raw", "tiff_lzw", "packbits", "jpeg")
        ),
        *(
            encoded(picture, "TIFF", compression="tiff_adobe_deflate")
            for picture in (rgba, palette, deep, *modes)
        ),
        encoded(rgb.convert("CMYK"), "TIFF", save_all=True, append_images=frames),
        encoded(palette, "GIF", transparency=3, interlace=True),
        encoded(rgb, "GIF", save_all=True, append_images=frames, disposal=2, comment="a comment"),
    ]


SEEDS = seeds()
PLACES = st.integers(0, 2**16)
# Sizes and counts live in small fields: their extremes are worth more than random bytes.
BYTES = st.one_of(
    st.binary(min_size=1, max_size=8), st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff", b"\0\1"])
)
EDITS = st.one_of(
    st.tuples(st.just("overwrite"), PLACES, BYTES),
    st.tuples(st.just("insert"), PLACES, BYTES),
    st.tuples(st.just("delete"), PLACES, st.integers(1, 40)),
    st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
    st.tuples(st.just("truncate"), PLACES, st.none()),
    st.tuples(st.just("splice"), PLACES, st.sampled_from(SEEDS)),
    st.tuples(st.just("repeat"), PLACES, st.integers(1, 60)),
)


def edited(data: bytes, kind: str, place: int, what: bytes | int | None) -> bytes:
    """Apply one edit at `place`, which counts round and round the data."""
    at = place % max(1, len(data))
    head, tail = data[:at], data[at:]
    match kind, what:
        case "overwrite", bytes():
            tail = what + tail[len(what) :]
        case "insert", bytes():
            tail = what + tail
        case "delete", int():
            tail = tail[what:]
        case "flip", int() if tail:
            tail = bytes([tail[0] ^ 1 << what]) + tail[1:]
        case "splice", bytes():
            tail = what[at:]
        case "repeat", int():
            tail = tail[:what] + tail
        case _:
            tail = b""
    return head + tail


def with_checksums(data: bytes) -> bytes:
    """Mend the chunk checksums of a PNG file, so that damage gets past the first gate."""
    mended, position = [data[:8]], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        body = data[position + 4 : position + 8 + length]
        mended.append(data[position : position + 4] + body + struct.pack(">I", zlib.crc32(body)))
        position += 12 + length
    return b"".join([*mended, data[position:]])


@settings(
    max_examples=EXAMPLES,
    derandomize=not FRESH,
    database=None,
    deadline=5000,
    suppress_health_check=list(HealthCheck),
)
@given(st.sampled_from(SEEDS), st.lists(EDITS, min_size=1, max_size=5))
def read_damaged(data, edits):
    for edit in edits:
        data = edited(data, *edit)
    if data.startswith(b"\x89PNG"):
        data = with_checksums(data)
    message = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            pixels = read_image(data, limits=LIMITS)
        except ImageError as error:
            message = str(error)
        else:
            check_image(pixels)
            assert max(pixels.shape[:2]) <= LIMITS.max_side
            assert pixels.shape[0] * pixels.shape[1] <= LIMITS.max_pixels
    assert "\n" not in message
    assert caught == []


def test_damaged_files_end_in_a_picture_or_an_image_error(capfd):
    read_damaged()
    printed = capfd.readouterr()
    assert printed.out == ""
    # libtiff reports damage on standard error by itself, as "ZIPDecode: ..."; nothing else may speak.
    assert [line for line in printed.err.splitlines() if not re.match(r"[\w.]+: ", line)] == []


@pytest.mark.parametrize("data", SEEDS)
def test_each_undamaged_file_reads(data):
    assert read_image(data, limits=LIMITS).shape in {(18, 24, 3), (24, 18, 3)}
