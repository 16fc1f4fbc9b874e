"""Photographs under several names: two real portraits, stored and cut anew, and UTKFace's own copies."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ageveil.errors import DataError, FaceError
from ageveil.estimation import Split
from ageveil.evaluation import accuracy, copies
from ageveil.image import read_image
from ageveil.pipeline import Pipeline
from ageveil.training.labels import LabelledImage
from ageveil.training.splits import left_out
from ageveil.types import CanonicalCrop


def crop(pixels):
    return CanonicalCrop(np.ascontiguousarray(pixels), np.full((5, 2), 99.0), np.eye(2, 3), 0.0)


def stored_again(pixels, side, quality):
    """The pixels as another site would give them out: smaller, and through JPEG."""
    packed = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(packed, "JPEG", quality=quality)
    again = Image.open(io.BytesIO(packed.getvalue())).resize(pixels.shape[:2])
    return np.asarray(again)


@pytest.fixture(scope="module")
def crops(astronaut, grace_hopper):
    """0, 1: two people; 2, 3: each stored again; 4: the first mirrored; 5: no face; 6: nothing but grey."""
    faces = [read_image(astronaut)[20:244, 110:334], read_image(grace_hopper)[50:274, 140:364]]
    faces += [stored_again(faces[0], 100, 40), stored_again(faces[1], 150, 70), faces[0][:, ::-1]]
    return [*map(crop, faces), None, crop(np.full((224, 224, 3), 120, np.uint8))]


@pytest.fixture(scope="module")
def at(crops):
    def one(index):
        if crops[index] is None:
            raise FaceError("no face found")
        return crops[index]

    return one


def test_a_sketch_is_a_correlation_away_from_another(at, crops):
    rows = copies.sketch(at, [0, 1, 2, 5, 6])
    small = [
        np.asarray(Image.fromarray(crops[index].pixels).convert("L").resize((24, 24), Image.Resampling.BOX))
        for index in (0, 1, 2)
    ]
    by_numpy = np.corrcoef([picture.ravel() for picture in small])
    # Pillow rounds grey and area means otherwise, by a level.
    np.testing.assert_allclose(rows[:3] @ rows[:3].T, by_numpy, atol=2e-3)
    assert by_numpy[0, 2] > copies.ALIKE > 0.9 > by_numpy[0, 1]
    assert not rows[3:].any()


def test_what_is_no_error_of_a_picture_ends_the_search(at):
    def damaged(_):
        raise DataError("a shard is damaged")

    with pytest.raises(DataError, match="a shard is damaged"):
        copies.unseen(damaged, 2, [0])


def test_what_trained_under_another_name_was_not_kept_out(at):
    seen = []
    assert copies.unseen(at, 7, [6, 0, 1, 5], advance=lambda: seen.append(1)) == [5, 6]
    assert len(seen) == 7
    assert copies.unseen(at, 7, [0, 2, 1, 3]) == [0, 1, 2, 3]  # 4, 5 and 6 are like nobody
    assert copies.unseen(at, 2, [0, 1]) == [0, 1]


@pytest.mark.parametrize("rows", [1, 2, 512])
def test_all_but_the_first_of_several_are_repeated(at, rows, monkeypatch):
    monkeypatch.setattr(copies, "_ROWS", rows)
    order = [0, 1, 2, 3, 5, 5, 0, 6, 6]
    found = copies.are_repeated(copies.sketch(at, order))
    assert found.tolist() == [False, False, True, True, False, False, True, False, False]
    others = copies.sketch(at, [4, 1, 5, 6])
    assert copies.are_among(copies.sketch(at, [0, 1, 3, 5]), others).tolist() == [False, True, True, False]


def test_utkface_has_photographs_under_several_names(ageveil_data):
    # One photograph under two names and two ages.
    names = ("16_0_1_20170120134502877.jpg.chip.jpg", "27_0_1_20170120220051617.jpg.chip.jpg")
    folder = ageveil_data / "utkface" / "train"
    others = sorted(path.name for path in folder.iterdir())[::80]
    images = [LabelledImage(folder / name, 16, 16) for name in (*names, *others)]
    faces = accuracy.photographs(images, Pipeline("mask", allow_others=True), dataset="utkface")
    assert len(images) > 200
    found = copies.are_repeated(copies.sketch(faces.crop, range(len(images))))
    assert np.flatnonzero(found).tolist() == [1]  # of all the others none looks like another


def test_faces_to_choose_by_did_not_train_under_another_name(at):
    images = tuple(LabelledImage(Path(f"30_0_0_{number}.jpg"), 30, 30) for number in range(60))
    split = Split(0.2, 7, {}, None)
    kept = left_out(images, share=0.2, seed=7).tolist()
    trained = [index for index in range(60) if index not in kept]
    noise = {
        index: crop(np.random.default_rng(index).integers(0, 256, (224, 224, 3), np.uint8))
        for index in range(60)
    }
    copied = {**noise, trained[3]: at(0), kept[1]: at(2), kept[2]: at(1)}
    faces = accuracy.Faces("utkface", images, copied.__getitem__, 60)
    found = accuracy.kept_out(faces, split)
    assert [image.path for image in found.images] == [
        images[index].path for index in kept if index != kept[1]
    ]
    same = accuracy.Faces("utkface", images, lambda _: at(0), 60)
    with pytest.raises(DataError, match="trained under another name"):
        accuracy.kept_out(same, split)
