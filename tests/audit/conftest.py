"""People for the tests of the audit: six made of two portraits by colour, three pictures of each."""

import cv2
import numpy as np
import pytest

from ageveil.audit.people import choose, find_people
from ageveil.image import read_image

PEOPLE = ("Ann", "Bob", "Cy", "Dee", "Eve", "Flo")


@pytest.fixture(scope="session")
def folder(tmp_path_factory, astronaut, grace_hopper):
    """A folder in the layout of LFW; who it holds differ in hue, pictures of one in light."""
    root = tmp_path_factory.mktemp("people") / "lfw"
    portraits = [read_image(path) for path in (astronaut, grace_hopper)]
    for number, name in enumerate(PEOPLE):
        (root / name).mkdir(parents=True)
        portrait = np.roll(portraits[number % 2], number // 2, axis=2)  # another order of the colours
        for picture in range(3):
            light = np.clip(portrait.astype(float) * (0.8 + 0.1 * picture), 0, 255).astype(np.uint8)
            cv2.imwrite(str(root / name / f"{picture}.png"), light[..., ::-1])
    return root


@pytest.fixture(scope="session")
def crops(folder, tmp_path_factory):
    """The crops of these people."""
    return find_people(folder, tmp_path_factory.mktemp("audit") / "faces")


@pytest.fixture(scope="session")
def people(crops):
    """Gallery and probes of these people."""
    return choose(crops)
