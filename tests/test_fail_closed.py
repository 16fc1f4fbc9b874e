"""Fail closed: whatever the command line is given, it ends in one line, a documented exit code and no file.

The commands run inside this process, from the words on the command line to the exit code; a few run as real
processes as well. Before and after each, the folders that it could write to are listed.
"""

import itertools
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from ageveil.image import read_image, write_image
from ageveil.pipeline import Pipeline

# Exit codes as `ageveil.errors` documents them.
USAGE, IMAGE, NO_FACE, SEVERAL, UNUSABLE, LEAK, CIPHER, OUTPUT, DATA = 2, 3, 4, 5, 6, 7, 8, 9, 13
# Centres of the irises, read off the portraits by hand.
IRISES = {"astronaut": ((203, 101), (246, 103)), "grace_hopper": ((221, 190), (304, 187))}
PROTECTIVE = ["mosaic", "mask", "blur", "permutation", "des-ecb", "des-cbc", "des-ctr"]
VERBS = ["rate", "estimate", "anonymize"]


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A place with a folder for results and a folder of its own for temporary files."""
    for name in ("out", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listing(folder):
    """Every file below a folder with its content, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def command(verb, photo, room, *more):
    """The words of a verb that would write into the room."""
    words = {
        "rate": [
            "rate",
            photo,
            "--board",
            "pegi",
            "--rating",
            "18",
            "--save-anonymized",
            room / "out" / "x.png",
        ],
        "estimate": ["estimate", photo],
        "anonymize": ["anonymize", photo, "--out", room / "out"],
    }[verb]
    return [*words, *more]


def check_error(ended, codes, before, room):
    """One line on standard error, nothing on standard output, nothing written."""
    assert ended.code in codes, ended
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("ageveil: ")
    assert len(lines[0]) > len("ageveil: ") + 10
    assert len(lines[0]) < 600
    assert "Traceback" not in ended.err
    assert "unexpected" not in ended.err
    assert ended.out == ""
    assert listing(room) == before


# Pictures that are none -------------------------------------------------------------------------------------


def png(width, height, depth, colour, rows=b""):
    """A PNG file of any header, with the rows that it is given."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(rows, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_of_size(portrait, width, height):
    """A real JPEG file whose header tells another size."""
    data = bytearray(portrait.read_bytes())
    at = re.search(rb"\xff[\xc0\xc2]\x00\x11\x08", data).end()
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


BROKEN = {
    "empty": lambda portrait: b"",
    "truncated": lambda portrait: portrait.read_bytes()[:40_000],
    "header only": lambda portrait: portrait.read_bytes()[:20],
    "text": lambda portrait: b"This is no picture, whatever its name says.\n" * 40,
    "script": lambda portrait: b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    # 121 million pixels of one bit in 16 kB.
    "bomb": lambda portrait: png(11_000, 11_000, 1, 0, bytes(11_000 * 1376)),
    "huge header": lambda portrait: png(20_000, 20_000, 8, 2),
    "huge JPEG header": lambda portrait: jpeg_of_size(portrait, 20_000, 20_000),
    "no size": lambda portrait: png(0, 10, 8, 2),
}


@pytest.fixture(scope="session")
def broken(tmp_path_factory, astronaut):
    """A file for each broken picture, all named as a photograph."""
    folder = tmp_path_factory.mktemp("broken")
    paths = {}
    for name, make in BROKEN.items():
        paths[name] = folder / f"{name}.jpg"
        paths[name].write_bytes(make(astronaut))
    return paths


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture(run, room, broken, verb, name):
    before = listing(room)
    check_error(run(*command(verb, broken[name], room)), {IMAGE}, before, room)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "below a file", "empty name", "long name"])
def test_a_path_that_holds_no_picture(run, room, verb, kind):
    path = {
        "missing": room / "missing.jpg",
        "directory": room / "folder.jpg",
        "pipe": room / "pipe.jpg",
        "below a file": room / "file" / "x.jpg",
        "empty name": "",
        "long name": "n" * 400 + ".jpg",
    }[kind]
    (room / "folder.jpg").mkdir()
    (room / "file").touch()
    os.mkfifo(room / "pipe.jpg")
    before = listing(room)
    check_error(run(*command(verb, path, room)), {IMAGE}, before, room)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (7, 7)])
def test_a_picture_too_small_for_a_face(run, room, verb, size):
    write_image(room / "tiny.png", np.full((*size, 3), 200, np.uint8))
    before = listing(room)
    check_error(run(*command(verb, room / "tiny.png", room)), {NO_FACE}, before, room)


@pytest.mark.parametrize("array", ["nan", "float", "negative"])
def test_an_array_that_is_no_picture(array, room):
    pixels = {
        "nan": np.full((64, 64, 3), np.nan),
        "float": np.linspace(0, 1, 64 * 64 * 3).reshape(64, 64, 3),
        "negative": np.full((64, 64, 3), -3, np.int16),
    }[array]
    before = listing(room)
    for call in (Pipeline().estimate, Pipeline().anonymize_picture):
        with pytest.raises(ValueError, match="expected uint8 values") as error:
            call(pixels)
        assert "\n" not in str(error.value)
    assert listing(room) == before


# Faces that cannot be used ----------------------------------------------------------------------------------


def scaled_portrait(pixels, height):
    width = round(pixels.shape[1] * height / pixels.shape[0])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def no_face(pixels, _):
    values = np.random.default_rng(1).normal(0, 1, (200, 300, 3))
    smooth = cv2.GaussianBlur(values, (0, 0), 9)
    return (128 + 60 * smooth / np.abs(smooth).max()).astype(np.uint8)


def two_faces(pixels, _):
    return np.concatenate([pixels, pixels[:, ::-1]], axis=1)


def half_a_face(pixels, irises):
    (x0, _), (x1, _) = irises
    return pixels[:, (x0 + x1) // 2 :]


def at_the_border(pixels, irises):
    (x0, _), (x1, _) = irises
    return pixels[:, x0 - (x1 - x0) // 8 :]


def masked(pixels, irises):
    (x0, y0), (x1, y1) = irises
    apart = x1 - x0
    picture = pixels.copy()
    picture[min(y0, y1) - apart // 3 : max(y0, y1) + apart // 4, x0 - apart // 2 : x1 + apart // 2] = 0
    return picture


def sunglasses(pixels, irises):
    (x0, y0), (x1, y1) = irises
    apart = x1 - x0
    picture = pixels.copy()
    for iris in irises:
        cv2.ellipse(picture, iris, (round(0.38 * apart), round(0.3 * apart)), 0, 0, 360, (12, 12, 14), -1)
    cv2.line(picture, (x0, y0), (x1, y1), (12, 12, 14), max(2, apart // 14))
    return picture


def turned_away(pixels, irises):
    """The back of a head, as far as a portrait gives one: the hair above the face."""
    (x0, y0), (x1, _) = irises
    apart = x1 - x0
    return scaled_portrait(pixels[: max(16, y0 - apart), x0 - apart : x1 + apart], 240)


def in_profile(pixels, irises):
    """A face foreshortened to a third, which is what is left of its width in profile."""
    return cv2.resize(pixels, (pixels.shape[1] // 3, pixels.shape[0]), interpolation=cv2.INTER_AREA)


# What is painted, and how each verb may end: 0 means that a result is as welcome.
FACES = {
    "no face": (no_face, {NO_FACE}, {NO_FACE}),
    "two faces": (two_faces, {SEVERAL}, {0}),
    "half a face": (half_a_face, {UNUSABLE, NO_FACE}, {0, NO_FACE, UNUSABLE, LEAK}),
    "at the border": (at_the_border, {UNUSABLE, NO_FACE}, {0, NO_FACE, UNUSABLE, LEAK}),
    "masked": (masked, {UNUSABLE}, {0, NO_FACE, UNUSABLE, LEAK}),
    "sunglasses": (sunglasses, {0, NO_FACE, UNUSABLE}, {0, NO_FACE, UNUSABLE, LEAK}),
    "turned away": (turned_away, {NO_FACE}, {NO_FACE}),
    "in profile": (in_profile, {0, NO_FACE, UNUSABLE}, {0, NO_FACE, UNUSABLE, LEAK}),
}


@pytest.fixture(scope="session")
def faces(tmp_path_factory, astronaut, grace_hopper):
    folder = tmp_path_factory.mktemp("faces")
    paths = {}
    for portrait, (name, (make, _, _)) in itertools.product((astronaut, grace_hopper), FACES.items()):
        paths[portrait.stem, name] = folder / f"{portrait.stem} {name}.png"
        pixels = make(read_image(portrait), IRISES[portrait.stem])
        write_image(paths[portrait.stem, name], np.ascontiguousarray(pixels))
    return paths


@pytest.mark.parametrize("portrait", sorted(IRISES))
@pytest.mark.parametrize("name", FACES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_face_that_is_hard_to_use(run, room, faces, portrait, name, verb):
    before = listing(room)
    ended = run(*command(verb, faces[portrait, name], room))
    codes = FACES[name][2 if verb == "anonymize" else 1]
    if ended.code:
        check_error(ended, codes, before, room)
        return
    assert 0 in codes, ended
    assert ended.err == ""
    assert ended.out != ""


@pytest.mark.parametrize("verb", ["rate", "estimate"])
def test_a_turned_face_of_a_person_is_estimated_or_refused(run, room, ageveil_data, verb):
    # LFW holds faces turned to both sides; the landmarks' fit decides.
    people = sorted((ageveil_data / "lfw").iterdir())[100:112]
    for photo in (sorted(person.glob("*.jpg"))[0] for person in people):
        before = listing(room)
        ended = run(*command(verb, photo, room))
        if ended.code:
            check_error(ended, {NO_FACE, SEVERAL, UNUSABLE}, before, room)
        for file in (room / "out").iterdir():
            file.unlink()


# Animations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("verb", VERBS)
def test_of_an_animation_the_first_frame_counts(run, room, astronaut, kind, verb):
    frames = [PillowImage.fromarray(read_image(astronaut)), PillowImage.new("RGB", (512, 512), "white")]
    path = room / f"moving.{kind.lower()}"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=100)
    ended = run(*command(verb, path, room, "--approach", "mask", "--json"))
    assert ended.code == 0
    assert ended.err == ""
    json.loads(ended.out)
    if verb == "anonymize":
        # One picture, of the first frame, and its eyes are black.
        (written,) = (file for file in (room / "out").iterdir() if file.suffix != ".json")
        with PillowImage.open(written) as picture:
            assert getattr(picture, "n_frames", 1) == 1
        pixels = read_image(written)
        assert pixels[300:, :].mean() < 200
        for x, y in IRISES["astronaut"]:
            assert pixels[y - 2 : y + 3, x - 2 : x + 3].max() < 12


# Keys, receipts and outputs ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def hidden(tmp_path_factory, astronaut):
    """A portrait behind DES, its receipts and its key, and keys that do not fit."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "key.json").write_text('{"des": "133457799bbcdff1"}')
    (folder / "wrong.json").write_text('{"des": "0123456789abcdef"}')
    (folder / "other.json").write_text('{"k1": 12345, "k2": 67890}')
    (folder / "damaged.json").write_text('{"des": "133457799bbcdff"}')
    (folder / "text.json").write_text("open sesame")
    (folder / "both.json").write_text('{"des": "133457799bbcdff1", "k1": 1, "k2": 2}')
    (folder / "empty.json").write_text("")
    subprocess.run(
        [sys.executable, "-m", "ageveil", "anonymize", astronaut, "--out", folder, "--approach", "des-cbc",
         "--key-file", folder / "key.json", "--quiet"],
        check=True, timeout=120,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("wrong.json", "the result is noise"),
        ("other.json", "is undone with a DesKey"),
        ("damaged.json", "is no key file"),
        ("text.json", "is no key file"),
        ("both.json", "is no key file"),
        ("empty.json", "is no key file"),
        ("missing.json", "cannot read the key file"),
        (".", "cannot read the key file"),
    ],
)
def test_decrypt_with_a_key_that_does_not_fit(run, room, hidden, key, says):
    before = listing(room)
    words = [
        "decrypt",
        hidden / "astronaut.png",
        "--key-file",
        hidden / key,
        "--out",
        room / "out" / "bare.png",
    ]
    ended = run(*words)
    check_error(ended, {CIPHER}, before, room)
    assert says in ended.err
    for secret in ("133457799bbcdff", "0123456789abcdef", "open sesame", "12345"):
        assert secret not in ended.err


@pytest.mark.parametrize("key", ["other.json", "damaged.json", "missing.json", "."])
def test_anonymize_with_a_key_that_does_not_fit(run, room, hidden, astronaut, key):
    before = listing(room)
    words = command("anonymize", astronaut, room, "--approach", "des-ecb", "--key-file", hidden / key)
    check_error(run(*words), {CIPHER}, before, room)


@pytest.mark.parametrize("receipts", ["missing", "damaged", "of another picture", "large", "directory"])
def test_decrypt_with_receipts_that_do_not_fit(run, room, hidden, receipts):
    good = json.loads((hidden / "astronaut.png.receipt.json").read_text())
    path = room / "receipt.json"
    if receipts == "directory":
        path.mkdir()
    elif receipts != "missing":
        path.write_text({
            "damaged": json.dumps(good)[:-20],
            "of another picture": json.dumps(good).replace("[512, 512]", "[513, 512]"),
            "large": json.dumps({"receipts": good["receipts"] * 9000}),
        }[receipts])  # fmt: skip
    before = listing(room)
    ended = run(
        "decrypt", hidden / "astronaut.png", "--key-file", hidden / "key.json", "--receipt", path,
        "--out", room / "out" / "bare.png",
    )  # fmt: skip
    check_error(ended, {CIPHER}, before, room)


def test_decrypt_a_picture_that_was_changed_since(run, room, hidden):
    pixels = read_image(hidden / "astronaut.png")
    write_image(room / "x.jpg", pixels)
    before = listing(room)
    ended = run(
        "decrypt", room / "x.jpg", "--key-file", hidden / "key.json",
        "--receipt", hidden / "astronaut.png.receipt.json", "--out", room / "out" / "bare.png",
    )  # fmt: skip
    check_error(ended, {CIPHER}, before, room)


UNWRITABLE = ["file/x.png", "missing/x.png", "folder.png", "x.gif", "x", "n" * 300 + ".png"]


@pytest.mark.parametrize("where", UNWRITABLE)
@pytest.mark.parametrize("verb", ["rate", "sheet", "decrypt"])
def test_an_output_file_that_cannot_be_written(run, room, astronaut, hidden, verb, where):
    (room / "file").touch()
    (room / "folder.png").mkdir()
    target = room / where
    words = {
        "rate": ["rate", astronaut, "--board", "pegi", "--rating", "18", "--save-anonymized", target],
        "sheet": ["sheet", astronaut, "--out", target],
        "decrypt": [
            "decrypt", hidden / "astronaut.png", "--key-file", hidden / "key.json", "--out", target,
        ],
    }[verb]  # fmt: skip
    before = listing(room)
    check_error(run(*words), {OUTPUT}, before, room)


@pytest.mark.parametrize("where", ["file", "file/below", "n" * 300])
def test_an_output_folder_that_cannot_be_made(run, room, astronaut, where):
    (room / "file").touch()
    before = listing(room)
    check_error(run("anonymize", astronaut, "--out", room / where), {OUTPUT}, before, room)


def test_a_disk_that_is_full(run, room, astronaut, monkeypatch):
    replace = os.replace
    calls = itertools.count()

    def full(*names):
        if next(calls) == 1:  # the receipt is there, the picture finds no room
            raise OSError(28, "No space left on device")
        replace(*names)

    monkeypatch.setattr(os, "replace", full)
    before = listing(room)
    ended = run(*command("anonymize", astronaut, room))
    check_error(ended, {OUTPUT}, before, room)
    assert "No space left on device" in ended.err


@pytest.mark.parametrize("verb", ["rate", "anonymize"])
def test_the_bare_face_is_never_an_output(run, room, astronaut, verb):
    before = listing(room)
    ended = run(*command(verb, astronaut, room, "--approach", "original"))
    check_error(ended, {USAGE}, before, room)
    assert "leaves the face bare" in ended.err


def test_a_face_that_only_the_second_detector_sees(run, room, astronaut, grace_hopper):
    # The HOG detector needs 80 pixels; the smaller face has 56.
    picture = np.full((600, 700, 3), 90, np.uint8)
    picture[:, :512] = read_image(grace_hopper)
    picture[100:205, 560:660] = scaled_portrait(read_image(astronaut)[20:230, 120:320], 105)
    write_image(room / "two.png", picture)
    before = listing(room)
    ended = run(*command("anonymize", room / "two.png", room, "--detector", "dlib-hog", "--approach", "mask"))
    check_error(ended, {LEAK}, before, room)
    (region,) = re.findall(r"--region [0-9,]+", ended.err)
    words = command("anonymize", room / "two.png", room, "--detector", "dlib-hog", "--approach", "mask")
    assert run(*words, *region.split()).code == 0
    assert not read_image(room / "out" / "two.png")[135:150, 595:625].any()


@pytest.mark.parametrize("number", [0, 2, 7])
def test_another_number_of_faces_than_expected(run, room, astronaut, number):
    before = listing(room)
    ended = run(*command("anonymize", astronaut, room, "--expect-faces", number))
    check_error(ended, {NO_FACE, SEVERAL}, before, room)
    assert f"{number} faces expected, 1 found" in ended.err


@pytest.mark.parametrize("data", ["utkface:missing", "utkface:file", "utkface:empty", "utkface:other"])
def test_a_data_set_that_cannot_be_read(run, room, data):
    (room / "file").touch()
    (room / "empty").mkdir()
    (room / "other").mkdir()
    (room / "other" / "holiday.jpg").touch()
    before = listing(room)
    check_error(run("evaluate", "--data", data), {DATA}, before, room)


@pytest.mark.parametrize("data", ["utkface", "lenet:x", ":x", "utkface:"])
def test_a_data_set_that_is_unknown(run, room, data):
    before = listing(room)
    check_error(run("evaluate", "--data", data), {USAGE}, before, room)


def test_a_data_set_without_a_usable_face(run, room):
    folder = room / "set"
    folder.mkdir()
    write_image(folder / "30_0_0_1.jpg", np.full((100, 100, 3), 90, np.uint8))
    (folder / "31_0_0_2.jpg").touch()
    before = listing(room)
    ended = run("evaluate", "--data", f"utkface:{folder}")
    check_error(ended, {DATA}, before, room)
    assert "no face" in ended.err


# No bare eyes in what is written ----------------------------------------------------------------------------


def eyes_difference(before, after, irises):
    """Mean absolute difference around both irises, in grey levels."""
    (x0, y0), (x1, y1) = irises
    reach = round(0.1 * (x1 - x0))
    part = np.s_[min(y0, y1) - reach : max(y0, y1) + reach + 1, x0 - reach : x1 + reach + 1]
    return float(np.abs(before[part].astype(int) - after[part]).mean())


def blockiness(pixels, irises):
    """Share of neighbours around an iris that are equal: cells and masks have many, photographs few."""
    (x0, y0), (x1, y1) = irises
    reach = round(0.1 * (x1 - x0))
    part = pixels[min(y0, y1) - reach : max(y0, y1) + reach + 1, x0 - reach : x1 + reach + 1]
    return float((part[:, 1:] == part[:, :-1]).all(axis=2).mean())


@pytest.mark.parametrize("portrait", sorted(IRISES))
@pytest.mark.parametrize("approach", PROTECTIVE)
def test_what_anonymize_writes_shows_no_eyes(run, room, astronaut, grace_hopper, portrait, approach):
    source = {"astronaut": astronaut, "grace_hopper": grace_hopper}[portrait]
    write_image(room / "photo.png", read_image(source))
    for photo in (source, room / "photo.png"):
        assert run(*command("anonymize", photo, room, "--approach", approach, "--quiet", "--force")).code == 0
    bare, irises = read_image(source), IRISES[portrait]
    pictures = [file for file in (room / "out").iterdir() if file.suffix != ".json"]
    assert len(pictures) == 2
    for file in pictures:
        # JPEG makes 2 of it, the weakest approach 15.
        assert eyes_difference(bare, read_image(file), irises) > 10
    if approach in {"mosaic", "mask"}:
        # In these portraits fewer than one in ten neighbours are equal.
        assert blockiness(bare, irises) < 0.1
        assert blockiness(read_image(room / "out" / "photo.png"), irises) > 0.5


@pytest.mark.parametrize("portrait", sorted(IRISES))
@pytest.mark.parametrize("approach", PROTECTIVE)
def test_what_rate_saves_shows_no_eyes(run, room, astronaut, grace_hopper, portrait, approach):
    source = {"astronaut": astronaut, "grace_hopper": grace_hopper}[portrait]
    ended = run(*command("rate", source, room, "--approach", approach, "--quiet"))
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    bare = Pipeline(approach).align_viewer(read_image(source))[1].pixels
    saved = read_image(room / "out" / "x.png")
    # The eye centres of every crop of 224 pixels: 29.7 and 68.4 % across, 29.9 % down.
    irises = ((67, 67), (153, 67))
    assert eyes_difference(bare, saved, irises) > 10
    if approach == "mask":
        assert not saved[58:76, 58:162].any()
    if approach == "mosaic":
        # Cells of 11 pixels from the region's corner, each of one value.
        (data,) = json.loads((room / "out" / "x.png.receipt.json").read_text())["receipts"]
        x0, y0, x1, y1 = data["region"]
        assert data["parameters"] == {"cell": 11}
        for y, x in itertools.product(range(y0, y1, 11), range(x0, x1, 11)):
            cell = saved[y : min(y + 11, y1), x : min(x + 11, x1)].reshape(-1, 3)
            assert (cell == cell[0]).all()


def test_no_other_verb_writes_anything(run, room, astronaut):
    before = listing(room)
    for words in (
        ["estimate", astronaut],
        ["estimate", astronaut, "--approach", "original", "--json"],
        ["rate", astronaut, "--board", "mpa", "--rating", "R"],
        ["boards", "mpa"],
        ["models"],
    ):
        assert run(*words).code == 0
        assert listing(room) == before


def test_what_decrypt_and_sheet_write_is_bare_and_both_say_so(run, room, hidden, astronaut):
    ended = run(
        "decrypt", hidden / "astronaut.png", "--key-file", hidden / "key.json", "--out", room / "bare.png"
    )
    assert ended.code == 0
    assert "bare face" in ended.out
    assert (read_image(room / "bare.png") == read_image(astronaut)).all()
    ended = run("sheet", astronaut, "--out", room / "sheet.png")
    assert ended.code == 0
    assert "bare face" in ended.out
    for verb in ("decrypt", "sheet"):
        assert "BARE FACE" in " ".join(re.sub(r"[│╭╰╮╯─]", " ", run(verb, "--help").out).split())


# Output that a program reads --------------------------------------------------------------------------------


def numbers_and_texts(value, depth=0):
    """Every leaf of JSON values, and every list of numbers."""
    assert depth < 8
    if isinstance(value, dict):
        for entry in value.values():
            yield from numbers_and_texts(entry, depth + 1)
    elif isinstance(value, list) and value and not isinstance(value[0], dict | list):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from numbers_and_texts(entry, depth + 1)
    else:
        yield value


@pytest.mark.parametrize("verb", VERBS)
def test_json_holds_no_pixels(run, room, astronaut, verb):
    ended = run(*command(verb, astronaut, room, "--json"))
    assert ended.code == 0
    for leaf in numbers_and_texts(json.loads(ended.out)):
        if isinstance(leaf, list):
            # Group and year probabilities, boxes and regions, intervals and sizes.
            assert len(leaf) in {8, 101, 4, 2}
        else:
            assert len(str(leaf)) < 400


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", ["truncated", "text"])
def test_with_json_an_error_is_told_on_both_streams(run, room, broken, verb, name):
    before = listing(room)
    ended = run(*command(verb, broken[name], room, "--json"))
    assert ended.code == IMAGE
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("ageveil: ")
    record = json.loads(ended.out)
    assert set(record) == {"photo", "error", "exit_code"}
    assert record["exit_code"] == IMAGE
    assert record["error"] in ended.err
    assert listing(room) == before


# Real processes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "name", "code"),
    [("rate", "truncated", IMAGE), ("estimate", "bomb", IMAGE), ("anonymize", "text", IMAGE)],
)
def test_a_real_process_ends_alike(process, room, broken, verb, name, code):
    before = listing(room)
    check_error(process(*command(verb, broken[name], room)), {code}, before, room)


def test_a_real_process_leaves_nothing_anywhere(process, room, astronaut):
    # Neither a library's telemetry nor a cache: temporary and home folders stay as they are. What silences
    # ONNX Runtime's telemetry from outside is taken away.
    (room / "home").mkdir()
    before = listing(room)
    silent = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"}
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        environment[name] = str(room / "home")
    for verb in ("estimate", "rate"):
        words = [*command(verb, astronaut, room)[:6], "--quiet"]
        assert process(*words, stdin=subprocess.DEVNULL, cwd=Path("/"), env=environment) == (0, "", "")
        assert listing(room) == before
