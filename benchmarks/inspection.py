r"""Measure how often the inspection errs, either way, and how long it takes.

    python benchmarks/inspection.py --faces prepared:prepared/utkface-test --faces lfw:$AGEVEIL_DATA/lfw \
        --limit 2000 --out benchmarks/inspection.md

The inspection's limits were chosen on UTKFace's and FairFace's training parts. Everything is made in memory;
only the page is written.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ageveil import alignment, anonymization, estimation, inspection
from ageveil.anonymization import APPROACHES, anonymize_crop
from ageveil.errors import FaceError, ImageError, InspectionError
from ageveil.evaluation.accuracy import Faces, open_faces
from ageveil.evaluation.intervals import clopper_pearson
from ageveil.image import read_image
from ageveil.pipeline import Pipeline
from ageveil.types import AnonymizedFace, Box, CanonicalCrop, Face, Image
from speed import PORTRAIT, heading, in_turn, ratio, seconds, summary, yardstick

SEED = 2026
SIZE = 224

Fault = Callable[[CanonicalCrop, Image, str], AnonymizedFace]
"""(face, another bare face, approach) -> what a client that is wrong sends."""


def moved(crop: CanonicalCrop, *, right: float = 0, down: float = 0, scale: float = 1) -> CanonicalCrop:
    """The face elsewhere in its crop, while the client believes it at its place. Borders repeat the edge."""
    return warped(crop, np.array([[scale, 0, right], [0, scale, down]], np.float64))


def warped(crop: CanonicalCrop, matrix: np.ndarray) -> CanonicalCrop:
    """The crop under an affine map of shape (2, 3), with the landmarks left where they were."""
    pixels = cv2.warpAffine(crop.pixels, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    return replace(crop, pixels=np.asarray(pixels, np.uint8))


def bare(crop: CanonicalCrop, _: Image, approach: str) -> AnonymizedFace:
    """Nothing is hidden, and the receipt claims that it was."""
    return replace(anonymize_crop(crop, approach), pixels=crop.pixels)


def hidden_at(down: int, *, honest: bool) -> Fault:
    """The region lies so many pixels below the eyes, or above; the receipt says so, or claims the eyes."""

    def fault(crop: CanonicalCrop, _: Image, approach: str) -> AnonymizedFace:
        true = anonymize_crop(crop, approach)
        x0, y0, x1, y1 = true.receipt.region
        top = min(max(y0 + down, 0), SIZE - (y1 - y0))
        region = (x0, top, x1, top + y1 - y0)
        entry = APPROACHES[approach]
        pixels, _sizes = entry.apply(crop.pixels, region, entry.sizes(SIZE), None, None)
        receipt = replace(true.receipt, region=region, eye_region=region) if honest else true.receipt
        return replace(true, pixels=pixels, receipt=receipt)

    return fault


def second_face(side: int) -> Fault:
    """Another, bare face beside the chin of a face that is hidden as it should be."""

    def fault(crop: CanonicalCrop, other: Image, approach: str) -> AnonymizedFace:
        face = anonymize_crop(crop, approach)
        pixels = face.pixels.copy()
        pixels[SIZE - side - 4 : SIZE - 4, 4 : side + 4] = cv2.resize(
            other, (side, side), interpolation=cv2.INTER_AREA
        )
        return replace(face, pixels=pixels)

    return fault


def upside_down(crop: CanonicalCrop, _: Image, approach: str) -> AnonymizedFace:
    """The face stands on its head, so that its mouth is hidden and its eyes are not."""
    return anonymize_crop(replace(crop, pixels=np.ascontiguousarray(crop.pixels[::-1])), approach)


def weaker_blur(share: float) -> Fault:
    """The blur has only so much of its width."""

    def fault(crop: CanonicalCrop, _: Image, approach: str) -> AnonymizedFace:
        face = anonymize_crop(crop, approach)
        sizes = APPROACHES[approach].sizes(SIZE)
        pixels = anonymization.blur(
            crop.pixels, face.receipt.region, radius=int(sizes["radius"]), sigma=share * float(sizes["sigma"])
        )
        return replace(face, pixels=pixels)

    return fault


def blurred_but_eyes(crop: CanonicalCrop, _: Image, approach: str) -> AnonymizedFace:
    """All of the face is blurred but its eye region."""
    face = anonymize_crop(crop, approach)
    return replace(face, pixels=np.where(face.eye_mask[:, :, None], crop.pixels, face.pixels))


def noisy(crop: CanonicalCrop, _: Image, approach: str) -> AnonymizedFace:
    """Noise of one level lies over a blurred face."""
    face = anonymize_crop(crop, approach)
    noise = np.random.default_rng(SEED).normal(0, 1, face.pixels.shape)
    return replace(face, pixels=np.clip(np.rint(face.pixels + noise), 0, 255).astype(np.uint8))


EYES_FAULTS: Mapping[str, Fault] = {
    "a bare face, receipt claims the approach": bare,
    "forehead hidden, receipt says so": hidden_at(-60, honest=True),
    "forehead hidden, receipt claims the eyes": hidden_at(-60, honest=False),
    "chin hidden, receipt says so": hidden_at(110, honest=True),
    "chin hidden, receipt claims the eyes": hidden_at(110, honest=False),
    "face 60 px too low in its crop": lambda c, _, a: anonymize_crop(moved(c, down=60), a),
    "face 35 px too low": lambda c, _, a: anonymize_crop(moved(c, down=35), a),
    "face of half the size, below the region": lambda c, _, a: anonymize_crop(
        moved(c, right=56, down=100, scale=0.5), a
    ),
    "face of a third of the size, below the region": lambda c, _, a: anonymize_crop(
        moved(c, right=75, down=130, scale=1 / 3), a
    ),
    "a second, bare face of 80 px": second_face(80),
    "a second, bare face of 50 px": second_face(50),
    "face 60 px too high, eyes at the upper border": lambda c, _, a: anonymize_crop(moved(c, down=-60), a),
    "face upside down": upside_down,
}
BLUR_FAULTS: Mapping[str, Fault] = {
    "a bare face, receipt claims the approach": bare,
    "a quarter of the sigma": weaker_blur(0.25),
    "half of the sigma": weaker_blur(0.5),
    "three quarters of the sigma": weaker_blur(0.75),
    "eyes left bare": blurred_but_eyes,
    "noise of one level over the blur": noisy,
    "a second, bare face of 80 px": second_face(80),
}


def faults(approach: str) -> Mapping[str, Fault]:
    """What is tried against an approach; one that hides the whole crop has no place to miss."""
    of_eyes = APPROACHES[approach].hides == "eyes"
    return (
        EYES_FAULTS
        if of_eyes
        else BLUR_FAULTS
        if approach == "blur"
        else {"a bare face, receipt claims the approach": bare}
    )


def verdict(face: AnonymizedFace, approach: str) -> str:
    """What was refused: "receipt", "pixels" or "eyes"; or that it "passed"."""
    try:
        inspection.inspect(face.pixels, face.receipt, approach=approach)
    except InspectionError as error:
        message = str(error)
        if "detector" in message:
            return "eyes"
        return "pixels" if any(word in message for word in ("cells", "(0, 0, 0)", "finer")) else "receipt"
    return "passed"


def crops_of(faces: Faces) -> Iterator[CanonicalCrop]:
    """Those of which a client would send anything, with the eyes at their places, as a client puts them."""
    whole = Box(0, 0, SIZE, SIZE)
    for index in range(len(faces.images)):
        try:
            framed = faces.crop(index)
            crop = alignment.align(framed.pixels, Face(whole, framed.landmarks, 1.0, "centerface"))
            anonymization.eye_region(crop.landmarks, crop.size)
        except (FaceError, ImageError):
            continue
        yield crop


def measure(crops: Iterator[CanonicalCrop]) -> dict[str, dict[str, Counter[str]]]:
    """Verdicts by approach and case; the case "" is a face anonymized as it should be."""
    counts: dict[str, dict[str, Counter[str]]] = {
        approach: {case: Counter() for case in ("", *faults(approach))} for approach in inspection.CHECKS
    }
    other: Image | None = None
    for crop in crops:
        for approach, cases in counts.items():
            cases[""][verdict(anonymize_crop(crop, approach), approach)] += 1
            for name, fault in faults(approach).items():
                sent = fault(crop, crop.pixels if other is None else other, approach)
                cases[name][verdict(sent, approach)] += 1
        other = crop.pixels
    return counts


def share(part: int, whole: int) -> str:
    """In percent, with the exact 95 % interval."""
    found = clopper_pearson(part, whole)
    return f"{100 * found.value:.2f} % ({100 * found.low:.2f} to {100 * found.high:.2f})"


def tables(counts: Mapping[str, Mapping[str, Counter[str]]]) -> list[str]:
    """Both tables of one data set."""
    lines = [
        "| properly anonymized | faces | refused | receipt | pixels | eyes |",
        "|---|---|---|---|---|---|",
    ]
    for approach, cases in counts.items():
        proper, total = cases[""], cases[""].total()
        by = " | ".join(str(proper[reason]) for reason in ("receipt", "pixels", "eyes"))
        lines.append(f"| {approach} | {total} | {share(total - proper['passed'], total)} | {by} |")
    lines += ["", "| fault | approach | refused | by |", "|---|---|---|---|"]
    for approach, cases in counts.items():
        for name, found in cases.items():
            if name:
                refused = share(found.total() - found["passed"], found.total())
                by = ", ".join(f"{reason} {n}" for reason, n in found.most_common() if reason != "passed")
                lines.append(f"| {name} | {approach} | {refused} | {by} |")
    return [*lines, ""]


def time_table() -> list[str]:
    """Each approach on one core, beside the default model."""
    _, crop = Pipeline("mask").align_viewer(read_image(PORTRAIT))
    model = estimation.default_model()
    sent = {name: anonymize_crop(crop, name) for name in inspection.CHECKS}
    jobs: dict[str, Callable[[], object]] = {"yardstick: OpenCV GaussianBlur 25 x 25": yardstick(crop.pixels)}
    for name, face in sent.items():
        jobs[f"inspection, {name}"] = lambda name=name, face=face: inspection.inspect(  # type: ignore[misc]
            face.pixels, face.receipt, approach=name
        )
        inside = tuple(slice(*face.receipt.region[axis::2]) for axis in (1, 0))
        jobs[f"of it the hidden pixels, {name}"] = lambda name=name, face=face, inside=inside: (  # type: ignore[misc]
            inspection.CHECKS[name](face.pixels[inside], face.receipt.parameters)
        )
    jobs[f"the model itself: {model}"] = lambda: estimation.estimate([sent["mosaic"]], model, threads=1)
    times = in_turn({name: lambda job=job: seconds(job) for name, job in jobs.items()}, 101)  # type: ignore[misc]
    first = next(iter(times.values()))
    return [
        "| one crop, one core | ms, median (quartiles) | × yardstick |",
        "|---|---|---|",
        *(f"| {name} | {summary(values)} | {ratio(values, first):.2f} |" for name, values in times.items()),
        "",
    ]


def page(specs: Sequence[str], limit: int, out: Path) -> list[str]:
    """The whole page."""
    chosen = " ".join(f"--faces {spec.partition(':')[0]}:DIR" for spec in specs)
    command = f"python benchmarks/inspection.py {chosen} --limit {limit} --out benchmarks/{out.name}"
    lines = heading("Inspection", command, ("numpy", "opencv-python-headless", "onnxruntime"))
    lines += [
        f"Seed {SEED}. The limits were chosen on UTKFace's and FairFace's training parts. Shares stand with",
        "exact 95 % intervals (Clopper and Pearson). What refused is the first of three looks: at the",
        "receipt, at the hidden pixels, or for eyes elsewhere. Faces whose makers cropped them are aligned",
        "anew, as a client does.",
        "",
        *time_table(),
    ]
    for spec in specs:
        faces = open_faces(spec, Pipeline("mask"), limit=limit, seed=SEED)
        name = Path(spec.partition(":")[2]).name
        lines += [f"## {name}", "", *tables(measure(crops_of(faces)))]
    return lines


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--faces", action="append", required=True, help="as lfw:DIR or prepared:DIR; repeatable"
    )
    parser.add_argument("--limit", type=int, default=2000, help="faces of each data set, drawn at random")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    lines = page(options.faces, options.limit, options.out)
    options.out.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
