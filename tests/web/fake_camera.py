"""Videos for Chromium's fake camera, made from a public-domain portrait when a test needs them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

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
