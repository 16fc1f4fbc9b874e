"""Tests of the ciphers. The truth is a slow loop written from the text of the method, another library, or a
published vector. Run this file as a script to make `golden/permutation.json` again, by the slow loop alone.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from ageveil import ciphers
from ageveil.ciphers import (
    DesKey,
    PermutationKey,
    decrypt_des,
    decrypt_permutation,
    draw_des_key,
    draw_permutation_key,
    encrypt_des,
    encrypt_permutation,
    permutation_order,
    read_key_file,
    write_key_file,
)
from ageveil.errors import CipherError, OutputError

GOLDEN = Path(__file__).parent / "golden" / "permutation.json"
GOLDEN_CASES = [
    # width, height, k1, k2: squares, powers of two, primes, single rows and columns, keys below and above N
    (1, 1, 5, 7),
    (1, 9, 3, 4),
    (9, 1, 3, 4),
    (8, 8, 0, 0),
    (16, 16, 12345, 67890),
    (23, 37, 1, 2**53 - 1),
    (37, 23, 987654321, 123456789),
    (64, 64, 4095, 4096),
    (200, 200, 20180521, 19770615),
    (224, 224, 0, 0),
    (224, 224, 50175, 50175),
    (224, 224, 123456789012345, 8999999999999989),
    (256, 256, 31415926535, 27182818284),
]

ECB = modes.ECB()  # noqa: S305 - the mode under test

SECRET_NUMBER = 1311768467463790321
SECRET_HEX = "133457799BBCDFF1"  # noqa: S105 - a textbook key, on which messages are tried


# --- The slow loop: the text, line by line ---


def slow_positions(width, height, k1, k2, *, reduce=False):
    """C before repeats are replaced. All sums may be taken modulo N; by default none is but p."""
    n = width * height
    y = z = 1
    p = k1 * k2
    found = []
    for i in range(n):
        w = y + k2 + i
        x = z + k1 + i
        y += w
        z += x + y
        if reduce:
            y, z = y % n, z % n
        p = (p + y + z) % n
        found.append(p)
    return found


def slow_order(width, height, k1, k2, *, reduce=False):
    order = slow_positions(width, height, k1, k2, reduce=reduce)
    seen = set()
    unused = iter(sorted(set(range(width * height)) - set(order), reverse=True))
    for i, position in enumerate(order):
        if position in seen:
            order[i] = next(unused)
        seen.add(position)
    return order


def slow_encrypt(pixels, order):
    """Values through (c | 1)^43 mod 256, then out[i] = in[C[i]] with i = x * H + y."""
    height = pixels.shape[0]
    out = np.zeros_like(pixels)
    for i, source in enumerate(order):
        for channel in range(3):
            value = int(pixels[source % height, source // height, channel])
            out[i % height, i // height, channel] = pow(value | 1, 43) % 256
    return out


def golden_picture(width, height):
    j = np.arange(width * height * 3)
    return ((167 * j + j // 256) % 256).astype(np.uint8).reshape(height, width, 3)


def digest(values, kind):
    return hashlib.sha256(np.ascontiguousarray(values, kind).tobytes()).hexdigest()


def golden_record(width, height, k1, k2):
    order = slow_order(width, height, k1, k2)
    return {
        "width": width,
        "height": height,
        "k1": k1,
        "k2": k2,
        "order_first": order[:16],
        "order_sha256": digest(order, "<u4"),
        "picture_sha256": digest(slow_encrypt(golden_picture(width, height), order), "u1"),
    }


def read_golden():
    """The records of the file, by width, height, k1 and k2."""
    records = json.loads(GOLDEN.read_text())["records"]
    return {(r["width"], r["height"], r["k1"], r["k2"]): r for r in records}


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


keys64 = st.integers(0, 2**64 - 1)
sides = st.integers(1, 24)


# --- Keys ---


@pytest.mark.parametrize("value", [0, 1, 2**53, 2**64 - 1])
def test_permutation_key_accepts_its_range(value):
    assert (PermutationKey(value, 0).k1, PermutationKey(0, value).k2) == (value, value)


@pytest.mark.parametrize("value", [-1, 2**64, 10**40, 1.0, True, "1", None])
def test_permutation_key_refuses_what_is_no_key(value):
    with pytest.raises(ValueError, match="k1 "):
        PermutationKey(value, 0)
    with pytest.raises(ValueError, match="k2 "):
        PermutationKey(0, value)


def test_permutation_key_error_does_not_repeat_the_key():
    with pytest.raises(ValueError, match="outside") as caught:
        PermutationKey(2**64 + SECRET_NUMBER, 0)
    assert str(2**64 + SECRET_NUMBER) not in str(caught.value)


@pytest.mark.parametrize("key", [b"", bytes(7), bytes(9), bytearray(8), "12345678", None])
def test_des_key_has_eight_bytes(key):
    with pytest.raises(ValueError, match="8 bytes, got"):
        DesKey(key)


def test_repr_hides_keys():
    shown = repr([PermutationKey(SECRET_NUMBER, SECRET_NUMBER), DesKey(b"\x13secretk")])
    assert shown == "[PermutationKey(), DesKey()]"


def test_drawn_permutation_keys_are_fresh_and_exact_in_every_json_reader():
    keys = [draw_permutation_key() for _ in range(200)]
    numbers = [number for key in keys for number in (key.k1, key.k2)]
    assert len(set(numbers)) == 400
    assert all(int(float(number)) == number < 2**53 for number in numbers)
    assert max(numbers) > 2**50  # 400 draws all below 1/8 of the range: never


def test_drawn_des_keys_are_fresh_of_odd_parity_and_not_weak():
    keys = [draw_des_key().key for _ in range(200)]
    assert len(set(keys)) == 200
    assert all(byte.bit_count() % 2 == 1 for key in keys for byte in key)
    assert not ciphers._WEAK_DES_KEYS & set(keys)


def test_the_weak_des_keys_are_those_that_undo_each_other():
    # The four weak keys undo themselves; the twelve others each undo exactly one other.
    block = b"8 bytes."
    encrypted = {key: third_party(key, ECB, block) for key in ciphers._WEAK_DES_KEYS}
    undone_by = {
        key: [other for other in encrypted if third_party(other, ECB, cipher) == block]
        for key, cipher in encrypted.items()
    }
    assert len(undone_by) == 16
    assert all(len(partners) == 1 for partners in undone_by.values())
    assert sum(partners == [key] for key, partners in undone_by.items()) == 4
    assert all(byte.bit_count() % 2 == 1 for key in undone_by for byte in key)


def test_weak_candidates_are_passed_over():
    weak = bytes.fromhex("0101010101010101")
    weak_but_for_parity = bytes.fromhex("00FE00FE00FE00FE")  # becomes 01FE01FE01FE01FE
    good = bytes.fromhex("123456789ABCDEF0")
    # By hand: 12 = 0001 0010 has two ones, so 13; 34 has three, stays; 56 four: 57; 78 four: 79;
    # 9A four: 9B; BC five, stays; DE six: DF; F0 four: F1.
    assert ciphers._first_usable(iter([weak, weak_but_for_parity, good])) == DesKey(
        bytes.fromhex("133457799BBCDFF1")
    )


# --- Key files ---


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"k1": 0, "k2": 18446744073709551615}', PermutationKey(0, 2**64 - 1)),
        ('\n { "k2" : 2,\t"k1" : 1 } \n', PermutationKey(1, 2)),
        ('{"des": "133457799bbcdff1"}', DesKey(bytes.fromhex(SECRET_HEX))),
        ('{"des": "133457799BBCDFF1"}', DesKey(bytes.fromhex(SECRET_HEX))),
        ('\ufeff{"k1": 1, "k2": 2}', PermutationKey(1, 2)),
    ],
)
def test_key_file_is_read(tmp_path, text, key):
    path = tmp_path / "key.json"
    path.write_text(text, encoding="utf-8")
    assert read_key_file(path) == key
    assert read_key_file(str(path)) == key


N, H = SECRET_NUMBER, SECRET_HEX
BAD_KEY_FILES = {
    "empty": b"",
    "no JSON": b"k1=%d" % N,
    "cut off": b'{"k1": %d, "k2"' % N,
    "not UTF-8": b'{"des": "\xff\xfe"}',
    "UTF-16": json.dumps({"des": H}).encode("utf-16"),
    "a list": b"[%d, %d]" % (N, N),
    "a number": b"%d" % N,
    "null": b"null",
    "no name": b"{}",
    "one key": b'{"k1": %d}' % N,
    "a third name": b'{"k1": %d, "k2": %d, "k3": 1}' % (N, N),
    "both kinds": b'{"k1": %d, "k2": %d, "des": "%s"}' % (N, N, H.encode()),
    "name given twice": b'{"k1": %d, "k1": 2, "k2": 3}' % N,
    "negative": b'{"k1": -%d, "k2": 1}' % N,
    "too large": b'{"k1": %d, "k2": 18446744073709551616}' % N,
    "4000 digits": b'{"k1": %d, "k2": 1%s}' % (N, b"0" * 4000),
    "float": b'{"k1": %d.0, "k2": 1}' % N,
    "exponent": b'{"k1": %d, "k2": 1e3}' % N,
    "NaN": b'{"k1": %d, "k2": NaN}' % N,
    "bool": b'{"k1": %d, "k2": true}' % N,
    "text for a number": b'{"k1": "%d", "k2": "1"}' % N,
    "15 digits": b'{"des": "%s"}' % H[:15].encode(),
    "17 digits": b'{"des": "%s0"}' % H.encode(),
    "spaces": b'{"des": "13345779 9BBCDFF"}',
    "line end": b'{"des": "%s\\n"}' % H.encode(),
    "no hex": b'{"des": "G33457799BBCDFF1"}',
    "full-width digits": '{"des": "\uff11\uff1333457799BBCDFF"}'.encode(),
    "DES as a number": b'{"des": 1334577991234567}',
    "another name": b'{"DES": "%s"}' % H.encode(),
    "nested too deep": b"[" * 4096,
}


@pytest.mark.parametrize("content", BAD_KEY_FILES.values(), ids=BAD_KEY_FILES)
def test_bad_key_file_is_one_clear_line_without_its_content(tmp_path, content):
    path = tmp_path / "key.json"
    path.write_bytes(content)
    with pytest.raises(CipherError, match="is no key file: expected JSON") as caught:
        read_key_file(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert not any(part in message for part in (str(N), H, H[:15], "13345779", "33457799"))
    # A parser's exception would carry the whole text into a log.
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_key_file_length_limit(tmp_path):
    path = tmp_path / "key.json"
    text = b'{"k1": 1, "k2": 2}'
    path.write_bytes(text + b" " * (4096 - len(text)))
    assert read_key_file(path) == PermutationKey(1, 2)
    path.write_bytes(text + b" " * (4097 - len(text)))
    with pytest.raises(CipherError, match="at most 4096 bytes"):
        read_key_file(path)


def test_missing_key_file_and_directory(tmp_path):
    with pytest.raises(CipherError, match=r"cannot read the key file .*gone.json: No such file"):
        read_key_file(tmp_path / "gone.json")
    with pytest.raises(CipherError, match=r"cannot read the key file .*: Is a directory"):
        read_key_file(tmp_path)


@given(k1=keys64, k2=keys64, des=st.binary(min_size=8, max_size=8))
@settings(deadline=None, max_examples=30)
def test_written_key_is_read_again(tmp_path_factory, k1, k2, des):
    folder = tmp_path_factory.mktemp("keys")
    for name, key in (("p", PermutationKey(k1, k2)), ("d", DesKey(des))):
        write_key_file(folder / name, key)
        assert read_key_file(folder / name) == key


def test_key_file_content(tmp_path):
    write_key_file(tmp_path / "p", PermutationKey(1, 2))
    write_key_file(tmp_path / "d", DesKey(bytes.fromhex(SECRET_HEX)))
    assert json.loads((tmp_path / "p").read_text()) == {"k1": 1, "k2": 2}
    assert json.loads((tmp_path / "d").read_text()) == {"des": SECRET_HEX.lower()}


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX systems")
def test_key_file_is_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        write_key_file(tmp_path / "key", PermutationKey(1, 2))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_key_file_is_never_overwritten(tmp_path):
    path = tmp_path / "key"
    path.write_text("older")
    with pytest.raises(OutputError, match="key exists; a key file is never overwritten"):
        write_key_file(path, PermutationKey(1, 2))
    assert path.read_text() == "older"


@pytest.mark.skipif(os.name != "posix", reason="making a link needs a privilege elsewhere")
def test_key_file_follows_no_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OutputError, match="exists"):
        write_key_file(tmp_path / "link", PermutationKey(1, 2))
    assert not (tmp_path / "target").exists()


def test_key_file_in_a_missing_folder(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write the key file .*: No such file"):
        write_key_file(tmp_path / "gone" / "key", PermutationKey(1, 2))


def test_key_file_of_no_key(tmp_path):
    with pytest.raises(ValueError, match="expected a PermutationKey or a DesKey, got bytes"):
        write_key_file(tmp_path / "key", bytes(8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="file size limits are those of POSIX systems")
def test_no_half_written_key_file_is_left(tmp_path):
    # A limit on the size of files stands for a full disk. It holds for a whole process: use another one.
    program = (
        "import resource, sys\n"
        "from ageveil import ciphers, errors\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))\n"
        "try:\n"
        "    ciphers.write_key_file(sys.argv[1], ciphers.PermutationKey(1, 2))\n"
        "except errors.OutputError as error:\n"
        "    sys.exit(0 if 'File too large' in str(error) else 1)\n"
        "sys.exit(2)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "key")], check=False)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


# --- The permutation's order ---


@pytest.mark.parametrize(
    ("width", "height", "k1", "k2", "order"),
    [
        # p = 0: C = 0
        (1, 1, 7, 9, [0]),
        # (w, x, y, z, p): (3, 2, 4, 7, 1) (7, 9, 11, 27, 0) (15, 30, 26, 83, 1); the last one repeats
        (3, 1, 1, 2, [1, 0, 2]),
        (1, 3, 1, 2, [1, 0, 2]),
        # (1, 1, 2, 4, 2) (3, 5, 5, 14, 1) (7, 16, 12, 42, 3) (15, 45, 27, 114, 0): no repeat
        (2, 2, 0, 0, [2, 1, 3, 0]),
        # (2, 2, 3, 6, 0) (5, 8, 8, 22, 0) (11, 25, 19, 66, 0) (23, 70, 42, 178, 0) (47, 183, 89, 450, 4):
        # three repeats, replaced by 3, 2, 1
        (5, 1, 1, 1, [0, 3, 2, 1, 4]),
    ],
)
def test_order_worked_out_by_hand(width, height, k1, k2, order):
    assert permutation_order(width, height, PermutationKey(k1, k2)).tolist() == order


@given(width=sides, height=sides, k1=keys64, k2=keys64)
@settings(deadline=None)
def test_order_is_that_of_the_slow_loop(width, height, k1, k2):
    order = permutation_order(width, height, PermutationKey(k1, k2))
    assert order.dtype == np.int64
    assert order.tolist() == slow_order(width, height, k1, k2)


@pytest.mark.parametrize("pixels", [65535, 65536, 65537, 131072, 131073])
def test_order_at_the_edges_of_its_blocks(pixels):
    key = PermutationKey(pixels - 1, 2**64 - 1)
    expected = slow_order(pixels, 1, key.k1, key.k2, reduce=True)
    assert permutation_order(pixels, 1, key).tolist() == expected


@given(
    width=st.integers(1, 400) | st.sampled_from([1, 2, 4, 64, 128, 256, 512]),
    height=st.integers(1, 400) | st.sampled_from([1, 2, 4, 64, 128, 256, 512]),
    k1=keys64,
    k2=keys64,
)
@settings(deadline=None, max_examples=60)
def test_order_holds_each_pixel_once(width, height, k1, k2):
    order = permutation_order(width, height, PermutationKey(k1, k2))
    assert np.array_equal(np.sort(order), np.arange(width * height))


@given(width=sides, height=sides, k1=st.integers(0, 2**60), k2=st.integers(0, 2**60), data=st.data())
@settings(deadline=None, max_examples=50)
def test_order_depends_on_remainders_alone(width, height, k1, k2, data):
    n = width * height
    more = PermutationKey(
        k1 + n * data.draw(st.integers(0, 2**40)), k2 + n * data.draw(st.integers(0, 2**40))
    )
    order = permutation_order(width, height, PermutationKey(k1, k2))
    assert np.array_equal(permutation_order(width, height, more), order)


def matrix_steps(pixels, k1, k2, start, count):
    """The recurrence as powers of a matrix over the state (y, z, p, i, 1), in Python's exact numbers."""
    y = [2, 0, 0, 1, k2]
    z = [2, 2, 0, 2, k1 + k2]  # z + x + y, with the new y
    p = [y[j] + z[j] + (j == 2) for j in range(5)]
    step = [y, z, p, [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]

    def times(a, b):
        return [[sum(r[k] * b[k][j] for k in range(5)) % pixels for j in range(len(b[0]))] for r in a]

    state = [[1], [1], [k1 * k2], [0], [1]]
    power, remaining = step, start
    while remaining:
        if remaining & 1:
            state = times(power, state)
        power, remaining = times(power, power), remaining >> 1
    found = []
    for _ in range(count):
        state = times(step, state)
        found.append(state[2][0])
    return found


def test_matrix_steps_agree_with_the_slow_loop():
    assert matrix_steps(35, 12, 34, 0, 35) == slow_positions(7, 5, 12, 34)
    assert matrix_steps(35, 12, 34, 20, 15) == slow_positions(7, 5, 12, 34)[20:]


@pytest.mark.parametrize("pixels", [50_000_000, 2**30 - 35, 2**30 - 1, 2**30])
@pytest.mark.parametrize("keys", ["largest", "middle"])
def test_no_sum_overflows_up_to_the_largest_picture(pixels, keys):
    # Such an order would fill gigabytes: look at its first, some middle and its last steps.
    k1, k2 = (pixels - 1, pixels - 1) if keys == "largest" else (pixels // 3, pixels // 2 + 1)
    powers = ciphers._powers_of_two(100, pixels)
    assert powers.tolist() == [pow(2, exponent, pixels) for exponent in range(100)]
    for start in (0, pixels // 2, pixels - 100):
        found = ciphers._steps(start, powers, pixels, k1, k2).tolist()
        assert found == matrix_steps(pixels, k1, k2, start, 100)


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (-1, 5), (1.0, 1), (True, 1), ("1", 1)])
def test_order_needs_sides_of_at_least_one(width, height):
    with pytest.raises(ValueError, match="a side is a whole number of pixels"):
        permutation_order(width, height, PermutationKey(1, 2))


@pytest.mark.parametrize(("width", "height"), [(2**30 + 1, 1), (1, 2**30 + 1), (2**15 + 1, 2**15)])
def test_order_has_a_largest_picture(width, height):
    with pytest.raises(ValueError, match="expected at most 1073741824 pixels"):
        permutation_order(width, height, PermutationKey(1, 2))


def test_order_is_the_callers_own_array():
    key = PermutationKey(11, 13)
    permutation_order(4, 4, key)[:] = 0
    assert permutation_order(4, 4, key).tolist() == slow_order(4, 4, 11, 13)


# --- The known answers ---


def test_golden_file_holds_the_listed_cases():
    assert list(read_golden()) == GOLDEN_CASES


@pytest.mark.parametrize("case", [case for case in GOLDEN_CASES if case[0] * case[1] <= 4096])
def test_golden_file_is_that_of_the_slow_loop(case):
    assert golden_record(*case) == read_golden()[case]


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden_order_and_picture(case):
    (width, height, k1, k2), record = case, read_golden()[case]
    order = permutation_order(width, height, PermutationKey(k1, k2))
    assert order[:16].tolist() == record["order_first"]
    assert digest(order, "<u4") == record["order_sha256"]
    encrypted = encrypt_permutation(golden_picture(width, height), PermutationKey(k1, k2))
    assert digest(encrypted, "u1") == record["picture_sha256"]


# --- The permutation on pictures ---


def test_values_worked_out_by_hand():
    # Of one pixel, only the values change. 1^43 = 1; (-1)^43 = -1; and modulo 256 3^2 = 9, 3^8 = 161,
    # 3^32 = 129, so that 3^43 = 129 * 161 * 9 * 3 = 33 * 27 = 123.
    pixel = np.array([[[0, 255, 2]]], np.uint8)
    assert encrypt_permutation(pixel, PermutationKey(0, 0)).tolist() == [[[1, 255, 123]]]


def test_each_value_comes_back_with_its_low_bit_set():
    key = PermutationKey(1, 1)
    for value in range(256):
        pixel = np.full((1, 1, 3), value, np.uint8)
        encrypted = encrypt_permutation(pixel, key)
        assert (encrypted == pow(value | 1, 43) % 256).all()
        assert (decrypt_permutation(encrypted, key) == value | 1).all()
        # Decryption cubes whatever comes, an even value too.
        assert (decrypt_permutation(pixel, key) == value**3 % 256).all()


@given(width=sides, height=sides, k1=keys64, k2=keys64, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_encryption_is_that_of_the_slow_loop(width, height, k1, k2, seed):
    pixels = picture(height, width, seed)
    expected = slow_encrypt(pixels, slow_order(width, height, k1, k2))
    assert np.array_equal(encrypt_permutation(pixels, PermutationKey(k1, k2)), expected)


def test_encryption_of_a_picture_too_large_to_keep_its_schedule():
    height, width, key = 1025, 1024, PermutationKey(2**64 - 1, 2**40 + 7)
    pixels = picture(height, width)
    encrypted = encrypt_permutation(pixels, key)
    order = np.array(slow_order(width, height, key.k1, key.k2, reduce=True))
    column_major = pixels.transpose(1, 0, 2).reshape(-1, 3)[order]
    expected = column_major.reshape(width, height, 3).transpose(1, 0, 2)
    cubes = np.array([value**3 % 256 for value in range(256)], np.uint8)
    assert np.array_equal(cubes[encrypted], expected | 1)
    assert np.array_equal(decrypt_permutation(encrypted, key), pixels | 1)


@given(width=st.integers(1, 80), height=st.integers(1, 80), k1=keys64, k2=keys64, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_decryption_returns_the_picture_but_for_the_low_bits(width, height, k1, k2, seed):
    pixels, key = picture(height, width, seed), PermutationKey(k1, k2)
    assert np.array_equal(decrypt_permutation(encrypt_permutation(pixels, key), key), pixels | 1)


def test_kept_schedules_are_not_mixed_up():
    # Same N and same keys, but another shape; same shape, but other keys; more of them than are kept.
    cases = [(6, 4, 1, 2), (4, 6, 1, 2), (24, 1, 1, 2), (6, 4, 2, 1), (12, 2, 1, 2), (6, 4, 25, 26)]
    for width, height, k1, k2 in cases * 2:
        pixels = picture(height, width)
        expected = slow_encrypt(pixels, slow_order(width, height, k1, k2))
        first = encrypt_permutation(pixels, PermutationKey(k1, k2))
        assert np.array_equal(first, expected)
        first[:] = 0  # the caller's own array
        assert np.array_equal(encrypt_permutation(pixels, PermutationKey(k1, k2)), expected)


@pytest.mark.parametrize("function", [encrypt_permutation, decrypt_permutation])
def test_permutation_leaves_its_input_alone(function):
    pixels = picture(5, 7)
    before = pixels.copy()
    pixels.flags.writeable = False
    out = function(pixels, PermutationKey(3, 4))
    assert np.array_equal(pixels, before)
    assert (out.shape, out.dtype, out.flags.writeable) == (pixels.shape, np.uint8, True)
    assert not np.shares_memory(out, pixels)


@pytest.mark.parametrize("function", [encrypt_permutation, decrypt_permutation])
def test_permutation_does_not_depend_on_memory_layout(function):
    whole = picture(12, 20)
    view = whole[::2, ::-1].transpose(1, 0, 2)
    key = PermutationKey(3, 4)
    assert np.array_equal(function(view, key), function(np.ascontiguousarray(view), key))


BAD_PICTURES = [
    np.zeros((0, 4, 3), np.uint8),
    np.zeros((4, 4), np.uint8),
    np.zeros((4, 4, 4), np.uint8),
    np.zeros((4, 4, 3), np.float64),
    np.zeros((4, 4, 3), np.int64),
    [[[1, 2, 3]]],
]


@pytest.mark.parametrize("pixels", BAD_PICTURES)
@pytest.mark.parametrize("function", [encrypt_permutation, decrypt_permutation])
def test_permutation_needs_a_picture(function, pixels):
    with pytest.raises(ValueError, match="expected"):
        function(pixels, PermutationKey(1, 2))


@pytest.mark.parametrize("key", [DesKey(bytes(8)), (1, 2), None])
def test_permutation_needs_its_own_kind_of_key(key):
    for function in (encrypt_permutation, decrypt_permutation):
        with pytest.raises(ValueError, match="the permutation needs a PermutationKey, got"):
            function(picture(2, 2), key)
    with pytest.raises(ValueError, match="the permutation needs a PermutationKey, got"):
        permutation_order(2, 2, key)


# --- DES ---


def third_party(key, mode, content):
    """Single DES by another library: three times the same key makes triple DES a single one."""
    return Cipher(TripleDES(key * 3), mode).encryptor().update(content)


def third_party_counter_mode(key, iv, content):
    """CTR from its definition: the other library has it for no DES."""
    first = int.from_bytes(iv, "big")
    blocks = range(-(-len(content) // 8))
    counters = b"".join(((first + j) % 2**64).to_bytes(8, "big") for j in blocks)
    stream = third_party(key, ECB, counters)
    return bytes(a ^ b for a, b in zip(content, stream, strict=False))


THIRD_PARTY = {
    "ecb": lambda key, iv, content: third_party(key, ECB, content),
    "cbc": lambda key, iv, content: third_party(key, modes.CBC(iv), content),
    "ctr": third_party_counter_mode,
}


def as_picture(content):
    """Bytes as one row of pixels."""
    return np.frombuffer(content, np.uint8).reshape(1, -1, 3)


@pytest.mark.parametrize(
    ("key", "plain", "encrypted"),
    [
        # The example worked through in textbooks.
        ("133457799BBCDFF1", "0123456789ABCDEF", "85E813540F0AB405"),
        # NBS Special Publication 500-20, variable plaintext and variable key.
        ("0101010101010101", "8000000000000000", "95F8A5E5DD31D900"),
        ("8001010101010101", "0000000000000000", "95A8D72813DAA94D"),
    ],
)
def test_des_published_blocks(key, plain, encrypted):
    # Three equal blocks make eight pixels; ECB encrypts each by itself.
    found, iv = encrypt_des(as_picture(bytes.fromhex(plain) * 3), DesKey(bytes.fromhex(key)), "ecb")
    assert found.tobytes() == bytes.fromhex(encrypted) * 3
    assert iv == b""


@pytest.mark.parametrize(
    ("mode", "iv", "encrypted"),
    [
        ("ecb", None, "3FA40E8A984D48156A271787AB8883F9893D51EC4B563B53"),
        ("cbc", "1234567890ABCDEF", "E5C7CDDE872BF27C43E934008C389C0F683788499A7C05F6"),
    ],
)
def test_des_published_messages(mode, iv, encrypted):
    # FIPS 81, tables B1 and C1.
    iv = None if iv is None else bytes.fromhex(iv)
    pixels, key = as_picture(b"Now is the time for all "), DesKey(bytes.fromhex("0123456789ABCDEF"))
    found, _ = encrypt_des(pixels, key, mode, iv)
    assert found.tobytes() == bytes.fromhex(encrypted)
    assert np.array_equal(decrypt_des(found, key, mode, iv), pixels)


@given(
    mode=st.sampled_from(["ecb", "cbc", "ctr"]),
    height=st.integers(1, 12),
    eighths=st.integers(1, 4),
    key=st.binary(min_size=8, max_size=8),
    iv=st.binary(min_size=8, max_size=8),
)
@settings(deadline=None)
def test_des_agrees_with_another_library_and_inverts(mode, height, eighths, key, iv):
    pixels = picture(height, 8 * eighths)
    before = pixels.copy()
    given_iv = None if mode == "ecb" else iv
    encrypted, used = encrypt_des(pixels, DesKey(key), mode, given_iv)
    assert used == (given_iv or b"")
    assert encrypted.shape == pixels.shape
    assert encrypted.tobytes() == THIRD_PARTY[mode](key, iv, pixels.tobytes())
    assert np.array_equal(decrypt_des(encrypted, DesKey(key), mode, used), pixels)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (1, 3), (5, 7), (8, 1), (224, 224)])
@pytest.mark.parametrize(
    "iv", ["0000000000000000", "FFFFFFFFFFFFFFFF", "FFFFFFFFFFFFFFFE", "00000000FFFFFFFF"]
)
def test_des_counter_mode_at_any_length_and_any_start(height, width, iv):
    pixels, key, iv = picture(height, width), draw_des_key(), bytes.fromhex(iv)
    encrypted, used = encrypt_des(pixels, key, "ctr", iv)
    assert used == iv
    assert encrypted.tobytes() == third_party_counter_mode(key.key, iv, pixels.tobytes())
    assert np.array_equal(decrypt_des(encrypted, key, "ctr", iv), pixels)


@pytest.mark.parametrize("mode", ["ecb", "cbc"])
@pytest.mark.parametrize("width", [7, 9])
def test_des_block_modes_need_whole_blocks(mode, width):
    for function in (encrypt_des, decrypt_des):
        iv = None if mode == "ecb" else bytes(8)
        with pytest.raises(ValueError, match=f"multiple of 8 bytes, got {width} x 1 x 3 = {width * 3}"):
            function(picture(1, width), DesKey(bytes(8)), mode, iv)


@pytest.mark.parametrize("mode", ["cbc", "ctr"])
def test_des_draws_a_fresh_iv(mode):
    pixels, key = picture(8, 8), draw_des_key()
    (first, iv1), (second, iv2) = encrypt_des(pixels, key, mode), encrypt_des(pixels, key, mode)
    assert len(iv1) == len(iv2) == 8
    assert iv1 != iv2
    assert not np.array_equal(first, second)
    assert np.array_equal(decrypt_des(first, key, mode, iv1), pixels)


@pytest.mark.parametrize("mode", ["cbc", "ctr"])
@pytest.mark.parametrize("iv", [b"", bytes(7), bytes(9), "12345678", bytearray(8)])
def test_des_iv_has_eight_bytes(mode, iv):
    for function in (encrypt_des, decrypt_des):
        with pytest.raises(ValueError, match=f"DES in mode {mode} has an IV of 8 bytes, got"):
            function(picture(8, 8), DesKey(bytes(8)), mode, iv)


@pytest.mark.parametrize("mode", ["cbc", "ctr"])
def test_des_decryption_needs_the_iv(mode):
    with pytest.raises(ValueError, match="has an IV of 8 bytes, got 0 bytes"):
        decrypt_des(picture(8, 8), DesKey(bytes(8)), mode)


def test_des_ecb_has_no_iv():
    for function in (encrypt_des, decrypt_des):
        with pytest.raises(ValueError, match="DES in mode ecb has an IV of 0 bytes, got 8 bytes"):
            function(picture(8, 8), DesKey(bytes(8)), "ecb", bytes(8))


@pytest.mark.parametrize("mode", ["ECB", "ofb", "", None, 1])
def test_des_modes_are_listed(mode):
    for function in (encrypt_des, decrypt_des):
        with pytest.raises(ValueError, match="a mode is one of ecb, cbc, ctr, got"):
            function(picture(8, 8), DesKey(bytes(8)), mode)


@pytest.mark.parametrize("key", [PermutationKey(1, 2), bytes(8), None])
def test_des_needs_its_own_kind_of_key(key):
    for function in (encrypt_des, decrypt_des):
        with pytest.raises(ValueError, match="DES needs a DesKey, got"):
            function(picture(8, 8), key, "ecb")


@pytest.mark.parametrize("pixels", BAD_PICTURES)
def test_des_needs_a_picture(pixels):
    for function in (encrypt_des, decrypt_des):
        with pytest.raises(ValueError, match="expected"):
            function(pixels, DesKey(bytes(8)), "ecb")


@pytest.mark.parametrize("mode", ["ecb", "cbc", "ctr"])
def test_des_takes_any_memory_layout_and_gives_a_new_array(mode):
    whole = picture(16, 16)
    view = whole[:, ::-2].transpose(1, 0, 2)
    view.flags.writeable = False
    key, iv = DesKey(b"8 bytes."), None if mode == "ecb" else bytes(8)
    found, _ = encrypt_des(view, key, mode, iv)
    assert found.tobytes() == THIRD_PARTY[mode](key.key, iv, view.tobytes())
    assert found.flags.writeable
    assert decrypt_des(found, key, mode, iv).flags.writeable


def test_ecb_repeats_blocks_as_the_docs_say():
    flat = np.full((8, 8, 3), 200, np.uint8)
    encrypted, _ = encrypt_des(flat, draw_des_key(), "ecb")
    assert len({encrypted.tobytes()[i : i + 8] for i in range(0, flat.nbytes, 8)}) == 1


def test_the_cipher_library_is_loaded_only_when_used():
    program = "import sys, ageveil.ciphers, ageveil.draws; sys.exit('Crypto' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def write_golden():
    """One record a line."""
    texts = {
        "made_by": "the slow loop in tests/test_ciphers.py; run that file as a script to repeat it",
        "order": "C, repeats replaced; the hash is over its unsigned 32-bit little-endian words",
        "picture": "byte j of the plain picture, row by row, is (167 * j + j // 256) mod 256; "
        "the hash is over the encrypted bytes in the same order",
    }
    records = ",\n".join(json.dumps(golden_record(*case)) for case in GOLDEN_CASES)
    head = "".join(f"{json.dumps(name)}: {json.dumps(text)},\n" for name, text in texts.items())
    GOLDEN.write_text(f'{{\n{head}"records": [\n{records}\n]\n}}\n')


if __name__ == "__main__":
    write_golden()
