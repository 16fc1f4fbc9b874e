"""A network paints eyes back, not a face that is gone; and it need not be installed."""

import json
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ageveil.anonymization import anonymize_crop
from ageveil.audit.inpainting import INPAINTER, inpaint, learned
from ageveil.audit.likeness import psnr, ssim
from ageveil.audit.recognition import RECOGNISERS
from ageveil.audit.reconstruction import LEARNED, reconstruct, ways
from ageveil.errors import ModelError
from ageveil.runtime import Weights, checksum, is_installed, locate
from ageveil.types import AnonymizedFace, Receipt


@pytest.fixture(scope="module")
def installed():
    if not is_installed(INPAINTER):
        pytest.skip(f"left out: {INPAINTER.distribution} is not installed")


def inside(picture, face):
    x0, y0, x1, y1 = face.receipt.region
    return picture[y0:y1, x0:x1]


@pytest.mark.usefixtures("installed")
def test_it_says_what_it_learned_and_is_small():
    assert learned() == ("mask", "mosaic", "blur", "grid")
    assert locate(INPAINTER).stat().st_size <= 4e6
    assert set(ways("mosaic")) == {LEARNED}
    assert set(ways("blur")) == {"wiener", "richardson-lucy", LEARNED}
    assert ways("permutation") == {}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("approach", ["mask", "mosaic", "blur", "grid"])
def test_what_is_hidden_comes_nearer_to_the_bare_face(people, approach):
    for number in (0, 3):  # either portrait
        crop = people.crop(number)
        face = anonymize_crop(crop, approach, rng=np.random.default_rng(1))
        restored = inpaint(face)
        bare, before, after = (inside(picture, face) for picture in (crop.pixels, face.pixels, restored))
        assert psnr(bare, after) > psnr(bare, before) + (0.3 if approach == "blur" else 1)
        assert ssim(bare, after) > ssim(bare, before)
        hidden = np.ones((224, 224), bool)
        inside(hidden, face)[:] = False
        np.testing.assert_array_equal(restored[hidden], face.pixels[hidden])


@pytest.mark.usefixtures("installed")
def test_of_a_face_that_is_wholly_gone_nothing_comes_back(people):
    size = (0, 0, 224, 224)
    restored = [
        inpaint(
            AnonymizedFace(
                np.zeros_like(people.crop(number).pixels), np.zeros((224, 224), bool),
                Receipt("mask", {}, size, size, (224, 224)),
            )
        )
        for number in (0, 3)
    ]  # fmt: skip
    np.testing.assert_array_equal(*restored)


@pytest.mark.usefixtures("installed")
def test_a_crop_of_another_side_is_painted(people):
    small = cv2.resize(people.crop(0).pixels, (130, 130), interpolation=cv2.INTER_AREA)
    crop = replace(people.crop(0), pixels=small, landmarks=people.crop(0).landmarks * 130 / 224)
    face = anonymize_crop(crop, "mask")
    assert psnr(inside(small, face), inside(inpaint(face), face)) > 12


@pytest.mark.usefixtures("installed")
def test_faces_are_named_before_and_after(people):
    found = reconstruct(people, "mask", RECOGNISERS["dlib-resnet"])[LEARNED]
    assert found.psnr[1].value > found.psnr[0].value + 1
    for naming in (found.naive, found.aware):
        assert 0 <= naming.before.rank1.value <= 100
        assert naming.gain.value == pytest.approx(naming.after.rank1.value - naming.before.rank1.value)


def graph(path, metadata, shape):
    """A graph that answers with zeros of a shape."""
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["restored"])]
    model = helper.make_graph(
        nodes, "x",
        [
            helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", "s", "s", 3]),
            helper.make_tensor_value_info("hidden", TensorProto.BOOL, ["n", "s", "s"]),
        ],
        [helper.make_tensor_value_info("restored", TensorProto.FLOAT, None)],
        [helper.make_tensor("shape", TensorProto.INT64, [len(shape)], shape)],
    )  # fmt: skip
    made = helper.make_model(model, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in metadata.items():
        made.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(made, path)
    return Weights(None, str(path), checksum(path), "MIT", "a test", "nowhere")


def test_a_file_that_does_not_say_what_it_learned_is_refused(tmp_path):
    with pytest.raises(ModelError, match="does not say which approaches"):
        learned(graph(tmp_path / "x.onnx", {}, [1]))
    assert learned(graph(tmp_path / "y.onnx", {"approaches": ["mask"]}, [1])) == ("mask",)


def test_a_file_that_returns_no_picture_is_refused(tmp_path, people):
    face = anonymize_crop(people.crop(0), "mask")
    with pytest.raises(ModelError, match="should return a picture like the one it got"):
        inpaint(face, weights=graph(tmp_path / "x.onnx", {}, [1, 224, 224, 1]))
    black = inpaint(face, weights=graph(tmp_path / "y.onnx", {}, [1, 224, 224, 3]))
    np.testing.assert_array_equal(black, face.pixels)  # which paints black over black


def test_without_the_file_nothing_is_painted(tmp_path):
    gone = Weights(None, str(tmp_path / "gone.onnx"), "0" * 64, "MIT", "a test", "nowhere")
    assert learned(gone) == ()
    broken = Weights(None, __file__, "0" * 64, "MIT", "a test", "nowhere")
    with pytest.raises(ModelError, match="damaged"):
        learned(broken)
