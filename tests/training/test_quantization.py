"""8-bit arithmetic: what it rounds, what it leaves alone, and that it answers as float32 does."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ageveil.errors import ModelError
from ageveil.runtime import Session
from ageveil.training import initial
from ageveil.training.export import export, opened
from ageveil.training.faces import hide
from ageveil.training.networks import Cells, Ensemble, Reading, VeilReader, get_network
from ageveil.training.quantization import quantized

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

MOST = 2**15 - 1
"""Largest sum that processors without dot products of bytes keep of a pair of products."""


def hidden(faces, numbers):
    approaches = ("original", "mosaic", "mask", "blur")
    seen = [
        hide(faces.crop(number), approaches[at % 4], np.random.default_rng(at))
        for at, number in enumerate(numbers)
    ]
    return np.stack([face.pixels for face in seen]), np.stack([face.eye_mask for face in seen])


@pytest.fixture(scope="module")
def sample(faces):
    return hidden(faces, range(0, len(faces), 2))


@pytest.fixture(scope="module")
def ranges(faces):
    return [hidden(faces, range(1, len(faces), 2))]


@pytest.fixture(scope="module")
def network(weights):
    """What the default is: two networks that see faces, beside readers. The second's last layer is random."""
    torch.manual_seed(1)
    first, second = get_network("mobilenet").build(160), get_network("inception-resnet-small").build(80)
    initial.fit(first, first.adapt(initial.load("faceres", weights)))
    initial.fit(second, second.adapt(initial.load("facenet", weights)))
    return Reading(Ensemble([first, second]), [Cells(), VeilReader()]).eval()


@pytest.fixture(scope="module")
def exported(network, sample, ranges, tmp_path_factory):
    path = tmp_path_factory.mktemp("static") / "model.onnx"
    return export(network, path, metadata={}, precision="int8-static", sample=sample, ranges=ranges)


def test_it_answers_as_the_network_does(exported, network, sample):
    assert exported.precision == "int8-static"
    with torch.inference_mode():
        expected = torch.softmax(network(*map(torch.from_numpy, sample)), 1).numpy()
    found = Session(exported.path).run(crops=sample[0], eye_mask=sample[1])[0]
    ages = expected @ np.arange(101)
    assert np.ptp(ages) > 8  # else nothing would be compared
    np.testing.assert_allclose(found, expected, atol=0.03)
    # They were never trained on hidden faces: answers are broad, and their means move easily.
    np.testing.assert_allclose(found @ np.arange(101), ages, atol=4)


def test_pairs_of_products_fit_into_sixteen_bits_and_depthwise_weights_keep_eight(exported):
    graph = onnx.load(exported.path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    largest = {True: 0, False: 0}
    for node in graph.node:
        if node.op_type in {"Conv", "Gemm"} and node.input[1] in source:
            depthwise = any(a.name == "group" and a.i > 1 for a in node.attribute)
            weights = stored[source[node.input[1]]]
            assert weights.dtype == np.int8
            largest[depthwise] = max(largest[depthwise], int(np.abs(weights.astype(int)).max()))
    assert 2 * 255 * largest[False] <= MOST
    assert largest[False] > 60
    assert largest[True] == 127


def test_all_layers_that_look_are_in_eight_bits_and_readers_are_not(exported):
    graph = onnx.load(exported.path).graph
    made = {output: node for node in graph.node for output in node.output}
    for kind, count in (("Conv", 79), ("Gemm", 3)):
        looking = [node for node in graph.node if node.op_type == kind]
        assert len(looking) == count
        for node in looking:
            assert all(made[name].op_type == "DequantizeLinear" for name in node.input[:2])
    branches = [a.g for node in graph.node if node.op_type == "If" for a in node.attribute]
    assert len(branches) == 4
    assert not any(node.op_type.endswith("Linear") for branch in branches for node in branch.node)


def test_nothing_is_rounded_behind_the_logits_and_scales_stay_as_they_are(exported):
    graph = onnx.load(exported.path).graph
    behind = {name for node in graph.node if node.op_type == "LogSoftmax" for name in node.output}
    assert len(behind) == 2
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "LogSoftmax":
            (logits,) = (other for other in graph.node if node.input[0] in other.output)
            assert logits.op_type == "Gemm"
        if behind.intersection(node.input):
            assert node.op_type != "QuantizeLinear"
            behind.update(node.output)
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert constants.issuperset(node.input[1:])
    assert "probabilities" in behind


def test_readers_answer_as_in_pytorch(exported, network):
    cells = np.random.default_rng(2).integers(0, 256, (2, 8, 8, 3), np.uint8).repeat(12, 1).repeat(12, 2)
    veils = np.full((2, 96, 96, 3), 40, np.uint8)
    veils[:, :, 48:] = 200
    crops, masks = np.concatenate([cells, veils]), np.zeros((4, 96, 96), bool)
    with torch.inference_mode():
        expected = torch.softmax(network(torch.from_numpy(crops), torch.from_numpy(masks)), 1)
    found = Session(exported.path).run(crops=crops, eye_mask=masks)[0]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_ranges_that_do_not_hold_the_crops_are_not_written(network, sample, tmp_path):
    dark = sample[0] // 8, sample[1]  # no flat cells, which the readers would answer
    with pytest.raises(ModelError, match=r"weights in int8-static change a probability by 0\.\d"):
        export(
            network, tmp_path / "x.onnx", metadata={}, precision="int8-static", sample=sample, ranges=[dark]
        )
    assert not list(tmp_path.iterdir())


def test_no_ranges_are_refused():
    with pytest.raises(ValueError, match="expected crops to measure ranges on"):
        quantized(onnx.ModelProto(), [])


def test_a_graph_that_does_not_run_on_the_batches_is_a_model_error(sample):
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["crops", "w"], ["y"], name="product")],
        "product",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.ones((3, 2), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(ModelError, match="cannot be put into 8-bit arithmetic"):
        quantized(model, [sample])


@pytest.mark.parametrize("name", ["cells", "veil", "vgg16"])
def test_what_it_is_not_made_for_is_refused(name, tmp_path):
    network = get_network(name).build(8 if name == "cells" else 64)
    sample = np.zeros((2, 96, 96, 3), np.uint8), np.zeros((2, 96, 96), bool)
    with pytest.raises(ValueError, match="cannot be exported as int8-static; choose int8"):
        export(
            network, tmp_path / "x.onnx", metadata={}, precision="int8-static", sample=sample, ranges=[sample]
        )
    assert not list(tmp_path.iterdir())


def test_one_layer_counts_as_whole_numbers_would():
    """Against the definition in Jacob et al. 2018, number by number."""
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(5, 4, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["crops"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["wide"], ["first"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["first", "w"], ["y"], name="layer"),
            helper.make_node("Cast", ["eye_mask"], ["masked"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["masked"], ["most"], keepdims=0),
            helper.make_node("Add", ["y", "most"], ["z"], name="kept"),
        ],
        "layer",
        [
            helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", 4, 4, 4]),
            helper.make_tensor_value_info("eye_mask", TensorProto.BOOL, ["n", 4, 4]),
        ],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 5, 4, 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    crops, masks = rng.integers(0, 256, (2, 4, 4, 4), np.uint8), np.zeros((2, 4, 4), bool)
    crops[0, 0, 0] = 255
    crops[0, 0, 1] = 0
    found = opened(quantized(model, [(crops, masks)])).run(crops=crops, eye_mask=masks)[0]
    exact = np.einsum("oc,nyxc->noyx", weights[:, :, 0, 0], crops.astype(np.float32))
    step = (exact.max() - exact.min()) / 255
    for face, output, row, column in np.ndindex(found.shape):
        scale = float(np.abs(weights[output]).max()) / 64
        total = 0
        for channel in range(4):
            weight = round(float(weights[output, channel, 0, 0]) / scale)
            total += int(crops[face, row, column, channel]) * weight
        assert abs(found[face, output, row, column] - total * scale) <= 1.01 * step
