"""ONNX files: the same answers, weights rounded, nothing written where something is wrong."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ageveil.errors import ModelError, OutputError
from ageveil.runtime import Session
from ageveil.training import networks
from ageveil.training.export import export, round_weights
from ageveil.training.networks import Cells, Reading, Veil, VeilReader, Vgg16, get_network

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (5, 96, 96, 3), np.uint8)
    masks = np.zeros((5, 96, 96), bool)
    masks[:, 20:50, 10:80] = True
    return crops, masks


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return Vgg16(32, attention=True).eval()


@pytest.fixture(scope="module")
def exported(network, sample, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    calibrated = []

    def calibrate(session):
        calibrated.append(session.run(crops=sample[0], eye_mask=sample[1])[0].shape)
        return {"mask": 1.5}

    made = export(
        network, path, metadata={"name": "x", "licence": "CC0-1.0"}, precision="int8", sample=sample,
        calibrate=calibrate,
    )  # fmt: skip
    assert calibrated == [(5, 8)]
    return made


def test_the_file_answers_as_the_network_does(exported, network, sample):
    assert exported.difference <= 1e-3
    assert exported.size == exported.path.stat().st_size
    with torch.inference_mode():
        logits, response = network.with_response(*map(torch.from_numpy, sample))
    session = Session(exported.path)
    assert session.outputs == ("probabilities", "response")
    probabilities, maps = session.run(crops=sample[0], eye_mask=sample[1])
    np.testing.assert_allclose(probabilities, torch.softmax(logits, 1), atol=0.01)
    np.testing.assert_allclose(maps, response, atol=0.02 * float(response.abs().max()))


def test_response_maps_that_differ_are_not_written(network, sample, tmp_path, monkeypatch):
    real, calls = Vgg16.with_response, []

    def other(self, crops, masks):
        logits, response = real(self, crops, masks)
        calls.append(crops.shape)
        return logits, response.flip(3) if len(calls) == 1 else response  # the graph is made after the first

    monkeypatch.setattr(Vgg16, "with_response", other)
    with pytest.raises(ModelError, match="PyTorch and ONNX Runtime differ"):
        export(network, tmp_path / "x.onnx", metadata={}, sample=sample)
    assert not (tmp_path / "x.onnx").exists()


def test_batches_and_sides_are_free(exported):
    session = Session(exported.path)
    for count, side in ((1, 64), (7, 224)):
        crops, masks = np.zeros((count, side, side, 3), np.uint8), np.zeros((count, side, side), bool)
        assert session.run(crops=crops, eye_mask=masks)[0].shape == (count, 8)


def test_the_metadata_travel_inside(exported):
    metadata = {key: json.loads(value) for key, value in Session(exported.path).metadata.items()}
    assert metadata["name"] == "x"
    assert metadata["temperatures"] == {"mask": 1.5} == dict(exported.temperatures)
    assert metadata["side"] == 32
    assert metadata["resolution"] == "group"
    assert metadata["classes"][-1] == "60+"


def test_eight_bits_take_a_quarter_of_the_room(exported, network):
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert exported.size < 1.1 * parameters


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_painter_of_veils_also_gives_its_levels(sample, precision, tmp_path):
    torch.manual_seed(2)
    network = Veil(64).eval()
    made = export(network, tmp_path / "veil.onnx", metadata={}, precision=precision, sample=sample)
    session = Session(made.path)
    assert session.outputs == ("probabilities", "levels")
    crops, masks = sample
    with torch.inference_mode():
        expected = network.levels(*map(torch.from_numpy, sample))
    # A level that lies just between two may fall either way once weights are rounded.
    assert np.abs(session.run(crops=crops, eye_mask=masks)[1] - expected.numpy()).max() <= 1


def test_a_network_with_readers_answers_as_in_pytorch(tmp_path):
    torch.manual_seed(3)
    cells = Cells().eval()
    cells.years.weight.data *= 50  # so that a colour of the cell beside would show
    network = Reading(get_network("mobilenet").build(64).eval(), [cells, VeilReader().eval()])
    rng = np.random.default_rng(0)
    bare = rng.integers(0, 256, (2, 224, 224, 3), np.uint8)
    cells = bare[:, ::28, ::28].repeat(28, 1).repeat(28, 2)
    veils = np.full((2, 224, 224, 3), 40, np.uint8)
    veils[:, :, 112:] = 200
    sample = np.concatenate([bare, cells, veils]), np.zeros((6, 224, 224), bool)
    made = export(network, tmp_path / "model.onnx", metadata={}, precision="float32", sample=sample)
    assert made.difference <= 1e-3
    answers = Session(made.path).run(crops=sample[0], eye_mask=sample[1])[0]
    np.testing.assert_array_equal(answers[4], answers[5])
    assert np.abs(answers[2] - answers[3]).max() > 1e-6
    # One kind alone: of bare crops no reader is asked, of the others the network sees an empty batch.
    for start in (0, 2, 4):
        rows = slice(start, start + 2)
        alone = Session(made.path).run(crops=sample[0][rows], eye_mask=sample[1][rows])[0]
        np.testing.assert_allclose(alone, answers[rows], atol=1e-6)
    graph = onnx.load(made.path).graph
    assert sum(node.op_type == "NonZero" for node in graph.node) == 1  # the rows that the network sees
    assert sum(node.op_type == "Conv" for node in graph.node) == 27  # the network's own
    for choice in (node for node in graph.node if node.op_type == "If"):
        kinds = {branch.name: {node.op_type for node in branch.g.node} for branch in choice.attribute}
        assert kinds["else_branch"] == {"Identity"}
        assert "Where" in kinds["then_branch"]


def test_a_file_names_no_place_on_the_machine_that_wrote_it(sample, tmp_path):
    network = Reading(get_network("mobilenet").build(64).eval(), [VeilReader().eval()])
    made = export(network, tmp_path / "model.onnx", metadata={}, sample=sample)
    assert str(Path(networks.__file__).parent).encode() not in made.path.read_bytes()
    assert b".py" not in made.path.read_bytes()


def test_networks_that_answer_nonsense_are_not_written(sample, tmp_path):
    broken = Vgg16(32)
    with torch.no_grad():
        broken.groups.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="differ"):
        export(broken, tmp_path / "x.onnx", metadata={}, sample=sample)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(network, sample, tmp_path):
    target = tmp_path / "folder.onnx"
    (target / "full").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"cannot write .*folder\.onnx"):
        export(network, target, metadata={}, sample=sample)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


@pytest.mark.parametrize("place", ["file/model.onnx", "folder.onnx"])
def test_an_impossible_place_is_told_before_the_work(network, sample, tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder.onnx").mkdir()

    def calibrate(session):
        pytest.fail("the work was done")

    with pytest.raises(OutputError, match="cannot write"):
        export(network, tmp_path / place, metadata={}, sample=sample, calibrate=calibrate)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder.onnx"]


def test_one_face_is_enough_to_compare_on(network, sample, tmp_path):
    one = tuple(array[:1] for array in sample)
    made = export(network, tmp_path / "new" / "x.onnx", metadata={}, precision="float32", sample=one)
    assert made.difference <= 1e-3
    assert Session(made.path).run(crops=sample[0], eye_mask=sample[1])[0].shape == (5, 8)


# Rounding, on a graph of one matrix -------------------------------------------------------------------------


def product(values):
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["w", "x"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [32, 1])],
        [numpy_helper.from_array(values, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def answers(model, folder, x):
    path = folder / "product.onnx"
    path.write_bytes(model.SerializeToString())
    return Session(path).run(x=x)[0]


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_rounded_weights_are_those_of_a_slow_loop(precision, tmp_path):
    rng = np.random.default_rng(4)
    values = (rng.normal(size=(32, 64)) * np.exp(rng.normal(size=(32, 1)))).astype(np.float32)
    values[3] = 0  # a channel that does nothing has no scale of its own
    expected = np.zeros_like(values)
    for row in range(32):
        largest = max(abs(float(value)) for value in values[row])
        for column in range(64):
            value = float(values[row, column])
            if precision == "float16":
                expected[row, column] = np.float16(value)
            elif largest:
                expected[row, column] = round(value / (largest / 127)) * (largest / 127)
    model = product(values)
    round_weights(model, precision)
    for column in range(0, 64, 9):
        x = np.zeros((64, 1), np.float32)
        x[column] = 1
        np.testing.assert_allclose(
            answers(model, tmp_path, x)[:, 0], expected[:, column], rtol=1e-5, atol=1e-6
        )
    stored = {tensor.data_type for tensor in model.graph.initializer}
    assert TensorProto.FLOAT16 in stored if precision == "float16" else TensorProto.INT8 in stored


def test_small_weights_stay_exact(tmp_path):
    values = np.random.default_rng(5).normal(size=(32, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["w", "x"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [32, 1])],
        [numpy_helper.from_array(values, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    before = onnx.ModelProto.FromString(model.SerializeToString())
    round_weights(model, "int8")
    assert model == before
