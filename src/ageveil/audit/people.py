"""Whom the attackers are to recognise: people, of each some faces known beforehand and some to name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ageveil.errors import DataError
from ageveil.pipeline import Pipeline
from ageveil.training.datasets import read_lfw
from ageveil.training.labels import Dataset, LabelledImage
from ageveil.training.preparation import prepare
from ageveil.training.prepared import PreparedFaces, load_prepared
from ageveil.types import CanonicalCrop

GALLERY, PROBES = 4, 6
"""Faces of a person that the attacker knows, and faces that are to be named, at most."""

_SPARE = 2  # pictures of a person beyond these: not every one can be used
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Faces of people, parted into gallery and probes.

    Attributes:
        prepared: Holds the crops.
        faces: Indices of the faces in `prepared`, shape (N,).
        person: Number of the person on each, 0 or more without gaps, shape (N,).
        gallery: Whether the attacker knows the face by name, shape (N,); the others are probes.
        left_out: Faces, and people, that cannot take part, by reason.
    """

    prepared: PreparedFaces
    faces: NDArray[np.int64]
    person: NDArray[np.int64]
    gallery: NDArray[np.bool_]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def count(self) -> int:
        """Number of people."""
        return int(self.person.max()) + 1

    @property
    def fold(self) -> NDArray[np.int64]:
        """Which of five parts each face's person is in, shape (N,): an attacker learns from the others."""
        return self.person % _FOLDS

    def crop(self, number: int) -> CanonicalCrop:
        """The crop of a face, bare."""
        return self.prepared.crop(int(self.faces[number]))

    def digest(self) -> str:
        """SHA-256 of all pixels and landmarks, 64 hex digits."""
        found = hashlib.sha256()
        for number in range(len(self)):
            crop = self.crop(number)
            found.update(crop.pixels.tobytes())
            found.update(crop.landmarks.tobytes())
        return found.hexdigest()


def find_people(
    source: Path,
    cache: Path,
    *,
    people: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    announce: Callable[[int], Callable[[], None]] = lambda _: lambda: None,
) -> PreparedFaces:
    """Crop faces of a folder of people in the layout of LFW, or open what `ageveil prepare` left there.

    Args:
        source: The folder.
        cache: Where crops are kept, so that another run need not find the faces again; they are bare.
        people: Only so many people, drawn at random, and no more pictures of each than `choose` takes, with
            a few to spare.
        seed: Of the draws.
        workers: As for `ageveil.training.preparation.prepare`.
        announce: Called with the number of pictures; what it returns is called after each.

    Raises:
        DataError: The folder is neither, or not one face can be used.
        OutputError: The crops cannot be written.
    """
    if (source / "prepared.json").is_file():
        return load_prepared(source)
    images = _drawn(read_lfw(source).images, people, seed)
    names = "\n".join(str(image.path) for image in images)
    folder = cache / hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    advance = announce(len(images))
    return prepare(
        Dataset("lfw", images), folder, Pipeline(allow_others=True), workers=workers, advance=advance
    )


def _drawn(images: Sequence[LabelledImage], people: int | None, seed: int) -> tuple[LabelledImage, ...]:
    rng = np.random.default_rng(seed)
    of = _by_person([image.identity for image in images])
    names = sorted(of)
    if people is not None:
        several = [name for name in names if len(of[name]) > 1]
        if people < len(several):
            names = sorted(rng.choice(several, people, replace=False).tolist())
    kept = [rng.permutation(of[name])[: GALLERY + PROBES + _SPARE].tolist() for name in names]
    return tuple(images[index] for part in kept for index in sorted(part))


def _by_person(names: Sequence[str | None]) -> dict[str, list[int]]:
    of: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        of.setdefault(str(name), []).append(index)
    return of


def choose(
    prepared: PreparedFaces,
    *,
    people: int | None = None,
    gallery: int = GALLERY,
    probes: int = PROBES,
    seed: int = 0,
) -> People:
    """Draw gallery and probes: of each person up to so many faces, none in both.

    Args:
        prepared: Faces that state an identity.
        people: Only so many people, drawn at random.
        gallery: Faces of each person that the attacker knows; one fewer than there are where there are few.
        probes: Faces of each person to name, at most.
        seed: Of the draws.

    Raises:
        ValueError: A number is below 1.
        DataError: Faces state no identity, or fewer people than an attacker learns from have two faces.
    """
    if min(gallery, probes, 1 if people is None else people) < 1:
        raise ValueError(
            f"expected people, gallery faces and probes of 1 or more, got {people}, {gallery}, {probes}"
        )
    names = [image.identity for image in prepared.images]
    if None in names:
        raise DataError("the audit needs faces that state whose they are, got some that do not")
    rng = np.random.default_rng(seed)
    of = _by_person(names)
    single = [name for name, faces in of.items() if len(faces) < 2]
    known = sorted(set(of) - set(single))
    if people is not None and people < len(known):
        known = sorted(rng.choice(known, people, replace=False).tolist())
    if len(known) < _FOLDS:
        raise DataError(f"the audit needs {_FOLDS} people with two faces or more, got {len(known)}")
    chosen: list[tuple[int, int, bool]] = []
    for number, name in enumerate(known):
        order = rng.permutation(of[name]).tolist()
        first = min(gallery, len(order) - 1)
        chosen += [(index, number, place < first) for place, index in enumerate(order[: first + probes])]
    faces, person, is_gallery = zip(*chosen, strict=True)
    left_out = dict(prepared.left_out) | ({"person with a single face": len(single)} if single else {})
    return People(prepared, np.array(faces), np.array(person), np.array(is_gallery), left_out)
