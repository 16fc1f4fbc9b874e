"""Pictures in and out: formats, colour modes, orientation, limits, bad input, and files without metadata."""

import importlib.util
import io
import os
import re
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import textwrap
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest
import tifffile
from PIL import ExifTags, ImageCms
from PIL import Image as PillowImage

from ageveil.errors import ImageError, ImageLimitError, OutputError, UnreadableImageError
from ageveil.image import LOSSLESS_SUFFIXES, WRITABLE, Limits, check_output, read_image, write_image

H, W = 13, 17
RNG = np.random.default_rng(2018)
RGB = RNG.integers(0, 256, (H, W, 3), np.uint8)
GREY = RNG.integers(0, 256, (H, W), np.uint8)
ALPHA = RNG.integers(0, 256, (H, W), np.uint8)
ALPHA[0, :4] = 0, 255, 1, 254
DEEP = RNG.integers(0, 2**16, (H, W), np.uint16)
DEEP[0, :4] = 0, 255, 256, 65535
DEEP_RGB = RNG.integers(0, 2**16, (H, W, 3), np.uint16)
# Lossy formats keep a smooth picture within a few values.
SMOOTH = np.stack(
    [np.add.outer(np.arange(48), np.arange(64)) * 2, *np.meshgrid(np.arange(64) * 3, np.arange(48) * 4)],
    axis=2,
).astype(np.uint8)


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(values, mode=None):
    picture = PillowImage.fromarray(values)
    assert mode is None or picture.mode == mode
    return picture


def grey_rgb(grey):
    return np.stack([grey, grey, grey], axis=2)


def on_black(rgb, alpha):
    """The compositing formula in floating point: colour times share, nearest value."""
    return np.rint(rgb.astype(float) * alpha[:, :, None] / 255).astype(np.uint8)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, colour, rows, *extra, interlace=0):
    """A PNG file by hand: every row of `rows` is its packed bytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


def packed(rows, depth):
    """Rows of small numbers, packed into bytes from the high bits on, as PNG does."""
    lines = []
    for row in rows:
        bits = "".join(f"{value:0{depth}b}" for value in row)
        bits += "0" * (-len(bits) % 8)
        lines.append(bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)))
    return lines


def exif(orientation, order="<", kind=3, count=1):
    """EXIF data by hand: one directory with the orientation alone."""
    value = struct.pack(
        order + ("HH" if kind == 3 else "I"), *([orientation, 0] if kind == 3 else [orientation])
    )
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "IHHHI", 8, 1, 274, kind, count) + value + bytes(4)


def tiff(**options):
    buffer = io.BytesIO()
    pixels = options.pop("pixels")
    tifffile.imwrite(buffer, pixels, metadata=None, software=False, **options)
    return buffer.getvalue()


# Formats and modes ------------------------------------------------------------------------------------------

PALETTE = RNG.integers(0, 256, (16, 3), np.uint8)
INDEX = RNG.integers(0, 16, (H, W), np.uint8)
KEY = np.array([0, 128, 255, *[255] * 13], np.uint8)
BITS = RNG.integers(0, 2, (H, W), np.uint8)
QUARTER = RNG.integers(0, 4, (H, W), np.uint8)
SIXTEENTH = RNG.integers(0, 16, (H, W), np.uint8)


def paletted():
    picture = PillowImage.fromarray(INDEX, "L")
    picture.putpalette(PALETTE.tobytes())
    return picture


# Top, left, step down and step to the right of the seven passes (PNG specification, section 8.2).
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def adam7():
    """An interlaced PNG by hand, from the seven passes of the specification."""
    rows = [row.tobytes() for y, x, dy, dx in ADAM7 for row in RGB[y::dy, x::dx] if row.size]
    return png(W, H, 8, 2, rows, interlace=1)


def rle8_bmp():
    """A run-length coded BMP by hand: rows from the bottom up, each as runs of one."""
    data = b"".join(b"".join(bytes([1, v]) for v in row) + b"\0\0" for row in INDEX[::-1]) + b"\0\1"
    palette = b"".join(bytes([b, g, r, 0]) for r, g, b in PALETTE)
    header = struct.pack("<IiiHHIIiiII", 40, W, H, 1, 8, 1, len(data), 0, 0, 16, 16)
    return struct.pack("<2sIHHI", b"BM", 54 + 64 + len(data), 0, 0, 54 + 64) + header + palette + data


def top_down_bmp():
    rows = b"".join(row[:, ::-1].tobytes() + bytes(-3 * W % 4) for row in RGB)
    header = struct.pack("<IiiHHIIiiII", 40, W, -H, 1, 24, 0, len(rows), 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54 + len(rows), 0, 0, 54) + header + rows


def core_header_bmp():
    """The oldest header: 12 bytes with 16-bit sizes."""
    rows = b"".join(row[:, ::-1].tobytes() + bytes(-3 * W % 4) for row in RGB[::-1])
    return (
        struct.pack("<2sIHHI", b"BM", 26 + len(rows), 0, 0, 26)
        + struct.pack("<IHHHH", 12, W, H, 1, 24)
        + rows
    )


def webp(pixels, **options):
    return encoded(pillow(pixels), "WEBP", lossless=True, exact=True, **options)


RGBA = np.dstack([RGB, ALPHA])
DEEP_KEYED = np.where(np.equal(DEEP, DEEP[3, 3]), 0, DEEP >> 8).astype(np.uint8)
GREY_KEYED = np.where(np.equal(GREY, GREY[3, 3]), 0, GREY)
RGB_KEYED = np.where(np.equal(RGB, RGB[3, 3]).all(axis=2, keepdims=True), 0, RGB)
DEEP_ALPHA = np.dstack([DEEP_RGB, DEEP])
GREY_16_KEY = chunk(b"tRNS", struct.pack(">H", DEEP[3, 3]))
CMYK = RNG.integers(0, 256, (H, W, 4), np.uint8)
CMYK_RGB = np.rint(255 * (1 - CMYK[:, :, :3] / 255.0) * (1 - CMYK[:, :, 3:] / 255.0)).astype(np.uint8)

LOSSLESS = {
    "png RGB": (encoded(pillow(RGB), "PNG"), RGB),
    "png RGBA": (encoded(pillow(RGBA), "PNG"), on_black(RGB, ALPHA)),
    "png grey": (encoded(pillow(GREY), "PNG"), grey_rgb(GREY)),
    "png grey, alpha": (
        encoded(PillowImage.merge("LA", [pillow(GREY), pillow(ALPHA)]), "PNG"),
        on_black(grey_rgb(GREY), ALPHA),
    ),
    "png 1 bit": (png(W, H, 1, 0, packed(BITS, 1)), grey_rgb(BITS * 255)),
    "png 2 bits": (png(W, H, 2, 0, packed(QUARTER, 2)), grey_rgb(QUARTER * 85)),
    "png 4 bits": (png(W, H, 4, 0, packed(SIXTEENTH, 4)), grey_rgb(SIXTEENTH * 17)),
    "png 16-bit grey": (encoded(pillow(DEEP, "I;16"), "PNG"), grey_rgb((DEEP // 256).astype(np.uint8))),
    "png 16-bit RGB": (
        png(W, H, 16, 2, [row.astype(">u2").tobytes() for row in DEEP_RGB]),
        (DEEP_RGB // 256).astype(np.uint8),
    ),
    "png 16-bit RGBA": (
        png(W, H, 16, 6, [row.astype(">u2").tobytes() for row in DEEP_ALPHA]),
        on_black((DEEP_RGB // 256).astype(np.uint8), DEEP // 256),
    ),
    "png 16-bit grey, alpha": (
        png(W, H, 16, 4, [row.astype(">u2").tobytes() for row in np.dstack([DEEP_RGB[:, :, 0], DEEP])]),
        on_black(grey_rgb((DEEP_RGB[:, :, 0] // 256).astype(np.uint8)), DEEP // 256),
    ),
    "png palette": (encoded(paletted(), "PNG"), PALETTE[INDEX]),
    "png palette, one transparent": (
        encoded(paletted(), "PNG", transparency=5),
        np.where(INDEX[:, :, None] == 5, 0, PALETTE[INDEX]),
    ),
    "png palette, alphas": (
        encoded(paletted(), "PNG", transparency=KEY.tobytes()),
        on_black(PALETTE[INDEX], KEY[INDEX]),
    ),
    "png transparent colour": (
        encoded(pillow(RGB), "PNG", transparency=tuple(map(int, RGB[3, 3]))),
        RGB_KEYED,
    ),
    "png transparent grey": (
        encoded(pillow(GREY), "PNG", transparency=int(GREY[3, 3])),
        grey_rgb(GREY_KEYED),
    ),
    "png transparent 1 bit": (
        png(W, H, 1, 0, packed(BITS, 1), chunk(b"tRNS", b"\0\1")),
        np.zeros((H, W, 3), np.uint8),
    ),
    "png transparent 16-bit grey": (
        png(W, H, 16, 0, [row.astype(">u2").tobytes() for row in DEEP], GREY_16_KEY),
        grey_rgb(DEEP_KEYED),
    ),
    "png interlaced": (adam7(), RGB),
    "png animated": (encoded(pillow(RGB), "PNG", save_all=True, append_images=[pillow(RGB[::-1])]), RGB),
    "tiff RGB": (tiff(pixels=RGB, photometric="rgb"), RGB),
    "tiff big-endian, strips": (tiff(pixels=RGB, photometric="rgb", byteorder=">", rowsperstrip=4), RGB),
    "tiff tiles": (tiff(pixels=RGB, photometric="rgb", tile=(16, 16)), RGB),
    "tiff planes": (tiff(pixels=RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), RGB),
    "tiff 16-bit RGB": (tiff(pixels=DEEP_RGB, photometric="rgb"), (DEEP_RGB // 256).astype(np.uint8)),
    "tiff 16-bit grey": (tiff(pixels=DEEP), grey_rgb((DEEP // 256).astype(np.uint8))),
    "tiff 16-bit grey, big-endian": (
        tiff(pixels=DEEP, byteorder=">"),
        grey_rgb((DEEP // 256).astype(np.uint8)),
    ),
    "tiff 32-bit grey": (tiff(pixels=DEEP.astype(np.int32)), grey_rgb((DEEP // 256).astype(np.uint8))),
    "tiff grey": (tiff(pixels=GREY), grey_rgb(GREY)),
    "tiff white is zero": (tiff(pixels=255 - GREY, photometric="miniswhite"), grey_rgb(GREY)),
    "tiff 1 bit": (encoded(pillow(BITS.astype(bool)), "TIFF"), grey_rgb(BITS * 255)),
    "tiff palette": (encoded(paletted(), "TIFF"), PALETTE[INDEX]),
    "tiff alpha": (
        tiff(pixels=RGBA, photometric="rgb", extrasamples=["unassalpha"]),
        on_black(RGB, ALPHA),
    ),
    "tiff pages": (encoded(pillow(RGB), "TIFF", save_all=True, append_images=[pillow(RGB[::-1])]), RGB),
    **{
        f"tiff {how}": (encoded(pillow(RGB), "TIFF", compression=how), RGB)
        for how in ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
    },
    "bmp RGB": (encoded(pillow(RGB), "BMP"), RGB),
    "bmp grey": (encoded(pillow(GREY), "BMP"), grey_rgb(GREY)),
    "bmp palette": (encoded(paletted(), "BMP"), PALETTE[INDEX]),
    "bmp 1 bit": (encoded(pillow(BITS.astype(bool)), "BMP"), grey_rgb(BITS * 255)),
    "bmp alpha": (encoded(pillow(RGBA), "BMP"), None),
    "bmp top down": (top_down_bmp(), RGB),
    "bmp core header": (core_header_bmp(), RGB),
    "gif": (encoded(paletted(), "GIF"), PALETTE[INDEX]),
    "gif interlaced": (encoded(paletted(), "GIF", interlace=True), PALETTE[INDEX]),
    "gif transparent": (
        encoded(paletted(), "GIF", transparency=5, optimize=False),
        np.where(INDEX[:, :, None] == 5, 0, PALETTE[INDEX]),
    ),
    "gif animated": (
        encoded(paletted(), "GIF", save_all=True, append_images=[pillow(RGB)], comment="a comment"),
        PALETTE[INDEX],
    ),
    "webp RGB": (webp(RGB), RGB),
    "webp RGBA": (webp(RGBA), on_black(RGB, ALPHA)),
    "webp animated": (webp(RGB, save_all=True, append_images=[pillow(RGB[::-1])]), RGB),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_files_give_the_values_they_were_made_from(name):
    data, expected = LOSSLESS[name]
    if expected is None:  # Pillow writes the alpha of a BMP without naming it, so it does not count
        expected = RGB
    pixels = read_image(data)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    "name",
    ["png RGB", "png grey", "png palette", "png interlaced", "tiff tiff_lzw", "bmp palette", "webp RGB"],
)
def test_lossless_files_agree_with_opencv(name):
    data, _ = LOSSLESS[name]
    np.testing.assert_array_equal(
        read_image(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    )


def test_cmyk_tiff_follows_the_plain_formula():
    data = encoded(PillowImage.fromarray(CMYK, "CMYK"), "TIFF")
    assert np.abs(read_image(data).astype(int) - CMYK_RGB).max() <= 1  # integer rounding in two steps


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 95, "subsampling": 0},
        {"quality": 90, "progressive": True},
        {"quality": 90, "restart_marker_rows": 1},
        {"quality": 90, "optimize": True, "comment": "a comment"},
    ],
)
def test_jpeg_agrees_with_opencv_and_its_source(options):
    data = encoded(pillow(SMOOTH), "JPEG", **options)
    pixels = read_image(data)
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(pixels.astype(int) - other).max() <= 3  # two builds of libjpeg-turbo
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 3


def test_grey_jpeg():
    pixels = read_image(encoded(pillow(SMOOTH[:, :, 0].copy()), "JPEG", quality=95))
    assert (pixels[:, :, :1] == pixels).all()
    assert np.abs(pixels[:, :, 0].astype(int) - SMOOTH[:, :, 0]).max() <= 4


def test_cmyk_jpeg_is_read_as_adobe_writes_it():
    rgb = SMOOTH.astype(float)
    inks = np.dstack([255 - rgb, np.zeros(rgb.shape[:2])]).astype(np.uint8)
    data = encoded(PillowImage.fromarray(inks, "CMYK"), "JPEG", quality=98)
    assert b"Adobe" in data
    pixels = read_image(data)
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 3
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(pixels.astype(int) - other).max() <= 4


def test_rgb_jpeg_is_told_by_the_adobe_segment():
    """With components 1, 2 and 3 nothing else says that the values are RGB and not YCbCr."""
    data = bytearray(encoded(pillow(SMOOTH), "JPEG", quality=95, keep_rgb=True))
    frame, scan = data.index(b"\xff\xc0") + 10, data.index(b"\xff\xda") + 5
    for number in range(3):
        assert data[frame + 3 * number] == data[scan + 2 * number] == b"RGB"[number]
        data[frame + 3 * number] = data[scan + 2 * number] = number + 1
    assert b"Adobe" in data
    assert np.abs(read_image(bytes(data)).astype(int) - SMOOTH).mean() < 3


def test_lossy_webp_agrees_with_opencv_and_its_source():
    data = encoded(pillow(SMOOTH), "WEBP", quality=95)
    pixels = read_image(data)
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(pixels.astype(int) - other).max() <= 2
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 3


@pytest.mark.parametrize("compression", ["jpeg", "tiff_lzw"])
def test_ycbcr_tiff(compression):
    picture = pillow(SMOOTH).convert("YCbCr")
    pixels = read_image(encoded(picture, "TIFF", compression=compression))
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 4


def test_photographs_read_as_in_other_decoders():
    folder = Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / "images"
    photographs = sorted(folder.glob("*.jpg"))
    assert len(photographs) == 2
    for path in photographs:
        other = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        pixels = read_image(path)
        assert pixels.shape == other.shape
        assert np.abs(pixels.astype(int) - other).max() <= 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_tiny_pictures(kind, shape):
    assert read_image(encoded(pillow(np.full((*shape, 3), 255, np.uint8)), kind)).shape == (*shape, 3)


def test_reading_is_the_same_band_by_band():
    # 1000 rows of 3 kB are several bands of 256 kB with a shorter last one.
    pixels = np.random.default_rng(1).integers(0, 256, (1000, 1000, 3), np.uint8)
    np.testing.assert_array_equal(read_image(encoded(pillow(pixels), "BMP")), pixels)


def test_colours_under_full_transparency_do_not_come_back():
    hidden = np.dstack([RGB, np.zeros((H, W), np.uint8)])
    assert not read_image(encoded(pillow(hidden), "PNG")).any()


# Orientation ------------------------------------------------------------------------------------------------

# How a camera stores an upright picture under each orientation, by NumPy's own rotations and flips.
STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


def test_the_orientations_are_those_of_the_exif_table():
    """Where row 0 and column 0 of the stored picture belong in the upright one (EXIF 2.32, table 4.6.5.1)."""
    upright = np.zeros((3, 5, 3), np.uint8)
    upright[0, :, 0], upright[-1, :, 0], upright[:, 0, 1], upright[:, -1, 1] = 1, 2, 3, 4
    table = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }  # fmt: skip
    marks = {"top": (0, 1), "bottom": (0, 2), "left": (1, 3), "right": (1, 4)}
    for value, (row, column) in table.items():
        stored = STORED[value](upright)
        channel, mark = marks[row]
        assert (stored[0, :, channel] == mark).all(), value
        channel, mark = marks[column]
        assert (stored[:, 0, channel] == mark).all(), value


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_orientation_is_applied(kind, order, orientation):
    upright = SMOOTH if kind == "JPEG" else RGB
    stored = pillow(np.ascontiguousarray(STORED[orientation](upright)))
    if kind == "TIFF":
        data = tiff(
            pixels=np.asarray(stored),
            photometric="rgb",
            byteorder=order,
            extratags=[(274, 3, 1, orientation, True)],
        )
    else:
        options = (
            {"lossless": True}
            if kind == "WEBP"
            else {"quality": 98, "subsampling": 0}
            if kind == "JPEG"
            else {}
        )
        data = encoded(stored, kind, exif=b"Exif\0\0" + exif(orientation, order), **options)
    pixels = read_image(data)
    assert pixels.flags.c_contiguous
    if kind == "JPEG":
        assert pixels.shape == upright.shape
        assert np.abs(pixels.astype(int) - upright).mean() < 3
    else:
        np.testing.assert_array_equal(pixels, upright)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16"])
def test_orientation_is_applied_in_every_mode(mode, orientation):
    picture = pillow(DEEP) if mode == "I;16" else pillow(RGBA).convert(mode)
    upright = read_image(encoded(picture, "PNG"))
    turned = read_image(encoded(picture, "PNG", exif=exif(orientation)))
    np.testing.assert_array_equal(STORED[orientation](turned), upright)


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_as_a_long_number(order):
    data = encoded(pillow(RGB), "PNG", exif=exif(4, order, kind=4))
    np.testing.assert_array_equal(read_image(data), RGB[::-1])


@pytest.mark.parametrize(
    "block",
    [
        exif(0), exif(9), exif(65535), exif(6, kind=2), exif(6)[:9], exif(6)[:20],
        b"II*\0\xff\xff\xff\xff", b"XX*\0" + exif(6)[4:], b"", b"\0",
    ],
)  # fmt: skip
def test_damaged_exif_counts_as_none(block):
    clean = encoded(pillow(RGB), "PNG")
    data = clean[:33] + chunk(b"eXIf", block) + clean[33:]
    np.testing.assert_array_equal(read_image(data), RGB)


def test_the_first_exif_block_of_a_jpeg_counts():
    data = encoded(pillow(SMOOTH), "JPEG")
    blocks = [b"Exif\0\0" + exif(value) for value in (3, 6)]
    both = data[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(b) + 2) + b for b in blocks) + data[2:]
    np.testing.assert_array_equal(read_image(both), np.rot90(read_image(data), 2))


# Sources ----------------------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(pillow(RGB), "PNG"))
    return path


def test_paths(photo, tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to(photo)
    for source in (photo, str(photo), link):
        np.testing.assert_array_equal(read_image(source), RGB)


def test_a_name_does_not_decide_the_format(photo, tmp_path):
    other = photo.rename(tmp_path / "photo.jpg")
    np.testing.assert_array_equal(read_image(other), RGB)


class Trickle(io.RawIOBase):
    """A raw stream that gives seven bytes at a time and counts what was taken."""

    def __init__(self, data):
        self.data, self.taken = io.BytesIO(data), 0

    def read(self, size=-1):
        piece = self.data.read(min(size, 7))
        self.taken += len(piece)
        return piece


def test_file_objects_are_read_from_where_they_stand_and_left_open(photo):
    data = photo.read_bytes()
    behind = io.BytesIO(b"something before" + data)
    behind.seek(len(b"something before"))
    with photo.open("rb") as buffered, photo.open("rb", buffering=0) as raw:
        for source in (io.BytesIO(data), behind, buffered, raw, Trickle(data)):
            np.testing.assert_array_equal(read_image(source), RGB)
            assert not source.closed


def test_a_file_object_is_read_to_one_byte_beyond_the_limit():
    endless = Trickle(bytes(5000))
    with pytest.raises(ImageLimitError):
        read_image(endless, limits=Limits(max_bytes=1000))
    assert endless.taken == 1001


def test_a_text_file_object_is_a_bad_argument(photo):
    with photo.open(encoding="latin-1") as file, pytest.raises(ValueError, match="binary file object"):
        read_image(file)


class NotReady(io.RawIOBase):
    def read(self, size=-1):
        return None


class Broken(io.RawIOBase):
    def read(self, size=-1):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("source", [NotReady(), Broken()])
def test_a_file_object_without_data(source):
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        read_image(source)


@pytest.mark.parametrize("source", [None, 7, [[1, 2]], pillow(RGB)])
def test_other_sources_are_bad_arguments(source):
    with pytest.raises(ValueError, match="expected a path"):
        read_image(source)


def test_arrays_are_copied():
    rgb, grey = RGB.copy(), GREY.copy()
    for source, expected in ((rgb, RGB), (grey, grey_rgb(GREY)), (rgb[::-1, ::-1], RGB[::-1, ::-1])):
        pixels = read_image(source)
        np.testing.assert_array_equal(pixels, expected)
        assert not np.shares_memory(pixels, source)
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable
        pixels[:] = 0
    np.testing.assert_array_equal(rgb, RGB)
    np.testing.assert_array_equal(grey, GREY)


@pytest.mark.parametrize(
    "array",
    [
        RGB.astype(np.float32), np.full((H, W, 3), np.nan), RGB.astype(np.int16) - 300, RGB > 100,
        GREY.astype(float),
        np.zeros((H, W, 4), np.uint8), np.zeros((H, W, 1), np.uint8), np.zeros((3, H, W), np.uint8),
        np.zeros(9, np.uint8), np.zeros((1, H, W, 3), np.uint8), np.zeros((0, W, 3), np.uint8),
        np.zeros((H, 0), np.uint8), np.array(7, np.uint8), np.zeros((H, W, 3), object),
    ],
)  # fmt: skip
def test_other_arrays_are_bad_arguments(array):
    with pytest.raises(ValueError, match="expected"):
        read_image(array)


# Limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "max_side"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "9", None])
def test_limits_are_whole_numbers(name, value):
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})
    assert getattr(Limits(**{name: 1}), name) == 1


def test_bytes_at_the_limit(photo):
    size = photo.stat().st_size
    data = photo.read_bytes()
    for source in (lambda: data, lambda: photo, lambda: io.BytesIO(data)):
        for spare in (0, 1):
            np.testing.assert_array_equal(read_image(source(), limits=Limits(max_bytes=size + spare)), RGB)
        with pytest.raises(ImageLimitError, match=f"{size - 1}"):
            read_image(source(), limits=Limits(max_bytes=size - 1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "array"])
def test_pixels_and_sides_at_the_limit(kind):
    source = RGB if kind == "array" else encoded(pillow(RGB), kind)
    for spare in (0, 1):
        assert read_image(source, limits=Limits(max_pixels=H * W + spare, max_side=W + spare)).shape == (
            H,
            W,
            3,
        )
    with pytest.raises(ImageLimitError, match=f"{W} x {H} pixels.* {H * W - 1} "):
        read_image(source, limits=Limits(max_pixels=H * W - 1))
    with pytest.raises(ImageLimitError, match=f"{W} x {H} pixels.* {W - 1} "):
        read_image(source, limits=Limits(max_side=W - 1))
    upright = RGB.transpose(1, 0, 2) if kind == "array" else encoded(pillow(RGB).transpose(5), kind)
    with pytest.raises(ImageLimitError, match=f"{H} x {W} pixels.* {W - 1} "):
        read_image(upright, limits=Limits(max_side=W - 1))


def tiff_header(width, height):
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 9),
    ]  # fmt: skip
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


def bombs():
    """Small files by hand whose headers announce 20,000 x 20,000 pixels (WebP: its most, 16,384 x 16,384)."""
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 20000, 20000, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    scan = b"\xff\xda" + struct.pack(">HB", 12, 3) + b"\1\0\2\0\3\0\0\x3f\0"
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16383).to_bytes(3, "little") * 2
    lossless = b"VP8L" + struct.pack("<I", 5) + b"\x2f" + struct.pack("<I", 16383 | 16383 << 14) + b"\0"
    lossy = b"VP8 " + struct.pack("<I", 10) + b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383)
    pixels = zlib.compressobj(9)
    row = pixels.compress(bytes(20_000)) + pixels.flush()
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    disposed = (
        b"\x21\xf9\4\x08\0\0\0\0"  # "restore to background" makes Pillow reserve the frame when opening
    )
    gif = b"GIF89a" + struct.pack("<HHBBB", 20000, 20000, 0, 0, 0) + disposed
    return {
        "JPEG": b"\xff\xd8" + frame + scan + b"\0\xff\xd9",
        "PNG": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b""),
        "WebP": b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended,
        "WebP lossless": b"RIFF" + struct.pack("<I", 4 + len(lossless)) + b"WEBP" + lossless,
        "WebP lossy": b"RIFF" + struct.pack("<I", 4 + len(lossy)) + b"WEBP" + lossy,
        "BMP": struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 20000, -20000, 1, 24, *[0] * 6),
        "TIFF": tiff_header(20000, 20000),
        "GIF": gif + b"," + struct.pack("<HHHHB", 0, 0, 20000, 20000, 0) + b"\2\1\x44\0;",
    }


@pytest.mark.parametrize("name", bombs())
def test_a_huge_header_is_refused(name):
    # libwebp wants whole chunks before it tells a size: such a file is refused as damaged.
    with pytest.raises(UnreadableImageError if name == "WebP" else ImageLimitError):
        read_image(bombs()[name])


@pytest.mark.skipif(sys.platform != "linux", reason="left out: bounded address space needs Linux")
def test_a_huge_header_reserves_no_memory(tmp_path):
    """With 150 MB left, a decoder that reserves the pixels (268 MB or more) would fail in another way."""
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    script = textwrap.dedent("""
        import pathlib, re, resource, sys
        from ageveil.errors import ImageError
        from ageveil.image import read_image
        size = int(re.search(r"VmSize:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (size + 150_000_000,) * 2)
        for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
            try:
                read_image(path)
            except ImageError:
                print(path.name)
    """)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == sorted(bombs())


def test_pixels_that_inflate_without_end_stop_at_the_announced_size():
    """A PNG of 10 x 10 whose data inflate to 50 MB: only the announced rows are made."""
    rows = [bytes(30)] * 10 + [bytes(50_000_000)]
    assert read_image(png(10, 10, 8, 2, rows)).shape == (10, 10, 3)


def test_a_lower_limit_of_pillow_holds_without_a_warning(monkeypatch):
    data = encoded(pillow(RGB), "TIFF")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", H * W)
    assert read_image(data).shape == (H, W, 3)
    for limit in (H * W - 1, H * W // 3):  # Pillow warns above its limit, and fails above twice of it
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ImageLimitError):
            read_image(data)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(data).shape == (H, W, 3)


def test_scans_of_a_jpeg_are_counted():
    data = encoded(pillow(SMOOTH), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    scans = data.count(b"\xff\xda")
    assert read_image(data[:-2] + scan * (200 - scans) + b"\xff\xd9").shape == SMOOTH.shape
    with pytest.raises(ImageLimitError, match="more than 200 scans"):
        read_image(data[:-2] + scan * (201 - scans) + b"\xff\xd9")


# Bad input --------------------------------------------------------------------------------------------------


def refused(source, words, error=UnreadableImageError):
    """The error is one line that says these words; nothing from the file and no cause travels with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(error, match=words) as info:
            read_image(source)
    assert "\n" not in str(info.value)
    assert info.value.__cause__ is None
    assert info.value.__suppress_context__ or info.value.__context__ is None
    assert caught == []


def test_paths_that_are_no_pictures(tmp_path):
    text, empty = tmp_path / "text.jpg", tmp_path / "empty.png"
    text.write_text("the secret of the text file\n")
    empty.write_bytes(b"")
    refused(tmp_path / "none.jpg", r"none\.jpg' cannot be read: No such file")
    refused(tmp_path, "is a directory")
    refused(empty, r"empty\.png' is empty")
    refused(text, r"text\.jpg' is not a picture that can be read")
    refused(str(tmp_path / "a\nb.jpg"), r"a\\nb\.jpg' cannot be read")
    refused("a\0b.jpg", "not a file name")
    refused("x" * 5000, "cannot be read")
    refused(text / "below.jpg", "Not a directory")
    refused(b"", "the picture is empty")
    refused(io.BytesIO(), "the picture is empty")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="left out: named pipes need a POSIX system")
def test_paths_that_are_no_files(tmp_path):
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    refused(pipe, "not a regular file")  # and does not wait for a writer
    refused("/dev/zero", "not a regular file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        refused(tmp_path / "s", "not a regular file")


@pytest.fixture
def plain_user():
    """Ends the rights of root for a test: they reach through every permission."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def closed_folder():
    """A folder that anyone may enter, with a file that nobody may read, and where nobody may write."""
    folder = Path(tempfile.mkdtemp())
    (folder / "closed.png").write_bytes(encoded(pillow(RGB), "PNG"))
    (folder / "closed.png").chmod(0)
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="left out: file permissions need a POSIX system")
def test_a_file_that_may_not_be_read(closed_folder, plain_user):
    refused(closed_folder / "closed.png", r"closed\.png' cannot be read: Permission denied")


@pytest.mark.parametrize("kind", ["PPM", "PCX", "TGA", "ICO", "JPEG2000", "SGI", "AVIF", "PDF", "EPS"])
def test_other_formats_are_refused(kind):
    refused(encoded(pillow(SMOOTH), kind), "not a picture that can be read")


PNG, BMP = encoded(pillow(RGB), "PNG"), encoded(pillow(RGB), "BMP")
DEEP_ROWS = [row.astype(">u2").tobytes() for row in DEEP_RGB]
EMPTY_GIF = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        tiff(pixels=RGB.astype(np.float32), photometric="rgb"),
        tiff(pixels=GREY.astype(np.float32)),
        tiff(pixels=DEEP.astype(np.int32) + 1),
        tiff(pixels=DEEP.astype(np.int32) - 1),
        encoded(pillow(RGB).convert("LAB"), "TIFF"),
        encoded(pillow(RGB).convert("YCbCr"), "TIFF"),
        png(0, H, 8, 2, [b""]),
        png(W, H, 9, 2, [row.tobytes() * 2 for row in RGB]),
        png(W, H, 8, 5, [row.tobytes() for row in RGB]),
        PNG[:8] + PNG[33:],
        BMP[:14] + b"\x0d" + BMP[15:],
        BMP[:18] + struct.pack("<i", -W) + BMP[22:],
        EMPTY_GIF + b";",
        EMPTY_GIF + b";" + bytes(20),
        EMPTY_GIF + b"," + struct.pack("<HHHHB", 0, 0, 4, 0, 0) + b"\2\0;",
        EMPTY_GIF + b"," + struct.pack("<HHHHB", 1, 0, 4, 4, 0) + b"\2\0;",
        EMPTY_GIF + b"," + struct.pack("<HHHHB", 0, 1, 4, 4, 0) + b"\2\0;",
        b"RIFF" + struct.pack("<I", 4) + b"WEBP",
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8 " + struct.pack("<I", 10) + bytes(10),
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\x01\0\2\xff\xd9",
    ],
)
def test_unsupported_and_damaged_files_are_refused(data):
    refused(data, "the picture", ImageError)


def test_two_frame_headers_are_refused():
    """The sizes of one and the other decoder could differ: the limits would be checked on the wrong one."""
    data = encoded(pillow(SMOOTH), "JPEG")
    start = data.index(b"\xff\xc0")
    (length,) = struct.unpack_from(">H", data, start + 2)
    refused(
        data[:start] + data[start : start + 2 + length] * 2 + data[start + 2 + length :],
        "damaged|not a picture",
    )


def test_png_checksums_are_verified():
    data = bytearray(encoded(pillow(RGB), "PNG"))
    data[data.index(b"IDAT") + 30] ^= 1
    refused(bytes(data), "damaged")


TRUNCATED = {
    "JPEG": encoded(pillow(SMOOTH), "JPEG"),
    "JPEG progressive": encoded(pillow(SMOOTH), "JPEG", progressive=True),
    "PNG": encoded(pillow(RGB), "PNG"),
    "WebP": encoded(pillow(RGB), "WEBP", lossless=True),
    "WebP lossy": encoded(pillow(SMOOTH), "WEBP"),
    "WebP animated": encoded(pillow(RGB), "WEBP", save_all=True, append_images=[pillow(RGB[::-1])]),
    "BMP": encoded(pillow(RGB[:, :16].copy()), "BMP"),  # whole words a row: no padding at the end to miss
    "TIFF": encoded(pillow(RGB), "TIFF"),
    "TIFF deflated": encoded(pillow(RGB), "TIFF", compression="tiff_adobe_deflate"),
    "TIFF tiles": tiff(pixels=RGB, photometric="rgb", tile=(16, 16)),
}


def refused_or_whole(data, whole):
    """A file that lacks only what stands behind its pixels may be read; one that lacks pixels may not."""
    try:
        pixels = read_image(data)
    except UnreadableImageError:
        return
    np.testing.assert_array_equal(pixels, whole)


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncated_file_is_an_error_unless_every_pixel_is_there(name, capfd):
    data = TRUNCATED[name]
    read_image(data)
    for length in range(len(data)):
        refused_or_whole(data[:length], read_image(data))
    assert capfd.readouterr().err == ""


def test_a_truncated_gif_is_an_error_up_to_the_end_of_its_first_frame():
    data = encoded(paletted(), "GIF")
    assert data.endswith(b"\0;")
    for length in range(len(data)):
        refused_or_whole(data[:length], PALETTE[INDEX])
    with pytest.raises(UnreadableImageError):
        read_image(data[: len(data) // 2])


def png_bodies():
    """Interlaced and plain PNG files of several depths, as (file from filtered rows, filtered rows)."""
    for depth, colour, channels in ((8, 2, 3), (1, 0, 1), (4, 3, 1), (16, 6, 4)):
        palette = [chunk(b"PLTE", PALETTE.tobytes())] if colour == 3 else []
        for interlace, passes in ((0, [(0, 0, 1, 1)]), (1, ADAM7)):
            for width, height in ((W, H), (1, 1), (3, 2), (1, 9)):
                sizes = [(len(range(y, height, dy)), len(range(x, width, dx))) for y, x, dy, dx in passes]
                rows = [bytes(-(-n * depth * channels // 8)) for count, n in sizes for _ in range(count) if n]
                yield (
                    (
                        lambda r, a=(width, height, depth, colour), p=palette, i=interlace: png(
                            *a, r, *p, interlace=i
                        )
                    ),
                    rows,
                )


def test_pixel_data_that_end_early_are_an_error():
    gif = encoded(paletted(), "GIF")
    start = gif.index(b",\0\0\0\0") + 11
    refused(gif[:start] + bytes([20]) + gif[start + 1 : start + 21] + b"\0;", "do not decode")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP"])
def test_data_behind_the_end_are_ignored(name):
    np.testing.assert_array_equal(
        read_image(TRUNCATED[name] + b"a film of the same moment" * 9), read_image(TRUNCATED[name])
    )


def test_the_first_picture_of_a_multi_picture_jpeg():
    data = encoded(pillow(SMOOTH), "MPO", save_all=True, append_images=[pillow(SMOOTH[::-1].copy())])
    assert np.abs(read_image(data).astype(int) - SMOOTH).mean() < 4


def test_odd_metadata_cause_no_warning():
    """Each of these makes Pillow warn when it gets to see the metadata."""
    exif_cut = b"Exif\0\0" + b"II*\0" + struct.pack("<IHHHII", 8, 2, 0x010F, 2, 5000, 9000)
    jpeg = encoded(pillow(SMOOTH), "JPEG")
    segments = b"\xff\xe1" + struct.pack(">H", len(exif_cut) + 2) + exif_cut
    segments += b"\xff\xe2" + struct.pack(">H", 10) + b"MPF\0II*\0"
    plain = encoded(pillow(RGB), "PNG")
    frames = struct.pack(">II", 0, 0)
    page = tiff(
        pixels=RGB, photometric="rgb", extratags=[(305, 3, 2, (1, 2), True), (270, 3, 2, (1, 2), True)]
    )
    sources = {
        "jpeg": jpeg[:2] + segments + jpeg[20:],
        "apng": plain[:33] + chunk(b"acTL", frames) + plain[33:],
        "palette": LOSSLESS["png palette, alphas"][0],
        "tiff": page,
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in sources.values():
            with PillowImage.open(io.BytesIO(data)) as picture:
                picture.convert("RGB")
                picture.getexif()
    assert len(caught) >= 3  # the test would otherwise show nothing
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in sources.values():
            read_image(data)
    assert caught == []


def tiff_tag(data, tag):
    """Offset of a tag's entry in a little-endian TIFF file."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    return next(
        at
        for at in range(start + 2, start + 2 + 12 * count, 12)
        if struct.unpack_from("<H", data, at)[0] == tag
    )


# Writing ----------------------------------------------------------------------------------------------------


def test_the_lists_of_suffixes():
    assert set(WRITABLE) == {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
    assert set(LOSSLESS_SUFFIXES) == {".png", ".webp", ".bmp", ".tif", ".tiff"}


@pytest.mark.parametrize("suffix", [*sorted(LOSSLESS_SUFFIXES), ".PNG", ".TiF"])
def test_lossless_files_keep_every_value(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_image(path, RGB, lossless=True)
    np.testing.assert_array_equal(read_image(path), RGB)
    np.testing.assert_array_equal(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB), RGB)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", sorted(WRITABLE))
def test_files_read_back_in_other_decoders(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_image(str(path), SMOOTH)
    other = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(other.astype(int) - SMOOTH).mean() < 2


def test_jpeg_is_written_at_full_colour_resolution(tmp_path):
    write_image(tmp_path / "out.jpg", SMOOTH)
    data = (tmp_path / "out.jpg").read_bytes()
    start = data.index(b"\xff\xc0") + 10  # the components: id, sampling factors, table
    assert [data[start + 3 * i + 1] for i in range(3)] == [0x11] * 3


def test_pixels_of_any_memory_layout_are_written_and_left_alone(tmp_path):
    flipped = RGB[::-1, ::-1]
    frozen = RGB.copy()
    frozen.flags.writeable = False
    for pixels in (flipped, frozen, np.asfortranarray(RGB)):
        before = pixels.copy()
        write_image(tmp_path / "out.png", pixels)
        np.testing.assert_array_equal(read_image(tmp_path / "out.png"), before)
        np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("pixels", [GREY, RGB.astype(float), RGBA, np.zeros((0, 4, 3), np.uint8), None])
def test_writing_other_arrays_is_a_bad_argument(tmp_path, pixels):
    with pytest.raises(ValueError, match="expected"):
        write_image(tmp_path / "out.png", pixels)
    assert os.listdir(tmp_path) == []


SECRET = b"48.8584N-2.2945E"


@pytest.fixture
def tagged(tmp_path):
    """A JPEG with what a camera adds: EXIF with maker, date and position, colour profile, XMP, comment."""
    tags = PillowImage.Exif()
    tags[ExifTags.Base.Make] = SECRET.decode()
    tags[ExifTags.Base.DateTime] = "2018:01:02 03:04:05"
    position = tags.get_ifd(ExifTags.IFD.GPSInfo)
    position.update({1: "N", 2: (48.0, 51.0, 30.0), 3: "E", 4: (2.0, 17.0, 40.0), 29: "2018:01:02"})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + SECRET + b"</x:xmpmeta>"
    path = tmp_path / "tagged.jpg"
    pillow(SMOOTH).save(path, exif=tags, icc_profile=profile, xmp=xmp, comment=SECRET)
    assert path.read_bytes().count(SECRET) == 3
    return path


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("suffix", sorted(WRITABLE))
def test_no_metadata_survive(tagged, tmp_path, suffix, lossless):
    if lossless and suffix not in LOSSLESS_SUFFIXES:
        suffix = ".png"
    path = tmp_path / f"out{suffix}"
    write_image(path, read_image(tagged), lossless=lossless)
    data = path.read_bytes()
    for trace in (
        SECRET,
        b"Exif",
        b"EXIF",
        b"ICC",
        b"iCCP",
        b"http",
        b"adobe",
        b"2018:",
        b"tEXt",
        b"tIME",
        b"Pillow",
    ):
        assert trace not in data
    with PillowImage.open(path) as picture:
        picture.load()
        technical = {
            "jfif",
            "jfif_version",
            "jfif_unit",
            "jfif_density",
            "dpi",
            "compression",
            "loop",
            "background",
        }
        assert set(picture.info) <= technical | {"timestamp", "duration", "resolution"}
        assert picture.info.get("timestamp", 0) == 0
        layout = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 339}  # of a TIFF file
        assert set(picture.getexif()) <= (layout if suffix.startswith(".tif") else set())
        assert not picture.getexif().get_ifd(ExifTags.IFD.GPSInfo)


def test_exiftool_finds_no_metadata(tagged, tmp_path):
    program = shutil.which("exiftool")
    if program is None:
        pytest.skip("left out: exiftool is not installed")
    groups = [
        f"-{name}:all" for name in ("EXIF", "GPS", "XMP", "IPTC", "ICC_Profile", "Photoshop", "MakerNotes")
    ]
    command = [program, "-s", "-G1", *groups, "-PNG:Comment", "-PNG:ModifyDate", "-File:Comment"]

    def found(path):
        return subprocess.run([*command, str(path)], capture_output=True, text=True, check=True).stdout

    assert "GPSLatitude" in found(tagged)
    # A TIFF file describes the layout of its pixels with the tags that EXIF uses too.
    layout = "Image|BitsPer|Compression|Photometric|Strip|SamplesPer|RowsPer|Planar|Predictor|SampleFormat"
    for suffix in WRITABLE:
        path = tmp_path / f"out{suffix}"
        write_image(path, read_image(tagged))
        lines = found(path).splitlines()
        assert [line for line in lines if not re.match(rf"\[IFD0\] +({layout})", line)] == []


@pytest.mark.parametrize("suffix", sorted(WRITABLE))
def test_the_same_picture_gives_the_same_file(tmp_path, suffix):
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}{suffix}", SMOOTH)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "out.png"
    write_image(path, RGB)
    before = path.read_bytes()
    with path.open("rb") as reader:
        write_image(path, RGB[::-1])
        assert reader.read() == before  # who has it open keeps the old picture
    np.testing.assert_array_equal(read_image(path), RGB[::-1])
    assert os.listdir(tmp_path) == ["out.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="left out: file modes need a POSIX system")
def test_file_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_image(tmp_path / "out.png", RGB)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.png").stat().st_mode) == 0o640


def unwritable(path, words, *, pixels=RGB, lossless=False):
    """Writing ends in one line that says these words, and changes nothing."""
    for attempt in (check_output, lambda path, **options: write_image(path, pixels, **options)):
        with pytest.raises(OutputError, match=words) as info:
            attempt(path, lossless=lossless)
        assert "\n" not in str(info.value)


def test_outputs_that_cannot_be(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for name in ("out", "out.", "out.gif", "out.png.txt", ".png", ""):
        unwritable(tmp_path / name, r"expected a name in \.bmp, \.jpeg, \.jpg, \.png, \.tif, \.tiff, \.webp")
    for name in ("out.jpg", "out.JPEG"):
        unwritable(
            tmp_path / name, r"lossless picture .* expected a name in \.bmp, \.png, \.tif", lossless=True
        )
    unwritable(tmp_path / "none" / "out.png", "its directory does not exist")
    unwritable(tmp_path / "folder.png", "a directory or a device")
    unwritable(tmp_path / "folder.png" / "a\nb" / "out.png", r"a\\nb")
    assert os.listdir(tmp_path) == ["folder.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="left out: named pipes need a POSIX system")
def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    unwritable(tmp_path / "pipe.png", "a directory or a device")
    assert (tmp_path / "pipe.png").is_fifo()


def test_check_output_gives_the_path_and_touches_nothing(tmp_path):
    assert check_output(str(tmp_path / "out.JPG")) == tmp_path / "out.JPG"
    assert check_output(tmp_path / "out.webp", lossless=True) == tmp_path / "out.webp"
    assert check_output("out.png") == Path("out.png")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 300 + ".png"])
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(OutputError, match="cannot write"):
        write_image(tmp_path / name, RGB)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 16384), (".jpg", 65536)])
def test_a_picture_that_the_format_cannot_hold(tmp_path, suffix, side):
    with pytest.raises(OutputError, match=f"does not take {side} x 1 pixels"):
        write_image(tmp_path / f"out{suffix}", np.zeros((1, side, 3), np.uint8))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="left out: file permissions need a POSIX system")
def test_a_folder_that_may_not_be_written(closed_folder, plain_user):
    with pytest.raises(OutputError, match=r"out\.png': Permission denied"):
        write_image(closed_folder / "out.png", RGB)
    assert os.listdir(closed_folder) == ["closed.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="left out: a bounded file size needs Linux")
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    """A limit on file sizes stands for the full disk: the write stops half way, by the system's own error."""
    path = tmp_path / "out.bmp"
    write_image(path, RGB)
    before = path.read_bytes()
    script = textwrap.dedent("""
        import resource, sys
        import numpy as np
        from ageveil.errors import OutputError
        from ageveil.image import write_image
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            write_image(sys.argv[1], np.zeros((300, 300, 3), np.uint8))
        except OutputError as error:
            print(error)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"cannot write {str(path)!r}: File too large\n"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["out.bmp"]
