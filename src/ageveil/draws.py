"""Uniform draws from a ChaCha20 key stream: the same key gives the same draws in every language.

An anonymization is only as hard to undo as its draws are hard to predict, so they come from a cipher's key
stream with a fresh key rather than from a statistical generator. The rule that turns the stream into numbers
is written out in `ChaChaDraws.integers`, for a second implementation to follow bit for bit.
"""

from __future__ import annotations

import secrets
from typing import NoReturn, SupportsIndex

import numpy as np
from numpy.typing import NDArray

_KEY_BYTES = 32

_WORD_VALUES = 2**32
"""Values of a 32-bit word, and the largest bound."""

_LEAST_READ = 1024
"""Words that are read from the stream at least at a time: one call to the cipher costs as much as these."""

_BLOCK = 4096
"""Bounds that are drawn together: a rejection sends only its own block through the slow loop."""


class ChaChaDraws:
    """A source of uniform whole numbers, made from the key stream of ChaCha20.

    The stream is that of RFC 8439 with 12 zero bytes as nonce and a block counter from 0; it holds 2^36
    words. An object belongs to one thread of one process: a forked copy would repeat its draws. It cannot
    be pickled or copied.

    Args:
        key: 32 bytes; fresh from the operating system's generator by default. Whoever knows it knows every
            draw: give one only in tests.

    Raises:
        ValueError: The key is not 32 bytes.
        TypeError: On pickling or copying.

    Source:
        RFC 8439, sections 2.3 and 2.4.
    """

    __slots__ = ("_cipher", "_words")

    def __init__(self, key: bytes | None = None) -> None:
        from Crypto.Cipher import ChaCha20  # noqa: PLC0415 - only those who draw load the library

        if key is None:
            key = secrets.token_bytes(_KEY_BYTES)
        if not isinstance(key, bytes) or len(key) != _KEY_BYTES:
            got = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
            raise ValueError(f"a ChaCha20 key has 32 bytes, got {got}")
        self._cipher = ChaCha20.new(key=key, nonce=bytes(12))
        self._words: NDArray[np.uint32] = np.empty(0, np.uint32)  # read from the stream, not yet consumed

    def __repr__(self) -> str:
        return "ChaChaDraws()"

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError("ChaChaDraws cannot be pickled or copied: a copy would repeat or reveal its draws")

    def integers(self, bounds: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Draw one whole number in [0, bound) for each bound, in C order.

        Each draw takes the next 32-bit little-endian word w of the stream until it finds one with
        w < floor(2^32 / bound) * bound, and returns w mod bound. A bound of 1 takes a word as well. The
        next call goes on where this one stopped.

        Args:
            bounds: Whole numbers from 1 to 2^32, of any shape.

        Returns:
            The draws, int64, in the shape of `bounds`.

        Raises:
            ValueError: A bound lies outside, or the array is not of a whole-number type; no word is taken.

        >>> ChaChaDraws(bytes(32)).integers(np.array([[10, 2**32], [1, 256]]))  # RFC 8439, A.1, vector 1
        array([[         4, 2419978656],
               [         0,         83]])
        """
        checked = _check_bounds(bounds)
        flat = checked.ravel()
        drawn = np.empty_like(flat)
        for start in range(0, flat.size, _BLOCK):
            drawn[start : start + _BLOCK] = self._draw(flat[start : start + _BLOCK])
        return drawn.reshape(checked.shape)

    def _draw(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draws for a few bounds, shape (n,)."""
        limits = _WORD_VALUES // bounds * bounds
        words = self._peek(bounds.size).astype(np.int64)
        # Where none of the next n words is rejected, the k-th word goes to the k-th bound. A small bound
        # rejects one word in 2^32 / bound at most, so this is nearly always so.
        if (words < limits).all():
            self._consume(bounds.size)
            return words % bounds
        return self._draw_one_by_one(bounds, limits)

    def _draw_one_by_one(self, bounds: NDArray[np.int64], limits: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rule as it is written, for when a rejected word shifts all later ones."""
        words: list[int] = self._peek(bounds.size).tolist()
        drawn: list[int] = []
        taken = 0
        for bound, limit in zip(bounds.tolist(), limits.tolist(), strict=True):
            word = limit
            while word >= limit:
                if taken == len(words):
                    words = self._peek(2 * taken).tolist()
                word = words[taken]
                taken += 1
            drawn.append(word % bound)
        self._consume(taken)
        return np.array(drawn, np.int64)

    def _peek(self, count: int) -> NDArray[np.uint32]:
        """The next words of the stream, shape (count,), without consuming them."""
        missing = count - self._words.size
        if missing > 0:
            # Encrypting zeros gives the key stream itself.
            stream = self._cipher.encrypt(bytes(4 * max(missing, _LEAST_READ)))
            self._words = np.concatenate([self._words, np.frombuffer(stream, "<u4")])
        return self._words[:count]

    def _consume(self, count: int) -> None:
        self._words = self._words[count:]


def _check_bounds(bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    array = np.asarray(bounds)
    if array.dtype.kind not in "iu":
        raise ValueError(f"bounds are whole numbers, got {array.dtype}")
    if array.size and not (array.min() >= 1 and array.max() <= _WORD_VALUES):
        raise ValueError(f"a bound lies from 1 to 2**32, got {array.min()} to {array.max()}")
    return array.astype(np.int64, copy=False)
