"""Each attack succeeds on the cipher that is weak in its way, and fails on one that is not."""

import cv2
import numpy as np
import pytest

from ageveil.audit import cryptanalysis
from ageveil.audit.cryptanalysis import (
    distinct_orders,
    neighbour_correlation,
    recover_key,
    recover_order,
    repeated_blocks,
    search_keys,
    undo_order,
    undo_values,
)
from ageveil.ciphers import (
    DesKey,
    PermutationKey,
    decrypt_permutation,
    encrypt_des,
    encrypt_permutation,
    permutation_order,
)
from ageveil.image import read_image
from ageveil.pipeline import Pipeline

KEY = PermutationKey(48_271_337, 9_001_123)
DES = DesKey(bytes.fromhex("0123456789abcdee"))


@pytest.fixture(scope="module")
def face(astronaut):
    """A canonical crop."""
    return Pipeline().align_viewer(read_image(astronaut))[1].pixels


@pytest.fixture(scope="module")
def grey(face):
    return np.repeat(face.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)


def small(face, side):
    return cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)


def strong(pixels):
    """A random permutation that no key of the cipher makes, after the same value map."""
    mapped = encrypt_permutation(pixels, KEY).reshape(-1, 3)
    return np.random.default_rng(1).permutation(mapped).reshape(pixels.shape)


def test_the_closed_form_is_the_key_schedule():
    # While no number repeats, the permutation is the recurrence itself.
    for width, height in ((224, 224), (97, 31), (32, 32)):
        count = width * height
        k1, k2 = KEY.k1 % count, KEY.k2 % count
        own = cryptanalysis._schedule(np.int64(k1), np.int64(k2), np.arange(12), count)
        if len(set(own.tolist())) == 12:
            np.testing.assert_array_equal(permutation_order(width, height, KEY)[:12], own)


def test_keys_count_modulo_the_number_of_pixels():
    assert distinct_orders(3, 3) <= 81 < np.prod(np.arange(1, 10))
    for k1, k2 in ((5, 7), (2, 1)):
        np.testing.assert_array_equal(
            permutation_order(4, 3, PermutationKey(k1, k2)),
            permutation_order(4, 3, PermutationKey(k1 + 12, k2 + 24)),
        )


@pytest.mark.parametrize(("width", "height"), [(224, 224), (37, 50), (1, 9)])
def test_one_chosen_picture_gives_the_permutation_away(width, height):
    order = recover_order(lambda pixels: encrypt_permutation(pixels, KEY), width, height)
    np.testing.assert_array_equal(order, permutation_order(width, height, KEY))


def test_and_with_it_every_face_under_the_key(face):
    order = recover_order(lambda pixels: encrypt_permutation(pixels, KEY), 224, 224)
    np.testing.assert_array_equal(undo_order(encrypt_permutation(face, KEY), order), face | 1)


@pytest.mark.parametrize("mode", ["ecb", "cbc", "ctr"])
def test_a_chosen_picture_tells_nothing_of_des(mode):
    assert recover_order(lambda pixels: encrypt_des(pixels, DES, mode)[0], 32, 32) is None


@pytest.mark.parametrize("side", [224, 200, 63])
def test_one_known_picture_gives_the_key_away(face, side):
    known = face if side == 224 else small(face, side)
    attempt = recover_key(known, encrypt_permutation(known, KEY))
    np.testing.assert_array_equal(attempt.picture, known | 1)
    # The key opens every other picture of the size.
    other = np.ascontiguousarray(known[:, ::-1])
    opened = decrypt_permutation(encrypt_permutation(other, KEY), attempt.key)
    np.testing.assert_array_equal(opened, other | 1)
    assert attempt.tried < side**4 / 100


@pytest.mark.parametrize("side", [224, 63])
def test_a_grey_one_does_too(grey, side):
    known = small(grey, side)
    assert len(np.unique(known | 1)) <= 128
    attempt = recover_key(known, encrypt_permutation(known, KEY))
    assert (attempt.key.k1 % side**2, attempt.key.k2 % side**2) == (KEY.k1 % side**2, KEY.k2 % side**2)


def test_colours_that_do_not_decide_on_a_key_give_none(grey):
    # All are one colour, so that every key gives the picture back; and two colours at a size where all
    # candidates could be tried.
    for known in (np.full((16, 16, 3), 90, np.uint8), (small(grey, 12) > 128).astype(np.uint8) * 255):
        attempt = recover_key(known, encrypt_permutation(known, KEY))
        assert attempt.key is None
        assert attempt.picture is None
        assert attempt.tried > 0


@pytest.mark.parametrize("count", [17, 36, 49, 60])
@pytest.mark.parametrize("place", [0, 1, 4])
def test_keys_for_a_place_are_those_of_a_full_search(count, place):
    numbers = np.array([0, 3, 7])
    found = [
        pair
        for keys in cryptanalysis._keys(place, numbers, count)
        for pair in zip(*keys.tolist(), strict=True)
    ]

    def held(k1, k2):
        """What the recurrence of the key schedule holds at the place, step by step."""
        y, z, p = 1, 1, k1 * k2
        for i in range(place + 1):
            w, x = y + k2 + i, z + k1 + i
            y += w
            z += x + y
            p = (p + y + z) % count
        return p

    every = [(k1, k2) for k1 in range(count) for k2 in range(count)]
    assert sorted(found) == [pair for pair in every if held(*pair) in numbers]


def test_a_known_picture_tells_nothing_of_a_random_permutation_or_of_des(face):
    known = small(face, 64)
    for encrypted in (strong(known), encrypt_des(known, DES, "cbc")[0]):
        attempt = recover_key(known, encrypted)
        assert attempt.key is None
        assert attempt.picture is None


def test_pictures_of_other_sizes_are_refused(face):
    with pytest.raises(ValueError, match="of one size"):
        recover_key(face, small(face, 64))


def test_the_encrypted_picture_alone_gives_a_small_face_away(face):
    known = small(face, 16)
    steps = []
    attempt = search_keys(encrypt_permutation(known, KEY), advance=steps.append)
    np.testing.assert_array_equal(attempt.picture, known | 1)
    assert sum(steps) == attempt.tried == 16**4


def test_and_nothing_of_a_random_permutation_or_of_des(face):
    known = small(face, 12)
    for encrypted in (strong(known), encrypt_des(known, DES, "ctr")[0]):
        attempt = search_keys(encrypted)
        assert np.abs(attempt.picture.astype(int) - known).mean() > 20


def test_neighbours_tell_a_face_from_noise(face):
    assert neighbour_correlation(face) > 0.9
    assert abs(neighbour_correlation(undo_values(strong(face)))) < 0.02
    assert neighbour_correlation(undo_values(encrypt_permutation(face, KEY))) > 0.1
    assert neighbour_correlation(np.zeros((4, 4, 3), np.uint8)) == 1
    # Down the columns: 0, 2, 1, 3. Pairs (0, 2), (2, 1), (1, 3) have means 1 and 2, and r = -1 / 2.
    by_hand = np.array([[[0], [1]], [[2], [3]]], np.uint8).repeat(3, axis=2)
    assert neighbour_correlation(by_hand) == pytest.approx(-0.5)


def test_ecb_repeats_blocks_and_the_other_modes_do_not():
    flat = np.full((48, 48, 3), 90, np.uint8)
    assert repeated_blocks(encrypt_des(flat, DES, "ecb")[0]) == 1
    for mode in ("cbc", "ctr"):
        assert repeated_blocks(encrypt_des(flat, DES, mode)[0]) == 0
    half = flat.copy()
    half[24:] = np.arange(24 * 48 * 3).reshape(24, 48, 3) // 8 % 251 + np.arange(3)
    assert 0.4 < repeated_blocks(half) <= 1


def test_a_rate_of_keys_is_above_zero():
    for rate in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            cryptanalysis.des_search_days(rate)


def test_the_whole_cipher_audit(face):
    attacks = cryptanalysis.attack_ciphers(face, 3, search_side=16)
    assert [attack.recovered for attack in attacks] == [100, 100, 100]
    assert [attack.side for attack in attacks] == [224, 224, 16]
    assert attacks[2].tried == 16**4
    assert all(attack.seconds > 0 for attack in attacks)


def test_what_ciphers_leave(face):
    left = {residue.cipher: residue for residue in cryptanalysis.residues(face, 3)}
    assert left["original"].correlation > 0.9
    assert left["permutation"].correlation > 0.1
    assert 0.4 < left["permutation"].lost < 0.6  # half of the lowest bits were 0
    for mode in ("ecb", "cbc", "ctr"):
        assert abs(left[f"des-{mode}"].correlation) < 0.1
        assert left[f"des-{mode}"].lost == 0
    assert left["des-cbc"].repeated == left["des-ctr"].repeated == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 3)])
def test_tiny_pictures_are_no_trouble(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert recover_key(pixels, encrypt_permutation(pixels, KEY)).seconds >= 0
    assert 0 <= repeated_blocks(pixels) <= 1


def test_an_attack_that_gives_up_says_so(grey):
    black_and_white = (grey > 128).astype(np.uint8) * 255
    attack = cryptanalysis.attack_ciphers(black_and_white, 3, search_side=12)[1]
    assert (attack.recovered, attack.tried) == (None, 0)
