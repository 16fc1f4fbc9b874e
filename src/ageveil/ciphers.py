"""The two ciphers of the encryption approach, on pixels: a two-key permutation and single DES.

Both can be undone by whoever holds the key, and neither protects a face today. DES has 56 key bits, few
enough to try them all. ECB gives equal blocks of a picture equal ciphertext, so that flat areas and outlines
stay visible. The permutation depends on its keys modulo N = width * height alone, so it has at most N^2 keys
(under 2^32 at 224 x 224) however long they are written, and it moves values without hiding how often each of
them occurs. They are here because the paper measures age estimation on them.

Source:
    Ye et al. 2018, section III-A4, which names DES and then describes ImageEncryptor, the permutation.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ageveil.errors import CipherError, OutputError
from ageveil.types import Image, check_image

DesMode = Literal["ecb", "cbc", "ctr"]

KEY_LIMIT = 2**64
"""The two keys of a permutation lie below this."""

KEY_FILE_BYTES = 4096
"""A longer file is no key file."""

MAX_PIXELS = 2**30
"""Pixels of the largest picture that can be permuted: up to here no product leaves int64."""

_BLOCK = 1 << 16
"""Steps of the key schedule that are computed together."""

_KEPT_PIXELS = 1 << 20
"""Key schedules are kept up to this size: 8 bytes a pixel, so 32 MiB at most for the four that are kept."""

_DES_BLOCK = 8

# Weak keys (encrypting twice gives the plaintext), then semi-weak ones, in pairs that undo each other.
# Source: NIST SP 800-67, on weak keys.
_WEAK_DES_KEYS = frozenset(
    bytes.fromhex(key)
    for key in (
        "0101010101010101", "FEFEFEFEFEFEFEFE", "E0E0E0E0F1F1F1F1", "1F1F1F1F0E0E0E0E",
        "011F011F010E010E", "1F011F010E010E01", "01E001E001F101F1", "E001E001F101F101",
        "01FE01FE01FE01FE", "FE01FE01FE01FE01", "1FE01FE00EF10EF1", "E01FE01FF10EF10E",
        "1FFE1FFE0EFE0EFE", "FE1FFE1FFE0EFE0E", "E0FEE0FEF1FEF1FE", "FEE0FEE0FEF1FEF1",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PermutationKey:
    """The two keys of the permutation. Only their remainders modulo width * height have an effect.

    Attributes:
        k1: A whole number from 0 to 2**64 - 1; never shown by `repr`.
        k2: Likewise.

    Raises:
        ValueError: A key is no such number.
    """

    k1: int = field(repr=False)
    k2: int = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("k1", "k2"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{name} is a whole number, got {type(value).__name__}")
            if not 0 <= value < KEY_LIMIT:
                raise ValueError(f"{name} lies from 0 to 2**64 - 1, got a number outside")


@dataclass(frozen=True, slots=True)
class DesKey:
    """A key for single DES: 56 bits, far too few to keep anybody out today.

    Attributes:
        key: 8 bytes; DES ignores the lowest bit of each, its parity. Never shown by `repr`. The weak keys of
            DES are accepted, as published test vectors use them; `draw_des_key` never returns one.

    Raises:
        ValueError: The key is not 8 bytes.
    """

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.key, bytes) or len(self.key) != _DES_BLOCK:
            got = f"{len(self.key)} bytes" if isinstance(self.key, bytes) else type(self.key).__name__
            raise ValueError(f"a DES key has 8 bytes, got {got}")


def draw_permutation_key() -> PermutationKey:
    """Draw two fresh keys below 2**53, from the operating system's generator.

    Every JSON reader, a browser's too, holds whole numbers up to 2**53 exactly. Longer keys would add
    nothing, as only the remainders modulo the number of pixels count.
    """
    return PermutationKey(secrets.randbits(53), secrets.randbits(53))


def draw_des_key() -> DesKey:
    """Draw a fresh DES key from the operating system's generator: odd parity, neither weak nor semi-weak."""
    return _first_usable(secrets.token_bytes(_DES_BLOCK) for _ in repeat(None))


def _first_usable(candidates: Iterator[bytes]) -> DesKey:
    """The first candidate that is neither weak nor semi-weak, once its parity bits are set."""
    return DesKey(next(key for key in map(_with_odd_parity, candidates) if key not in _WEAK_DES_KEYS))


def _with_odd_parity(key: bytes) -> bytes:
    """Set the lowest bit of each byte so that the byte holds an odd number of ones."""
    return bytes((byte & 0xFE) | (1 - (byte >> 1).bit_count() % 2) for byte in key)


def read_key_file(path: str | os.PathLike[str]) -> PermutationKey | DesKey:
    """Read a key file: JSON, `{"k1": int, "k2": int}` or `{"des": "16 hex digits"}`, and nothing else.

    Args:
        path: The file, at most 4096 bytes of UTF-8.

    Raises:
        CipherError: The file is missing, cannot be read, is too long or holds anything else. The message
            never repeats what the file holds.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(KEY_FILE_BYTES + 1)
    except OSError as error:
        raise CipherError(f"cannot read the key file {path}: {error.strerror}") from error
    if len(content) > KEY_FILE_BYTES:
        raise CipherError(f"{path} is no key file: expected at most {KEY_FILE_BYTES} bytes, it is longer")
    # Raised out here, away from the parser's exception: that one carries the text it could not read.
    key = _parse_key(content)
    if key is None:
        raise CipherError(
            f'{path} is no key file: expected JSON, {{"k1": int, "k2": int}} with whole numbers '
            'from 0 to 2**64 - 1, or {"des": "16 hex digits"}, and nothing else'
        )
    return key


def _parse_key(content: bytes) -> PermutationKey | DesKey | None:
    """The key that a key file's content stands for, or None."""
    try:
        # "utf-8-sig": some editors put a byte order mark in front.
        data = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_object_of_distinct_names)
        match data:
            case {"k1": k1, "k2": k2} if len(data) == 2:
                return PermutationKey(k1, k2)
            case {"des": str(digits)} if len(data) == 1 and re.fullmatch("[0-9A-Fa-f]{16}", digits):
                return DesKey(bytes.fromhex(digits))
    except (ValueError, RecursionError):
        return None
    return None


def _object_of_distinct_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; one name given twice would leave open which value counts."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return dict(pairs)


def write_key_file(path: str | os.PathLike[str], key: PermutationKey | DesKey) -> None:
    """Write a key file that only its owner can read (mode 0600).

    Args:
        path: A file that does not exist yet.
        key: What to write; `read_key_file` returns an equal one.

    Raises:
        ValueError: `key` is no key.
        OutputError: The file exists, or it cannot be written; no half-written file is left.
    """
    match key:
        case PermutationKey():
            text = json.dumps({"k1": key.k1, "k2": key.k2})
        case DesKey():
            text = json.dumps({"des": key.key.hex()})
        case _:
            raise ValueError(f"expected a PermutationKey or a DesKey, got {type(key).__name__}")
    try:
        # Exclusive creation decides and acts in one step, and follows no link.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise OutputError(f"{path} exists; a key file is never overwritten") from None
    except OSError as error:
        raise OutputError(f"cannot write the key file {path}: {error.strerror}") from error
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
    except OSError as error:
        os.unlink(path)
        raise OutputError(f"cannot write the key file {path}: {error.strerror}") from error


# The values: c -> (c | 1)^43 mod 256. The odd numbers modulo 256 form a group in which every 64th power is 1,
# and 3 * 43 = 2 * 64 + 1: cubing returns c | 1, so the lowest bit of c is lost.
_VALUE_MAP = bytes(pow(value | 1, 43, 256) for value in range(256))
_VALUE_MAP_UNDONE = bytes(pow(value, 3, 256) for value in range(256))


def encrypt_permutation(pixels: Image, key: PermutationKey) -> Image:
    """Map every channel value c to (c | 1)^43 mod 256, then move the pixels in the order of the key.

    Not a protection: see the module's text. The key schedule of the last few sizes and keys is kept, for
    pictures of up to 2**20 pixels.

    Args:
        pixels: Shape (H, W, 3), uint8, with H * W up to 2**30.
        key: The two keys.

    Returns:
        A new array of the same shape: pixel i of it is the mapped pixel `permutation_order(...)[i]`.

    Raises:
        ValueError: `pixels` is no such picture, or `key` no `PermutationKey`.
    """
    height, width, _ = check_image(pixels).shape
    sources = _row_major_sources(width, height, key)
    # bytes.translate is the fastest table look-up at hand: half the time of indexing a NumPy table.
    mapped = np.frombuffer(pixels.tobytes().translate(_VALUE_MAP), np.uint8)
    return np.take(mapped.reshape(-1, 3), sources, axis=0).reshape(pixels.shape)


def decrypt_permutation(pixels: Image, key: PermutationKey) -> Image:
    """Undo `encrypt_permutation`, but for the lowest bit of every channel value, which comes back as 1.

    A wrong key cannot be noticed: it gives a picture of noise.

    Args:
        pixels: Shape (H, W, 3), uint8, with H * W up to 2**30, as it was encrypted: a lossy file in between
            destroys it.
        key: The two keys it was encrypted with.

    Returns:
        A new array of the same shape, holding c | 1 for every value c before encryption.

    Raises:
        ValueError: `pixels` is no such picture, or `key` no `PermutationKey`.
    """
    height, width, _ = check_image(pixels).shape
    sources = _row_major_sources(width, height, key)
    targets = np.empty_like(sources)
    targets[sources] = np.arange(sources.size)
    values = np.frombuffer(pixels.tobytes().translate(_VALUE_MAP_UNDONE), np.uint8)
    return np.take(values.reshape(-1, 3), targets, axis=0).reshape(pixels.shape)


def permutation_order(width: int, height: int, key: PermutationKey) -> NDArray[np.int64]:
    """The key schedule C: which pixel moves to each place.

    Pixels are counted down the columns: the one at (x, y) has the index x * height + y. With N = width *
    height, y = z = 1 and p = k1 * k2, the steps i = 0..N-1 are: w = y + k2 + i; x = z + k1 + i; y += w;
    z += x + y; p = (p + y + z) mod N; C[i] = p. A number keeps the place where it appears first; each later
    repeat of one, in order of i, is replaced by the largest number that is still unused.

    Args:
        width: In pixels, at least 1.
        height: In pixels, at least 1; width * height is at most 2**30.
        key: The two keys.

    Returns:
        Shape (width * height,): a permutation of 0..width * height - 1. The encrypted pixel i is the mapped
        pixel C[i].

    Raises:
        ValueError: A side is no whole number of at least 1, the picture is too large, or `key` is no
            `PermutationKey`.

    >>> permutation_order(3, 1, PermutationKey(1, 2))  # C is 1, 0, 1 before its repeat is replaced
    array([1, 0, 2])
    """
    return _order(_pixel_count(width, height), *_remainders(width * height, key))


def _pixel_count(width: int, height: int) -> int:
    for side in (width, height):
        if not isinstance(side, int) or isinstance(side, bool) or side < 1:
            raise ValueError(f"a side is a whole number of pixels, at least 1, got {side!r}")
    if width * height > MAX_PIXELS:
        raise ValueError(f"expected at most {MAX_PIXELS} pixels, got {width} x {height}")
    return width * height


def _remainders(pixels: int, key: PermutationKey) -> tuple[int, int]:
    """The keys modulo the number of pixels: all that the order depends on."""
    if not isinstance(key, PermutationKey):
        raise ValueError(f"the permutation needs a PermutationKey, got {type(key).__name__}")
    return key.k1 % pixels, key.k2 % pixels


def _order(pixels: int, k1: int, k2: int) -> NDArray[np.int64]:
    """`permutation_order` for a number of pixels and keys below it."""
    order = _positions(pixels, k1, k2)
    places = np.arange(pixels)
    first = np.full(pixels, pixels)
    np.minimum.at(first, order, places)
    repeats = first[order] != places
    order[repeats] = np.flatnonzero(first == pixels)[::-1]
    return order


def _positions(pixels: int, k1: int, k2: int) -> NDArray[np.int64]:
    """The values p of the recurrence, before repeats are replaced, shape (pixels,); blocks bound memory."""
    powers = _powers_of_two(min(_BLOCK, pixels), pixels)
    order = np.empty(pixels, np.int64)
    for start in range(0, pixels, _BLOCK):
        stop = min(start + _BLOCK, pixels)
        order[start:stop] = _steps(start, powers[: stop - start], pixels, k1, k2)
    return order


def _steps(start: int, powers: NDArray[np.int64], pixels: int, k1: int, k2: int) -> NDArray[np.int64]:
    """The values p of the steps i = start, start + 1, ..., one for each power 2^0, 2^1, ... modulo `pixels`.

    The recurrence is linear and has a closed form. Let y_n, z_n, p_n be the state after n steps, so that
    step i gives p_(i+1). With a = k2 + 2 and b = k1 - k2 - 1:

        y_n = a 2^n - k2 - n - 1                from y_(n+1) = 2 y_n + k2 + n,           y_0 = 1
        z_n = (a n + b) 2^n - k1 + k2 + 2       from z_(n+1) = 2 z_n + k1 + n + y_(n+1), z_0 = 1
        p_n = k1 k2 + sum of y_j + z_j for j = 1..n
            = k1 k2 - 2 b + (a n + b) 2^(n+1) + (1 - k1) n - n (n + 1) / 2

    With N = `pixels` of at most 2^30, no product below passes 2^60 and no sum 2^62.
    """
    a, b, c = (k2 + 2) % pixels, (k1 - k2 - 1) % pixels, (1 - k1) % pixels
    constant = (k1 * k2 - 2 * b) % pixels
    n = np.arange(start + 1, start + powers.size + 1, dtype=np.int64)
    doubled = powers * pow(2, start + 2, pixels) % pixels  # 2^(n+1) mod N
    exponential = doubled * ((a * n + b) % pixels)
    steps: NDArray[np.int64] = (constant + exponential + c * n - n * (n + 1) // 2) % pixels
    return steps


def _powers_of_two(count: int, modulus: int) -> NDArray[np.int64]:
    """2^0 .. 2^(count-1) modulo a number of at most 2^31, by repeated doubling of the filled part."""
    powers = np.empty(count, np.int64)
    powers[0] = 1 % modulus
    filled = 1
    while filled < count:
        added = min(filled, count - filled)
        powers[filled : filled + added] = powers[:added] * pow(2, filled, modulus) % modulus
        filled += added
    return powers


def _row_major_sources(width: int, height: int, key: PermutationKey) -> NDArray[np.int64]:
    """For each pixel of the encrypted picture, row by row, the row-major index of the pixel it takes."""
    pixels = _pixel_count(width, height)
    k1, k2 = _remainders(pixels, key)
    if pixels <= _KEPT_PIXELS:
        return _kept_sources(width, height, k1, k2)
    return _sources(width, height, k1, k2)


def _sources(width: int, height: int, k1: int, k2: int) -> NDArray[np.int64]:
    columns, rows = np.divmod(_order(width * height, k1, k2), height)
    sources = (rows * width + columns).reshape(width, height).T.ravel()
    sources.flags.writeable = False
    return sources


_kept_sources = lru_cache(maxsize=4)(_sources)


def encrypt_des(pixels: Image, key: DesKey, mode: DesMode, iv: bytes | None = None) -> tuple[Image, bytes]:
    """Encrypt the bytes of a picture, in C order, with single DES and without padding.

    Not a protection: 56 key bits can all be tried, and ECB repeats a block wherever the picture does.

    Args:
        pixels: Shape (H, W, 3), uint8. In "ecb" and "cbc", H * W * 3 is a multiple of 8.
        key: The key.
        mode: "ecb"; "cbc"; or "ctr", whose key stream is the encryption of the counter blocks
            (iv + j) mod 2^64 as 8 bytes, big endian, for j = 0, 1, ... No counter repeats within a picture.
        iv: 8 bytes: the first chaining block of "cbc", the first counter block of "ctr"; "ecb" has none.
            Fresh from the operating system's generator by default, and so it should be: two pictures
            encrypted with one key and overlapping counters give away their difference. The counters of two
            fresh draws overlap with a probability of about 2^-49 for pictures of 224 x 224.

    Returns:
        A new array of the same shape, and the IV that was used (empty for "ecb"); it is no secret.

    Raises:
        ValueError: `pixels` is no such picture, `key` no `DesKey`, the mode is unknown, or the IV does not
            fit the mode.

    Source:
        FIPS 46-3 and FIPS 81 (ECB, CBC); NIST SP 800-38A, section 6.5 (CTR).
    """
    if iv is None and mode != "ecb":
        iv = secrets.token_bytes(_DES_BLOCK)
    cipher, iv = _des(check_image(pixels), key, mode, iv)
    return _picture(cipher.encrypt(pixels.tobytes()), pixels.shape), iv


def decrypt_des(pixels: Image, key: DesKey, mode: DesMode, iv: bytes | None = None) -> Image:
    """Undo `encrypt_des` exactly.

    A wrong key or IV cannot be noticed: it gives a picture of noise.

    Args:
        pixels: Shape (H, W, 3), uint8, as it was encrypted: a lossy file in between destroys it.
        key: The key it was encrypted with.
        mode: The mode it was encrypted in.
        iv: The IV that `encrypt_des` returned; empty or None for "ecb".

    Returns:
        A new array: the picture before encryption.

    Raises:
        ValueError: `pixels` is no such picture, `key` no `DesKey`, the mode is unknown, or the IV does not
            fit the mode.
    """
    cipher, _ = _des(check_image(pixels), key, mode, iv)
    return _picture(cipher.decrypt(pixels.tobytes()), pixels.shape)


def _des(pixels: Image, key: DesKey, mode: DesMode, iv: bytes | None) -> tuple[_Cipher, bytes]:
    """A cipher object for one picture, and its IV, once all arguments are found to fit together."""
    if mode not in _DES_MODES:
        raise ValueError(f"a mode is one of {', '.join(_DES_MODES)}, got {mode!r}")
    if not isinstance(key, DesKey):
        raise ValueError(f"DES needs a DesKey, got {type(key).__name__}")
    iv = b"" if iv is None else iv
    expected = 0 if mode == "ecb" else _DES_BLOCK
    if not isinstance(iv, bytes) or len(iv) != expected:
        got = f"{len(iv)} bytes" if isinstance(iv, bytes) else type(iv).__name__
        raise ValueError(f"DES in mode {mode} has an IV of {expected} bytes, got {got}")
    if mode != "ctr" and pixels.nbytes % _DES_BLOCK:
        height, width, _ = pixels.shape
        raise ValueError(
            f"DES in mode {mode} needs a multiple of 8 bytes, got {width} x {height} x 3 = {pixels.nbytes}"
        )
    return _DES_MODES[mode](key.key, iv), iv


class _Cipher(Protocol):
    """What all modes of the library have in common."""

    def encrypt(self, plaintext: bytes, /) -> bytes: ...

    def decrypt(self, ciphertext: bytes, /) -> bytes: ...


# Only those who encrypt load the library (PLC0415), and that DES is broken is known (S304).


def _ecb(key: bytes, _: bytes) -> _Cipher:
    from Crypto.Cipher import DES  # noqa: PLC0415

    return DES.new(key, DES.MODE_ECB)  # noqa: S304


def _cbc(key: bytes, iv: bytes) -> _Cipher:
    from Crypto.Cipher import DES  # noqa: PLC0415

    return DES.new(key, DES.MODE_CBC, iv=iv)  # noqa: S304


def _ctr(key: bytes, iv: bytes) -> _Cipher:
    from Crypto.Cipher import DES  # noqa: PLC0415

    # An empty nonce leaves all 64 bits to the counter.
    return DES.new(key, DES.MODE_CTR, nonce=b"", initial_value=iv)  # noqa: S304


_DES_MODES: dict[str, Callable[[bytes, bytes], _Cipher]] = {"ecb": _ecb, "cbc": _cbc, "ctr": _ctr}


def _picture(content: bytes, shape: tuple[int, ...]) -> Image:
    """The bytes as a new array that can be written to."""
    return np.frombuffer(bytearray(content), np.uint8).reshape(shape)
