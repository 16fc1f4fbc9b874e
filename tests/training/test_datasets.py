import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ageveil.errors import DataError, MissingImageError
from ageveil.image import read_image
from ageveil.training.datasets import (
    DATASETS,
    OLDEST,
    UTKFACE_GENDERS,
    UTKFACE_RACES,
    Dataset,
    LabelledImage,
    read_dataset,
    read_folder,
    read_lfw,
    read_utkface,
)
from ageveil.types import AGE_GROUPS

TIME = "20170116174525125"


def folder_of(tmp_path, *names):
    """A folder of empty files: the reader looks at names alone."""
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


# Labels


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, OLDEST), (OLDEST, OLDEST), (8, 12)])
def test_labels_up_to_the_bounds_are_kept(low, high):
    image = LabelledImage(Path("a.jpg"), low, high)
    assert (image.age_low, image.age_high) == (low, high)


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (5, 4), (5, OLDEST + 1), (OLDEST + 1, OLDEST + 1)])
def test_labels_outside_the_bounds_are_refused(low, high):
    with pytest.raises(ValueError, match=f"0..{OLDEST}, got {low} to {high}"):
        LabelledImage(Path("a.jpg"), low, high)


@pytest.mark.parametrize("fold", [None, 0, 4])
def test_a_fold_is_kept(fold):
    assert LabelledImage(Path("a.jpg"), 1, 1, fold=fold).fold == fold


def test_a_negative_fold_is_refused():
    with pytest.raises(ValueError, match="a fold is 0 or more, got -1"):
        LabelledImage(Path("a.jpg"), 1, 1, fold=-1)


def test_a_data_set_without_a_picture_is_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        Dataset("utkface", ())


def test_a_label_is_frozen():
    with pytest.raises(AttributeError):
        LabelledImage(Path("a.jpg"), 1, 1).age_low = 2


def test_only_an_interval_of_one_year_is_an_age():
    assert LabelledImage(Path("a.jpg"), 35, 35).age == 35
    assert LabelledImage(Path("a.jpg"), 35, 36).age is None


@pytest.mark.parametrize(
    ("low", "high", "group"),
    [
        (8, 12, 2), (8, 13, 2), (8, 14, None), (7, 12, None), (13, 13, 2), (14, 14, None), (3, 9, None),
        (0, 2, 0), (0, 3, None), (60, 100, 7), (59, 100, None), (101, 101, 7), (2, 4, None), (0, 100, None),
    ],
)  # fmt: skip
def test_the_group_holds_the_whole_label(low, high, group):
    assert LabelledImage(Path("a.jpg"), low, high).age_group == group


@given(st.tuples(st.integers(0, OLDEST), st.integers(0, OLDEST)).map(sorted))
def test_the_group_is_the_one_in_which_every_year_of_the_label_lies(ages):
    low, high = ages
    holding = [
        index
        for index, (first, last) in enumerate(AGE_GROUPS)
        if all(first <= min(year, 100) <= last for year in range(low, high + 1))
    ]
    assert LabelledImage(Path("a.jpg"), low, high).age_group == (holding[0] if holding else None)


# The text that names a data set


@pytest.mark.parametrize("spec", ["", "utkface", "utkface:", ":"])
def test_a_spec_without_a_folder_is_refused(spec):
    with pytest.raises(ValueError, match="expected a data set as NAME:DIR"):
        read_dataset(spec)


@pytest.mark.parametrize("name", ["", "UTKFace", "utkface ", "imdb"])
def test_an_unknown_data_set_lists_the_choices(tmp_path, name):
    with pytest.raises(ValueError, match=f"unknown data set {name!r}.*utkface"):
        read_dataset(f"{name}:{tmp_path}")


def test_every_data_set_is_reached_by_its_name(tmp_path):
    folder_of(tmp_path, f"7_0_0_{TIME}.jpg")
    assert set(DATASETS) == {"adience", "csv", "fairface", "folder", "lfw", "utkface"}
    dataset = read_dataset(f"utkface:{tmp_path}")
    assert dataset == read_utkface(tmp_path)
    assert (dataset.name, len(dataset.images), dataset.left_out) == ("utkface", 1, {})


def test_a_folder_may_hold_colons(tmp_path):
    folder = tmp_path / "a:b"
    folder.mkdir()
    folder_of(folder, f"7_0_0_{TIME}.jpg")
    assert len(read_dataset(f"utkface:{folder}").images) == 1


# UTKFace: names


@pytest.mark.parametrize(
    "ending", [".jpg.chip.jpg", ".jpg", ".JPG", ".jpeg", ".png", "jpg.chip.jpg", " .jpg"]
)
def test_one_picture_with_all_fields(tmp_path, ending):
    name = f"26_1_3_{TIME}{ending}"
    # The release marks its aligned and cropped pictures by ".chip".
    expected = LabelledImage(
        tmp_path / name, 26, 26, gender="female", race="Indian", aligned=".chip" in ending
    )
    assert read_utkface(folder_of(tmp_path, name)).images == (expected,)


# Written out from the description of the data set, beside the tables in the program.
@pytest.mark.parametrize(
    ("code", "race"), [("0", "White"), ("1", "Black"), ("2", "Asian"), ("3", "Indian"), ("4", "Others")]
)
@pytest.mark.parametrize(("digit", "gender"), [("0", "male"), ("1", "female")])
def test_every_code_has_its_word(tmp_path, digit, gender, code, race):
    (image,) = read_utkface(folder_of(tmp_path, f"26_{digit}_{code}_{TIME}.jpg.chip.jpg")).images
    assert (image.gender, image.race) == (gender, race)


@pytest.mark.parametrize(
    "name", ["39_1_20170116174525125", "61_1_20170109142408075", "61_1_20170109150557335"]
)
def test_the_three_names_that_lack_a_field_keep_their_age_alone(tmp_path, name):
    (image,) = read_utkface(folder_of(tmp_path, f"{name}.jpg.chip.jpg")).images
    assert (image.age, image.gender, image.race) == (int(name[:2]), None, None)


@pytest.mark.parametrize(
    ("fields", "gender", "race"),
    [
        ("53__0", None, "White"),
        ("53_0_", "male", None),
        ("53_2_4", None, "Others"),
        ("53_1_5", "female", None),
        ("53_-1_04", None, None),
    ],
)
def test_a_damaged_code_is_none(tmp_path, fields, gender, race):
    (image,) = read_utkface(folder_of(tmp_path, f"{fields}_{TIME}.jpg")).images
    assert (image.age, image.gender, image.race) == (53, gender, race)


@pytest.mark.parametrize(("text", "age"), [("0", 0), ("1", 1), ("115", 115), ("116", 116), ("007", 7)])
def test_ages_up_to_the_bounds_are_read(tmp_path, text, age):
    (image,) = read_utkface(folder_of(tmp_path, f"{text}_0_0_{TIME}.jpg")).images
    assert image.age == image.age_low == image.age_high == age


@pytest.mark.parametrize(
    "name",
    [
        "117_0_0_1.jpg", "999_0_0_1.jpg", "1000_0_0_1.jpg", "-1_0_0_1.jpg", "+5_0_0_1.jpg", "5.0_0_0_1.jpg",
        "_0_0_1.jpg", "x_0_0_1.jpg", " 5_0_0_1.jpg", "٣_0_0_1.jpg", "²_0_0_1.jpg",
        # Names of other data sets, and names with too few or too many fields.
        "1000.jpg", "Aaron_Peirsol_0001.jpg", "25.jpg", "25_0001.jpg", "25_0_0_1_2.jpg",
    ],
)  # fmt: skip
def test_a_name_that_carries_no_age_is_named(tmp_path, name):
    folder_of(tmp_path, f"7_0_0_{TIME}.jpg", name)
    with pytest.raises(DataError, match=re.escape(repr(str(tmp_path / name)))):
        read_utkface(tmp_path)


def test_a_name_that_is_no_valid_text_still_gives_a_printable_message(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"x\xff_0_0_1.jpg")).touch()
    except OSError:
        pytest.skip("left out: this file system takes valid Unicode names only")
    with pytest.raises(DataError) as caught:
        read_utkface(tmp_path)
    assert r"x\udcff_0_0_1.jpg" in str(caught.value).encode("utf-8").decode()


@given(
    age=st.integers(0, OLDEST),
    gender=st.sampled_from(sorted(UTKFACE_GENDERS)),
    race=st.sampled_from(sorted(UTKFACE_RACES)),
)
@settings(deadline=None)  # touches the disk
def test_a_name_made_from_labels_gives_them_back(tmp_path_factory, age, gender, race):
    folder = folder_of(tmp_path_factory.mktemp("faces"), f"{age}_{gender}_{race}_{TIME}.jpg.chip.jpg")
    (image,) = read_utkface(folder).images
    assert image == LabelledImage(
        image.path, age, age, gender=UTKFACE_GENDERS[gender], race=UTKFACE_RACES[race], aligned=True
    )


# UTKFace: folders


def test_pictures_are_sorted_by_name(tmp_path):
    names = ["9_0_0_1.jpg", "10_0_0_1.jpg", "10_0_0_1.JPG", "100_0_0_1.jpg", "1_0_0_2.jpg", "1_0_0_1.jpg"]
    images = read_utkface(folder_of(tmp_path, *names)).images
    # Code points: digits before "_", upper before lower case.
    assert [image.path.name for image in images] == [
        "100_0_0_1.jpg", "10_0_0_1.JPG", "10_0_0_1.jpg", "1_0_0_1.jpg", "1_0_0_2.jpg", "9_0_0_1.jpg"
    ]  # fmt: skip


def test_what_is_no_picture_is_left_aside(tmp_path):
    folder_of(tmp_path, "7_0_0_1.jpg", "README.txt", "labels.csv", "8_0_0_1", "9_0_0_1.jpg.part", "jpg")
    folder_of(tmp_path, ".DS_Store", "._7_0_0_1.jpg", ".jpg")
    (tmp_path / "5_0_0_1.jpg").mkdir()
    (tmp_path / "part2").mkdir()
    folder_of(tmp_path / "part2", "6_0_0_1.jpg")
    assert [image.path.name for image in read_utkface(tmp_path).images] == ["7_0_0_1.jpg"]


def test_a_link_that_leads_nowhere_is_not_lost(tmp_path):
    (tmp_path / "7_0_0_1.jpg").symlink_to(tmp_path / "gone.jpg")
    assert [image.age for image in read_utkface(tmp_path).images] == [7]


@pytest.mark.parametrize("target", ["7_0_0_1.jpg", "8_0_0_1.jpg/x"])
def test_a_link_in_a_circle_or_through_a_file_is_not_lost_either(tmp_path, target):
    folder_of(tmp_path, "8_0_0_1.jpg")
    (tmp_path / "7_0_0_1.jpg").symlink_to(target)
    assert [image.age for image in read_utkface(tmp_path).images] == [7, 8]


@pytest.mark.parametrize("read", [read_folder, read_lfw])
def test_a_link_in_a_circle_is_a_picture_in_a_folder_and_an_error_beside_it(tmp_path, read):
    ages_of(tmp_path, "25/a.jpg")
    (tmp_path / "25" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "30").symlink_to("30")
    images = read(tmp_path).images
    assert [image.path.name for image in images] == ["a.jpg", "loop.jpg"]
    with pytest.raises(MissingImageError, match=r"loop\.jpg"):
        read_image(images[1].path)
    (tmp_path / "b.jpg").symlink_to("b.jpg")
    with pytest.raises(DataError, match=r"expected every picture in the folder of .*b\.jpg'"):
        read(tmp_path)


def test_a_link_of_which_nothing_can_be_told_is_named(tmp_path):
    folder_of(tmp_path, "8_0_0_1.jpg")
    (tmp_path / "7_0_0_1.jpg").symlink_to("x" * 300)  # longer than a name may be
    with pytest.raises(
        DataError, match=r"cannot look at '.*7_0_0_1\.jpg' in the data set: File name too long"
    ):
        read_utkface(tmp_path)


# A folder of one's own


def ages_of(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_folders_named_by_age_are_read_in_the_order_of_ages(tmp_path):
    names = ["60+/a.jpg", "4-6/a.png", "25/b.jpg", "25/a.JPEG", "0/a.jpg", "25-32/a.jpg"]
    dataset = read_dataset(f"folder:{ages_of(tmp_path, *names)}")
    assert dataset.name == "folder"
    assert [(str(i.path.relative_to(tmp_path)), i.age_low, i.age_high) for i in dataset.images] == [
        ("0/a.jpg", 0, 0), ("4-6/a.png", 4, 6), ("25/a.JPEG", 25, 25), ("25/b.jpg", 25, 25),
        ("25-32/a.jpg", 25, 32), ("60+/a.jpg", 60, 116),
    ]  # fmt: skip
    assert not any(image.aligned or image.identity for image in dataset.images)


def test_what_is_no_picture_in_a_folder_of_an_age_is_left_aside(tmp_path):
    ages_of(tmp_path, "25/a.jpg", "25/.b.jpg", "25/c.txt", ".cache/d.jpg", "notes.txt")
    (tmp_path / "25" / "e.jpg").mkdir()
    (tmp_path / "30").mkdir()
    assert [image.path.name for image in read_folder(tmp_path).images] == ["a.jpg"]


@pytest.mark.parametrize("name", ["117", "5-4", "x", "25 ", "-5", "25-", "60+-70", "100-117", "1000", "٣"])
def test_a_folder_that_is_no_age_is_named(tmp_path, name):
    with pytest.raises(DataError, match=re.escape(repr(str(tmp_path / name)))):
        read_folder(ages_of(tmp_path, "25/a.jpg", f"{name}/a.jpg"))


def test_a_picture_beside_the_folders_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"in the folder of its age.*'.*b\.jpg'"):
        read_folder(ages_of(tmp_path, "25/a.jpg", "b.jpg"))


@pytest.mark.parametrize("names", [[], ["25/notes.txt"]])
def test_folders_without_a_picture_are_an_error(tmp_path, names):
    with pytest.raises(DataError, match=r"named by age.*found none"):
        read_folder(ages_of(tmp_path, *names))


# A table of one's own, of which `test_tables.py` holds the rest


def folds_of(tmp_path, *rows):
    """A table of `a.jpg`, of a link to it `b.jpg`, and of another picture `c.jpg`."""
    folder_of(tmp_path, "a.jpg", "c.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "faces.csv").write_text("\n".join(["file,age,identity,fold", *rows]) + "\n")
    return f"csv:{tmp_path / 'faces.csv'}"


@pytest.mark.parametrize(
    "rows",
    [
        ["a.jpg,30,,0", "c.jpg,30,,0", "a.jpg,30,,1"],
        ["a.jpg,30,,0", "c.jpg,30,,0", "./a.jpg,30,,1"],
        ["a.jpg,30,,0", "c.jpg,30,,0", "b.jpg,30,,1"],
        ["a.jpg,30,anna,0", "c.jpg,30,,0", "a.jpg,30,bert,1"],
    ],
    ids=["as it is", "by another path", "by a link", "as two people"],
)
def test_a_picture_in_two_folds_is_refused_with_its_place(tmp_path, rows):
    with pytest.raises(
        DataError, match=r"faces\.csv', line 4: the picture '.*[ab]\.jpg' stands in two folds, 0 and 1$"
    ):
        read_dataset(folds_of(tmp_path, *rows))


def test_a_picture_may_stand_twice_in_one_fold(tmp_path):
    images = read_dataset(folds_of(tmp_path, "a.jpg,30,,0", "c.jpg,30,,1", "a.jpg,30,,0")).images
    assert [image.fold for image in images] == [0, 1, 0]


# People


def test_folders_named_by_person_are_read_in_order(tmp_path):
    names = [
        "Bo/b.jpg",
        "Bo/a.PNG",
        "Al Li/a.jpg",
        "Bo/.c.jpg",
        "Bo/d.txt",
        ".cache/a.jpg",
        "Cy/notes.txt",
        "x.txt",
    ]
    dataset = read_dataset(f"lfw:{ages_of(tmp_path, *names)}")
    assert dataset.name == "lfw"
    assert [(image.identity, image.path.name) for image in dataset.images] == [
        ("Al Li", "a.jpg"), ("Bo", "a.PNG"), ("Bo", "b.jpg")
    ]  # fmt: skip
    assert {(image.age_low, image.age_high, image.age_group) for image in dataset.images} == {
        (0, OLDEST, None)
    }


def test_a_picture_beside_the_people_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"in the folder of its person.*'.*b\.jpg'"):
        read_lfw(ages_of(tmp_path, "Bo/a.jpg", "b.jpg"))


@pytest.mark.parametrize("names", [[], ["Bo/notes.txt"]])
def test_people_without_a_picture_are_an_error(tmp_path, names):
    with pytest.raises(DataError, match=r"for each person.*found none"):
        read_lfw(ages_of(tmp_path, *names))


# The real names


@pytest.mark.parametrize(("part", "pictures", "nameless"), [("test", 4630, 1), ("train", 16431, 2)])
def test_the_released_names_all_read(ageveil_data, part, pictures, nameless):
    folder = ageveil_data / "utkface" / part
    images = read_dataset(f"utkface:{folder}").images
    assert len(images) == pictures == len(list(folder.iterdir()))
    assert all(image.path.name.startswith(f"{image.age}_") for image in images)
    full = [re.fullmatch(r"(\d+)_([01])_([0-4])_\d+\.?jpg\.chip\.jpg", image.path.name) for image in images]
    assert full.count(None) == nameless == sum(image.gender is None for image in images)
    for image, match in zip(images, full, strict=True):
        if match is not None:
            words = (
                ["male", "female"][int(match[2])],
                ["White", "Black", "Asian", "Indian", "Others"][int(match[3])],
            )
            assert (image.gender, image.race) == words
