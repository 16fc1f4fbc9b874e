"""Recognisers: ours against dlib itself, files of one's own by their convention, everything else refused."""

import hashlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import cv2
import dlib
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ageveil.audit.recognition import RECOGNISERS, embed, get_recogniser
from ageveil.errors import ModelError
from ageveil.runtime import locate, open_session
from ageveil.training.faces import hide

OURS, ADAPTED = RECOGNISERS["dlib-resnet"], RECOGNISERS["dlib-resnet-adapted"]
DLIBS_OWN = Path(
    importlib.util.find_spec("face_recognition_models").origin,
    "../models/dlib_face_recognition_resnet_model_v1.dat",
).resolve()


def cosine(one, two):
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


@pytest.fixture(scope="module")
def pixels(people):
    return np.stack([people.crop(number).pixels for number in range(6)])


def chip(crop):
    """The chip that dlib would cut: its own template, by a warp of a blurred picture."""
    # dlib's mean positions of the eye corners at a padding of 0.25, in a chip of 150 pixels.
    left, right, top = (0.25 + 0.2273) / 1.5 * 150, (0.25 + 0.7528) / 1.5 * 150, (0.25 + 0.2213) / 1.5 * 150
    side = crop.shape[0]
    scale = (right - left) / ((0.684 - 0.297) * side)
    move = np.array([[scale, 0, left - scale * 0.297 * side], [0, scale, top - scale * 0.299 * side]])
    return cv2.warpAffine(cv2.GaussianBlur(crop, (0, 0), 0.5), move, (150, 150))


def test_our_recogniser_agrees_with_dlibs_own(pixels):
    network = dlib.face_recognition_model_v1(str(DLIBS_OWN))
    for crop in pixels:
        views = [np.array(network.compute_face_descriptor(chip(view))) for view in (crop, crop[:, ::-1])]
        expected = sum(view / np.linalg.norm(view) for view in views)
        assert cosine(embed(crop[None], OURS)[0], expected) > 0.985


def test_a_face_and_its_mirror_image_are_one(pixels):
    one, two = embed(np.stack([pixels[0], pixels[0][:, ::-1]]), OURS)
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_pixels_are_the_mean_colours_of_cells(pixels):
    for crop, row in zip(pixels, embed(pixels, RECOGNISERS["pixels"]), strict=True):
        cells = [
            crop[top : top + 14, left : left + 14, colour].mean()
            for top in range(0, 224, 14)
            for left in range(0, 224, 14)
            for colour in range(3)
        ]
        less = np.array(cells) - np.mean(cells)
        np.testing.assert_allclose(row, less / np.sqrt((less**2).sum()), atol=1e-5)


def test_pixels_tell_a_face_from_its_mirror_image(pixels):
    one, two = embed(np.stack([pixels[0], pixels[0][:, ::-1]]), RECOGNISERS["pixels"])
    assert cosine(one, two) < 0.9
    np.testing.assert_allclose(one.reshape(16, 16, 3)[:, ::-1], two.reshape(16, 16, 3), atol=1e-5)


def test_levels_keep_what_lengths_and_means_take_away():
    flat = np.repeat(np.array([40, 200], np.uint8), 224 * 224 * 3).reshape(2, 224, 224, 3)
    dark, light = (RECOGNISERS[name] for name in ("pixels", "levels"))
    assert not embed(flat, dark).any()
    one, two = embed(flat, light)
    # By hand: 48 equal numbers beside a constant of 7 half ranges.
    for row, level in ((one, 40), (two, 200)):
        numbers = np.array([(level - 127.5) / 127.5] * 48 + [7])
        np.testing.assert_allclose(row, numbers / np.sqrt((numbers**2).sum()), atol=1e-5)


@pytest.mark.parametrize("name", ["pixels", "levels"])
def test_the_file_shipped_is_that_of_the_recipe(name):
    script = Path(__file__).parents[2] / "recipes" / "recognisers" / "build.py"
    spec = importlib.util.spec_from_file_location("build", script)
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    made = hashlib.sha256(getattr(build, name)().SerializeToString()).hexdigest()
    assert made == RECOGNISERS[name].weights.sha256


def test_both_are_kept_under_names_of_their_own():
    one = RECOGNISERS["pixels"]
    assert one.mark != replace(one, mirrored=True).mark


def test_what_has_learned_says_for_which_approaches():
    metadata = open_session(ADAPTED.weights, 0).metadata
    assert tuple(json.loads(metadata["approaches"])) == ADAPTED.approaches
    assert json.loads(metadata["licence"]) == ADAPTED.weights.licence
    by_path = get_recogniser(str(locate(ADAPTED.weights)))
    assert by_path.approaches == ADAPTED.approaches
    assert by_path.mark == ADAPTED.mark


@pytest.mark.parametrize("approach", ["mosaic", "mask", "blur"])  # of one grid it reads too little
def test_a_hidden_portrait_is_nearer_to_its_own_bare_face(people, approach):
    two = [people.crop(int(np.flatnonzero(people.person == person)[0])) for person in (0, 1)]
    hidden = np.stack([hide(crop, approach, np.random.default_rng(3)).pixels for crop in two])
    seen, bare = embed(hidden, ADAPTED), embed(np.stack([crop.pixels for crop in two]), ADAPTED)
    for own in (0, 1):
        assert cosine(seen[own], bare[own]) > cosine(seen[own], bare[1 - own])


def test_batches_do_not_matter(pixels):
    many = np.concatenate([pixels] * 12)  # more than one batch
    np.testing.assert_allclose(embed(many, OURS)[-6:], embed(pixels, OURS), atol=1e-4)


def graph(folder, shape, *, outputs=2, inputs=1):
    """A recogniser of one's own: the means of the colours of each face."""
    names = [f"x{number}" for number in range(inputs)]
    axes = [2, 3] if shape[1] == 3 and len(shape) == 4 else [1, 2]
    nodes = [
        helper.make_node("ReduceMean", [names[0], "axes"], ["y"], keepdims=int(outputs == 4)),
    ]
    made = helper.make_graph(
        nodes, "own", [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("axes", TensorProto.INT64, [2], axes)],
    )  # fmt: skip
    path = folder / "own.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return str(path)


@pytest.mark.parametrize(
    "shape", [["N", 3, 112, 112], ["N", 112, 112, 3], ["N", 3, "h", "w"], [1, 3, 112, 112]]
)
def test_a_file_of_ones_own_gets_aligned_faces(tmp_path, shape):
    own = get_recogniser(graph(tmp_path, shape))
    assert (own.name, own.margin) == ("own", None)
    white = np.full((2, 224, 224, 3), 255, np.uint8)
    white[1, ..., 2] = 0  # no blue
    rows = embed(white, own)
    # The crop fills 91 × 88 of the template's 112 × 112 pixels; beside it is black, which is -1.
    assert rows.shape == (2, 3)
    assert rows[0] == pytest.approx([2 / np.sqrt(3)] * 3, abs=1e-3)
    assert rows[1][0] > 0 > rows[1][2]


@pytest.mark.parametrize(
    ("shape", "how", "what"),
    [
        (["N", 3, 112], {}, "one input of shape"),
        (["N", 4, 112, 112], {}, "one input of shape"),
        (["N", 3, 112, 112], {"inputs": 2}, "one input of shape"),
        (["N", 3, 112, 112], {"outputs": 4}, "a row for each face"),
    ],
)
def test_what_is_no_recogniser_is_refused(tmp_path, shape, how, what):
    with pytest.raises(ModelError, match=what):
        embed(np.zeros((2, 224, 224, 3), np.uint8), get_recogniser(graph(tmp_path, shape, **how)))


def test_an_unknown_recogniser_lists_the_choices():
    with pytest.raises(
        ValueError,
        match="unknown recogniser 'arcface'; choose one of dlib-resnet, dlib-resnet-adapted, pixels",
    ):
        get_recogniser("arcface")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.onnx cannot be read: No such file or directory"):
        get_recogniser(str(tmp_path / "gone.onnx"))


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="no ONNX graph"):
        embed(np.zeros((1, 224, 224, 3), np.uint8), get_recogniser(str(tmp_path / "x.onnx")))
