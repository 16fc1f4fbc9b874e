"""The networks that can be trained: crops and eye masks in, logits over years or groups out.

Every network takes what an estimator gets and nothing else, and prepares it in the graph, so that training,
serving and the browser share one preprocessing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ageveil.anonymization import VEIL_LEVELS
from ageveil.errors import ModelError
from ageveil.training.efficientnet import EfficientNetLite0, SameConv2d
from ageveil.training.facenet import FaceNet
from ageveil.training.resnet import DlibResNet
from ageveil.types import AGE_GROUPS, MAX_AGE, Resolution

YEARS = MAX_AGE + 1
GROUPS = len(AGE_GROUPS)

_MASK_LEVEL = 128.0  # of the eye mask's channel, so that it is as large as the colours beside it


class AgeNetwork(nn.Module):
    """Base of the networks: resizes a batch of crops to the side that the network was trained at.

    Args:
        side: Side in pixels at which the network looks at a crop.
    """

    resolution: Resolution

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Name initial weights as this network names its own; what is new starts at zero or stays random.

        Args:
            state: Tensors as `ageveil.training.initial` returns them for this network.
        """
        raise NotImplementedError

    def inherit(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What this network takes from the tensors of an earlier run; the rest stays random."""
        return dict(state)

    def resized(self, crops: Tensor, eye_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Bring crops and masks to the network's side, bilinearly and without a prefilter.

        Args:
            crops: Shape (N, S, S, 3), uint8 RGB.
            eye_mask: Shape (N, S, S), bool, True inside the eye region.

        Returns:
            Colours, shape (N, 3, side, side), float32 in [0, 255], and the share of each pixel that lies in
            the eye region, shape (N, 1, side, side), float32 in [0, 1].
        """
        # Joined as bytes and with the channels last, less memory is moved than as floats.
        both = torch.cat([crops, eye_mask.unsqueeze(3).to(torch.uint8)], 3).permute(0, 3, 1, 2).float()
        size = (self.side, self.side)
        both = functional.interpolate(both, size, mode="bilinear", align_corners=False, antialias=False)
        return both[:, :3], both[:, 3:]


class MobileNet(AgeNetwork):
    """MobileNet (v1) with batch norms folded into its convolutions, over years; the eye mask is an input.

    Shaped for the FaceRes weights: BGR in Caffe's convention, TensorFlow's padding, and a hidden layer of 256
    between the 1,024 pooled features and the years.

    Args:
        side: Side in pixels at which the network looks at a crop.
        placed: Pool each feature with weights of its own over the places of a face, which start as an
            average: in an aligned crop a place has a meaning.

    Source:
        Howard et al. 2017, "MobileNets"; Savchenko 2019, "Efficient facial representations for age, gender
        and identity recognition in organizing photo albums using multi-output ConvNet". Places: Chen et al.
        2018, "MobileFaceNets", global depthwise convolution.
    """

    resolution: Resolution = "year"
    mean: Tensor
    _BLOCKS = (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    )
    _STRIDE = 32

    def __init__(self, side: int = 160, *, placed: bool = False) -> None:
        super().__init__(side)
        layers: list[nn.Module] = [SameConv2d(4, 32, 3, 2, bias=True), nn.ReLU6()]
        channels = 32
        for width, stride in self._BLOCKS:
            layers += [SameConv2d(channels, channels, 3, stride, groups=channels, bias=True), nn.ReLU6()]
            layers += [nn.Conv2d(channels, width, 1), nn.ReLU6()]
            channels = width
        self.features = nn.Sequential(*layers)
        across = math.ceil(side / self._STRIDE)
        average = torch.full((channels, across, across), 1 / across**2)
        self.places = nn.Parameter(average) if placed else None
        self.dropout = nn.Dropout(0.2)
        self.hidden = nn.Linear(channels, 256)
        self.years = nn.Linear(256, YEARS)
        self.register_buffer("mean", torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1))

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The FaceRes weights, with a silent fourth input."""
        return {**state, "features.0.weight": _with_mask_input(state["features.0.weight"])}

    def described(self, crops: Tensor, eye_mask: Tensor) -> Tensor:
        """What the years are read from, shape (N, 256); arguments as `AgeNetwork.resized`."""
        colours, mask = self.resized(crops, eye_mask)
        inputs = torch.cat([colours.flip(1) - self.mean, mask * _MASK_LEVEL], 1)
        maps = self.features(inputs.contiguous(memory_format=torch.channels_last))
        pooled = maps.mean((2, 3)) if self.places is None else (maps * self.places).sum((2, 3))
        return functional.relu(self.hidden(self.dropout(pooled)))

    def forward(self, crops: Tensor, eye_mask: Tensor) -> Tensor:
        """Logits over the years, shape (N, 101); arguments as `AgeNetwork.resized`."""
        logits: Tensor = self.years(self.dropout(self.described(crops, eye_mask)))
        return logits


class VeilReader(nn.Module):
    """Years from a veil, `ageveil.anonymization.veil`: from its two grey levels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, YEARS)
        )

    def read(self, levels: Tensor) -> Tensor:
        """Logits over the years, shape (N, 101), of levels, shape (N, 2), whole numbers from 0 to 15."""
        logits: Tensor = self.layers(levels / (VEIL_LEVELS - 1) - 0.5)
        return logits

    def knows(self, crops: Tensor) -> Tensor:
        """Which crops are veils: two flat halves. Shape (N, 1), bool."""
        columns = torch.arange(crops.shape[2], device=crops.device).view(1, 1, -1, 1)
        painted = torch.where(columns < crops.shape[2] // 2, crops[:, :1, :1, :1], crops[:, :1, -1:, :1])
        return (crops == painted).flatten(1).all(1, keepdim=True)

    def forward(self, crops: Tensor, _: Tensor) -> Tensor:
        """Logits over the years, shape (N, 101); arguments as `AgeNetwork.resized`."""
        halves = torch.stack([crops[:, 0, 0, 0], crops[:, 0, -1, 0]], 1)
        return self.read(torch.floor(halves.float() * (VEIL_LEVELS / 256)))


class Veil(MobileNet):
    """MobileNet that must say what it sees of a bare face in two numbers of four bits, and read them back.

    Its first half paints veils, `ageveil.anonymization.veil`; its last half, `reader`, is what an estimator
    needs to understand them. The eye mask is not looked at.

    Args:
        side: Side in pixels at which the network looks at a crop.

    Source:
        Bengio et al. 2013, "Estimating or propagating gradients through stochastic neurons": gradients pass
        the rounding as if it were not there.
    """

    def __init__(self, side: int = 160) -> None:
        super().__init__(side)
        del self.years
        self.code = nn.Linear(256, 2)
        self.reader = VeilReader()

    def inherit(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a MobileNet, without its last layer; the new layers stay random."""
        return {name: tensor for name, tensor in state.items() if not name.startswith("years.")}

    def levels(self, crops: Tensor, eye_mask: Tensor) -> Tensor:
        """The two numbers, shape (N, 2), whole from 0 to 15, float32; arguments as `AgeNetwork.resized`."""
        seen = self.described(crops, torch.zeros_like(eye_mask))
        exact = torch.sigmoid(self.code(seen).float()) * (VEIL_LEVELS - 1)
        return exact + (exact.round() - exact).detach()

    def forward(self, crops: Tensor, eye_mask: Tensor) -> Tensor:
        """Logits over the years, shape (N, 101); arguments as `AgeNetwork.resized`."""
        return self.reader.read(self.levels(crops, eye_mask))


def _with_mask_input(weight: Tensor) -> Tensor:
    """Add an input that has no effect yet to a convolution over colours, shape (O, 3, h, w)."""
    return torch.cat([weight, torch.zeros_like(weight[:, :1])], 1)


def _in_backbone(backbone: nn.Module, state: Mapping[str, Tensor], first: str) -> dict[str, Tensor]:
    """What a backbone takes from initial weights, named as its network's; `first` gets a silent input."""
    own = backbone.state_dict()
    named = {f"backbone.{name}": tensor for name, tensor in state.items() if name in own}
    return {**named, f"backbone.{first}": _with_mask_input(state[first])}


class EfficientNet(AgeNetwork):
    """EfficientNet-Lite0 over years; the eye mask is an input.

    Source:
        Tan and Le 2019, "EfficientNet"; Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite".
    """

    resolution: Resolution = "year"

    def __init__(self, side: int = 160) -> None:
        super().__init__(side)
        self.backbone = EfficientNetLite0(channels=4)
        self.dropout = nn.Dropout(0.2)
        self.years = nn.Linear(1280, YEARS)

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The ImageNet weights, with a silent fourth input."""
        return _in_backbone(self.backbone, state, "stem.conv.weight")

    def forward(self, crops: Tensor, eye_mask: Tensor) -> Tensor:
        """Logits over the years, shape (N, 101); arguments as `AgeNetwork.resized`."""
        colours, mask = self.resized(crops, eye_mask)
        inputs = torch.cat([(colours - 127.0) / 128.0, mask], 1)
        pooled = self.backbone(inputs.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.years(self.dropout(pooled))
        return logits


class ResNet(AgeNetwork):
    """The first 23 layers of dlib's face recogniser, over years; the eye mask is an input.

    The six that are left out hold two thirds of the weights. It was trained on chips of 150 pixels, in which
    eyes lie as far apart as in a crop of 136.

    Args:
        side: Side in pixels at which the network looks at a crop; 67 or more, since it halves five times and
            pads nothing.

    Source:
        As `ageveil.training.resnet.DlibResNet`.
    """

    resolution: Resolution = "year"
    _SMALLEST = 67
    _LEFT_OUT = ("conv256_1", "conv256_2", "conv256_down_out")

    def __init__(self, side: int = 144) -> None:
        super().__init__(side)
        if side < self._SMALLEST:
            raise ValueError(f"dlib's ResNet looks at crops of {self._SMALLEST} pixels or more, got {side}")
        self.backbone = DlibResNet(channels=4)
        del self.backbone.embedding
        for block in self._LEFT_OUT:
            del self.backbone.blocks[block]
        self.dropout = nn.Dropout(0.2)
        self.hidden = nn.Linear(256, 256)
        self.years = nn.Linear(256, YEARS)

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The recogniser's weights, with a silent fourth input."""
        return _in_backbone(self.backbone, state, "stem.weight")

    def forward(self, crops: Tensor, eye_mask: Tensor) -> Tensor:
        """Logits over the years, shape (N, 101); arguments as `AgeNetwork.resized`."""
        colours, mask = self.resized(crops, eye_mask)
        inputs = torch.cat([self.backbone.normalised(colours), mask], 1)
        pooled = self.backbone.pooled(inputs.contiguous(memory_format=torch.channels_last))
        hidden = functional.relu(self.hidden(self.dropout(pooled)))
        logits: Tensor = self.years(self.dropout(hidden))
        return logits


class InceptionResNet(AgeNetwork):
    """FaceNet's Inception-ResNet over years; the eye mask is an input. Large: meant to teach.

    Args:
        side: Side in pixels at which the network looks at a crop; 75 or more, since it pads little.

    Source:
        As `ageveil.training.facenet`.
    """

    resolution: Resolution = "year"
    _SMALLEST = 75
    _DROPOUT = 0.3

    def __init__(self, side: int = 160) -> None:
        super().__init__(side)
        if side < self._SMALLEST:
            raise ValueError(
                f"Inception-ResNet looks at crops of {self._SMALLEST} pixels or more, got {side}"
            )
        self.backbone = FaceNet(channels=4)
        features = self.backbone.embedding.in_features
        del self.backbone.embedding
        self.dropout = nn.Dropout(self._DROPOUT)
        self.years = nn.Linear(features, YEARS)

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The recogniser's weights, with a silent fourth input."""
        return _in_backbone(self.backbone, state, "stem.Conv2d_1a_3x3.weight")

    def inherit(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of one like this or of a larger one, whose further blocks are left aside.

        Raises:
            ModelError: Some are missing, as those of a smaller one's blocks would be.
        """
        own = self.state_dict()
        if missing := [name for name in own if name not in state]:
            raise ModelError(f"the earlier weights do not fit: {missing[0]} is missing")
        return {name: state[name] for name in own}

    def forward(self, crops: Tensor, eye_mask: Tensor) -> Tensor:
        """Logits over the years, shape (N, 101); arguments as `AgeNetwork.resized`."""
        colours, mask = self.resized(crops, eye_mask)
        inputs = torch.cat([self.backbone.normalised(colours), mask], 1)
        pooled = self.backbone.pooled(inputs.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.years(self.dropout(pooled))
        return logits


class SmallInceptionResNet(InceptionResNet):
    """`InceptionResNet` without its later residual blocks: a quarter of the weights stay.

    A residual block adds a share to what passes it, so what stands behind one that is left out still fits
    and can begin with the large network's weights. It has to be trained again.

    Args:
        side: As for `InceptionResNet`.
    """

    _DROPOUT = 0.2
    _LEFT_OUT = ("Block17", "Block8")

    def __init__(self, side: int = 112) -> None:
        super().__init__(side)
        for name in list(self.backbone.blocks):
            if name.startswith(self._LEFT_OUT):
                del self.backbone.blocks[name]


class Vgg16(AgeNetwork):
    """The paper's baseline: VGG16's convolutions, 1 × 1 convolution to 1,024, average pooling, eight groups.

    At a side of 224 the last convolution's maps, G1, are 512 × 14 × 14.

    Args:
        side: Side in pixels at which the network looks at a crop; a multiple of 16.
        attention: Multiply G1 by the eye mask (1 outside the eye region, 0 inside), reduced to its size by
            area averaging: the paper's attention variant.

    Source:
        Ye et al. 2018, section III-B; Simonyan and Zisserman 2014, "Very deep convolutional networks".
    """

    resolution: Resolution = "group"
    mean: Tensor
    _WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

    def __init__(self, side: int = 224, *, attention: bool = False) -> None:
        super().__init__(side)
        if side % 16:
            raise ValueError(f"VGG16 looks at crops whose side is a multiple of 16, got {side}")
        self.attention = attention
        layers: list[nn.Module] = []
        channels = 3
        for block in self._WIDTHS:
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])  # without the last pooling; keys as torchvision's
        self.reduce = nn.Conv2d(channels, 1024, 1)
        self.dropout = nn.Dropout(0.3)
        self.groups = nn.Linear(1024, GROUPS)
        self.register_buffer("mean", torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1))

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The thirteen convolutions; the two last layers stay random."""
        return {f"features.{name}": tensor for name, tensor in state.items()}

    def maps(self, crops: Tensor, eye_mask: Tensor) -> Tensor:
        """The 1,024 maps before pooling, shape (N, 1024, side / 16, side / 16)."""
        colours, mask = self.resized(crops, eye_mask)
        maps = self.features((colours - self.mean).contiguous(memory_format=torch.channels_last))
        if self.attention:
            maps = maps * (1 - functional.avg_pool2d(mask, 16))
        reduced: Tensor = functional.relu(self.reduce(maps))
        return reduced

    def forward(self, crops: Tensor, eye_mask: Tensor) -> Tensor:
        """Logits over the eight groups, shape (N, 8); arguments as `AgeNetwork.resized`."""
        logits: Tensor = self.groups(self.dropout(self.maps(crops, eye_mask).mean((2, 3))))
        return logits

    def with_response(self, crops: Tensor, eye_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the response maps of all groups, shape (N, 8, side / 16, side / 16).

        A response map is the 1,024 maps weighted by the group's row of the last layer: its mean over the
        places, plus the bias, is the group's logit.

        Source:
            Ye et al. 2018, Fig. 3; Zhou et al. 2016, "Learning deep features for discriminative
            localization".
        """
        maps = self.maps(crops, eye_mask)
        response = functional.conv2d(maps, self.groups.weight[:, :, None, None])
        return self.groups(maps.mean((2, 3))), response


class Ensemble(nn.Module):
    """Several trained networks that answer with the mean of their probabilities.

    Networks with another architecture or another past err elsewhere, so their mean errs less.

    Args:
        networks: Two or more with one resolution, in the order in which they are named.

    Raises:
        ValueError: There are fewer, or they answer over different classes.

    Source:
        Hansen and Salamon 1990, "Neural network ensembles".
    """

    def __init__(self, networks: Sequence[AgeNetwork]) -> None:
        super().__init__()
        resolutions = {network.resolution for network in networks}
        if len(networks) < 2 or len(resolutions) > 1:
            raise ValueError(f"expected two or more networks with one resolution, got {len(networks)}")
        self.resolution = networks[0].resolution
        self.networks = nn.ModuleList(networks)

    @property
    def side(self) -> list[int]:
        """Sides in pixels at which the networks look at a crop."""
        return [cast(AgeNetwork, network).side for network in self.networks]

    def forward(self, crops: Tensor, eye_mask: Tensor) -> Tensor:
        """Logarithms of the mean probabilities; arguments as `AgeNetwork.resized`."""
        each = [functional.log_softmax(network(crops, eye_mask), 1) for network in self.networks]
        # One by one: the exporter cannot trace `logsumexp` over rows of which there may be none.
        return functools.reduce(torch.logaddexp, each) - math.log(len(self.networks))


class Cells(AgeNetwork):
    """A small residual network over crops that are coarse cells: years from 8 × 8 colours.

    Args:
        side: How many cells there are across.

    Source:
        He et al. 2016, "Identity mappings in deep residual networks".
    """

    resolution: Resolution = "year"
    _WIDTH, _DEPTH = 96, 4

    def __init__(self, side: int = 8) -> None:
        super().__init__(side)
        width = self._WIDTH
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(8, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(self._DEPTH)
        )  # fmt: skip
        self.dropout = nn.Dropout(0.3)
        self.hidden: nn.Module = nn.Linear(width * side * side, 256)
        self.years = nn.Linear(256, YEARS)

    def knows(self, crops: Tensor) -> Tensor:
        """Which crops are nothing but flat cells. Shape (N, 1), bool."""
        place = torch.arange(crops.shape[1], device=crops.device) * self.side // crops.shape[1]
        back = self._cells(crops)[:, place][:, :, place]
        return (crops == back).flatten(1).all(1, keepdim=True)

    def forward(self, crops: Tensor, eye_mask: Tensor) -> Tensor:  # noqa: ARG002 - no eyes are left to mask
        """Logits over the years, shape (N, 101); arguments as `AgeNetwork.resized`."""
        maps = self.first(self._cells(crops).permute(0, 3, 1, 2).float() / 128.0 - 1.0)
        for block in self.blocks:
            maps = maps + block(maps)
        hidden = functional.relu(self.hidden(self.dropout(functional.relu(maps).flatten(1))))
        logits: Tensor = self.years(self.dropout(hidden))
        return logits

    def _cells(self, crops: Tensor) -> Tensor:
        """The colour of each cell, shape (N, side, side, 3), in [0, 255], from the pixel in its middle.

        Whole numbers say where that is: a ratio may be rounded to the cell beside it, and runtimes differ.
        """
        middle = (2 * torch.arange(self.side, device=crops.device) + 1) * crops.shape[1] // (2 * self.side)
        return crops[:, middle][:, :, middle]


class SmallCells(Cells):
    """`Cells` with a product of two narrow layers in place of the hidden one, which holds most weights.

    It begins with the best such product of a trained one's layer, and has to be trained a little more.

    Args:
        side: As for `Cells`.

    Source:
        Xue et al. 2013, "Restructuring of deep neural network acoustic models with singular value
        decomposition".
    """

    _RANK = 64

    def __init__(self, side: int = 8) -> None:
        super().__init__(side)
        inputs, outputs = self._WIDTH * side * side, self.years.in_features
        self.hidden = nn.Sequential(nn.Linear(inputs, self._RANK, bias=False), nn.Linear(self._RANK, outputs))

    def inherit(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of one like this, or of a `Cells`, whose hidden layer is factorised."""
        if "hidden.weight" not in state:
            return dict(state)
        left, sizes, right = torch.linalg.svd(state["hidden.weight"], full_matrices=False)
        roots = sizes[: self._RANK].sqrt()
        kept = {name: tensor for name, tensor in state.items() if not name.startswith("hidden.")}
        return {
            **kept,
            "hidden.0.weight": roots[:, None] * right[: self._RANK],
            "hidden.1.weight": left[:, : self._RANK] * roots,
            "hidden.1.bias": state["hidden.bias"],
        }


class Reading(nn.Module):
    """A network of faces, joined by readers of crops that show none any more.

    Args:
        network: Answers of every crop that no reader knows.
        readers: Each answers of the crops that it knows; a later one goes before.

    Raises:
        ValueError: The network is not over years.
    """

    def __init__(self, network: AgeNetwork | Ensemble, readers: Sequence[Cells | VeilReader]) -> None:
        super().__init__()
        if network.resolution != "year":
            raise ValueError("readers answer in years, the network in groups")
        self.resolution, self.side = network.resolution, network.side
        self.network, self.readers = network, nn.ModuleList(readers)

    def forward(self, crops: Tensor, eye_mask: Tensor) -> Tensor:
        """Logits over the years, shape (N, 101); arguments as `AgeNetwork.resized`.

        An exported graph asks a reader only where it knows a crop, and the network for the rest alone, which
        may be none: without a branch, inside which ONNX Runtime would not lay out its convolutions for the
        processor.
        """
        logits = torch.zeros(crops.shape[0], YEARS, device=crops.device)
        known = torch.zeros(crops.shape[0], 1, dtype=torch.bool, device=crops.device)
        for module in self.readers:
            reader = cast(Cells | VeilReader, module)
            own = reader.knows(crops)
            logits, known = _read(reader, crops, eye_mask, own, logits), known | own
        rest = torch.nonzero(~known[:, 0])[:, 0]
        return logits.index_copy(0, rest, self.network(crops[rest], eye_mask[rest]))


def _read(
    reader: Cells | VeilReader, crops: Tensor, eye_mask: Tensor, known: Tensor, logits: Tensor
) -> Tensor:
    """The logits, with those of a reader where it knows the crop."""

    def read(crops: Tensor, eye_mask: Tensor, known: Tensor, logits: Tensor) -> Tensor:
        return torch.where(known, reader(crops, eye_mask), logits)

    if not torch.compiler.is_exporting():
        return read(crops, eye_mask, known, logits)
    answered: Tensor = torch.cond(known.any(), read, _kept, (crops, eye_mask, known, logits))
    return answered


def _kept(_crops: Tensor, _eye_mask: Tensor, _known: Tensor, logits: Tensor) -> Tensor:
    return logits.clone()  # a branch may not return its argument


@dataclass(frozen=True, slots=True)
class Network:
    """An entry of `NETWORKS`.

    Attributes:
        build: Side in pixels -> the network with random weights.
        resolution: What its logits are over.
        side: The side that its makers chose.
        initial: Keys of `ageveil.training.initial.INITIAL` whose weights fit, the best first.
    """

    build: Callable[[int], AgeNetwork]
    resolution: Resolution
    side: int
    initial: tuple[str, ...]


_VGG16_WEIGHTS = ("vgg16-keras", "vgg16-torchvision", "vgg16-dex")

NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "vgg16": Network(Vgg16, "group", 224, _VGG16_WEIGHTS),
        "vgg16-attention": Network(lambda side: Vgg16(side, attention=True), "group", 224, _VGG16_WEIGHTS),
        "mobilenet": Network(MobileNet, "year", 160, ("faceres",)),
        "mobilenet-placed": Network(lambda side: MobileNet(side, placed=True), "year", 160, ("faceres",)),
        "veil": Network(Veil, "year", 160, ()),
        "cells": Network(Cells, "year", 8, ()),
        "cells-small": Network(SmallCells, "year", 8, ()),
        "efficientnet-lite0": Network(EfficientNet, "year", 160, ("efficientnet-lite0",)),
        "inception-resnet": Network(InceptionResNet, "year", 160, ("facenet",)),
        "inception-resnet-small": Network(SmallInceptionResNet, "year", 112, ("facenet",)),
        "dlib-resnet": Network(ResNet, "year", 144, ("dlib-resnet",)),
    }
)
"""Networks by name."""


def get_network(name: str) -> Network:
    """The network of that name.

    Raises:
        ValueError: There is none; the message lists the choices.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name]
