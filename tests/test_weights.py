"""The shipped weights say of themselves what the program says of them, and keep to their size."""

import json
from pathlib import Path

import numpy as np
import pytest

from ageveil.anonymization import APPROACHES
from ageveil.estimation import MODELS
from ageveil.runtime import find, is_installed, locate, open_session

OWN = [name for name in MODELS if name != "dlib-age"]
LARGEST = {"ageveil": 12e6, "ageveil-open": 12e6, "vgg16": 16e6, "vgg16-attention": 16e6}
ROOT = Path(__file__).parents[1]


@pytest.fixture(params=OWN)
def entry(request):
    entry = MODELS[request.param]
    if not is_installed(entry.weights):
        pytest.skip(f"left out: {entry.weights.distribution} is not installed")
    return entry


def test_the_file_and_the_program_say_the_same(entry):
    said = {key: json.loads(value) for key, value in open_session(entry.weights).metadata.items()}
    info = entry.info
    assert (said["name"], said["version"], said["licence"], said["resolution"]) == (
        info.name, info.version, info.licence, info.resolution,
    )  # fmt: skip
    assert tuple(said["temperatures"]) == info.calibrated
    assert set(info.calibrated) <= set(APPROACHES)
    assert all(0.2 < value < 5 for value in said["temperatures"].values())
    assert said["training_data"]
    assert len(said["classes"]) == (101 if info.resolution == "year" else 8)


def test_weights_keep_to_their_size(entry):
    assert locate(entry.weights).stat().st_size <= LARGEST[entry.info.name]


def test_all_weights_together_keep_to_their_size():
    shipped = {*ROOT.glob("weights/**/*.onnx"), *ROOT.glob("src/ageveil/weights/*.onnx")}
    assert {path.name for path in shipped} > {f"{name}.onnx" for name in OWN}
    assert sum(path.stat().st_size for path in shipped) <= 64e6


def test_no_file_names_a_place_on_the_machine_that_wrote_it():
    for path in {*ROOT.glob("weights/**/*.onnx"), *ROOT.glob("src/ageveil/weights/*.onnx")}:
        assert b".py" not in path.read_bytes(), path.name


def test_a_crop_of_any_side_is_answered(entry):
    session = open_session(entry.weights)
    for count, side in ((1, 224), (3, 200)):
        crops, masks = np.zeros((count, side, side, 3), np.uint8), np.zeros((count, side, side), bool)
        answer = session.run(crops=crops, eye_mask=masks)[0]
        np.testing.assert_allclose(answer.sum(1), 1, atol=1e-5)


def test_research_weights_stay_apart_from_the_package():
    for name in OWN:
        weights = MODELS[name].weights
        research = MODELS[name].info.licence == "LicenseRef-research-only"
        assert (weights.package == "ageveil_weights_research") == research
        place = find(weights)
        assert place is None or place.name == f"{name}.onnx"
