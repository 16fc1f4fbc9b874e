"""A path, bytes, a file object or an array becomes an RGB picture; a picture becomes a file.

Reading goes through three gates: only a regular file is opened, and no more than `Limits.max_bytes` is read;
Pillow reads the header, and the size is checked; only then are pixels decoded. What a picture turns into:

- *Orientation*: the EXIF orientation is applied; metadata that cannot be read counts as none.
- *Transparency*: composited on black, the value that pixels outside a picture have everywhere in Ageveil.
- *16 bits*: value >> 8, as libpng strips to 8 bits. 32-bit integers count as 16-bit values and are refused
  beyond 65535.
- *CMYK*: as Pillow converts it. Colour profiles are ignored: values are taken as sRGB.
- *Animation, several pages*: the first one counts.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from ageveil.errors import ImageLimitError, MissingImageError, OutputError, UnreadableImageError
from ageveil.files import write_bytes
from ageveil.types import Image, check_image

Source: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | NDArray[Any]
"""A path, the bytes of a picture file, a binary file object, or an array."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""Formats that are read, by Pillow's names. What else Pillow knows is never tried."""

_MAX_SCANS = 200
"""A progressive JPEG has about ten scans; one of thousands of empty ones takes hours to decode."""

_CHUNK = 1 << 20
"""Bytes asked of a file object at once: a large limit must not reserve its memory up front."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picture may cost at most.

    Attributes:
        max_bytes: Length of the encoded file, in bytes; it does not apply to arrays.
        max_pixels: Width times height.
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
        if error.errno in {errno.ENOENT, errno.ELOOP}:  # links in a circle lead nowhere, too
            raise MissingImageError(f"{path!r} cannot be read: {error.strerror}") from None
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
    """Read the header, check the size, decode."""
    if not data:
        raise UnreadableImageError(f"{name} is empty")
    if len(data) > limits.max_bytes:
        raise ImageLimitError(f"{name} has more than the {limits.max_bytes} bytes that are allowed")
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > _MAX_SCANS:
        raise ImageLimitError(f"{name} is a JPEG of more than {_MAX_SCANS} scans")
    with _quiet_pillow():
        try:
            picture = PillowImage.open(io.BytesIO(data), formats=FORMATS)
        except (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning):
            raise ImageLimitError(f"{name} has more than the {limits.max_pixels} pixels allowed") from None
        except UnidentifiedImageError:
            known = "JPEG, PNG, WebP, BMP, TIFF or GIF"
            raise UnreadableImageError(f"{name} is not a picture that can be read ({known})") from None
        except Exception:  # plugins answer a damaged header with any error there is, and may quote it
            raise UnreadableImageError(f"{name} is damaged: its header cannot be read") from None
        _check_size(*picture.size, name, limits)
        try:
            with picture:
                picture.load()
                return _to_rgb(_upright(picture))
        except _UnsupportedError as error:
            raise UnreadableImageError(f"{name} is not supported: {error}") from None
        except Exception:  # as above; a damaged or shortened file must not become a grey picture
            raise UnreadableImageError(f"{name} is damaged or cut short: its pixels do not decode") from None


class _UnsupportedError(Exception):
    """The picture is whole, but of a kind that is not read."""


_warnings_lock = threading.Lock()


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings on odd metadata, and turn the one on huge pictures into an error.

    Warning filters belong to the process, so one picture is decoded at a time while they are changed.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", PillowImage.DecompressionBombWarning)
        yield


def _upright(picture: PillowImage.Image) -> PillowImage.Image:
    """Apply the EXIF orientation, where it can be read."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # damaged metadata counts as none
        return picture


_BAND = 1 << 18
"""Bytes copied from Pillow at once."""

_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr"})
_KEYED_MODES = frozenset({"1", "L", "P", "RGB"})
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA", "RGBa"})
_DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})


def _to_rgb(picture: PillowImage.Image) -> Image:
    """Turn a decoded picture of any supported mode into RGB."""
    mode = picture.mode
    if mode in _DEEP_MODES:
        return _deep_grey_to_rgb(np.asarray(picture), picture.info.get("transparency"))
    if mode in _ALPHA_MODES or (mode in _KEYED_MODES and "transparency" in picture.info):
        return _on_black(np.asarray(picture.convert("RGBA")))
    if mode in _OPAQUE_MODES:
        return _to_array(picture if mode == "RGB" else picture.convert("RGB"))
    raise _UnsupportedError(f"colour mode {mode} is not supported")


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
        raise _UnsupportedError("grey values beyond 16 bits are not supported")
    grey = (values >> 8).astype(np.uint8)
    if transparent is not None:
        grey[values == transparent] = 0
    return grey[:, :, np.newaxis].repeat(3, axis=2)


def _on_black(pixels: NDArray[np.uint8]) -> Image:
    """Composite RGBA, shape (H, W, 4), on black, rounded to the nearest value."""
    product = pixels[:, :, :3] * pixels[:, :, 3:].astype(np.uint16)  # at most 255 * 255 + 127 < 2**16
    return ((product + 127) // 255).astype(np.uint8)


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
    write_bytes(target, [encoded.getbuffer()])
