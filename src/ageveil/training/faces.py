"""Feed prepared faces to training: varied, anonymized by the function that serves, in a repeatable order."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ageveil import anonymization
from ageveil.alignment import CROP_SIZE
from ageveil.anonymization import Key
from ageveil.ciphers import DesKey, PermutationKey
from ageveil.errors import DataError, UnusableFaceError
from ageveil.training.augmentation import vary
from ageveil.training.labels import LabelledImage
from ageveil.training.preparation import PreparedFaces
from ageveil.types import MAX_AGE, AnonymizedFace, CanonicalCrop

# A run can be repeated only with ciphers whose key is all that is random in them.
REPEATABLE = ("original", "mosaic", "mask", "blur", "grid", "dp-pix", "veil", "permutation", "des-ecb")
"""Approaches that a recipe may name."""

Item = tuple[Tensor, Tensor, int]
"""A crop, shape (S, S, 3), uint8; its eye mask, shape (S, S), bool; the number of the face."""


@dataclass(frozen=True, slots=True, eq=False)
class FacePool:
    """The faces of one or several prepared folders, numbered through.

    Attributes:
        folders: In order.
        low: Youngest age of each face, shape (N,), capped at 100.
        high: Oldest age, included, capped at 100.
        usable: Whether the eye region is known, shape (N,); without it no approach can hide the eyes.
    """

    folders: tuple[PreparedFaces, ...]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    usable: NDArray[np.bool_]

    @classmethod
    def of(cls, folders: Sequence[PreparedFaces]) -> FacePool:
        """Gather the faces of prepared folders.

        Raises:
            DataError: There is no face.
        """
        images = [image for folder in folders for image in folder.images]
        if not images:
            raise DataError("the prepared folders hold no face to train on")
        low = np.minimum([image.age_low for image in images], MAX_AGE)
        high = np.minimum([image.age_high for image in images], MAX_AGE)
        usable = np.array([_has_eye_region(points) for folder in folders for points in folder.landmarks])
        return cls(tuple(folders), low, high, usable)

    def __len__(self) -> int:
        return len(self.low)

    @property
    def images(self) -> list[LabelledImage]:
        """Labels of all faces, in order."""
        return [image for folder in self.folders for image in folder.images]

    def digest(self) -> str:
        """SHA-256 of names, ages and where each crop was cut from its picture, 64 hex digits.

        So faces that were found by another detector or otherwise aligned are other faces.
        """
        found = hashlib.sha256()
        for folder in self.folders:
            names = [f"{image.path.name} {image.age_low} {image.age_high}" for image in folder.images]
            found.update("\n".join(names).encode("utf-8", "surrogateescape"))
            found.update(folder.to_image.tobytes())
        return found.hexdigest()

    def crop(self, index: int) -> CanonicalCrop:
        """The face of that number."""
        for folder in self.folders:
            if index < len(folder):
                return folder.crop(index)
            index -= len(folder)
        raise IndexError("no face has that number")


def worker_options(workers: int) -> dict[str, Any]:
    """How a `DataLoader` runs its worker processes, as keyword arguments.

    They begin afresh, since a fork of a process with threads, as those of OpenCV and ONNX Runtime, may wait
    for ever; and they stay from epoch to epoch, since beginning takes seconds.
    """
    if not workers:
        return {"num_workers": 0}
    fresh = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    return {
        "num_workers": workers,
        "multiprocessing_context": fresh,
        "persistent_workers": True,
        "prefetch_factor": 4,
    }


class HiddenFaces:
    """Faces behind approaches that are drawn at random, from the seed alone.

    Args:
        pool: All faces.
        approaches: Share of each approach; they need not sum to 1.
        varied: Share of the crops that are varied first, as `ageveil.training.augmentation.vary` says; 0
            leaves all as they are.
        seed: Equal seeds give equal faces.
    """

    def __init__(self, pool: FacePool, approaches: Mapping[str, float], *, varied: float, seed: int) -> None:
        shares = np.array(list(approaches.values()))
        self._pool, self._varied, self._seed = pool, varied, seed
        self._names, self._shares = list(approaches), shares / shares.sum()

    def draw(self, index: int, *epoch: int) -> tuple[CanonicalCrop, AnonymizedFace]:
        """A face, varied or as it is, and what the approach drawn for it makes of it; by epoch, if given."""
        cv2.setNumThreads(1)  # several loaders work side by side
        rng = np.random.default_rng([self._seed, *epoch, index])
        approach = self._names[rng.choice(len(self._names), p=self._shares)]
        crop = self._pool.crop(index)
        if self._varied:
            moved = vary(crop, rng, self._varied)
            try:
                return moved, anonymize_repeatably(moved, approach, rng)
            except UnusableFaceError:
                pass  # the variation moved the eyes out of the crop: take the crop as it is
        return crop, anonymize_repeatably(crop, approach, rng)


class TrainingFaces(Dataset[Item]):
    """Faces as training sees them: each epoch varies and anonymizes each face afresh.

    Items are asked for by (epoch, number of the face), as `EpochSampler` does. Arguments as `HiddenFaces`.
    """

    def __init__(self, pool: FacePool, approaches: Mapping[str, float], *, varied: float, seed: int) -> None:
        self._faces = HiddenFaces(pool, approaches, varied=varied, seed=seed)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        return _item(self._faces.draw(index, epoch)[1], index)


class ValidationFaces(Dataset[Item]):
    """Faces as they are, each behind one approach, drawn as in training: the same in every epoch.

    Args:
        pool: All faces.
        indices: Numbers of the validation faces.
        approaches: Share of each approach; they need not sum to 1.
        seed: Of the draws.
    """

    def __init__(
        self, pool: FacePool, indices: NDArray[np.int64], approaches: Mapping[str, float], seed: int
    ) -> None:
        self._faces = HiddenFaces(pool, approaches, varied=0, seed=seed)
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> Item:
        index = int(self._indices[position])
        return _item(self._faces.draw(index)[1], index)


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffle the training faces anew in each epoch, from the seed and the epoch's number alone.

    Args:
        indices: Numbers of the training faces.
        seed: Of the order.
        rank: Which of `world` equal parts this process takes.
        world: Number of processes.
    """

    def __init__(self, indices: NDArray[np.int64], *, seed: int, rank: int = 0, world: int = 1) -> None:
        self._indices = indices
        self._seed = seed
        self._rank, self._world = rank, world
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch whose order comes next; the trainer calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._indices) / self._world)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self._epoch  # another may be named while this one is still being read
        order = np.random.default_rng([self._seed, epoch]).permutation(self._indices)
        # Every process takes equally many, or the others would wait for it for ever.
        padded = np.resize(order, len(self) * self._world)
        for index in padded[self._rank :: self._world]:
            yield epoch, int(index)


def anonymize_repeatably(crop: CanonicalCrop, approach: str, rng: np.random.Generator) -> AnonymizedFace:
    """Anonymize with draws and keys from a seeded generator: for training only, since both can be guessed.

    Raises:
        ValueError: Unknown approach.
        UnusableFaceError: The eye region lies outside the crop.
    """
    return anonymization.anonymize_crop(crop, approach, rng=rng, key=_key(approach, rng))


def hide(crop: CanonicalCrop, approach: str, rng: np.random.Generator) -> AnonymizedFace:
    """Anonymize as `anonymize_repeatably` does where that can be, and with fresh draws elsewhere.

    Errors as there.
    """
    if approach in REPEATABLE:
        return anonymize_repeatably(crop, approach, rng)
    return anonymization.anonymize_crop(crop, approach)


def _has_eye_region(landmarks: NDArray[np.float64]) -> bool:
    try:
        anonymization.eye_region(landmarks, CROP_SIZE)
    except UnusableFaceError:
        return False
    return True


def _key(approach: str, rng: np.random.Generator) -> Key | None:
    cipher = anonymization.get_approach(approach).cipher
    if cipher is None:
        return None
    if approach == "permutation":
        k1, k2 = rng.integers(1, 2**31, 2)
        return PermutationKey(int(k1), int(k2))
    return DesKey(rng.bytes(8))


def _item(face: AnonymizedFace, index: int) -> Item:
    # PyTorch warns of arrays that cannot be written to; a copy costs less than the suppression is worth.
    return torch.from_numpy(face.pixels.copy()), torch.from_numpy(face.eye_mask.copy()), index
