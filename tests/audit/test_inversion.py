"""Faces are rebuilt from the answers of a model that tells people apart, and from none that does not."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.decomposition import PCA

from ageveil.alignment import CROP_SIZE
from ageveil.anonymization import _MEAN_CORNERS, _MEAN_HEIGHT
from ageveil.audit.inversion import Eigenfaces, Search, asking, inversions, invert, tell
from ageveil.audit.recognition import RECOGNISERS
from ageveil.errors import UnusableFaceError
from ageveil.evaluation.accuracy import Faces
from ageveil.image import read_image
from ageveil.training.labels import LabelledImage
from ageveil.types import CanonicalCrop

CLASSES = 8
EYES = CROP_SIZE * np.array(
    [(x, _MEAN_HEIGHT) for x in (*reversed(_MEAN_CORNERS[2:]), *_MEAN_CORNERS[:2], 0.49)]
)
SEARCH = Search(shared=200, rounds=6)


def crops_of(folder, count):
    """Whole pictures as canonical crops, as their makers framed them."""
    found = []
    for path in sorted(folder.glob("*.jpg"))[:: max(1, len(list(folder.glob("*.jpg"))) // count)][:count]:
        picture = read_image(path)
        places = [np.linspace(0, side - 1, CROP_SIZE).round().astype(int) for side in picture.shape[:2]]
        found.append((path, np.ascontiguousarray(picture[np.ix_(*places)])))
    return found


@pytest.fixture(scope="module")
def strangers(ageveil_data):
    """Faces of 80 people: eight are targets, eight stand beside them, from the others the attacker learns."""
    return [crop for _, crop in crops_of(ageveil_data / "utkface" / "test", 80)]


def write_model(path, nodes, constants):
    """An estimator over the eight groups, as `ageveil export` would write it."""
    graph = helper.make_graph(
        nodes, "people",
        [
            helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", CROP_SIZE, CROP_SIZE, 3]),
            helper.make_tensor_value_info("eye_mask", TensorProto.BOOL, ["n", CROP_SIZE, CROP_SIZE]),
        ],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    said = {"name": "people", "version": "1", "licence": "MIT", "resolution": "group", "temperatures": {}}
    for key, value in said.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(model, path)
    return str(path)


def cells(crops):
    """Mean colours of 16 × 16 cells, less their mean, of length 1."""
    rows = crops.reshape(-1, 16, 14, 16, 14, 3).astype(np.float64).mean((2, 4)).reshape(len(crops), -1)
    rows -= rows.mean(1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def recogniser(strangers, tmp_path):
    """A model of which each class is a person: that is what is weak."""
    templates = cells(np.stack(strangers[:CLASSES])).T.astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["crops"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["values", "parts"], ["parted"]),
        helper.make_node("ReduceMean", ["parted", "within"], ["means"], keepdims=0),
        helper.make_node("Reshape", ["means", "flat"], ["row"]),
        helper.make_node("ReduceMean", ["row", "last"], ["level"], keepdims=1),
        helper.make_node("Sub", ["row", "level"], ["even"]),
        helper.make_node("ReduceL2", ["even", "last"], ["length"], keepdims=1),
        helper.make_node("Div", ["even", "length"], ["unit"]),
        helper.make_node("MatMul", ["unit", "templates"], ["likeness"]),
        helper.make_node("Mul", ["likeness", "scale"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {
        "parts": np.array([-1, 16, 14, 16, 14, 3]), "within": np.array([2, 4]), "flat": np.array([-1, 768]),
        "last": np.array([1]), "templates": templates, "scale": np.float32(20),
    }  # fmt: skip
    return write_model(tmp_path / "people.onnx", nodes, constants)


@pytest.fixture
def blind(tmp_path):
    """A model that ignores its input."""
    nodes = [
        helper.make_node("Shape", ["crops"], ["faces"], start=0, end=1),
        helper.make_node("Concat", ["faces", "classes"], ["shape"], axis=0),
        helper.make_node("Expand", ["answer", "shape"], ["probabilities"]),
    ]
    answer = np.full((1, CLASSES), 1 / CLASSES, np.float32)
    return write_model(tmp_path / "blind.onnx", nodes, {"answer": answer, "classes": np.array([CLASSES])})


def attack(model, strangers):
    """Rebuild the eight targets, and look for them among sixteen."""
    ask, aims = asking(model, EYES), np.stack(strangers[:CLASSES])
    wanted, basis = ask(aims), Eigenfaces.of(strangers[16:])
    asked = []
    codes = invert(ask, wanted, basis, search=SEARCH, rng=np.random.default_rng(5), advance=asked.append)
    assert sum(asked) == SEARCH.queries(CLASSES) == 200 + 8 * 6 * 12
    rebuilt = basis.pictures(codes)
    answers = ask(basis.pictures(np.zeros((1, 48)))).repeat(CLASSES, 0), ask(rebuilt), wanted
    confidence = np.stack([said[np.arange(CLASSES), wanted.argmax(1)] for said in answers])
    return tell(rebuilt, np.stack(strangers[:16]), [RECOGNISERS["pixels"]], confidence)


def test_whoever_is_a_class_is_rebuilt_and_named(recogniser, strangers):
    found = attack(recogniser, strangers)
    first, reached, _ = (figure.value for figure in found.confidence)
    assert first < 30
    assert reached > 80
    assert found.rank1.value >= 75
    assert found.advantage.low > 0
    assert found.likeness.low > 80
    assert (found.chance, found.targets, found.people) == (6.25, 8, 16)


def test_a_model_that_ignores_its_input_gives_nobody_away(blind, strangers):
    found = attack(blind, strangers)
    assert found.rank1.value <= 12.5  # the same face for all: at most one is right
    assert found.advantage.low < 0
    assert found.likeness.low < 50 < found.likeness.high
    assert [figure.value for figure in found.confidence] == pytest.approx([12.5] * 3)


@pytest.fixture(scope="module")
def members(ageveil_data):
    """Some of the faces that the default estimator was trained on, and some that its recipe left out."""
    found = crops_of(ageveil_data / "utkface" / "train", 400)
    images = tuple(
        LabelledImage(path, age, age) for path, _ in found for age in [int(path.name.split("_")[0])]
    )
    crops = [CanonicalCrop(pixels, EYES, np.eye(2, 3), 0.0) for _, pixels in found]
    return Faces("utkface", images, crops.__getitem__, len(images))


def test_the_shipped_estimator_gives_nobody_away(members):
    found = inversions(
        members, "ageveil", [RECOGNISERS["pixels"]], targets=6, people=20,
        search=Search(shared=60, rounds=2),
    )  # fmt: skip
    assert set(found) == {"trained", "others"}
    for reached in found.values():
        assert (reached.targets, reached.people, reached.chance) == (6, 20, 5)
        assert reached.advantage.low < 0
        assert reached.confidence[1].value > reached.confidence[0].value


def test_faces_that_cannot_be_used_are_passed_over(members):
    def crop(_):
        raise UnusableFaceError("turned away")

    assert inversions(Faces("utkface", members.images, crop, 400), "ageveil", []) == {}


def test_eigenfaces_are_those_of_another_library(astronaut, grace_hopper):
    portraits = [read_image(path)[:448, :448] for path in (astronaut, grace_hopper)]
    # Each pixel of 64 is the mean of 7 × 7: no library is needed for that.
    faces = [
        (np.roll(portrait, shift, 2) * (1 - 0.2 * shift)).astype(np.uint8)
        for portrait in portraits
        for shift in range(3)
    ]
    small = [face.reshape(64, 7, 64, 7, 3).mean((1, 3)) for face in faces]
    basis = Eigenfaces.of(faces, 4)
    theirs = PCA(4, svd_solver="full").fit(np.stack(small).reshape(6, -1))
    np.testing.assert_allclose(basis.mean, theirs.mean_, atol=0.6)
    lengths = np.linalg.norm(basis.directions, axis=1)
    np.testing.assert_allclose(lengths**2 * 6 / 5, theirs.explained_variance_, rtol=0.01)
    overlap = np.abs(np.sum(basis.directions / lengths[:, None] * theirs.components_, axis=1))
    np.testing.assert_allclose(overlap, 1, atol=1e-3)
    pictures = basis.pictures(np.zeros((3, 4)))
    assert (pictures.shape, pictures.dtype) == ((3, CROP_SIZE, CROP_SIZE, 3), np.uint8)


def test_a_basis_needs_two_faces(astronaut):
    with pytest.raises(ValueError, match="two faces or more, got 1"):
        Eigenfaces.of([read_image(astronaut)[:224, :224]])


@pytest.mark.parametrize("wrong", [{"shared": 0}, {"rounds": 0}, {"group": 3, "kept": 4}, {"kept": 0}])
def test_a_search_that_asks_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="numbers of 1 or more"):
        Search(**wrong)
