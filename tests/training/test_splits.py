"""Splits share nobody, do not depend on order or company, and have the shares that were asked for."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ageveil.errors import DataError
from ageveil.estimation import Split
from ageveil.training.labels import LabelledImage
from ageveil.training.splits import covers, left_out, split_fold, split_validation


def face(name, age=30, *, high=None, identity=None, fold=None):
    return LabelledImage(Path("faces") / name, age, age if high is None else high, identity, fold=fold)


MANY = [face(f"{n}.jpg", n % 100) for n in range(4000)]


def names(images, indices):
    return {images[index].path.name for index in indices}


def test_every_picture_is_on_one_side():
    train, validation = split_validation(MANY, share=0.1, seed=0)
    assert sorted([*train, *validation]) == list(range(4000))
    assert list(train) == sorted(train)
    assert list(validation) == sorted(validation)
    assert train.dtype == validation.dtype == np.int64


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_share_is_about_the_one_asked_for(share, seed):
    _, validation = split_validation(MANY, share=share, seed=seed)
    # Five standard deviations of a binomial count.
    assert abs(len(validation) - 4000 * share) < 5 * np.sqrt(4000 * share * (1 - share))


def test_the_hash_is_the_documented_one():
    # A split that was published must come out again: keyed by the seed and the name, in [0, 1).
    _, validation = split_validation(MANY, share=0.1, seed=3)
    expected = {
        image.path.name
        for image in MANY
        if int(hashlib.sha256(f"3 file {image.path.name}".encode()).hexdigest()[:12], 16) / 16**12 < 0.1
    }
    assert names(MANY, validation) == expected


def test_neither_order_nor_company_nor_folder_matters():
    chosen = names(MANY, split_validation(MANY, share=0.1, seed=0)[1])
    backwards = MANY[::-1]
    assert names(backwards, split_validation(backwards, share=0.1, seed=0)[1]) == chosen
    half = MANY[::2]
    kept = {image.path.name for image in half}
    assert names(half, split_validation(half, share=0.1, seed=0)[1]) == chosen & kept
    moved = [LabelledImage(Path("/elsewhere") / i.path.name, i.age_low, i.age_high) for i in MANY]
    assert names(moved, split_validation(moved, share=0.1, seed=0)[1]) == chosen


def test_another_seed_draws_another_split():
    first, other = (names(MANY, split_validation(MANY, share=0.1, seed=seed)[1]) for seed in (0, 1))
    assert len(first & other) < 0.3 * len(first)


def test_a_larger_share_keeps_whoever_was_in():
    small, large = (names(MANY, split_validation(MANY, share=share, seed=0)[1]) for share in (0.1, 0.2))
    assert small < large


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), min_size=30, max_size=60), st.integers(0, 99)
)
def test_no_identity_stands_on_both_sides(people, seed):
    images = [face(f"{n}.jpg", age, identity=f"p{who}") for n, (who, age) in enumerate(people)]
    try:
        parts = split_validation(images, share=0.3, hold_out={(13, 17): 0.6}, seed=seed)
    except DataError:
        return  # all fell to one side
    first, second = ({images[index].identity for index in part} for part in parts)
    assert not first & second


def test_an_identity_is_no_file_name():
    # Who is called like a file must not be tied to it.
    images = [face(f"{n}.jpg") for n in range(300)]
    people = [face("x.jpg", identity=f"{n}.jpg") for n in range(300)]
    mixed = images + people
    _, validation = split_validation(mixed, share=0.5, seed=0)
    held = set(validation.tolist())
    assert 100 < sum((n in held) == (n + 300 in held) for n in range(300)) < 200


def test_more_of_an_interval_of_ages_is_held_out():
    plain = names(MANY, split_validation(MANY, share=0.1, seed=0)[1])
    _, validation = split_validation(MANY, share=0.1, hold_out={(13, 17): 1.0}, seed=0)
    # All of 13 to 17, both ends included, and of the others the same as before.
    assert names(MANY, validation) == plain | {i.path.name for i in MANY if 13 <= i.age_low <= 17}
    none = split_validation(MANY, share=0.1, hold_out={(13, 17): 0.0}, seed=0)[1]
    assert names(MANY, none) == {n for n in plain if not 13 <= int(n.removesuffix(".jpg")) % 100 <= 17}


def test_the_largest_of_two_held_out_shares_counts():
    _, validation = split_validation(MANY, share=0.1, hold_out={(10, 14): 0.0, (14, 20): 1.0}, seed=0)
    ages = Counter(MANY[index].age for index in validation)
    assert (ages[13], ages[14], ages[20]) == (0, 40, 40)


def test_a_label_that_is_an_interval_is_not_held_out():
    images = [face(f"{n}.jpg", 13, high=17) for n in range(200)]
    plain, held = (
        split_validation(images, share=0.2, hold_out=hold_out, seed=0)[1].tolist()
        for hold_out in ({}, {(13, 17): 1.0})
    )
    assert plain == held


def test_one_held_out_picture_takes_its_whole_identity_along():
    images = [face(f"{n}.jpg", 40, identity=f"p{n}") for n in range(100)]
    images += [face(f"young{n}.jpg", 15, identity=f"p{n}") for n in range(0, 100, 4)]
    _, validation = split_validation(images, share=0.01, hold_out={(13, 17): 1.0}, seed=0)
    assert {f"p{n}" for n in range(0, 100, 4)} <= {images[index].identity for index in validation}


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.1, float("nan")])
def test_a_share_without_two_parts_is_refused(share):
    with pytest.raises(ValueError, match="above 0 and below 1, got"):
        split_validation(MANY, share=share, seed=0)


@pytest.mark.parametrize("held", [-0.01, 1.01, float("nan")])
def test_a_held_out_share_outside_its_bounds_is_refused(held):
    with pytest.raises(ValueError, match=r"lies in \[0, 1\], got"):
        split_validation(MANY, share=0.1, hold_out={(13, 17): held}, seed=0)


@pytest.mark.parametrize(
    ("images", "part"),
    [([], "training"), ([face("a.jpg", 15)], "training"), ([face("a.jpg", 14, high=15)], "held-out")],
)
def test_an_empty_part_is_an_error(images, part):
    with pytest.raises(DataError, match=f"the {part} part is empty of {len(images)} pictures"):
        split_validation(images, share=1e-9, hold_out={(15, 15): 1.0}, seed=0)


# Folds


def test_utkfaces_picture_goes_with_its_crop():
    names = [f"{20 + n % 50}_{n % 2}_{n % 5}_2017010{n % 9}{n:09}.jpg" for n in range(400)]
    whole, chips = [face(name) for name in names], [face(f"{name}.chip.jpg") for name in names]
    for one, other in zip(
        split_validation(whole, share=0.3, seed=1), split_validation(chips, share=0.3, seed=1), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    # Any other name counts as it stands.
    some, others = (split_validation([face(f"{n}{end}") for n in range(400)], share=0.3, seed=1)[1].tolist()
                    for end in (".jpg", ".jpg.chip.jpg"))  # fmt: skip
    assert some != others


def test_what_a_run_left_out_are_its_validation_faces_and_its_fold():
    images = [face(f"{n}.jpg", fold=n % 4) for n in range(200)]
    _, validating = split_validation(images, share=0.2, seed=5)
    assert left_out(images, share=0.2, seed=5).tolist() == validating.tolist()
    expected = {index for index in range(200) if index % 4 == 3} | set(validating.tolist())
    assert left_out(images, share=0.2, seed=5, test_fold=3).tolist() == sorted(expected)


def test_what_trained_in_smaller_company_is_not_left_out():
    # Of each person a picture at 40, and one at 15, of which a larger share is held out: it shows no face.
    trained = [face(f"{n}.jpg", 40, identity=f"p{n}") for n in range(400)]
    held = {(13, 17): 0.55}
    training, validating = split_validation(trained, share=0.1, hold_out=held, seed=3)
    both = [*trained, *(face(f"{n}-young.jpg", 15, identity=f"p{n}") for n in range(400))]
    out = left_out(both, share=0.1, hold_out=held, seed=3)
    assert not set(out) & set(training)
    assert set(out) >= set(validating)
    assert abs(int((out >= 400).sum()) - 220) < 40  # four standard deviations


def test_where_nothing_was_left_out_there_is_an_error():
    with pytest.raises(DataError, match="none of 1 pictures was kept out"):
        left_out([face("a.jpg")], share=1e-9, seed=0)


FOLDED = [face(f"{n}.jpg", identity=f"p{n // 2}", fold=n // 2 % 3) for n in range(12)]


def test_a_fold_is_tested_and_the_others_train():
    train, test = split_fold(FOLDED, 1)
    assert test.tolist() == [2, 3, 8, 9]
    assert train.tolist() == [0, 1, 4, 5, 6, 7, 10, 11]


@pytest.mark.parametrize(
    ("images", "fold", "says"),
    [
        (FOLDED, 3, "the held-out part is empty"),
        ([face("a.jpg", fold=0)], 0, "the training part is empty"),
        ([*FOLDED, face("z.jpg")], 0, "got some without"),
        ([*FOLDED, face("z.jpg", identity="p0", fold=2)], 0, "shares a face with the others: identity p0"),
        ([face("a.jpg", fold=0), face("a.jpg", fold=1)], 0, r"shares a face with the others: file a\.jpg"),
    ],
)
def test_folds_that_cannot_be_split_are_an_error(images, fold, says):
    with pytest.raises(DataError, match=says):
        split_fold(images, fold)


SPLITS = [
    Split(share, seed, held, fold)
    for share in (0.1, 0.3)
    for seed in (0, 1)
    for held in ({}, {(13, 17): 0.55}, {(13, 17): 0.05}, {(10, 20): 0.55, (15, 30): 0.4})
    for fold in (None, 0, 1)
]


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_covers_those_whose_faces_it_leaves_out_too(split):
    images = [face(f"{n}.jpg", n % 100, fold=n % 2) for n in range(4000)]
    images += [face(f"{n}-span.jpg", 10, high=19, fold=n % 2) for n in range(400)]

    def kept(one):
        how = {"share": one.share, "seed": one.seed, "hold_out": one.hold_out, "test_fold": one.test_fold}
        return set(left_out(images, **how))

    assert [covers(split, other) for other in SPLITS] == [kept(split) >= kept(other) for other in SPLITS]
