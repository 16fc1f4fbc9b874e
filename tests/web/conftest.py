"""What the browser client's tests share: npm, and videos for a fake camera that shows portraits."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WEB = Path(__file__).parents[2] / "web"


@pytest.fixture(scope="session")
def npm():
    """Run one of the client's npm scripts; fails with its output."""
    program = shutil.which("npm")
    if program is None:
        pytest.skip("left out: npm (make system)")
    if not (WEB / "node_modules").is_dir():
        pytest.skip("left out: the browser client's libraries (make web)")

    def call(*words, **options):
        command = [program, "run", "--silent", *words]
        done = subprocess.run(
            command, cwd=WEB, capture_output=True, text=True, check=False, timeout=600, **options
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


WIDTH, HEIGHT = 640, 480


def write_video(path: Path, frames: list[Image.Image]) -> Path:
    """Motion JPEG: one picture after the other, played round and round."""
    with path.open("wb") as file:
        for frame in frames:
            data = io.BytesIO()
            frame.save(data, "JPEG", quality=95)
            file.write(data.getvalue())
    return path


def at_the_screen(portrait: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The part of a portrait that a camera would see; `box` is 4:3."""
    return portrait.crop(box).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def two_people(one: Image.Image, other: Image.Image) -> Image.Image:
    """Two pictures side by side, the middle of each."""
    frame = Image.new("RGB", (WIDTH, HEIGHT))
    for index, picture in enumerate((one, other)):
        frame.paste(picture.crop((160, 0, 480, 480)), (320 * index, 0))
    return frame


def noisy(frame: Image.Image, count: int) -> list[Image.Image]:
    """The same view with a sensor's noise, which no two frames share."""
    rng = np.random.default_rng(2018)
    pixels = np.asarray(frame, np.float64)
    return [
        Image.fromarray(np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8))
        for _ in range(count)
    ]


def empty_room() -> Image.Image:
    """A view without a face."""
    ramp = np.linspace(40, 200, WIDTH, dtype=np.uint8)
    return Image.fromarray(np.repeat(np.tile(ramp, (HEIGHT, 1))[..., None], 3, axis=2))


@pytest.fixture(scope="session")
def videos(tmp_path_factory, astronaut, grace_hopper):
    """A folder of videos for Chromium's fake camera."""
    folder = tmp_path_factory.mktemp("videos")
    collins = at_the_screen(Image.open(astronaut), (65, 0, 385, 240))
    hopper = at_the_screen(Image.open(grace_hopper), (0, 40, 512, 424))
    scenes = {
        "astronaut": noisy(collins, 8),
        "hopper": noisy(hopper, 8),
        "still": [collins] * 2,
        "room": noisy(empty_room(), 4),
        "two": noisy(two_people(collins, hopper), 4),
    }
    for name, frames in scenes.items():
        write_video(folder / f"{name}.mjpeg", frames)
    return folder
