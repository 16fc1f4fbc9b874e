"""Tests of the draws. The truth is a slow loop over the key stream of another library, or RFC 8439."""

import copy
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st

from ageveil.draws import ChaChaDraws

ZERO = bytes(32)
WORDS = 2**32
HALF_REJECTED = 2**31 + 1  # floor(2^32 / bound) is 1, so 2^31 - 1 of the 2^32 words are rejected


class SlowDraws:
    """The rule word by word, over a key stream that `cryptography` makes."""

    def __init__(self, key):
        # 16 bytes: the block counter, then the nonce of RFC 8439.
        self._stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()

    def word(self):
        return int.from_bytes(self._stream.update(bytes(4)), "little")

    def draw(self, bound):
        while (word := self.word()) >= WORDS // bound * bound:
            pass
        return word % bound


def slow(key, bounds):
    source = SlowDraws(key)
    return [source.draw(bound) for bound in bounds]


def bounds_array(*bounds):
    return np.array(bounds, np.int64)


# --- The stream ---


@pytest.mark.parametrize(
    ("key", "counter", "stream"),
    [
        # RFC 8439, appendix A.1, test vectors 1 to 4.
        (
            "00" * 32,
            0,
            "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
            "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
        ),
        (
            "00" * 32,
            1,
            "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
            "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
        ),
        (
            "00" * 31 + "01",
            1,
            "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
            "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
        ),
        (
            "00ff" + "00" * 30,
            2,
            "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
            "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
        ),
    ],
)
def test_words_are_those_of_rfc_8439(key, counter, stream):
    # A bound of 2^32 rejects nothing and changes nothing: the draws are the words of the stream.
    words = ChaChaDraws(bytes.fromhex(key)).integers(np.full(16 * (counter + 1), WORDS))
    assert words[-16:].astype("<u4").tobytes() == bytes.fromhex(stream)


def test_words_go_on_from_call_to_call():
    # Sizes around those in which the stream is read (1024 words) and bounds are drawn together (4096).
    draws, truth = ChaChaDraws(ZERO), SlowDraws(ZERO)
    for size in (1, 1022, 1, 1, 1025, 0, 4095, 4096, 4097, 3, 8193):
        found = draws.integers(np.full(size, WORDS))
        assert found.tolist() == [truth.word() for _ in range(size)]


# --- The rule ---


def test_rejection_worked_out_by_hand():
    # Words of the zero key: ade0b876, 903df1a0, e56a5d40 (all above 2^31), 28bd8653 = 683509331,
    # b819d2bd (above), 1aed8da0 = 451775904, c7... by RFC 8439, A.1, vector 1.
    found = ChaChaDraws(ZERO).integers(bounds_array(HALF_REJECTED, HALF_REJECTED))
    assert found.tolist() == [683509331, 451775904]


def test_rejection_starts_exactly_at_the_limit():
    first, second = 0xADE0B876, 0x903DF1A0
    # The limit of a bound above 2^31 is the bound itself: a word equal to it is rejected.
    assert ChaChaDraws(ZERO).integers(bounds_array(first)).tolist() == [second]
    assert ChaChaDraws(ZERO).integers(bounds_array(first + 1)).tolist() == [first]


def test_a_bound_of_one_takes_a_word():
    found = ChaChaDraws(ZERO).integers(bounds_array(1, WORDS))
    assert found.tolist() == [0, 0x903DF1A0]


awkward = st.sampled_from(
    [1, 2, 3, 10, 100, 121, 2**16, 2**31 - 1, 2**31, HALF_REJECTED, 3 * 2**30 + 1, WORDS - 1, WORDS]
)
any_bounds = st.lists(awkward | st.integers(1, WORDS), max_size=60)


@given(key=st.binary(min_size=32, max_size=32), calls=st.lists(any_bounds, max_size=6))
@settings(deadline=None, max_examples=200)
def test_draws_are_those_of_the_slow_loop_over_several_calls(key, calls):
    draws, truth = ChaChaDraws(key), SlowDraws(key)
    for bounds in calls:
        found = draws.integers(bounds_array(*bounds))
        assert found.dtype == np.int64
        assert found.tolist() == [truth.draw(bound) for bound in bounds]


@pytest.mark.parametrize("bound", [HALF_REJECTED, 3 * 2**30, WORDS - 1, 121])
@pytest.mark.parametrize("size", [4095, 4096, 4097, 10_000])
def test_long_runs_are_those_of_the_slow_loop(bound, size):
    # Followed by one more draw, which shows how many words the run has taken.
    bounds = [bound] * size + [WORDS]
    draws = ChaChaDraws(b"\x07" * 32)
    found = [*draws.integers(bounds_array(*bounds[:-1])), *draws.integers(bounds_array(bounds[-1]))]
    assert found == slow(b"\x07" * 32, bounds)


def test_a_rejection_in_one_block_shifts_the_next():
    bounds = [100] * 9000
    bounds[5000] = HALF_REJECTED
    for last in range(32):  # half of these keys reject the word in the middle
        key = bytes(31) + bytes([last])
        assert ChaChaDraws(key).integers(bounds_array(*bounds)).tolist() == slow(key, bounds)


def test_draws_keep_the_shape_and_go_in_c_order():
    bounds = np.arange(1, 25).reshape(2, 3, 4) * 1000
    flat = slow(ZERO, bounds.ravel().tolist())
    assert ChaChaDraws(ZERO).integers(bounds).tolist() == np.reshape(flat, (2, 3, 4)).tolist()
    turned = bounds.T  # another memory layout: C order means that of the indices
    flat = slow(ZERO, [int(bound) for bound in turned.flat])
    assert ChaChaDraws(ZERO).integers(turned).tolist() == np.reshape(flat, (4, 3, 2)).tolist()


def test_no_bounds_and_a_single_one():
    draws = ChaChaDraws(ZERO)
    assert draws.integers(np.zeros((0, 3), np.int64)).shape == (0, 3)
    assert draws.integers(np.array(WORDS)).shape == ()
    assert draws.integers(bounds_array(WORDS)).tolist() == [0x903DF1A0]  # one word was taken, by the second


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint64])
def test_any_whole_number_type_gives_int64(kind):
    found = ChaChaDraws(ZERO).integers(np.full(50, 121, kind))
    assert found.dtype == np.int64
    assert found.tolist() == slow(ZERO, [121] * 50)


def test_bounds_are_left_alone():
    bounds = bounds_array(3, HALF_REJECTED, 5)
    bounds.flags.writeable = False
    found = ChaChaDraws(ZERO).integers(bounds)
    assert bounds.tolist() == [3, HALF_REJECTED, 5]
    found[:] = 0  # the caller's own array


# --- Errors ---


@pytest.mark.parametrize(
    "bounds",
    [
        bounds_array(0),
        bounds_array(-1),
        bounds_array(WORDS + 1),
        bounds_array(5, 0, 5),
        bounds_array(-(2**63)),
        np.array([2**63], np.uint64),
        np.array([2**64 - 1], np.uint64),
    ],
)
def test_a_bound_outside_its_range_takes_no_word(bounds):
    draws = ChaChaDraws(ZERO)
    with pytest.raises(ValueError, match=r"a bound lies from 1 to 2\*\*32, got"):
        draws.integers(bounds)
    assert draws.integers(bounds_array(WORDS)).tolist() == [0xADE0B876]


@pytest.mark.parametrize("bounds", [np.array([1.0]), np.array([True]), np.array(["1"]), np.array([None])])
def test_bounds_are_whole_numbers(bounds):
    with pytest.raises(ValueError, match="bounds are whole numbers, got"):
        ChaChaDraws(ZERO).integers(bounds)


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(31), bytes(33), bytearray(32), "0" * 32, 0])
def test_a_key_has_32_bytes(key):
    with pytest.raises(ValueError, match="a ChaCha20 key has 32 bytes, got"):
        ChaChaDraws(key)


# --- The key stays inside ---


def test_keys_are_fresh_by_default():
    bounds = np.full(8, WORDS)
    assert ChaChaDraws().integers(bounds).tolist() != ChaChaDraws().integers(bounds).tolist()


def test_repr_shows_nothing():
    assert repr(ChaChaDraws(b"k" * 32)) == str(ChaChaDraws(b"k" * 32)) == "ChaChaDraws()"


def test_draws_are_neither_pickled_nor_copied():
    draws = ChaChaDraws(ZERO)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            pickle.dumps(draws, protocol)
    for function in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            function(draws)
