"""What training is fed: repeatable, of the right share, split over processes."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ageveil.anonymization import anonymize_crop
from ageveil.errors import DataError
from ageveil.training.faces import (
    EpochSampler,
    FacePool,
    TrainingFaces,
    ValidationFaces,
    anonymize_repeatably,
)


@pytest.fixture(scope="module")
def pool(faces):
    return FacePool.of([faces, faces])


def test_faces_of_several_folders_are_numbered_through(pool, faces):
    assert len(pool) == 2 * len(faces)
    np.testing.assert_array_equal(pool.crop(len(faces) + 3).pixels, faces.crop(3).pixels)
    np.testing.assert_array_equal(pool.low[: len(faces)], [image.age_low for image in faces.images])
    assert pool.usable.all()
    with pytest.raises(IndexError):
        pool.crop(len(pool))


def test_the_digest_tells_apart_names_ages_and_crops(faces):
    def digest(**changes):
        return FacePool.of([replace(faces, **changes)]).digest()

    images = list(faces.images)
    assert digest() == FacePool.of([faces]).digest()
    others = [
        digest(to_image=faces.to_image + 1),
        digest(images=(replace(images[0], age_low=images[0].age_low + 1, age_high=99), *images[1:])),
        digest(images=(replace(images[0], path=Path("other.png")), *images[1:])),
        digest(images=(images[1], images[0], *images[2:])),
    ]
    assert len({digest(), *others}) == 5


def test_no_folder_is_an_error():
    with pytest.raises(DataError, match="no face"):
        FacePool.of([])


def test_items_depend_on_seed_epoch_and_face_alone(pool):
    approaches = {"original": 1.0, "mosaic": 1.0, "permutation": 1.0, "des-ecb": 1.0}
    first = TrainingFaces(pool, approaches, varied=True, seed=3)
    second = TrainingFaces(pool, approaches, varied=True, seed=3)
    other = TrainingFaces(pool, approaches, varied=True, seed=4)
    differing = 0
    for index in range(12):
        for one, two in zip(first[1, index], second[1, index], strict=True):
            assert np.array_equal(one, two)
        differing += not np.array_equal(first[1, index][0], other[1, index][0])
        differing += not np.array_equal(first[1, index][0], first[2, index][0])
    assert differing == 24


def test_approaches_are_drawn_by_their_shares(pool):
    made = TrainingFaces(pool, {"original": 3.0, "mask": 1.0}, varied=False, seed=0)
    masked = 0
    for epoch in range(40):
        for index in range(10):
            crop, mask, _ = made[epoch, index]
            masked += not crop[mask].any()
    # 400 draws with a chance of 1/4: five standard deviations around 100.
    assert 57 < masked < 143


def test_without_variation_a_mask_is_the_one_that_serves(pool):
    crop, mask, number = TrainingFaces(pool, {"mask": 1.0}, varied=False, seed=0)[0, 5]
    served = anonymize_crop(pool.crop(5), "mask")
    np.testing.assert_array_equal(crop, served.pixels)
    np.testing.assert_array_equal(mask, served.eye_mask)
    assert number == 5


def test_validation_faces_are_the_same_in_every_epoch(pool):
    kept = ValidationFaces(pool, np.array([4, 2, 7]), {"original": 1.0, "mosaic": 1.0}, seed=1)
    assert len(kept) == 3
    assert [kept[position][2] for position in range(3)] == [4, 2, 7]
    np.testing.assert_array_equal(kept[1][0], kept[1][0])


@pytest.mark.parametrize("approach", ["permutation", "des-ecb", "mosaic"])
def test_training_draws_and_keys_come_from_the_generator(pool, approach):
    one, two, other = (
        anonymize_repeatably(pool.crop(0), approach, np.random.default_rng(seed)).pixels for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_every_epoch_shuffles_all_faces():
    sampler = EpochSampler(np.arange(100, 120), seed=1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        assert sorted(index for _, index in keys) == list(range(100, 120))
        orders.append([index for _, index in keys])
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize(("faces", "world"), [(20, 2), (21, 2), (2, 3), (10, 4)])
def test_processes_share_an_epoch_evenly(faces, world):
    parts = [list(EpochSampler(np.arange(faces), seed=1, rank=rank, world=world)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    seen = Counter(index for part in parts for _, index in part)
    assert set(seen) == set(range(faces))
    assert max(seen.values()) <= 2
    assert sum(seen.values()) < faces + world
