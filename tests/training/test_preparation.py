"""Prepared faces are those of the pipeline, a stopped run goes on, and a folder is never mixed up."""

import errno
import json
import os
import pickle
import resource
import shutil
import stat
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from ageveil.detection import CENTERFACE, LANDMARKS
from ageveil.errors import (
    DataError,
    ImageLimitError,
    MissingImageError,
    ModelError,
    NoFaceError,
    OutputError,
    SeveralFacesError,
    UnreadableImageError,
    UnusableFaceError,
)
from ageveil.image import Limits, read_image, write_image
from ageveil.pipeline import Pipeline
from ageveil.training import prepared
from ageveil.training.labels import Dataset, LabelledImage
from ageveil.training.preparation import canonical_crop, left_out_reason, load_prepared, prepare

WAY = Pipeline(allow_others=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, astronaut, grace_hopper):
    """Four usable faces and three pictures that give none."""
    folder = tmp_path_factory.mktemp("pictures")
    young, old = read_image(astronaut)[:260, 60:380], read_image(grace_hopper)[:450]
    (folder / "sub").mkdir()
    write_image(folder / "a.png", young)
    write_image(folder / "b.png", np.full((90, 90, 3), 120, np.uint8))  # no face
    write_image(folder / "sub" / "c.png", old)
    (folder / "d.jpg").write_bytes(astronaut.read_bytes()[:3000])  # cut short
    write_image(folder / "e.png", np.ascontiguousarray(young[:, ::-1]))
    write_image(folder / "f.png", np.ascontiguousarray(old[:, :262]))  # half a face
    write_image(folder / "g.png", canonical_crop(old, WAY, aligned=False).pixels)
    return folder


@pytest.fixture(scope="module")
def dataset(pictures):
    names = ["a.png", "b.png", "sub/c.png", "d.jpg", "e.png", "f.png", "g.png"]
    labels = [(29, 29), (1, 1), (60, 100), (2, 2), (8, 12), (3, 3), (78, 78)]
    images = [LabelledImage(pictures / name, *ages) for name, ages in zip(names, labels, strict=True)]
    images[0] = replace(images[0], identity="anna", gender="female", race="White", fold=2)
    images[6] = replace(images[6], aligned=True)
    return Dataset("csv", tuple(images), {"no age label": 5})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, dataset):
    """Prepared at once; the tests only read it."""
    return prepare(dataset, tmp_path_factory.mktemp("whole") / "faces", WAY)


@pytest.fixture
def small_shards(monkeypatch):
    """Two pictures a shard, so that seven pictures make four."""
    monkeypatch.setattr("ageveil.training.preparation.SHARD", 2)
    monkeypatch.setattr(prepared, "SHARD", 2)


def check_same(faces, others):
    assert faces.images == others.images
    assert (faces.dataset, faces.left_out) == (others.dataset, others.left_out)
    assert (faces.landmarks == others.landmarks).all()
    for index in range(len(others)):
        assert (faces.pixels(index) == others.pixels(index)).all()


# What is prepared


def test_crops_are_those_of_the_pipeline(whole, dataset):
    usable = [dataset.images[n] for n in (0, 2, 4, 6)]
    assert whole.images == tuple(usable)
    assert len(whole) == len(whole.landmarks) == 4
    for index, image in enumerate(usable):
        expected = canonical_crop(read_image(image.path), WAY, aligned=image.aligned)
        crop = whole.crop(index)
        assert (crop.pixels == expected.pixels).all()
        assert (whole.pixels(index) == expected.pixels).all()
        # JSON keeps every bit of a float.
        assert (crop.landmarks == expected.landmarks).all()
        assert (crop.to_image == expected.to_image).all()
        assert crop.outside == expected.outside


def test_what_is_left_out_is_counted_by_reason(whole):
    assert whole.left_out == {"no face found": 1, "unreadable picture": 1, "unusable face": 1}
    assert whole.labels_left_out == {"no age label": 5}
    assert whole.dataset == "csv"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NoFaceError("x"), "no face found"),
        (SeveralFacesError("x"), "several faces"),
        (UnusableFaceError("0.3 of the crop"), "unusable face"),
        (MissingImageError("x"), "missing picture"),
        (UnreadableImageError("x"), "unreadable picture"),
        (ImageLimitError("x"), "unreadable picture"),
    ],
)
def test_reasons_are_short(error, reason):
    assert left_out_reason(error) == reason


def test_an_error_that_is_not_of_the_face_is_raised():
    with pytest.raises(ModelError, match="weights"):
        left_out_reason(ModelError("weights"))


def test_views_are_read_only_and_crops_are_copies(whole):
    view = whole.pixels(0)
    assert (view.shape, view.dtype) == ((224, 224, 3), np.uint8)
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 0
    assert whole.crop(0).pixels.base is None


@pytest.mark.parametrize("index", [-1, 4])
def test_a_face_that_is_not_there_is_an_index_error(whole, index):
    for get in (whole.pixels, whole.crop):
        with pytest.raises(IndexError, match=f"numbered 0 to 3, got {index}"):
            get(index)


def test_only_the_owner_can_read_it(whole):
    assert stat.S_IMODE(whole.folder.stat().st_mode) == 0o700
    names = sorted(path.name for path in whole.folder.iterdir())
    assert names == ["prepared.json", "shard-00000.json", "shard-00000.npy"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in whole.folder.iterdir()} == {0o600}


def test_a_worker_opens_the_files_itself(whole):
    sent = pickle.dumps(whole)
    assert len(sent) < 1000  # where the crops alone have 600,000 bytes
    check_same(pickle.loads(sent), whole)  # noqa: S301 - our own


def test_the_crops_are_a_plain_npy_file(whole):
    pixels = np.load(whole.folder / "shard-00000.npy", allow_pickle=False)
    assert (pixels.shape, pixels.dtype) == ((4, 224, 224, 3), np.uint8)


# Shards


def test_shards_make_no_difference(whole, dataset, tmp_path, small_shards):
    faces = prepare(dataset, tmp_path / "faces", WAY, workers=2)
    assert [shard.shape[0] for shard in faces.shards] == [1, 1, 1, 1]
    check_same(faces, whole)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_last_shard_may_be_full_or_not(dataset, tmp_path, small_shards, count):
    faces = prepare(Dataset("csv", dataset.images[4 : 4 + count]), tmp_path / "faces", WAY)
    assert len(list(tmp_path.glob("faces/*.npy"))) == (count + 1) // 2
    assert [image.path.name for image in faces.images] == ["e.png", "g.png"][: 1 + (count == 3)]


def test_a_shard_may_be_empty(dataset, tmp_path, small_shards):
    images = tuple(dataset.images[n] for n in (1, 3, 0))
    faces = prepare(Dataset("csv", images), tmp_path / "faces", WAY)
    assert [image.path.name for image in faces.images] == ["a.png"]
    assert faces.left_out == {"no face found": 1, "unreadable picture": 1}
    assert np.load(tmp_path / "faces" / "shard-00000.npy").shape == (0, 224, 224, 3)


def test_progress_counts_every_picture(dataset, tmp_path, small_shards):
    calls = []
    prepare(dataset, tmp_path / "faces", WAY, advance=lambda: calls.append(1))
    assert len(calls) == 7
    (tmp_path / "faces" / "shard-00002.json").unlink()
    prepare(dataset, tmp_path / "faces", WAY, advance=lambda: calls.append(1))
    assert len(calls) == 14


# A run that is stopped


def stop_after(count):
    """An `advance` that is interrupted as by Ctrl-C."""
    calls = []

    def advance():
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt

    return advance


def test_an_interrupted_run_goes_on_at_the_first_missing_shard(whole, dataset, tmp_path, small_shards):
    folder = tmp_path / "faces"
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, folder, WAY, advance=stop_after(5))
    assert threading.active_count() == threads
    finished = sorted(folder.glob("shard-*"))
    assert [path.name for path in finished] == [
        "shard-00000.json", "shard-00000.npy", "shard-00001.json", "shard-00001.npy"
    ]  # fmt: skip
    with pytest.raises(DataError, match="is not finished: 2 of 4 shards are there"):
        load_prepared(folder)
    before = [path.stat().st_mtime_ns for path in finished]
    check_same(prepare(dataset, folder, WAY), whole)
    assert [path.stat().st_mtime_ns for path in finished] == before


@pytest.mark.parametrize("lost", ["shard-00000.npy", "shard-00002.json"])
def test_a_shard_without_one_of_its_files_is_made_again(whole, dataset, tmp_path, small_shards, lost):
    prepare(dataset, tmp_path / "faces", WAY)
    (tmp_path / "faces" / lost).unlink()
    with pytest.raises(DataError, match="3 of 4 shards"):
        load_prepared(tmp_path / "faces")
    check_same(prepare(dataset, tmp_path / "faces", WAY), whole)


def test_what_a_killed_run_left_half_written_goes(whole, dataset, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "faces")
    draft = tmp_path / "faces" / f".ageveil-{'0f' * 8}.part"
    draft.write_bytes(b"half")
    prepare(dataset, tmp_path / "faces", WAY)
    assert not draft.exists()


@contextmanager
def largest_file(size):
    """Files beyond this size fail, much as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_output_error_and_nothing_is_lost(whole, dataset, tmp_path, small_shards):
    folder = tmp_path / "faces"
    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, folder, WAY, advance=stop_after(3))
    with (
        largest_file(100_000),
        pytest.raises(OutputError, match=r"cannot write .*shard-00001\.npy': File too large"),
    ):
        prepare(dataset, folder, WAY)
    assert sorted(path.name for path in folder.iterdir()) == [
        "prepared.json",
        "shard-00000.json",
        "shard-00000.npy",
    ]
    check_same(prepare(dataset, folder, WAY), whole)


# Folders that are not what is wanted


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "faces")
    return tmp_path / "faces"


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_finished_folder_is_opened_again(whole, dataset, copy):
    check_same(prepare(dataset, copy, WAY), whole)


def test_neither_threads_nor_model_nor_approach_matter(dataset, copy):
    way = replace(WAY, approach="mask", options=replace(WAY.options, threads=3))
    assert len(prepare(dataset, copy, way)) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "folder"}, "for another data set"),
        ({"images": slice(1, None)}, "for other pictures"),
        ({"images": slice(None, None, -1)}, "for other pictures or labels"),
        ({"left_out": {}}, "for other pictures"),
    ],
)
def test_a_folder_made_for_other_pictures_is_refused(dataset, copy, change, says):
    if "images" in change:
        change = {"images": dataset.images[change["images"]]}
    with pytest.raises(DataError, match=f"faces' was made {says}; choose another folder"):
        prepare(replace(dataset, **change), copy, WAY)


@pytest.mark.parametrize(
    "change",
    [{"age_low": 28}, {"gender": "male"}, {"identity": None}, {"fold": 1}, {"aligned": True}, {"race": None}],
)
def test_a_folder_made_for_other_labels_is_refused(dataset, copy, change):
    images = (replace(dataset.images[0], **change), *dataset.images[1:])
    with pytest.raises(DataError, match="was made for other pictures or labels"):
        prepare(replace(dataset, images=images), copy, WAY)


@pytest.mark.parametrize(
    "change",
    [
        {"detector": "dlib-hog"},
        {"allow_others": False},
        {"limits": Limits(max_side=4000)},
        {"options": replace(WAY.options, threshold=0.9)},
    ],
)
def test_a_folder_made_by_another_pipeline_is_refused(dataset, copy, change):
    with pytest.raises(DataError, match="with other choices of detector, landmarks or limits"):
        prepare(dataset, copy, replace(WAY, **change))


OTHER = {"detector": "0" * 64, "landmarks": LANDMARKS["5"].sha256}


def rewritten(folder, weights):
    """The head says other weights, or None as folders of earlier versions did."""
    head = json.loads((folder / "prepared.json").read_text())
    del head["weights"]
    (folder / "prepared.json").write_text(
        json.dumps(head if weights is None else head | {"weights": weights})
    )


def test_the_head_names_the_weights_that_found_the_faces(whole):
    head = json.loads((whole.folder / "prepared.json").read_text())
    assert head["weights"] == {"detector": CENTERFACE.sha256, "landmarks": LANDMARKS["5"].sha256}


def test_the_head_says_no_more_of_the_options_than_earlier_versions_did(whole):
    head = json.loads((whole.folder / "prepared.json").read_text())
    assert set(head["pipeline"]["options"]) == {"max_side", "upsample", "threshold"}


@pytest.mark.parametrize("weights", [None, OTHER])
def test_an_unfinished_folder_of_other_weights_is_not_gone_on_with(dataset, tmp_path, small_shards, weights):
    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, tmp_path / "faces", WAY, advance=stop_after(3))
    rewritten(tmp_path / "faces", weights)
    before = sorted(path.name for path in (tmp_path / "faces").iterdir())
    with pytest.raises(DataError, match=r"other weights of the detector or the landmarks.*another folder"):
        prepare(dataset, tmp_path / "faces", WAY)
    assert sorted(path.name for path in (tmp_path / "faces").iterdir()) == before


def test_a_finished_folder_of_an_earlier_version_is_opened_and_claims_no_weights(whole, dataset, copy):
    rewritten(copy, None)
    before = (copy / "prepared.json").read_text()
    check_same(load_prepared(copy), whole)
    check_same(prepare(dataset, copy, WAY), whole)
    assert (copy / "prepared.json").read_text() == before


def test_a_finished_folder_of_other_weights_is_read_but_not_gone_on_with(whole, dataset, copy):
    rewritten(copy, OTHER)
    check_same(load_prepared(copy), whole)
    with pytest.raises(DataError, match="other weights of the detector"):
        prepare(dataset, copy, WAY)


def moved(dataset, pictures, target):
    shutil.copytree(pictures, target)
    images = [replace(i, path=target / i.path.relative_to(pictures)) for i in dataset.images]
    return replace(dataset, images=tuple(images))


def test_a_data_set_may_move(whole, dataset, pictures, copy, tmp_path):
    faces = prepare(moved(dataset, pictures, tmp_path / "elsewhere"), copy, WAY)
    assert faces.images[1].path == tmp_path / "elsewhere" / "sub" / "c.png"
    assert (faces.landmarks == whole.landmarks).all()


def test_other_pictures_by_the_same_names_are_noticed(dataset, pictures, copy, tmp_path):
    other = moved(dataset, pictures, tmp_path / "elsewhere")
    with open(tmp_path / "elsewhere" / "a.png", "ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match="for other pictures or labels"):
        prepare(other, copy, WAY)


def test_a_folder_with_other_files_is_left_alone(dataset, tmp_path):
    (tmp_path / "thesis.part").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        prepare(dataset, tmp_path, WAY)
    assert (tmp_path / "thesis.part").read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_an_output_error(dataset, tmp_path):
    (tmp_path / "faces").touch()
    with pytest.raises(OutputError, match=r"cannot prepare faces in .*: File exists"):
        prepare(dataset, tmp_path / "faces", WAY)


def test_a_data_set_without_a_usable_face_is_an_error(dataset, tmp_path):
    images = (dataset.images[1], dataset.images[3])
    with pytest.raises(DataError, match=r"no face .* could be used: 1 no face found, 1 unreadable picture"):
        prepare(Dataset("csv", images), tmp_path / "faces", WAY)


def test_workers_below_one_are_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match="workers is 1 or more, got 0"):
        prepare(dataset, tmp_path / "faces", WAY, workers=0)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"gone/prepared\.json': No such file"):
        load_prepared(tmp_path / "gone")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("\xff", "is not JSON"),
        ("[]", "expected a JSON object"), ("{}", "of version 1"), ('{"version": 2}', "of version 1"),
        ('{"version": 1}', "is damaged"), ('{"version": 1, "pictures": "x"}', "is damaged"),
    ],
)  # fmt: skip
def test_a_damaged_head_is_an_error(copy, content, says):
    (copy / "prepared.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=says):
        load_prepared(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"faces": None}, {"faces": []}, {"faces": [{}] * 4}, {"left_out": None}, {"left_out": [1]},
    ],
)  # fmt: skip
def test_a_damaged_description_is_an_error(copy, change):
    edit(copy / "shard-00000.json", **change)
    with pytest.raises(DataError, match=r"shard-00000\.npy' .* do not read as written: delete both"):
        load_prepared(copy)


def test_crops_that_cannot_be_opened_now_are_not_called_damaged(copy, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(np.lib.format, "open_memmap", full)
    with pytest.raises(DataError, match=r"cannot read prepared faces: .*00000\.npy': Too many open files"):
        load_prepared(copy)


@pytest.mark.parametrize("field", ["age_low", "landmarks", "to_image", "outside", "fold", "file"])
def test_a_damaged_face_is_an_error(copy, field):
    faces = json.loads((copy / "shard-00000.json").read_text())["faces"]
    faces[1][field] = [[1]]
    edit(copy / "shard-00000.json", faces=faces)
    with pytest.raises(DataError, match="do not read as written"):
        load_prepared(copy)


def test_a_picture_too_few_is_noticed(copy):
    edit(copy / "shard-00000.json", left_out=[])
    with pytest.raises(DataError, match="more or fewer pictures than were prepared"):
        load_prepared(copy)


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def damage_cut(path, mark):
    path.write_bytes(path.read_bytes()[:-1])


def damage_empty(path, mark):
    path.write_bytes(b"")


def damage_pickle(path, mark):
    path.write_bytes(pickle.dumps(Trap(mark)))


def damage_objects(path, mark):
    np.save(path, np.array([Trap(mark)] * 4, object), allow_pickle=True)


def damage_shape(path, mark):
    np.save(path, np.zeros((4, 112, 112, 3), np.uint8))


def damage_kind(path, mark):
    np.save(path, np.zeros((4, 224, 224, 3), np.int8))


@pytest.mark.parametrize(
    "damage", [damage_cut, damage_empty, damage_pickle, damage_objects, damage_shape, damage_kind]
)
def test_damaged_crops_are_an_error_and_no_pickle_is_opened(copy, tmp_path, damage):
    damage(copy / "shard-00000.npy", str(tmp_path / "mark"))
    with pytest.raises(DataError, match=r"shard-00000\.npy' .* do not read as written"):
        load_prepared(copy)
    assert not (tmp_path / "mark").exists()


def test_a_name_that_is_no_valid_text_is_prepared(dataset, tmp_path):
    path = tmp_path / os.fsdecode(b"x\xff.png")
    try:
        shutil.copy(dataset.images[0].path, path)
    except OSError:
        pytest.skip("left out: this file system takes valid Unicode names only")
    faces = prepare(Dataset("csv", (LabelledImage(path, 5, 5),)), tmp_path / "faces", WAY)
    assert faces.images[0].path == path


def test_real_faces(ageveil_data, tmp_path):
    folder = ageveil_data / "utkface" / "train"
    paths = sorted(folder.iterdir())[::1600]
    images = tuple(LabelledImage(p, 1, 1, aligned=True) for p in paths)
    faces = prepare(Dataset("utkface", images), tmp_path / "faces", WAY)
    assert len(faces) + sum(faces.left_out.values()) == len(paths)
    # Its makers put the eye centres at the same place of each crop.
    left = faces.landmarks[:, 2:4].mean(axis=(0, 1)) / 224
    assert left == pytest.approx((0.297, 0.299), abs=0.03)
