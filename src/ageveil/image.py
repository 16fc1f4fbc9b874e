"""A path, bytes, a file object or an array becomes an RGB picture; a picture becomes a file.

A picture file is hostile until shown otherwise, so reading goes through three gates:

1. *Bytes.* Only a regular file is opened, and no more than `Limits.max_bytes` is ever read.
2. *Container.* One strict walk over the file's own structure finds width, height and orientation and copies
   what the pixels need: metadata, thumbnails, colour profiles, further frames and trailing data stay behind.
   The limits are checked on these numbers, before anything is decoded.
3. *Pixels.* Pillow decodes the copy, with the one decoder that belongs to the format.

The walk also keeps reading free of side effects: Pillow warns about size and metadata through the
process-wide `warnings` filters, which no thread can silence for itself alone. Here it never has a reason to.

What a picture turns into:

- *Orientation*: the EXIF orientation (JPEG, PNG, WebP) or TIFF's own is applied; damaged EXIF counts as none.
- *Transparency*: composited on black, the value that pixels outside a picture have everywhere in Ageveil;
  colours that the alpha channel hides do not come back.
- *16 bits*: value >> 8, as libpng strips to 8 bits. 32-bit integers are read as 16-bit values and refused
  beyond 65535.
- *CMYK*: by the plain formula (1 - C)(1 - K), without a profile; in JPEG the values are inverted, as Adobe
  writes them.
- *Colour profiles*: ignored. The values are taken as sRGB.
- *Animation, several pages*: the first one counts.

JPEG has no checksum: a file that lacks its end is refused, but flipped bits inside are not always noticed.
For damaged compressed TIFF, libtiff prints a line of its own on standard error beside the error raised here.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import secrets
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import Image as PillowImage

from ageveil.errors import ImageLimitError, OutputError, UnreadableImageError
from ageveil.types import Image, check_image

Source: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | NDArray[Any]
"""A path, the bytes of a picture file, a binary file object, or an array."""

_CHUNK = 1 << 20
"""Bytes asked of a file object at once: a large limit must not reserve its memory up front."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picture may cost at most.

    Attributes:
        max_bytes: Length of the encoded file, in bytes; it does not apply to arrays.
        max_pixels: Width times height. Pillow's own `Image.MAX_IMAGE_PIXELS` holds as well where it is lower.
        max_side: The longer side, in pixels.

    Raises:
        ValueError: A limit is not a whole number of 1 or more.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_side: int = 12_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is a whole number of 1 or more, got {value!r}")


DEFAULT_LIMITS = Limits()


# Reading: the way in ----------------------------------------------------------------------------------------


def read_image(source: Source, *, limits: Limits = DEFAULT_LIMITS) -> Image:
    """Read a picture.

    >>> read_image(np.zeros((2, 3), np.uint8)).shape
    (2, 3, 3)

    Args:
        source: A path; the bytes of a JPEG, PNG, WebP, BMP, TIFF or GIF file; a binary file object, which is
            read from where it stands to at most one byte beyond the limit, and left open; or an array of
            shape (H, W, 3) or (H, W), uint8, taken as RGB or grey.
        limits: Bounds that are checked before decoding.

    Returns:
        A new, writable, C-contiguous array of shape (H, W, 3), uint8, RGB.

    Raises:
        UnreadableImageError: The source is missing, no regular file, empty, cut short, damaged, or not a
            picture of these formats and of a colour mode named above.
        ImageLimitError: It has more bytes or pixels, or a longer side, than allowed.
        ValueError: `source` is none of these, or an array of another shape or type.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if isinstance(source, bytes):
        return _decode(source, "the picture", limits)
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        return _decode(_read_path(path, limits), repr(path), limits)
    if hasattr(source, "read"):
        return _decode(_read_stream(source, limits, "the picture"), "the picture", limits)
    raise ValueError(f"expected a path, bytes, a binary file object or an array, got {type(source).__name__}")


def _from_array(pixels: NDArray[Any], limits: Limits) -> Image:
    if pixels.dtype != np.uint8:
        raise ValueError(f"expected uint8 values in [0, 255], got {pixels.dtype}")
    if pixels.ndim == 2:  # grey: a view, so that nothing is reserved before the size is known
        pixels = np.broadcast_to(np.asarray(pixels)[:, :, np.newaxis], (*pixels.shape, 3))
    check_image(pixels)
    _check_size(pixels.shape[1], pixels.shape[0], "the array", limits)
    return np.array(pixels, order="C")


def _read_path(path: str, limits: Limits) -> bytes:
    """Read a regular file; anything that could block or act when opened is refused unopened."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise UnreadableImageError(f"{path!r} is {kind}, expected a picture file")
        # The name may have changed hands since: without O_NONBLOCK a pipe would hang here.
        with open(path, "rb", opener=_open_without_blocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImageError(f"{path!r} is not a regular file, expected a picture file")
            if status.st_size > limits.max_bytes:
                raise ImageLimitError(
                    f"{path!r} has {status.st_size} bytes, at most {limits.max_bytes} are allowed"
                )
            return _read_stream(file, limits, repr(path))
    except OSError as error:
        raise UnreadableImageError(f"{path!r} cannot be read: {error.strerror or 'input error'}") from None
    except ValueError:  # a zero byte: no file can have this name
        raise UnreadableImageError(f"{path!r} cannot be read: not a file name") from None


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_stream(file: BinaryIO, limits: Limits, name: str) -> bytes:
    """Read up to one byte more than allowed: enough to know that it is too much."""
    pieces: list[bytes] = []
    missing = limits.max_bytes + 1
    while missing > 0:
        try:
            piece = file.read(min(missing, _CHUNK))
        except OSError as error:
            raise UnreadableImageError(f"{name} cannot be read: {error.strerror or 'input error'}") from None
        if piece is None:
            raise UnreadableImageError(f"{name} cannot be read: its file object has no data ready")
        if not isinstance(piece, bytes):
            raise ValueError(f"expected a binary file object, its read() gave {type(piece).__name__}")
        if not piece:
            break
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _check_size(width: int, height: int, name: str, limits: Limits) -> None:
    size = f"{name} is {width} x {height} pixels"
    if max(width, height) > limits.max_side:
        raise ImageLimitError(f"{size}, a side of at most {limits.max_side} is allowed")
    if width * height > limits.max_pixels:
        raise ImageLimitError(f"{size}, at most {limits.max_pixels} in all are allowed")


def _decode(data: bytes, name: str, limits: Limits) -> Image:
    """Take a file's bytes through the container and the pixel gate."""
    if not data:
        raise UnreadableImageError(f"{name} is empty")
    if len(data) > limits.max_bytes:
        raise ImageLimitError(f"{name} has more than the {limits.max_bytes} bytes that are allowed")
    known = next((key for key, entry in _FORMATS.items() if entry.magic.match(data)), None)
    if known is None:
        raise UnreadableImageError(f"{name} is not a picture of a known format: {', '.join(_FORMATS)}")
    try:
        container = _FORMATS[known].strip(data)
        _check_size(container.width, container.height, name, _with_pillow_limit(limits))
        _FORMATS[known].verify(container)
        return _decode_pixels(container, _FORMATS[known].decoder)
    except _UnusableError as error:
        raise UnreadableImageError(f"{name} is not a usable {known} picture: {error}") from None
    except (struct.error, IndexError):  # a walk stepped over the end of the data
        raise UnreadableImageError(f"{name} is not a usable {known} picture: it is cut short") from None


def _with_pillow_limit(limits: Limits) -> Limits:
    """Respect a lower limit of the host's: beyond it Pillow would warn or fail while decoding."""
    pillow = PillowImage.MAX_IMAGE_PIXELS
    if pillow is None or pillow >= limits.max_pixels:
        return limits
    return Limits(limits.max_bytes, max(1, int(pillow)), limits.max_side)


# Reading: containers ----------------------------------------------------------------------------------------


class _UnusableError(Exception):
    """Why a container is refused, in words that hold nothing of its content."""


_CUT_SHORT = "it is cut short"


@dataclass(frozen=True, slots=True)
class _Container:
    """What the walk over a file found: size as stored, EXIF orientation 1..8, and what the decoder gets."""

    width: int
    height: int
    orientation: int
    clean: bytes

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise _UnusableError("it has no pixels")


_MAX_PARTS = 100_000


def _parts() -> Iterator[None]:
    """Count the steps of a walk: a file made of millions of tiny parts would keep it busy for minutes."""
    yield from itertools.repeat(None, _MAX_PARTS)
    raise _UnusableError(f"it has more than {_MAX_PARTS} parts")


_EXIF_SHORT, _EXIF_LONG = 3, 4
_ORIENTATION = 274


def _read_ifd(data: bytes) -> tuple[str, int, list[tuple[int, int, int, bytes]]]:
    """Read the first directory of TIFF data.

    Returns:
        The byte order for `struct`, the offset of the directory, and its (tag, type, count, value bytes).

    Raises:
        _UnusableError: It is no classic TIFF data.
        struct.error: It is cut short.

    Source:
        TIFF 6.0 (Adobe, 1992), section 2.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise _UnusableError("its header is damaged")
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    return order, start, [struct.unpack_from(order + "HHI4s", data, start + 2 + 12 * i) for i in range(count)]


def _orientation(exif: bytes) -> int:
    """The orientation in EXIF data, 1..8; 1 where it is missing or the data are damaged."""
    try:
        order, _, entries = _read_ifd(exif.removeprefix(b"Exif\0\0"))
    except (struct.error, _UnusableError):
        return 1
    for tag, kind, count, value in entries:
        if tag == _ORIENTATION and count == 1 and kind in {_EXIF_SHORT, _EXIF_LONG}:
            (number,) = struct.unpack_from(order + ("H" if kind == _EXIF_SHORT else "I"), value)
            return number if 1 <= number <= 8 else 1
    return 1


# A marker that ends or interrupts data: not a stuffed zero, a fill byte or a restart marker.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_JPEG_END, _JPEG_SCAN, _JPEG_EXIF = 0xD9, 0xDA, 0xE1
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})
_JPEG_COLOUR = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}  # they tell the decoder which colours it meets
_JPEG_IGNORED = frozenset(range(0xE0, 0xF0)) | {0xFE}
_JPEG_MAX_SCANS = 100
"""Many empty scans cost hours of decoding. libtiff draws the line here; encoders make about ten."""


def _strip_jpeg(data: bytes) -> _Container:
    """Walk a JPEG file to its end marker (ITU-T T.81, annex B); keep what the pixels need."""
    clean = [data[:2]]
    size: tuple[int, int] | None = None
    orientation: int | None = None
    position, scans = 2, 0
    for _ in _parts():
        start, marker = _jpeg_marker(data, position)
        if marker == _JPEG_END:
            break
        body, position = _jpeg_segment(data, start)
        kept = marker in _JPEG_TABLES or (marker in _JPEG_COLOUR and body.startswith(_JPEG_COLOUR[marker]))
        if marker in _JPEG_FRAMES and size is None:
            height, width = struct.unpack_from(">HH", body, 1)
            size, kept = (width, height), True
        elif marker == _JPEG_SCAN and size is not None:
            position, _ = _jpeg_marker(data, position)  # the compressed data follow the segment
            scans, kept = scans + 1, True
        elif marker == _JPEG_EXIF and orientation is None and body.startswith(b"Exif\0\0"):
            orientation = _orientation(body)
        elif not kept and marker not in _JPEG_IGNORED:
            raise _UnusableError("its segments are damaged")
        if kept:
            clean.append(data[start:position])
    if size is None or not 1 <= scans <= _JPEG_MAX_SCANS:
        raise _UnusableError(f"it has {scans} scans, expected 1 to {_JPEG_MAX_SCANS}")
    return _Container(*size, orientation or 1, b"".join([*clean, b"\xff\xd9"]))


def _jpeg_marker(data: bytes, position: int) -> tuple[int, int]:
    """Where the next marker starts, and its code."""
    match = _JPEG_MARKER.search(data, position)
    if match is None:
        raise _UnusableError(_CUT_SHORT)
    return match.start(), match[1][0]


def _jpeg_segment(data: bytes, start: int) -> tuple[bytes, int]:
    """The body of the segment whose marker starts there, and where it ends."""
    (length,) = struct.unpack_from(">H", data, start + 2)  # it counts itself
    end = start + 2 + length
    if end > len(data):
        raise _UnusableError(_CUT_SHORT)
    return data[start + 4 : end], end


_PNG_PIECE = 1 << 14
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def _strip_png(data: bytes) -> _Container:
    """Walk a PNG file to its end chunk (W3C PNG, third edition); keep the pixels' chunks if checksums fit."""
    clean = [data[:8]]
    position, orientation = 8, 1
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    for _ in _parts():
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise _UnusableError(_CUT_SHORT)
        if (kind == b"IHDR") != (position == 8):
            raise _UnusableError("its header is damaged")
        if kind in _PNG_KEPT:
            chunk = data[position:end]
            _check_png_checksum(chunk)
            clean.append(_scaled_colour_key(chunk, depth, colour) if kind == b"tRNS" else chunk)
        elif kind == b"eXIf":
            orientation = _orientation(data[position + 8 : end - 4])
        elif not kind[0] & 0x20:  # upper case: a decoder must know it
            raise _UnusableError("it has an unknown critical chunk")
        position = end
        if kind == b"IEND":
            break
    return _Container(width, height, orientation, b"".join(clean))


_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_WHOLE = ((0, 0, 1, 1),)
_PNG_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
"""Left, top, step to the right and step down of what follows one another in an interlaced file."""


def _verify_png(container: _Container) -> None:
    """Refuse a PNG file whose compressed data end before its last row: Pillow would leave the rest black."""
    missing = _png_bytes(container.clean)
    inflater = zlib.decompressobj()
    position = 8
    while missing > 0 and position < len(container.clean):
        length, kind = struct.unpack_from(">I4s", container.clean, position)
        body, position = position + 8, position + 12 + length
        if kind != b"IDAT":
            continue
        # In small pieces: each can grow by a factor of a thousand.
        for start in range(body, body + length, _PNG_PIECE):
            piece = container.clean[start : min(start + _PNG_PIECE, body + length)]
            try:
                missing -= len(inflater.decompress(piece))
            except zlib.error:
                raise _UnusableError("its pixels do not decode") from None
    if missing > 0:
        raise _UnusableError(_CUT_SHORT)


def _png_bytes(data: bytes) -> int:
    """How many bytes the rows of a PNG file have, each with the byte in front that names its filter."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if colour not in _PNG_CHANNELS:
        raise _UnusableError(f"colour type {colour} is not supported")
    total = 0
    for left, top, right, down in _PNG_PASSES if interlaced else _PNG_WHOLE:
        columns, rows = len(range(left, width, right)), len(range(top, height, down))
        if columns:
            total += rows * (1 + (columns * depth * _PNG_CHANNELS[colour] + 7) // 8)
    return total


def _check_png_checksum(chunk: bytes) -> None:
    if zlib.crc32(memoryview(chunk)[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        raise _UnusableError("a checksum does not fit")


def _scaled_colour_key(chunk: bytes, depth: int, colour: int) -> bytes:
    """A tRNS chunk that suits the pixels as Pillow unpacks them.

    Pillow widens 2- and 4-bit grey to 8 bits but not the transparent value beside it, and narrows 16-bit RGB
    so that the key's low bytes have no counterpart left.
    """
    if colour == 2 and depth == 16:
        raise _UnusableError("16-bit colour with a transparent colour is not supported")
    if colour != 0 or depth not in {2, 4}:
        return chunk
    (grey,) = struct.unpack_from(">H", chunk, 8)
    body = b"tRNS" + struct.pack(">H", (grey & (2**depth - 1)) * 255 // (2**depth - 1))
    return struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))


def _strip_gif(data: bytes) -> _Container:
    """Walk a GIF file to the end of its first frame (GIF89a, 1990); make it a file of that frame alone."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = start = 13 + _gif_palette_bytes(flags)
    control = b""
    for _ in _parts():
        if data[position] != 0x21:  # not an extension
            break
        end = _gif_blocks_end(data, position + 2)
        if data[position + 1 : position + 3] == b"\xf9\x04" and data[position + 3] & 1:
            # Only transparency counts for a single frame; how to dispose of it does not.
            control = b"\x21\xf9\x04\x01\0\0" + data[position + 6 : position + 7] + b"\0"
        position = end
    left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, position + 1)
    if data[position] != 0x2C or 0 in (frame_width, frame_height):
        raise _UnusableError("it holds no picture")
    if left + frame_width > width or top + frame_height > height:
        raise _UnusableError("its first frame leaves the picture")
    end = _gif_blocks_end(data, position + 10 + _gif_palette_bytes(flags) + 1)
    return _Container(width, height, 1, data[:start] + control + data[position:end] + b";")


def _gif_palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_blocks_end(data: bytes, position: int) -> int:
    """Where a run of length-prefixed blocks ends that starts there; IndexError where the data end first."""
    while length := data[position]:
        position += 1 + length
    return position + 1


_BMP_COMPRESSIONS = frozenset({0, 3})  # none, and none with its own bit masks
_BMP_HEADERS = frozenset({40, 52, 56, 64, 108, 124})


def _strip_bmp(data: bytes) -> _Container:
    """Read the size from a BMP header; the format holds no metadata that a decoder would look at.

    Run-length coding is refused: Pillow undoes it byte by byte in Python, which large pictures would abuse.
    """
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height, compression = *struct.unpack_from("<HH", data, 18), 0
    elif header in _BMP_HEADERS:  # a negative height: rows run downwards
        width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise _UnusableError("its header is damaged")
    if compression not in _BMP_COMPRESSIONS:
        raise _UnusableError(f"compression {compression} is not supported")
    return _Container(width, abs(height), 1, data)


def _strip_webp(data: bytes) -> _Container:
    """Walk the chunks of a WebP file (RFC 9649); libwebp itself skips what the pixels do not need."""
    (length,) = struct.unpack_from("<I", data, 4)
    end = 8 + length
    if end > len(data):
        raise _UnusableError(_CUT_SHORT)
    size: tuple[int, int] | None = None
    position, orientation = 12, 1
    for _ in _parts():
        if position + 8 > end:
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        position += 8
        if position + length > end:
            raise _UnusableError(_CUT_SHORT)
        size = size or _webp_size(kind, data[position : position + min(length, 10)])
        if kind == b"EXIF":
            orientation = _orientation(data[position : position + length])
        position += length + length % 2
    if size is None:
        raise _UnusableError("it holds no picture")
    return _Container(*size, orientation, data[:end])


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int]:
    """Width and height from the first chunk: an extended header, or a lossless or lossy bit stream."""
    if kind == b"VP8X":
        width, height = (
            struct.unpack_from("<I", body, 4)[0] & 0xFFFFFF,
            struct.unpack_from("<I", body, 6)[0] >> 8,
        )
        return width + 1, height + 1
    if kind == b"VP8L" and body[:1] == b"\x2f":
        (bits,) = struct.unpack_from("<I", body, 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    raise _UnusableError("its header is damaged")


class _Tag:
    """The TIFF tags that the checks below read."""

    WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC = 256, 257, 259, 262
    STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 277, 278, 279
    PLANAR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 284, 322, 323, 324, 325


# All the tags that a decoder gets; those of `_TIFF_LISTS` may hold several values.
_TIFF_SCALARS = frozenset({256, 257, 259, 262, 266, 277, 278, 284, 317, 322, 323, 531})
_TIFF_LISTS = frozenset({258, 273, 279, 320, 324, 325, 338, 339, 347, 530})
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 7: "B"}
_TIFF_MAX_VALUES = 1 << 20
_TIFF_COMPRESSIONS = frozenset({1, 5, 7, 8, 32773, 32946})  # none, LZW, JPEG, deflate, PackBits, old deflate
_TIFF_COLOURS = frozenset({0, 1, 2, 3, 5, 6})  # grey (two ways), RGB, palette, CMYK, YCbCr


def _strip_tiff(data: bytes) -> _Container:
    """Check the first directory of a TIFF file and rewrite it in place with the tags that pixels need.

    Pillow and libtiff each read the directory for themselves; after this there is one way left to read it.
    """
    order, start, entries = _read_ifd(data)
    orientation = _orientation(data)
    kept = sorted(entry for entry in entries if entry[0] in _TIFF_SCALARS | _TIFF_LISTS)
    tags = {tag: _tiff_values(data, order, kind, count, value) for tag, kind, count, value in kept}
    if len(tags) < len(kept) or any(len(tags[tag]) != 1 for tag in _TIFF_SCALARS & tags.keys()):
        raise _UnusableError("its directory is damaged")
    compression, photometric = tags.get(_Tag.COMPRESSION, (1,))[0], tags.get(_Tag.PHOTOMETRIC, (0,))[0]
    # Pillow takes uncompressed YCbCr for four bytes a pixel, and shows something else.
    if compression not in _TIFF_COMPRESSIONS or (photometric, compression) == (6, 1):
        raise _UnusableError(f"compression {compression} is not supported")
    if photometric not in _TIFF_COLOURS:
        raise _UnusableError(f"photometric interpretation {photometric} is not supported")
    _check_tiff_pieces(tags, len(data))
    clean = bytearray(data)
    struct.pack_into(order + "H", clean, start, len(kept))
    for index, entry in enumerate(kept):
        struct.pack_into(order + "HHI4s", clean, start + 2 + 12 * index, *entry)
    struct.pack_into(order + "I", clean, start + 2 + 12 * len(kept), 0)  # no further pages
    return _Container(tags[_Tag.WIDTH][0], tags[_Tag.HEIGHT][0], orientation, bytes(clean))


def _tiff_values(data: bytes, order: str, kind: int, count: int, value: bytes) -> tuple[int, ...]:
    """The whole numbers of a directory entry: up to 4 bytes in itself, else elsewhere."""
    code = _TIFF_TYPES.get(kind)
    if code is None or not 0 < count <= _TIFF_MAX_VALUES:
        raise _UnusableError("its directory is damaged")
    layout = f"{order}{count}{code}"
    if struct.calcsize(layout) <= 4:
        return struct.unpack_from(layout, value)
    return struct.unpack_from(layout, data, *struct.unpack(order + "I", value))


def _check_tiff_pieces(tags: Mapping[int, tuple[int, ...]], length: int) -> None:
    """Refuse a file whose strips or tiles are not as many as its size asks for, or reach beyond its end."""
    tiled = _Tag.TILE_WIDTH in tags
    wanted = (
        (_Tag.TILE_HEIGHT, _Tag.TILE_OFFSETS, _Tag.TILE_BYTES)
        if tiled
        else (_Tag.STRIP_OFFSETS, _Tag.STRIP_BYTES)
    )
    if not {_Tag.WIDTH, _Tag.HEIGHT, *wanted} <= tags.keys():
        raise _UnusableError("its directory is damaged")
    width, height = tags[_Tag.WIDTH][0], tags[_Tag.HEIGHT][0]
    across = tags[_Tag.TILE_WIDTH][0] if tiled else width
    down = tags[_Tag.TILE_HEIGHT][0] if tiled else min(tags.get(_Tag.ROWS_PER_STRIP, (height,))[0], height)
    samples = tags.get(_Tag.SAMPLES, (1,))[0]
    # A tile may stand over the picture's edge, but one far larger than the picture only costs memory.
    if not (0 < across <= width + 1024 and 0 < down <= height + 1024 and 0 < samples <= 6):
        raise _UnusableError("its directory is damaged")
    pieces = -(-width // across) * -(-height // down) * (samples if tags.get(_Tag.PLANAR) == (2,) else 1)
    offsets, sizes = tags[wanted[-2]], tags[wanted[-1]]
    if not len(offsets) == len(sizes) == pieces:
        raise _UnusableError("its directory is damaged")
    if any(offset + size > length for offset, size in zip(offsets, sizes, strict=True)):
        raise _UnusableError(_CUT_SHORT)


def _accept(container: _Container) -> None:
    """For formats whose decoder notices by itself when data are missing."""


@dataclass(frozen=True, slots=True)
class _Format:
    """How a format starts, and what walks its container, decodes its pixels and verifies them before."""

    magic: re.Pattern[bytes]
    strip: Callable[[bytes], _Container]
    decoder: type[ImageFile.ImageFile]
    verify: Callable[[_Container], None] = _accept


_FORMATS: Mapping[str, _Format] = MappingProxyType(
    {
        "JPEG": _Format(re.compile(rb"\xff\xd8\xff"), _strip_jpeg, JpegImagePlugin.JpegImageFile),
        "PNG": _Format(
            re.compile(rb"\x89PNG\r\n\x1a\n"), _strip_png, PngImagePlugin.PngImageFile, _verify_png
        ),
        "WebP": _Format(re.compile(rb"RIFF....WEBP", re.DOTALL), _strip_webp, WebPImagePlugin.WebPImageFile),
        "BMP": _Format(re.compile(rb"BM"), _strip_bmp, BmpImagePlugin.BmpImageFile),
        "TIFF": _Format(re.compile(rb"II\*\0|MM\0\*"), _strip_tiff, TiffImagePlugin.TiffImageFile),
        "GIF": _Format(re.compile(rb"GIF8[79]a"), _strip_gif, GifImagePlugin.GifImageFile),
    }
)


# Reading: pixels --------------------------------------------------------------------------------------------

_TRANSPOSES: Mapping[int, PillowImage.Transpose] = MappingProxyType(
    {
        2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
        3: PillowImage.Transpose.ROTATE_180,
        4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
        5: PillowImage.Transpose.TRANSPOSE,
        6: PillowImage.Transpose.ROTATE_270,
        7: PillowImage.Transpose.TRANSVERSE,
        8: PillowImage.Transpose.ROTATE_90,
    }
)
"""What undoes each EXIF orientation."""

_BAND = 1 << 18
"""Bytes copied from Pillow at once."""

_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr"})
_KEYED_MODES = frozenset({"1", "L", "P", "RGB"})
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA", "RGBa"})
_DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})


def _decode_pixels(container: _Container, decoder: type[ImageFile.ImageFile]) -> Image:
    try:
        picture: PillowImage.Image = decoder(io.BytesIO(container.clean))
        if picture.size != (
            container.width,
            container.height,
        ):  # then the limits were checked on another size
            raise _UnusableError("its header contradicts itself")
        picture.load()
        if container.orientation in _TRANSPOSES:
            picture = picture.transpose(_TRANSPOSES[container.orientation])
        return _to_rgb(picture)
    except _UnusableError:
        raise
    except Exception:  # a decoder answers damage with any error there is, and its text may quote the data
        raise _UnusableError("its pixels do not decode") from None


def _to_rgb(picture: PillowImage.Image) -> Image:
    """Turn a decoded picture of any supported mode into RGB."""
    mode = picture.mode
    if mode in _DEEP_MODES:
        return _deep_grey_to_rgb(np.asarray(picture), picture.info.get("transparency"))
    if mode in _ALPHA_MODES or (mode in _KEYED_MODES and "transparency" in picture.info):
        return _on_black(np.asarray(picture.convert("RGBA")))
    if mode in _OPAQUE_MODES:
        return _to_array(picture if mode == "RGB" else picture.convert("RGB"))
    raise _UnusableError(f"colour mode {mode} is not supported")


def _to_array(picture: PillowImage.Image) -> Image:
    """Copy an RGB picture into an array band by band.

    Pillow hands over a whole picture by way of a list of its pieces: twice the memory, more than the time.
    """
    pixels = np.empty((picture.height, picture.width, 3), np.uint8)
    rows = max(1, _BAND // (3 * picture.width))
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, picture.width, bottom)))
    return pixels


def _deep_grey_to_rgb(values: NDArray[Any], transparent: int | None) -> Image:
    """Scale 16-bit grey, shape (H, W), to 8 bits and make the transparent value black."""
    if values.min() < 0 or values.max() > 0xFFFF:
        raise _UnusableError("grey values beyond 16 bits are not supported")
    grey = (values >> 8).astype(np.uint8)
    if transparent is not None:
        grey[values == transparent] = 0
    return grey[:, :, np.newaxis].repeat(3, axis=2)


def _on_black(pixels: NDArray[np.uint8]) -> Image:
    """Composite RGBA, shape (H, W, 4), on black, rounded to the nearest value."""
    product = pixels[:, :, :3] * pixels[:, :, 3:].astype(np.uint16)  # at most 255 * 255 + 127 < 2**16
    return ((product + 127) // 255).astype(np.uint8)


# Writing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How a file suffix is written.

    Attributes:
        name: The format's name in Pillow.
        options: What Pillow's encoder is told by default.
        lossless_options: What it is told for a file that keeps every value; None where the format cannot.
    """

    name: str
    options: Mapping[str, Any]
    lossless_options: Mapping[str, Any] | None


_JPEG = OutputFormat("JPEG", {"quality": 95, "subsampling": "4:4:4"}, None)
_TIFF = OutputFormat("TIFF", {"compression": "tiff_adobe_deflate"}, {"compression": "tiff_adobe_deflate"})

WRITABLE: Mapping[str, OutputFormat] = MappingProxyType(
    {
        ".png": OutputFormat("PNG", {"compress_level": 3}, {"compress_level": 3}),
        ".jpg": _JPEG,
        ".jpeg": _JPEG,
        # Lossless, quality and method mean effort: with none, files are 7 % longer and six times as quick.
        ".webp": OutputFormat(
            "WEBP", {"quality": 95, "method": 2}, {"lossless": True, "quality": 0, "method": 0}
        ),
        ".bmp": OutputFormat("BMP", {}, {}),
        ".tif": _TIFF,
        ".tiff": _TIFF,
    }
)
"""Suffixes that can be written, in lower case."""

LOSSLESS_SUFFIXES = frozenset(key for key, entry in WRITABLE.items() if entry.lossless_options is not None)
"""Suffixes that can keep every value."""


def check_output(path: str | os.PathLike[str], *, lossless: bool = False) -> Path:
    """Check that a picture could be written there, before the work on it is done.

    Args:
        path: Where to; the suffix names the format, in any case of letters.
        lossless: The file must keep every value.

    Returns:
        The path.

    Raises:
        OutputError: The suffix is not writable (or only with loss), the directory is missing, or something
            other than a regular file stands there.
    """
    target = Path(path)
    suffixes = LOSSLESS_SUFFIXES if lossless else WRITABLE.keys()
    if target.suffix.lower() not in suffixes:
        kind = "a lossless picture" if lossless else "a picture"
        raise OutputError(
            f"cannot write {kind} to {str(target)!r}: expected a name in {', '.join(sorted(suffixes))}"
        )
    if not os.path.isdir(target.parent):  # unlike Path.is_dir, it answers for names that cannot be
        raise OutputError(f"cannot write {str(target)!r}: its directory does not exist")
    if os.path.exists(target) and not os.path.isfile(target):
        raise OutputError(f"cannot write {str(target)!r}: it is a directory or a device")
    return target


def write_image(path: str | os.PathLike[str], pixels: Image, *, lossless: bool = False) -> None:
    """Write a picture: all of it or nothing, and no metadata at all.

    The file is made beside its target and then takes its name, so that a reader never meets half a picture.

    Args:
        path: Where to; an existing file, or a link to one, is replaced.
        pixels: Shape (H, W, 3), uint8, RGB.
        lossless: Keep every value; without it WebP and JPEG are written with quality 95.

    Raises:
        OutputError: As `check_output`, or the file cannot be written.
        ValueError: `pixels` is not an RGB picture.
    """
    picture = PillowImage.fromarray(
        check_image(pixels)
    )  # made from bare values: it has no metadata to pass on
    target = check_output(path, lossless=lossless)
    kind = WRITABLE[target.suffix.lower()]
    encoded = io.BytesIO()
    try:
        picture.save(encoded, kind.name, **((lossless and kind.lossless_options) or kind.options))
    except (OSError, ValueError, struct.error) as error:
        size = f"{picture.width} x {picture.height} pixels"
        raise OutputError(f"cannot write {str(target)!r}: {kind.name} does not take {size}") from error
    _replace(target, encoded.getbuffer())


def _replace(target: Path, data: memoryview) -> None:
    # Not `tempfile`: its files are for their owner alone, and the picture should follow the user's umask.
    draft = target.parent / f".ageveil-{secrets.token_hex(8)}.part"
    try:
        with open(draft, "xb") as file:
            file.write(data)
        os.replace(draft, target)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise OutputError(f"cannot write {str(target)!r}: {reason}") from error
    finally:
        with contextlib.suppress(OSError, ValueError):  # gone already where all went well
            draft.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file beside a picture, as UTF-8: all of it or nothing.

    Raises:
        OutputError: The file cannot be written.
    """
    _replace(Path(path), memoryview(text.encode()))
