"""Gallery and probes: nobody's face in both, equal seeds equal draws, too few people refused."""

import dataclasses

import numpy as np
import pytest

from ageveil.audit.people import choose, find_people
from ageveil.errors import DataError


def renamed(crops, names):
    """The crops under other names of people."""
    images = tuple(
        dataclasses.replace(image, identity=name) for image, name in zip(crops.images, names, strict=True)
    )
    return dataclasses.replace(crops, images=images)


def test_gallery_and_probes_part_everybodys_faces(crops, people):
    assert (people.count, len(people)) == (6, 18)
    assert sorted(people.faces) == list(range(18))
    for person in range(6):
        mine = people.person == person
        assert {crops.images[face].identity for face in people.faces[mine]} == {
            ("Ann", "Bob", "Cy", "Dee", "Eve", "Flo")[person]
        }
        assert people.gallery[mine].sum() == 2  # of three faces one is left to name


def test_numbers_of_faces_are_kept(crops):
    few = choose(crops, people=5, gallery=1, probes=1, seed=3)
    assert (few.count, len(few), few.gallery.sum()) == (5, 10, 5)
    again = choose(crops, people=5, gallery=1, probes=1, seed=3)
    np.testing.assert_array_equal(few.faces, again.faces)
    drawn = {tuple(choose(crops, gallery=1, probes=1, seed=seed).faces) for seed in range(6)}
    assert len(drawn) > 1


def test_people_with_a_single_face_are_left_out_and_counted(crops):
    names = ["alone", *[image.identity for image in crops.images[1:]]]
    left = choose(renamed(crops, names))
    assert left.left_out["person with a single face"] == 1
    assert (left.count, len(left)) == (6, 17)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ([None] * 18, "whose they are"),
        (["a"] * 9 + ["b"] * 9, "needs 5 people with two faces or more, got 2"),
    ],
)
def test_faces_that_cannot_be_audited_are_refused(crops, names, what):
    with pytest.raises(DataError, match=what):
        choose(renamed(crops, names))


@pytest.mark.parametrize("bad", [{"people": 0}, {"gallery": 0}, {"probes": 0}])
def test_numbers_below_one_are_refused(crops, bad):
    with pytest.raises(ValueError, match="of 1 or more"):
        choose(crops, **bad)


def test_prepared_crops_are_taken_as_they_are(crops, tmp_path):
    assert find_people(crops.folder, tmp_path / "unused").images == crops.images
    assert not (tmp_path / "unused").exists()


def test_a_folder_without_people_is_refused(tmp_path):
    with pytest.raises(DataError, match="for each person"):
        find_people(tmp_path, tmp_path / "cache")


def test_only_the_pictures_that_are_needed_are_cropped(folder, tmp_path):
    totals = []
    crops = find_people(
        folder, tmp_path, people=5, seed=2, announce=lambda n: totals.append(n) or (lambda: None)
    )
    assert totals == [15]
    assert len({image.identity for image in crops.images}) == 5
    again = find_people(folder, tmp_path, people=5, seed=2)
    assert [image.path for image in again.images] == [image.path for image in crops.images]
    assert len(list(tmp_path.iterdir())) == 1
    find_people(folder, tmp_path, people=5, seed=3)
    assert len(list(tmp_path.iterdir())) == 2  # other people lie beside them


def test_the_digest_is_of_what_is_in_the_crops(crops, people):
    assert people.digest() == choose(crops).digest()
    assert people.digest() != choose(crops, seed=1).digest()
