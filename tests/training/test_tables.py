"""Data sets with a table of labels, on small trees in the layouts of their authors."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from ageveil.errors import DataError
from ageveil.training.datasets import read_dataset
from ageveil.training.tables import read_adience, read_csv, read_fairface

COLUMNS = [
    "user_id", "original_image", "face_id", "age", "gender", "x", "y", "dx", "dy", "tilt_ang",
    "fiducial_yaw_angle", "fiducial_score",
]  # fmt: skip
HEADER = "\t".join(COLUMNS)


def adience_row(user, image, face, age, gender="f"):
    return "\t".join([user, image, str(face), age, gender, "0", "414", "1086", "1383", "-115", "30", "17"])


def adience(folder, rows, *, layouts=("aligned", "faces")):
    """A tree as Adience's authors give it out; `rows` holds five lists."""
    for fold, lines in enumerate(rows):
        (folder / f"fold_{fold}_data.txt").write_text("\n".join([HEADER, *lines]) + "\n")
    for name in layouts:
        (folder / name).mkdir()
    return folder


@pytest.fixture
def five_folds(tmp_path):
    rows = [
        [adience_row("30601258@N03", "10399646885_67c7d20df9_o.jpg", 1, "(25, 23)")],
        [
            adience_row("7153718@N04", "b.jpg", 12, "(8, 12)", "m"),
            adience_row("7153718@N04", "c.jpg", 13, "None"),
        ],
        [adience_row("1@N01", 'a"b.jpg', 2, "35", "u"), adience_row("1@N01", "d.jpg", 2, "", "")],
        [adience_row("2@N01", "e.jpg", 3, "(60, 100)", "")],
        [adience_row("3@N01", "f.jpg", 4, "(8, 23)", "m")],
    ]
    return adience(tmp_path, rows)


# Adience


def test_the_five_folds_are_read_in_order(five_folds):
    dataset = read_dataset(f"adience:{five_folds}")
    assert (dataset.name, dataset.left_out) == ("adience", {"no age label": 2})
    found = [
        (i.path.relative_to(five_folds).as_posix(), i.age_low, i.age_high, i.identity, i.gender, i.fold)
        for i in dataset.images
    ]
    start = "aligned/{}/landmark_aligned_face.{}"
    assert found == [
        (start.format("30601258@N03", "1.10399646885_67c7d20df9_o.jpg"), 25, 32, "30601258@N03", "female", 0),
        (start.format("7153718@N04", "12.b.jpg"), 8, 12, "7153718@N04", "male", 1),
        (start.format("1@N01", '2.a"b.jpg'), 35, 35, "1@N01", None, 2),
        (start.format("2@N01", "3.e.jpg"), 60, 100, "2@N01", None, 3),
        (start.format("3@N01", "4.f.jpg"), 8, 23, "3@N01", "male", 4),
    ]
    assert not any(image.aligned or image.race for image in dataset.images)


def test_the_other_layout_is_read_where_there_is_no_aligned(five_folds):
    (five_folds / "aligned").rmdir()
    image = read_adience(five_folds).images[0]
    assert image.path == (
        five_folds / "faces" / "30601258@N03" / "coarse_tilt_aligned_face.1.10399646885_67c7d20df9_o.jpg"
    )


# How many faces of the release carry each label, and the group that counts it: None is in no group.
RELEASE = {
    "(25, 32)": (4950, 4), "(0, 2)": (2519, 0), "(38, 43)": (2300, 5), "(4, 6)": (2163, 1),
    "(8, 12)": (2132, 2), "(15, 20)": (1655, 3), "(60, 100)": (875, 7), "(48, 53)": (830, 6),
    "35": (294, None), "13": (169, 2), "22": (149, None), "34": (105, None), "23": (96, None),
    "45": (88, None), "55": (77, None), "36": (57, None), "57": (24, None), "3": (18, None), "29": (12, 4),
    "(27, 32)": (77, 4), "(25, 23)": (72, 4), "(38, 42)": (50, 5), "(38, 48)": (6, None),
    "(8, 23)": (1, None),
}  # fmt: skip


def test_every_label_of_the_release_counts_for_the_group_that_holds_it(tmp_path):
    texts = [text for text, (count, _) in RELEASE.items() for _ in range(count)] + ["None"] * 753
    rows = [
        [adience_row(f"u{fold}", f"{n}.jpg", 1, text) for n, text in enumerate(texts[fold::5])]
        for fold in range(5)
    ]
    dataset = read_adience(adience(tmp_path, rows))
    expected = Counter()
    for count, group in RELEASE.values():
        expected[group] += count
    assert Counter(image.age_group for image in dataset.images) == expected
    assert dataset.left_out == {"no age label": 753}


def test_a_fold_without_a_row_is_named(five_folds):
    (five_folds / "fold_2_data.txt").write_text(f"{HEADER}\n")
    with pytest.raises(DataError, match=r"fold_2_data\.txt' has no row: a fold is missing"):
        read_adience(five_folds)


@pytest.mark.parametrize("gone", [[0], [4], [1, 3]])
def test_a_missing_fold_is_named(five_folds, gone):
    for fold in gone:
        (five_folds / f"fold_{fold}_data.txt").unlink()
    names = ", ".join(f"fold_{fold}_data.txt" for fold in gone)
    with pytest.raises(DataError, match=re.escape(f"not in {str(five_folds)!r}: {names}") + "$"):
        read_adience(five_folds)


def test_a_tree_without_pictures_is_an_error(five_folds):
    (five_folds / "aligned").rmdir()
    (five_folds / "faces").rmdir()
    with pytest.raises(DataError, match=r"'aligned' or 'faces' in .*, found neither"):
        read_adience(five_folds)


@pytest.mark.parametrize(
    "age",
    ["(25,32", "[25, 32]", "(32, 25)", "117", "(100, 117)", "-3", "25-32", "none", "(25, 23", "٣", "2_5"],
)
def test_a_label_that_is_no_age_names_file_and_line(five_folds, age):
    table = five_folds / "fold_2_data.txt"
    table.write_text(
        "\n".join([HEADER, adience_row("1@N01", "a.jpg", 2, "35"), adience_row("1@N01", "b.jpg", 2, age)])
    )
    with pytest.raises(DataError, match=r"fold_2_data\.txt', line 3: expected (an age|ages)"):
        read_adience(five_folds)


def test_a_user_in_two_folds_is_an_error(five_folds):
    with open(five_folds / "fold_4_data.txt", "a") as table:
        table.write(adience_row("1@N01", "z.jpg", 1, "35") + "\n")
    with pytest.raises(DataError, match="'1@N01' stands in 2 and 4"):
        read_adience(five_folds)


@pytest.mark.parametrize(
    ("user", "image"),
    [("..", "/../../etc/passwd"), ("/etc", "a.jpg"), ("", "a.jpg"), ("a", "b/../../../c.jpg")],
)
def test_a_path_that_leads_out_of_adience_is_refused(five_folds, user, image):
    (five_folds / "fold_0_data.txt").write_text(f"{HEADER}\n{adience_row(user, image, 1, '35')}\n")
    with pytest.raises(DataError, match=r"fold_0_data\.txt', line 2: expected the path of a picture within"):
        read_adience(five_folds)


@pytest.mark.parametrize("row", ["a\tb\t1\t35\tf", adience_row("a", "b", 1, "35") + "\tmore"])
def test_a_row_of_another_length_is_an_error(five_folds, row):
    (five_folds / "fold_3_data.txt").write_text(f"{HEADER}\n{row}\n")
    with pytest.raises(DataError, match=r"fold_3_data\.txt', line 2: expected 12 fields"):
        read_adience(five_folds)


def test_a_table_without_its_columns_is_an_error(five_folds):
    (five_folds / "fold_3_data.txt").write_text("user_id\tage\n")
    with pytest.raises(DataError, match="lacks the columns original_image, face_id, gender"):
        read_adience(five_folds)


def test_adience_without_an_age_is_an_error(tmp_path):
    adience(tmp_path, [[adience_row(f"user{n}", "b.jpg", 1, "None")] for n in range(5)])
    with pytest.raises(DataError, match=r"expected pictures with an age in .*, found none"):
        read_adience(tmp_path)


# FairFace


def fairface(folder, *rows, part="val"):
    (folder / part).mkdir(exist_ok=True)
    lines = ["file,age,gender,race,service_test", *rows]
    (folder / f"fairface_label_{part}.csv").write_text("\n".join(lines) + "\n")
    return folder / part


# Written out from the description of the data set; the last column is spreadsheet damage.
BINS = [
    ("0-2", 0, 2), ("3-9", 3, 9), ("10-19", 10, 19), ("20-29", 20, 29), ("30-39", 30, 39), ("40-49", 40, 49),
    ("50-59", 50, 59), ("60-69", 60, 69), ("more than 70", 70, 116), ("03-Sep", 3, 9), ("Oct-19", 10, 19),
]  # fmt: skip


@pytest.mark.parametrize(("text", "low", "high"), BINS)
def test_every_bin_of_fairface_is_an_interval(tmp_path, text, low, high):
    folder = fairface(tmp_path, f"val/1.jpg,{text},Male,East Asian,FALSE")
    dataset = read_dataset(f"fairface:{folder}")
    (image,) = dataset.images
    assert (image.path, image.age_low, image.age_high) == (folder / "1.jpg", low, high)
    assert (image.gender, image.race, image.identity, image.aligned) == ("male", "East Asian", None, False)
    assert (dataset.name, dataset.left_out) == ("fairface", {})


@pytest.mark.parametrize("ending", ["", "/", "/.", "/../val"])
def test_the_part_is_the_folder_whatever_it_is_called(tmp_path, ending):
    folder = fairface(tmp_path, "val/1.jpg,0-2,Male,White,FALSE")
    (image,) = read_dataset(f"fairface:{folder}{ending}").images
    assert os.path.normpath(image.path) == str(folder / "1.jpg")


def test_a_part_named_from_within_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(fairface(tmp_path, "val/1.jpg,0-2,Male,White,FALSE"))
    assert read_dataset("fairface:.").images[0].path == Path("1.jpg")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("train/1.jpg,0-2,Male,White,FALSE", "expected a picture as val/1.jpg, got 'train/1.jpg'"),
        ("1.jpg,0-2,Male,White,FALSE", "expected a picture as val/1.jpg, got '1.jpg'"),
        ("val/../1.jpg,0-2,Male,White,FALSE", "within the data set, got '../1.jpg'"),
        ("val/,0-2,Male,White,FALSE", "within the data set, got ''"),
        ("val//1.jpg,0-2,Male,White,FALSE", "within the data set, got '/1.jpg'"),
        ("val/1.jpg,3-10,Male,White,FALSE", "expected an age of 0-2, .*, got '3-10'"),
        ("val/1.jpg,,Male,White,FALSE", "expected an age of .*, got ''"),
        ('"val/1.jpg,0-2,Male,White,FALSE', "damaged|fields"),
    ],
)
def test_a_damaged_row_of_fairface_is_named(tmp_path, row, says):
    with pytest.raises(DataError, match=f"fairface_label_val.csv'.*{says}"):
        read_fairface(fairface(tmp_path, row))


def test_the_folder_of_both_parts_is_no_part(tmp_path):
    fairface(tmp_path, "val/1.jpg,0-2,Male,White,FALSE")
    with pytest.raises(DataError, match="expected a part of FairFace, as DIR/val"):
        read_fairface(tmp_path)


def test_an_empty_part_is_an_error(tmp_path):
    with pytest.raises(DataError, match="found none"):
        read_fairface(fairface(tmp_path))


@pytest.mark.parametrize(("part", "pictures", "oldest"), [("train", 8000, 200), ("val", 2000, 22)])
def test_the_released_tables_read(ageveil_data, part, pictures, oldest):
    folder = ageveil_data / "fairface" / part
    images = read_dataset(f"fairface:{folder}").images
    assert {image.path.name for image in images} == set(os.listdir(folder))
    assert len(images) == pictures
    assert sum(image.age_low == 70 for image in images) == oldest
    assert {image.gender for image in images} == {"female", "male"}
    assert len({image.race for image in images}) == 7


# A table of one's own


def table(folder, *lines, name="faces.csv"):
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def test_exact_ages(tmp_path):
    path = table(
        tmp_path,
        "\ufeffage,file,identity,gender,race,fold,aligned,note",  # as spreadsheets write UTF-8
        "25,a.jpg,anna,female,White,2,1,x",
        '0,"sub/b,c.png",,,,,,',
        "116, d.jpg ,anna,,,2,False,",
        ",e.jpg,,,,,,",
    )
    dataset = read_dataset(f"csv:{path}")
    assert (dataset.name, dataset.left_out) == ("csv", {"no age label": 1})
    first, second, third = dataset.images
    assert (first.path, first.age, first.identity) == (tmp_path / "a.jpg", 25, "anna")
    assert (first.gender, first.race, first.fold, first.aligned) == ("female", "White", 2, True)
    assert (second.path, second.age, second.identity) == (tmp_path / "sub" / "b,c.png", 0, None)
    assert (second.gender, second.race, second.fold, second.aligned) == (None, None, None, False)
    assert (third.path, third.age, third.aligned) == (tmp_path / "d.jpg", 116, False)


def test_intervals_of_ages(tmp_path):
    path = table(tmp_path, "file,age_low,age_high", "a.jpg,8,12", "b.jpg,,", "c.jpg,5,5")
    dataset = read_csv(path)
    assert [(image.age_low, image.age_high) for image in dataset.images] == [(8, 12), (5, 5)]
    assert dataset.left_out == {"no age label": 1}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["file,age", "a.jpg,117"], "line 2: expected ages from low to high within 0..116, got 117 to 117"),
        (["file,age", "a.jpg,2.5"], "line 2: expected an age as a whole number, got '2.5'"),
        (["file,age", "a.jpg,٣"], "line 2: expected an age as a whole number"),
        (["file,age_low,age_high", "a.jpg,5,4"], "line 2: expected ages from low to high"),
        (["file,age_low,age_high", "a.jpg,5,"], "line 2: expected age_low and age_high both, or neither"),
        (["file,age_low", "a.jpg,5"], "expected a column age, or age_low and age_high"),
        (["file,age,age_low,age_high", "a.jpg,5,5,5"], "expected a column age, or age_low and age_high"),
        (["age", "5"], "lacks the columns file"),
        ([""], "lacks the columns file"),
        (["file,age,age", "a.jpg,5,6"], "has columns twice: 'age'"),
        (["file,age", "a.jpg,20", "a.jpg,20", "a.jpg,30"], r"line 4: 'a\.jpg' stood above with another age"),
        (["file,age", "/etc/passwd,5"], "line 2: expected the path of a picture within"),
        (["file,age", "a/../../b.jpg,5"], "line 2: expected the path of a picture within"),
        (["file,age", ",5"], "line 2: expected the path of a picture within"),
        (["file,age", "a\0.jpg,5"], "line 2: expected the path|damaged"),
        (["file,age", "a.jpg"], "line 2: expected 2 fields"),
        (["file,age", "a.jpg,5,6"], "line 2: expected 2 fields"),
        (["file,age,aligned", "a.jpg,5,yes"], "line 2: expected aligned as 0, 1, true or false, got 'yes'"),
        (["file,age,fold", "a.jpg,5,-1"], "line 2: expected a fold as a whole number, got '-1'"),
        (["file,age,fold,identity", "a.jpg,5,0,anna", "b.jpg,6,1,anna"], "'anna' stands in 0 and 1"),
        (["file,age"], "found none"),
        (["file,age", "a.jpg,"], "found none"),
        (["file,age", '"a.jpg,5'], "damaged"),
    ],
)
def test_a_table_that_does_not_read_as_documented_is_named(tmp_path, lines, says):
    with pytest.raises(DataError, match=rf"faces\.csv'.*(?:{says})"):
        read_csv(table(tmp_path, *lines))


def test_a_table_that_is_no_utf8_is_an_error(tmp_path):
    (tmp_path / "faces.csv").write_bytes(b"file,age\n\xff.jpg,5\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_csv(tmp_path / "faces.csv")


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the table .*: No such file"):
        read_dataset(f"csv:{tmp_path / 'gone.csv'}")


def test_a_folder_in_place_of_a_table_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the table .*: Is a directory"):
        read_csv(tmp_path)
