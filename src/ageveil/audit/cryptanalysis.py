"""Attacks on the ciphers: they run, and say what they recovered and how long it took.

Indices of pixels count down the columns, as the key schedule does: the pixel at (x, y) is x * height + y. N
is the number of pixels. Keys count modulo N alone, so there are at most N² permutations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ageveil.ciphers import (
    DesKey,
    DesMode,
    PermutationKey,
    decrypt_des,
    decrypt_permutation,
    encrypt_des,
    encrypt_permutation,
    permutation_order,
)
from ageveil.types import Image, check_image

Oracle = Callable[[Image], Image]
"""Encrypts a picture of the attacker's choice under the key that is looked for."""

_BITS = 7  # of a channel value survive the value map
_EARLY = 24  # places in which numbers hardly repeat, so that they are those of the recurrence
_EXPLAINED = 0.75  # of them; a few numbers have repeated even there
_MOST_KEYS = 2**27  # that are tried with a known picture: seconds
_SHOWN = 128  # pixels at least that are put back to judge a key
_CHUNK = 2048  # keys tried at a time
_SHORTLIST = 64

DEEP_CRACK = 90e9
"""DES keys a second that a machine of 1998 for 250,000 dollars tried (EFF, "Cracking DES")."""


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """What an attack came to.

    Attributes:
        key: Keys modulo N that were found, or None.
        picture: What was recovered, shape (H, W, 3), or None.
        tried: Keys that were tried.
        seconds: That it took.
    """

    key: PermutationKey | None
    picture: Image | None
    tried: int
    seconds: float


def distinct_orders(width: int, height: int) -> int:
    """Number of different permutations that all keys make of a picture, by trying all of them: N² of them.

    >>> distinct_orders(2, 2)  # of 24 that there could be
    7
    """
    count = width * height
    found = {
        permutation_order(width, height, PermutationKey(k1, k2)).tobytes()
        for k1 in range(1, count + 1)
        for k2 in range(1, count + 1)
    }
    return len(found)


def recover_order(oracle: Oracle, width: int, height: int) -> NDArray[np.int64] | None:
    """Read the permutation off one picture whose every pixel carries its own index.

    Args:
        oracle: Encrypts with the key that is looked for.
        width: In pixels.
        height: In pixels; width * height is at most 2**21.

    Returns:
        As `ageveil.ciphers.permutation_order` gives it, shape (N,); None where the answer is no permutation
        of the picture, as from another cipher.
    """
    index = np.arange(width * height)
    levels = np.stack([(index >> (_BITS * channel)) % 2**_BITS for channel in range(3)], 1)
    chosen = _from_columns((2 * levels + 1).astype(np.uint8), width, height)
    answer = _columns(undo_values(oracle(chosen))).astype(np.int64) >> 1
    order: NDArray[np.int64] = (answer << (_BITS * np.arange(3))).sum(1)
    return order if np.array_equal(np.sort(order), index) else None


def undo_order(encrypted: Image, order: NDArray[np.int64]) -> Image:
    """The picture before its pixels were moved and its values mapped; lowest bits come back as 1."""
    height, width, _ = check_image(encrypted).shape
    moved = _columns(undo_values(encrypted))
    back = np.empty_like(moved)
    back[order] = moved
    return _from_columns(back, width, height)


def recover_key(known: Image, encrypted: Image) -> Attempt:
    """Find the key from one picture that is known both bare and encrypted, in colour or in grey.

    What the recurrence holds at a place is linear in the first key once the second is given. So each pixel
    that may have gone to one early place leaves N keys or so, and the colours of other early places decide
    between them. At 224 × 224 pixels 128 levels of grey are enough. Where too many pixels share the rarest
    colour, as in black and white or in a large grey picture, the attack gives up.

    Args:
        known: Shape (H, W, 3).
        encrypted: The same picture under the key that is looked for.

    Returns:
        With the key modulo N, if one gives the picture back and the colours decide on it; else without key
        and picture. `tried` is 0 where the attack gave up.

    Raises:
        ValueError: The pictures differ in size.
    """
    if known.shape != encrypted.shape:
        raise ValueError(f"expected pictures of one size, got {known.shape} and {encrypted.shape}")
    start = time.perf_counter()
    height, width, _ = check_image(known).shape
    count = width * height
    before, after = (
        _codes(_columns(np.bitwise_or(known, np.uint8(1)))),
        _codes(_columns(undo_values(encrypted))),
    )
    places = np.arange(min(_EARLY, count, max(2, math.isqrt(count))))
    sources = [np.flatnonzero(before == after[place]) for place in places]
    # The rarest colour first. A place whose colour the bare picture lacks tells that the two do not belong
    # together.
    order = np.argsort([len(found) for found in sources], kind="stable")
    rarest = int(places[order[0]])
    tried = 0
    fitting: list[PermutationKey] = []
    if len(places) > 1 and 0 < len(sources[rarest]) * count <= _MOST_KEYS:
        for candidates in _keys(rarest, sources[rarest], count):
            tried += candidates.shape[1]
            # One place first, as hardly any candidate passes it.
            likely = candidates[:, _explained(candidates, places[order[1:2]], before, after) == 1]
            likely = likely[:, _explained(likely, places, before, after) >= _EXPLAINED]
            fitting += map(PermutationKey, *(likely + count).tolist())
            if len(fitting) > _SHORTLIST:  # the colours do not decide
                return Attempt(None, None, tried, time.perf_counter() - start)
    for key in fitting:
        picture = decrypt_permutation(encrypted, key)
        if np.array_equal(picture, known | 1):
            return Attempt(key, picture, tried, time.perf_counter() - start)
    return Attempt(None, None, tried, time.perf_counter() - start)


def search_keys(encrypted: Image, *, advance: Callable[[int], None] = lambda _: None) -> Attempt:
    """Find the key of an encrypted picture with nothing but the picture: try all, take the smoothest.

    A quarter of the places shows which keys are worth a full look.

    Args:
        encrypted: Shape (H, W, 3); time grows with N³, so that 32 × 32 takes seconds to a minute.
        advance: Called with the number of keys that were tried since the last call.

    Returns:
        With the key of the smoothest picture; whether it is the right one shows in the picture.
    """
    start = time.perf_counter()
    height, width, _ = check_image(encrypted).shape
    count = width * height
    light = _columns(undo_values(encrypted)).mean(1).astype(np.float32)
    places = np.arange(min(count, max(_SHOWN, count // 4)))[
        ::-1
    ]  # backwards, so that the first of two that repeat stays
    best: list[tuple[float, int, int]] = []
    for first in range(0, count * count, _CHUNK):
        k1, k2 = np.divmod(np.arange(first, min(first + _CHUNK, count * count)), count)
        shown = np.full((len(k1), count), np.nan, np.float32)
        at = _schedule(k1[:, None], k2[:, None], places, count)
        shown[np.arange(len(k1))[:, None], at] = light[places]
        rough = _roughness(shown.reshape(len(k1), width, height))
        keep = np.argsort(rough)[:_SHORTLIST]
        best += zip(rough[keep].tolist(), k1[keep].tolist(), k2[keep].tolist(), strict=True)
        best = sorted(best)[:_SHORTLIST]
        advance(len(k1))
    keys = [PermutationKey(a + count, b + count) for _, a, b in best]
    pictures = [decrypt_permutation(encrypted, key) for key in keys]
    smooth = [float(_roughness(picture.mean(2, dtype=np.float32)[None])[0]) for picture in pictures]
    index = int(np.argmin(smooth))
    return Attempt(keys[index], pictures[index], count * count, time.perf_counter() - start)


def neighbour_correlation(pixels: Image) -> float:
    """Correlation of each pixel's lightness with that of the next one down the columns, -1 to 1.

    A face has 0.9 or more; a permutation that hides its order leaves none.

    Args:
        pixels: Shape (H, W, 3); of the permutation's output, after `undo_values`.
    """
    light = _columns(check_image(pixels)).mean(1)
    left, right = light[:-1], light[1:]
    if left.std() == 0 or right.std() == 0:
        return 1.0
    return float(np.corrcoef(left, right)[0, 1])


def repeated_blocks(pixels: Image) -> float:
    """Share of blocks of 8 bytes that occur more than once, 0 to 1: what DES in ECB mode does not hide."""
    content = check_image(pixels).tobytes()
    blocks = np.frombuffer(content[: len(content) // 8 * 8], "V8")
    _, counts = np.unique(blocks, return_counts=True)
    return float(counts[counts > 1].sum() / max(len(blocks), 1))


def des_search_days(keys_a_second: float) -> float:
    """Days in which half of DES' keys are tried, which is what finding one takes on average.

    >>> round(des_search_days(DEEP_CRACK), 1)
    4.6

    Raises:
        ValueError: The rate is not above 0.
    """
    if not keys_a_second > 0:
        raise ValueError(f"expected a rate above 0, got {keys_a_second}")
    return float(2**55 / keys_a_second / 86400)


@dataclass(frozen=True, slots=True)
class CipherAttack:
    """One line of the cipher audit.

    Attributes:
        cipher: Approach that was attacked.
        attack: What the attacker has, and does.
        side: Of the square picture, in pixels.
        recovered: Share of the pixels that came back but for lowest bits, in percent; None where the attack
            gave up before it tried a key.
        tried: Keys that were tried; 0 where none need be.
        seconds: That it took.
    """

    cipher: str
    attack: str
    side: int
    recovered: float | None
    tried: int
    seconds: float


def attack_ciphers(
    crop: Image, seed: int, *, search_side: int = 32, advance: Callable[[int], None] = lambda _: None
) -> tuple[CipherAttack, ...]:
    """Run every attack on one face.

    Args:
        crop: Canonical crop, shape (S, S, 3).
        seed: Of the keys that are looked for.
        search_side: Side to which the face is made smaller for the search on ciphertext alone.
        advance: As for `search_keys`.
    """
    rng = np.random.default_rng(seed)
    key = PermutationKey(*(int(part) for part in rng.integers(2**30, 2**31, 2)))
    side = crop.shape[0]
    encrypted = encrypt_permutation(crop, key)
    found: list[CipherAttack] = []

    def note(attack: str, true: Image, picture: Image | None, tried: int, seconds: float) -> None:
        back = None if picture is None else 100 * float((picture == true | 1).all(2).mean())
        back = 0.0 if back is None and tried else back
        found.append(CipherAttack("permutation", attack, true.shape[0], back, tried, seconds))

    start = time.perf_counter()
    order = recover_order(lambda chosen: encrypt_permutation(chosen, key), side, side)
    picture = None if order is None else undo_order(encrypted, order)
    note("one chosen picture under the same key", crop, picture, 0, time.perf_counter() - start)
    known = np.ascontiguousarray(crop[:, ::-1])
    attempt = recover_key(known, encrypt_permutation(known, key))
    opened = None if attempt.key is None else decrypt_permutation(encrypted, attempt.key)
    note("one known picture under the same key", crop, opened, attempt.tried, attempt.seconds)
    small = cv2.resize(crop, (search_side, search_side), interpolation=cv2.INTER_AREA)
    attempt = search_keys(encrypt_permutation(np.asarray(small, np.uint8), key), advance=advance)
    note(
        "the encrypted picture alone",
        np.asarray(small, np.uint8),
        attempt.picture,
        attempt.tried,
        attempt.seconds,
    )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Residue:
    """What a cipher leaves of a face without any attack.

    Attributes:
        cipher: Approach.
        correlation: Of neighbouring pixels, -1 to 1; of the bare face, of what is sent.
        repeated: Share of blocks of 8 bytes that occur more than once, in percent.
        lost: Mean absolute difference that encrypting and decrypting makes, in grey levels.
    """

    cipher: str
    correlation: float
    repeated: float
    lost: float


def residues(crop: Image, seed: int) -> tuple[Residue, ...]:
    """What each cipher, and none, leaves of a face.

    Args:
        crop: Canonical crop, shape (S, S, 3).
        seed: Of the keys.
    """
    rng = np.random.default_rng(seed)
    key = PermutationKey(*(int(part) for part in rng.integers(2**30, 2**31, 2)))
    sent = encrypt_permutation(crop, key)
    back = decrypt_permutation(sent, key)
    rows = [
        Residue("original", neighbour_correlation(crop), 100 * repeated_blocks(crop), 0.0),
        Residue(
            "permutation",
            neighbour_correlation(undo_values(sent)),
            100 * repeated_blocks(sent),
            float(np.abs(back.astype(int) - crop).mean()),
        ),
    ]
    des = DesKey(rng.bytes(8))
    modes: tuple[DesMode, ...] = ("ecb", "cbc", "ctr")
    for mode in modes:
        sent, iv = encrypt_des(crop, des, mode)
        back = decrypt_des(sent, des, mode, iv if mode != "ecb" else None)
        lost = float(np.abs(back.astype(int) - crop).mean())
        rows.append(Residue(f"des-{mode}", neighbour_correlation(sent), 100 * repeated_blocks(sent), lost))
    return tuple(rows)


def _schedule(
    k1: NDArray[np.int64], k2: NDArray[np.int64], place: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """The recurrence at some places for many keys, by its closed form (`ageveil.ciphers`)."""
    n = np.asarray(place, np.int64) + 1
    power = np.array([pow(2, int(step) + 1, count) for step in np.ravel(n)], np.int64).reshape(n.shape)
    b = k1 - k2 - 1
    values: NDArray[np.int64] = (
        k1 * k2 - 2 * b + ((k2 + 2) * n + b) % count * power + (1 - k1) * n - n * (n + 1) // 2
    ) % count
    return values


def _explained(
    keys: NDArray[np.int64], places: NDArray[np.int64], before: NDArray[np.int64], after: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Share of some places whose colours fit keys of shape (2, K), for each key, shape (K,)."""
    k1, k2 = keys[..., None]
    shares: NDArray[np.float64] = (before[_schedule(k1, k2, places, len(before))] == after[places]).mean(1)
    return shares


def _keys(place: int, numbers: NDArray[np.int64], count: int) -> Iterator[NDArray[np.int64]]:
    """All keys modulo N under which a place holds one of some numbers: shape (2, K), for each number."""
    second = np.arange(count)
    rest = _schedule(np.array(0), second, np.array(place), count)
    slope = (_schedule(np.array(1), second, np.array(place), count) - rest) % count
    # slope * k1 = number - rest has as many solutions modulo N as slope and N share, or none.
    shared = np.gcd(slope, count)
    step = count // shared
    inverse = np.array(
        [pow(a, -1, m) for a, m in zip((slope // shared).tolist(), step.tolist(), strict=True)]
    )
    for number in numbers.tolist():
        right = (number - rest) % count
        (solved,) = np.nonzero(right % shared == 0)
        smallest = right[solved] // shared[solved] * inverse[solved] % step[solved]
        each = np.repeat(np.arange(len(solved)), shared[solved])
        nth = np.arange(len(each)) - (np.cumsum(shared[solved]) - shared[solved])[each]
        yield np.stack([smallest[each] + step[solved][each] * nth, second[solved][each]])


def _roughness(pictures: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean difference of neighbours that are both shown, of each picture, shape (K,)."""
    total, number = np.zeros(len(pictures)), np.zeros(len(pictures))
    for axis in (1, 2):
        apart = np.abs(np.diff(pictures, axis=axis)).reshape(len(pictures), -1)
        total += np.nansum(apart, 1)
        number += np.isfinite(apart).sum(1)
    return total / np.maximum(number, 1) + 255 / np.maximum(number, 1)  # few neighbours tell little


def undo_values(pixels: Image) -> Image:
    """Undo the permutation's public map of values, which no key enters; lowest bits come back as 1."""
    return np.asarray(np.asarray(pixels, np.int64) ** 3 % 256, np.uint8)


def _columns(pixels: Image) -> NDArray[np.uint8]:
    """Pixels down the columns, shape (N, 3)."""
    return np.ascontiguousarray(pixels.transpose(1, 0, 2)).reshape(-1, 3)


def _from_columns(rows: NDArray[np.uint8], width: int, height: int) -> Image:
    return np.ascontiguousarray(rows.reshape(width, height, 3).transpose(1, 0, 2))


def _codes(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    """One number for each colour."""
    codes: NDArray[np.int64] = rows.astype(np.int64) @ np.array([1, 256, 65536])
    return codes
