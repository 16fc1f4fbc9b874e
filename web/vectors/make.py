"""Write the conformance vectors that the browser client is tested against.

    python web/vectors/make.py            writes vectors.json and pixels/ beside this file

`vectors.json` names every case; `pixels/NAME.gz` holds RGB bytes, row by row. Pictures are generated, or cut
from the two public-domain portraits of examples/; landmarks are written down here, so that no detector has a
part in it.
`tests/web/test_vectors.py` checks that what is committed is what this makes, and that it is right.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ageveil import anonymization
from ageveil.alignment import align
from ageveil.anonymization import anonymize_crop, eye_region
from ageveil.draws import ChaChaDraws
from ageveil.errors import UnusableFaceError
from ageveil.estimation import estimate, get_model
from ageveil.image import read_image
from ageveil.runtime import open_session
from ageveil.types import AnonymizedFace, Box, CanonicalCrop, Face, Image

FOLDER = Path(__file__).parent
EXAMPLES = FOLDER.parents[1] / "examples"

APPROACHES = tuple(
    name
    for name in ("mosaic", "mask", "blur", "grid", "dp-pix", "veil")
    if anonymization.APPROACHES[name].usable
)
"""Those that the browser client offers, and that can be made here."""

KEYS = (bytes(32), bytes(range(32)), bytes([255] * 32))

# Portraits are cut to x0, y0, x1, y1; landmarks are what detection found, rounded, in pixels of the cut-out.
_PORTRAITS = {"astronaut": (120, 10, 340, 230), "grace_hopper": (130, 110, 402, 366)}
_FACES = {
    "astronaut": [[135.44, 94.08], [117.41, 94.56], [75.29, 90.91], [91.54, 93.5], [103.93, 124.44]],
    "grace_hopper": [[191.69, 78.61], [160.73, 80.8], [75.52, 85.71], [107.59, 83.45], [138.42, 142.38]],
}
_GENERATED_FACE = [[131, 60.25], [109, 62], [42.5, 58], [66, 59], [85, 95]]


def pictures() -> dict[str, Image]:
    """Pictures by name: one generated, as rough as can be, and two cut from portraits."""
    y, x, channel = np.mgrid[0:160, 0:200, 0:3]
    generated = ((37 * x + 101 * y + 59 * channel + 7 * x * y) % 256).astype(np.uint8)
    portraits = {
        name: read_image(EXAMPLES / f"{name}.jpg")[y0:y1, x0:x1].copy()
        for name, (x0, y0, x1, y1) in _PORTRAITS.items()
    }
    return {"generated": generated} | portraits


def _turned(points: list[list[float]], degrees: float, scale: float = 1.0) -> list[list[float]]:
    """Five points turned about their mean and scaled, rounded to hundredths of a pixel."""
    array = np.array(points)
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved: list[list[float]] = ((array - array.mean(0)) @ turn.T + array.mean(0)).round(2).tolist()
    return moved


def alignments() -> dict[str, tuple[str, list[list[float]]]]:
    """Name of the crop -> picture and five points."""
    astronaut, hopper = _FACES["astronaut"], _FACES["grace_hopper"]
    return {
        "generated-upright": ("generated", _GENERATED_FACE),
        "generated-turned": ("generated", _turned(_GENERATED_FACE, 17, 0.8)),
        "generated-enlarged": ("generated", _turned(_GENERATED_FACE, -5, 0.3)),
        "generated-at-border": ("generated", [[x - 8, y - 20] for x, y in _GENERATED_FACE]),
        "astronaut-upright": ("astronaut", astronaut),
        "astronaut-turned": ("astronaut", _turned(astronaut, -30)),
        "grace_hopper-upright": ("grace_hopper", hopper),
        "grace_hopper-reduced": ("grace_hopper", _turned(hopper, 3, 1.05)),
    }


def refused() -> dict[str, tuple[str, list[list[float]]]]:
    """Faces that have no canonical crop."""
    return {
        "eyes on one point": ("generated", [[50, 50]] * 5),
        "mostly outside": ("generated", [[x + 120, y] for x, y in _GENERATED_FACE]),
    }


def align_picture(picture: Image, points: list[list[float]]) -> CanonicalCrop:
    """The crop of a face that has these five points."""
    return align(picture, Face(Box(0, 0, 1, 1), np.array(points, np.float64), 1.0, "by hand"))


def anonymizations() -> list[tuple[str, str, bytes]]:
    """Crop, approach and key of every case."""
    return [
        (crop, approach, KEYS[index % len(KEYS)])
        for index, crop in enumerate(("generated-turned", "astronaut-upright", "grace_hopper-upright"))
        for approach in APPROACHES
    ]


def anonymize_case(crop: CanonicalCrop, approach: str, key: bytes) -> AnonymizedFace:
    """The crop behind an approach, all draws made with the key."""
    return anonymize_crop(crop, approach, rng=ChaChaDraws(key))


def draws() -> list[dict[str, Any]]:
    """Draws whose bounds reject no word, some, and every second one."""
    bounds = [1, 2, 3, 121, 256, 1000, 2**31, 2**31 + 1, 2**32 - 1, 2**32] + [121] * 40 + [2**31 + 1] * 40
    return [
        {"key": key.hex(), "bounds": bounds, "draws": ChaChaDraws(key).integers(np.array(bounds)).tolist()}
        for key in KEYS
    ]


def eye_regions() -> list[dict[str, Any]]:
    """Five points in a crop of 224 pixels, and their eye region; None where an eye lies outside."""
    mean = [[170.0, 67.0], [137.0, 67.0], [50.0, 67.0], [83.0, 67.0], [112.0, 110.0]]
    cases = [
        mean,
        _turned(mean, 8),
        _turned(mean, 0, 1.6),  # clipped on both sides
        [[x, y - 66.99] for x, y in mean],  # clipped above
        [[x, y + 156] for x, y in mean],  # the lowest row that is still inside
        [[x, y + 156.01] for x, y in mean],
        [[x - 50, y] for x, y in mean],  # the first column
        [[x - 50.01, y] for x, y in mean],
        [[x + 53.01, y] for x, y in mean],
        [[x, y - 67.01] for x, y in mean],
    ]
    return [{"landmarks": case, "region": _region(case)} for case in cases]


def _region(points: list[list[float]]) -> list[int] | None:
    try:
        return list(eye_region(np.array(points), 224))
    except UnusableFaceError:
        return None


def distributions(crops: dict[str, CanonicalCrop]) -> list[dict[str, Any]]:
    """What the default model says of anonymized portraits."""
    cases = [case for case in anonymizations() if not case[0].startswith("generated")]
    faces = [anonymize_case(crops[crop], approach, key) for crop, approach, key in cases]
    weights = get_model("ageveil").weights
    temperatures = json.loads(open_session(weights, 1).metadata["temperatures"])
    return [
        {
            "crop": crop,
            "approach": approach,
            "key": key.hex(),
            "model": distribution.model.name,
            "sha256": distribution.model.sha256,
            "temperature": temperatures.get(approach, 1.0),
            "years": [round(float(p), 6) for p in _years(distribution.years)],
        }
        for (crop, approach, key), distribution in zip(cases, estimate(faces, "ageveil"), strict=True)
    ]


def _years(years: NDArray[np.float64] | None) -> NDArray[np.float64]:
    if years is None:
        raise ValueError("the default model estimates years")
    return years


def build() -> tuple[dict[str, Any], dict[str, Image]]:
    """Everything that `main` writes: the cases, and pixels by name."""
    sources = pictures()
    crops = {
        name: align_picture(sources[picture], points) for name, (picture, points) in alignments().items()
    }
    pixels = dict(sources) | {name: crop.pixels for name, crop in crops.items()}
    hidden = []
    for name, approach, key in anonymizations():
        face = anonymize_case(crops[name], approach, key)
        case = {"crop": name, "approach": approach, "key": key.hex(), "receipt": face.receipt.to_json()}
        if approach == "blur":
            pixels[f"{name}-blur"] = face.pixels
        else:
            case["sha256"] = hashlib.sha256(face.pixels.tobytes()).hexdigest()
        hidden.append(case)
    cases = {
        "about": "Made by web/vectors/make.py. Pixels are RGB, row by row, in pixels/NAME.gz. From equal "
        "pixels and landmarks a crop agrees within 1; from equal crops blur within 1, all else by SHA-256.",
        "pictures": {n: {"width": p.shape[1], "height": p.shape[0]} for n, p in sources.items()},
        "alignments": [
            {
                "crop": name,
                "picture": picture,
                "landmarks": points,
                "crop_landmarks": crops[name].landmarks.round(9).tolist(),
                "outside": crops[name].outside,
            }
            for name, (picture, points) in alignments().items()
        ],
        "refused": [{"why": w, "picture": p, "landmarks": points} for w, (p, points) in refused().items()],
        "eye_regions": eye_regions(),
        "anonymizations": hidden,
        "draws": draws(),
        "distributions": distributions(crops),
    }
    return cases, pixels


def main() -> None:
    """Write the files."""
    cases, pixels = build()
    (FOLDER / "pixels").mkdir(exist_ok=True)
    for name, values in pixels.items():
        (FOLDER / "pixels" / f"{name}.gz").write_bytes(gzip.compress(values.tobytes(), mtime=0))
    lines = [f"{json.dumps(key)}: {_lines(value)}" for key, value in cases.items()]
    (FOLDER / "vectors.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _lines(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """JSON with one line for each entry of a list."""
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n " + ",\n ".join(map(json.dumps, value)) + "\n]"


if __name__ == "__main__":
    main()
