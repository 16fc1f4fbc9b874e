"""The networks against the specification, slow loops and OpenCV."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ageveil.anonymization import anonymize_crop
from ageveil.image import read_image
from ageveil.pipeline import Pipeline
from ageveil.training import initial
from ageveil.training.efficientnet import SameConv2d
from ageveil.training.networks import (
    NETWORKS,
    Cells,
    Ensemble,
    Reading,
    SmallCells,
    Veil,
    VeilReader,
    Vgg16,
    get_network,
)

YEARS, GROUPS = 101, 8
# Of networks that cannot look at crops of 64.
SIDES = {"dlib-resnet": 67, "inception-resnet": 75, "inception-resnet-small": 75}


def crops_and_mask(count=2, side=96):
    generator = torch.Generator().manual_seed(3)
    crops = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)
    mask = torch.zeros(count, side, side, dtype=torch.bool)
    mask[:, side // 6 : side // 2, side // 8 : -side // 8] = True
    return crops, mask


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_crops_of_any_side(name):
    network = get_network(name).build(SIDES.get(name, 64)).eval()
    classes = YEARS if get_network(name).resolution == "year" else GROUPS
    assert network.resolution == get_network(name).resolution
    for side in (64, 96):
        crops, mask = crops_and_mask(2, side)
        with torch.inference_mode():
            logits = network(crops, mask)
        assert logits.shape == (2, classes)
        assert torch.isfinite(logits).all()


def test_an_unknown_network_lists_the_choices():
    with pytest.raises(ValueError, match="unknown network 'resnet'; choose one of vgg16, vgg16-attention"):
        get_network("resnet")


@pytest.mark.parametrize("side", [48, 96, 130])
def test_crops_are_resized_as_opencv_does(side):
    crops, mask = crops_and_mask(1, 96)
    colours, share = get_network("mobilenet").build(side).resized(crops, mask)
    expected = cv2.resize(crops[0].numpy().astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(colours[0].permute(1, 2, 0), expected, atol=1e-2)
    expected = cv2.resize(mask[0].numpy().astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(share[0, 0], expected, atol=1e-4)


def test_vgg16_is_the_one_of_the_specification():
    network = Vgg16(224)
    convolutions = [module for module in network.features if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 13
    # Published: VGG16's convolutions hold 14,714,688 parameters.
    assert sum(p.numel() for module in convolutions for p in module.parameters()) == 14_714_688
    assert sum(isinstance(module, nn.MaxPool2d) for module in network.features) == 4
    crops, mask = crops_and_mask(1, 224)
    with torch.inference_mode():
        colours, _ = network.resized(crops, mask)
        assert network.features(colours).shape == (1, 512, 14, 14)
        assert network.maps(crops, mask).shape == (1, 1024, 14, 14)
    with pytest.raises(ValueError, match="multiple of 16"):
        Vgg16(100)


def test_dlibs_resnet_says_how_small_a_crop_may_be():
    with pytest.raises(ValueError, match="67 pixels or more, got 66"):
        get_network("dlib-resnet").build(66)


def test_attention_multiplies_by_the_area_average_of_the_mask():
    plain, attention = Vgg16(64).eval(), Vgg16(64, attention=True).eval()
    attention.load_state_dict(plain.state_dict())
    crops, mask = crops_and_mask(2, 64)
    shares = np.zeros((2, 1, 4, 4), np.float32)
    for face, row, column in np.ndindex(2, 4, 4):
        cell = mask[face, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        shares[face, 0, row, column] = sum(not value for value in cell.flatten().tolist()) / 256
    with torch.inference_mode():
        colours, _ = plain.resized(crops, mask)
        gated = plain.features(colours - plain.mean) * torch.from_numpy(shares)
        expected = plain.groups(functional.relu(plain.reduce(gated)).mean((2, 3)))
        torch.testing.assert_close(attention(crops, mask), expected, rtol=1e-4, atol=1e-5)
        nothing = torch.zeros_like(mask)
        torch.testing.assert_close(attention(crops, nothing), plain(crops, mask), rtol=1e-4, atol=1e-5)


def test_a_response_map_averages_to_its_logit():
    network = Vgg16(64, attention=True).eval()
    crops, mask = crops_and_mask(2, 64)
    with torch.inference_mode():
        logits, response = network.with_response(crops, mask)
        assert response.shape == (2, 8, 4, 4)
        torch.testing.assert_close(response.mean((2, 3)) + network.groups.bias, logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network(crops, mask), logits)
        # Slowly, for one place and one group.
        place = network.maps(crops, mask)[1, :, 2, 3]
        expected = sum(float(a) * float(b) for a, b in zip(place, network.groups.weight[5], strict=True))
    assert float(response[1, 5, 2, 3]) == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(("side", "stride"), [(8, 1), (8, 2), (9, 2), (7, 1)])
def test_padding_is_tensorflows_same(side, stride):
    layer = SameConv2d(1, 1, 3, stride, bias=True)
    kernel, bias = layer.weight.detach().numpy()[0, 0], float(layer.bias.detach())
    picture = np.random.default_rng(1).normal(size=(side, side)).astype(np.float32)
    # TensorFlow's rule: ceil(side / stride) places; what padding is odd goes behind.
    places = -(-side // stride)
    before = max((places - 1) * stride + 3 - side, 0) // 2
    expected = np.full((places, places), bias, np.float32)
    for y, x, i, j in np.ndindex(places, places, 3, 3):
        row, column = y * stride + i - before, x * stride + j - before
        if 0 <= row < side and 0 <= column < side:
            expected[y, x] += kernel[i, j] * picture[row, column]
    made = layer(torch.from_numpy(picture)[None, None]).detach().numpy()[0, 0]
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["mobilenet", "mobilenet-placed", "efficientnet-lite0", "dlib-resnet", "inception-resnet-small"],
)
def test_a_new_mask_input_is_silent_at_first(name):
    network = get_network(name).build(SIDES.get(name, 64)).eval()
    own = network.state_dict()
    first = next(key for key, value in own.items() if value.ndim == 4 and key != "mean")
    prefix = "" if name.startswith("mobilenet") else "backbone."
    state = {key.removeprefix(prefix): value for key, value in own.items() if key.startswith(prefix)}
    state[first.removeprefix(prefix)] = own[first][:, :3]
    network.load_state_dict(network.adapt(state), strict=False)
    crops, mask = crops_and_mask(2, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(crops, mask), network(crops, ~mask), rtol=1e-4, atol=1e-5)
    assert network.state_dict()[first].shape[1] == 4


def test_places_start_as_an_average_and_weigh_each_feature_by_itself():
    plain = get_network("mobilenet").build(96).eval()
    placed = get_network("mobilenet-placed").build(96).eval()
    missing, unknown = placed.load_state_dict(plain.state_dict(), strict=False)
    assert (missing, unknown) == (["places"], [])
    inputs = crops_and_mask(2, 96)
    with torch.inference_mode():
        torch.testing.assert_close(placed(*inputs), plain(*inputs), rtol=1e-4, atol=1e-5)
        placed.places.copy_(torch.rand_like(placed.places))
        colours, mask = placed.resized(*inputs)
        maps = placed.features(torch.cat([colours.flip(1) - placed.mean, mask * 128], 1))
        seen = []
        placed.hidden.register_forward_hook(lambda _module, given, _made: seen.append(given[0]))
        placed(*inputs)
    # Slowly, for one face and one feature.
    expected = sum(
        float(maps[1, 7, y, x]) * float(placed.places.detach()[7, y, x])
        for y, x in np.ndindex(*maps.shape[2:])
    )
    assert float(seen[0][1, 7]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_an_ensemble_answers_with_the_mean_probability():
    torch.manual_seed(0)
    networks = [
        get_network(name).build(side).eval() for name, side in (("mobilenet", 48), ("efficientnet-lite0", 64))
    ]
    ensemble = Ensemble(networks)
    inputs = crops_and_mask()
    with torch.inference_mode():
        expected = sum(torch.softmax(network(*inputs), 1) for network in networks) / 2
        torch.testing.assert_close(torch.softmax(ensemble(*inputs), 1), expected)
    assert (ensemble.resolution, ensemble.side) == ("year", [48, 64])


@pytest.mark.parametrize("names", [["mobilenet"], ["mobilenet", "vgg16"], []])
def test_an_ensemble_needs_two_networks_with_the_same_classes(names):
    with pytest.raises(ValueError, match="two or more networks with one resolution"):
        Ensemble([get_network(name).build(32) for name in names])


# Readers of crops that show no face any more --------------------------------------------------------------


@pytest.fixture(scope="module")
def hidden(astronaut):
    """The astronaut behind approaches: crops, shape (1, 224, 224, 3), by name."""
    _, crop = Pipeline().align_viewer(read_image(astronaut))
    names = ["original", "mosaic", "mask", "blur", "grid", "dp-pix"]
    return {name: torch.from_numpy(anonymize_crop(crop, name).pixels.copy())[None] for name in names}


def painted(left, right, side=224):
    crops = torch.full((1, side, side, 3), 16 * right + 8, dtype=torch.uint8)
    crops[:, :, : side // 2] = 16 * left + 8
    return crops


def test_a_veil_holds_two_numbers_of_four_bits():
    torch.manual_seed(0)
    network = Veil(64).eval()
    network.code.weight.data *= 200
    crops, mask = crops_and_mask(6, 96)
    levels = network.levels(crops, mask)
    assert levels.shape == (6, 2)
    assert set(levels.detach().flatten().tolist()) <= set(map(float, range(16)))
    # Nothing but the two numbers reaches the years, and the eye mask is not looked at.
    torch.testing.assert_close(network(crops, mask), network.reader.read(levels))
    torch.testing.assert_close(network(crops, mask), network(crops, ~mask))


def test_gradients_pass_the_rounding_as_if_it_were_not_there():
    torch.manual_seed(0)
    network = Veil(64).eval()
    crops, mask = crops_and_mask(2, 96)
    network.levels(crops, mask).sum().backward()
    rounded = network.code.weight.grad.clone()
    network.zero_grad()
    seen = network.described(crops, torch.zeros_like(mask))
    (torch.sigmoid(network.code(seen)) * 15).sum().backward()
    assert rounded.abs().max() > 0
    torch.testing.assert_close(rounded, network.code.weight.grad)


def test_a_painter_of_veils_inherits_all_but_the_last_layer():
    earlier, network = get_network("mobilenet").build(64), Veil(64)
    taken = network.inherit(earlier.state_dict())
    assert set(earlier.state_dict()) - set(taken) == {"years.weight", "years.bias"}
    assert set(network.state_dict()) - set(taken) == {
        name for name in network.state_dict() if name.startswith(("code.", "reader."))
    }


@pytest.mark.parametrize("side", [96, 97, 224])
@pytest.mark.parametrize(("left", "right"), [(0, 0), (0, 15), (7, 8), (15, 15)])
def test_a_painted_veil_is_read_by_its_levels(left, right, side):
    torch.manual_seed(0)
    reader = VeilReader()
    crops = painted(left, right, side)
    assert reader.knows(crops).tolist() == [[True]]
    expected = reader.read(torch.tensor([[float(left), float(right)]]))
    torch.testing.assert_close(reader(crops, crops[..., 0] > 0), expected)
    crops[0, side // 3, side // 2] ^= 1
    assert reader.knows(crops).tolist() == [[False]]


def test_readers_know_what_they_can_read(hidden):
    cells, veils = Cells(), VeilReader()
    assert [name for name, crops in hidden.items() if cells.knows(crops).item()] == ["grid", "dp-pix"]
    assert [name for name, crops in hidden.items() if veils.knows(crops).item()] == []


def test_cells_are_read_from_their_colours_alone(hidden):
    torch.manual_seed(0)
    network = Cells().eval()
    # One pixel of each cell of 28, and the same cells drawn in another size.
    colours = hidden["grid"][:, 5::28, 9::28]
    assert colours.shape == (1, 8, 8, 3)
    smaller = colours.repeat_interleave(12, 1).repeat_interleave(12, 2)
    answers = [network(crops, crops[..., 0] > 0) for crops in (hidden["grid"], smaller)]
    torch.testing.assert_close(answers[0], answers[1])


def test_a_small_reader_of_cells_begins_with_the_best_product_of_two_narrow_layers(hidden):
    torch.manual_seed(0)
    whole, small = Cells().eval(), SmallCells().eval()
    # Singular values that fall fast, as a trained layer's do, and some that are left aside.
    left, right = (torch.linalg.qr(torch.randn(size, 256))[0] for size in (256, 6144))
    sizes = 0.9 ** torch.arange(256.0)
    whole.hidden.weight.data = (left * sizes) @ right.T
    assert initial.fit(small, small.inherit(whole.state_dict())) == ()
    product = small.hidden[1].weight.detach() @ small.hidden[0].weight.detach()
    # Eckart and Young 1936: no product of that rank is nearer than what the other values weigh.
    expected = float((sizes[64:] ** 2).sum().sqrt())
    assert float((product - whole.hidden.weight.detach()).norm()) == pytest.approx(expected, rel=1e-3)
    crops, mask = hidden["grid"], hidden["grid"][..., 0] > 0
    torch.testing.assert_close(small(crops, mask), whole(crops, mask), atol=0.01, rtol=0.01)
    assert sum(p.numel() for p in small.parameters()) < 0.5 * sum(p.numel() for p in whole.parameters())
    later = SmallCells()
    assert initial.fit(later, later.inherit(small.state_dict())) == ()
    assert torch.equal(later.hidden[0].weight, small.hidden[0].weight)


def test_each_crop_is_answered_by_whoever_reads_it(hidden):
    torch.manual_seed(0)
    network, cells, veils = get_network("mobilenet").build(64).eval(), Cells().eval(), VeilReader()
    joined = Reading(network, [cells, veils]).eval()
    crops = torch.cat([hidden["mask"], hidden["grid"], painted(3, 9), hidden["original"]])
    mask = torch.zeros(crops.shape[:3], dtype=torch.bool)
    seen = []
    handle = network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    answers = joined(crops, mask)
    handle.remove()
    torch.testing.assert_close(seen, [crops[[0, 3]]])  # it is not asked what a reader knows
    expected = [
        network(crops, mask)[0],
        cells(crops, mask)[1],
        veils(crops, mask)[2],
        network(crops, mask)[3],
    ]
    torch.testing.assert_close(answers, torch.stack(expected))
    assert joined.side == 64


def test_readers_answer_in_years_only():
    with pytest.raises(ValueError, match="readers answer in years, the network in groups"):
        Reading(Vgg16(64), [Cells()])
