"""Prepared faces for the tests of training: variations of the two portraits, with ages made up."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ageveil.image import read_image
from ageveil.pipeline import Pipeline
from ageveil.training.datasets import read_dataset
from ageveil.training.initial import WEIGHTS_VARIABLE
from ageveil.training.preparation import load_prepared, prepare

AGES = (1, 5, 10, 14, 17, 18, 28, 30, 40, 50, 65, 80)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, astronaut, grace_hopper):
    """A folder with the prepared folder `faces`: 24 crops, two of each age."""
    root = tmp_path_factory.mktemp("training")
    pictures = root / "pictures"
    portraits = [read_image(path) for path in (astronaut, grace_hopper)]
    for index, age in enumerate(AGES):
        for person, portrait in enumerate(portraits):
            folder = pictures / str(age)
            folder.mkdir(parents=True, exist_ok=True)
            light = np.clip(portrait.astype(float) * (0.7 + 0.05 * index), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"{person}-{age}.png"), light[..., ::-1])
    prepare(read_dataset(f"folder:{pictures}"), root / "prepared" / "faces", Pipeline(allow_others=True))
    return root / "prepared"


@pytest.fixture(scope="session")
def faces(prepared):
    return load_prepared(prepared / "faces")


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of files of initial weights, `$AGEVEIL_WEIGHTS`."""
    folder = os.environ.get(WEIGHTS_VARIABLE)
    if not folder:
        pytest.skip("left out: $AGEVEIL_WEIGHTS (files of initial weights) is not set")
    return Path(folder)
