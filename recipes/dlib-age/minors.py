"""How often the dlib age network would let a minor see a title rated 18, at the default policy.

    python recipes/dlib-age/minors.py DIR        DIR holds UTKFace's test part

Writes minors.md beside this file: decisions for PEGI 18 by age and approach.
"""

from __future__ import annotations

import sys
from collections import Counter
from datetime import date
from pathlib import Path

from ageveil import anonymization, boards, decision, estimation
from ageveil.cli.circumstances import commit
from ageveil.errors import AgeveilError
from ageveil.evaluation.intervals import clopper_pearson
from ageveil.image import read_image
from ageveil.pipeline import Pipeline, map_ordered
from ageveil.training import datasets
from ageveil.training.preparation import canonical_crop
from ageveil.types import AnonymizedFace, Policy

HERE = Path(__file__).parent
BANDS = ((4, 6), (8, 13), (15, 17), (25, 60))
ADULTS = 300
APPROACHES = ("original", "mosaic", "mask", "blur")


def decisions(images: list[datasets.LabelledImage], approach: str) -> Counter[str]:
    """How many faces end in each answer."""
    way = Pipeline(approach=approach, model="dlib-age", allow_others=True)
    rating = boards.get_rating("pegi", "18")

    def prepare(image: datasets.LabelledImage) -> AnonymizedFace:
        crop = canonical_crop(read_image(image.path), way, aligned=image.aligned)
        return anonymization.anonymize_crop(crop, approach)

    faces = [face for face in map_ordered(prepare, images) if not isinstance(face, AgeveilError)]
    found = estimation.estimate(faces, way.model)
    return Counter(decision.decide(distribution, rating, Policy(buffer=0)).outcome for distribution in found)


def main(folder: str) -> None:
    """Measure and write."""
    everybody = datasets.read_dataset(f"utkface:{folder}").images
    began_at = commit()
    lines = [
        "# Minors before a title rated 18",
        "",
        f"    python recipes/dlib-age/minors.py $AGEVEIL_DATA/utkface/test   # {began_at}, {date.today()}",
        "",
        "Decisions for PEGI 18 at the default policy (confidence 0.99, no buffer), the model not being",
        "calibrated; share allowed with its 95 % Clopper-Pearson interval. The mosaic's draws are fresh.",
        "",
        "| true age | approach | faces | allowed, % | denied, % | step up, % |",
        "|---|---|---|---|---|---|",
    ]
    for low, high in BANDS:
        images = [image for image in everybody if low <= image.age_low <= high]
        images = images[:: max(1, len(images) // ADULTS)]
        for approach in APPROACHES:
            counts = decisions(images, approach)
            total = sum(counts.values())
            allowed = clopper_pearson(counts["allow"], total)
            interval = f"{100 * allowed.value:.1f} ({100 * allowed.low:.1f} to {100 * allowed.high:.1f})"
            lines.append(
                f"| {low}-{high} | {approach} | {total} | {interval} | {100 * counts['deny'] / total:.1f} "
                f"| {100 * counts['step_up'] / total:.1f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    (HERE / "minors.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
