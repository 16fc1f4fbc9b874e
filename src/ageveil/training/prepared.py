"""A folder of prepared faces: crops found and aligned once, with their labels.

It holds bare faces. The folder and its files are for their owner alone; it belongs where the data set itself
belongs, and nothing of it may be published. In it:

- `prepared.json`: the data set, the pipeline's choices, checksums of the weights that found the faces (not in
  folders of earlier versions) and a checksum of the list of pictures;
- `shard-00000.npy`: crops of the usable faces among 512 pictures, shape (n, 224, 224, 3), uint8;
- `shard-00000.json`: their labels and geometry, and the pictures left out with the reason.

A shard is there as a whole or not at all. `ageveil.training.preparation` makes such a folder.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ageveil.alignment import CROP_SIZE
from ageveil.errors import DataError
from ageveil.files import write_bytes
from ageveil.training.labels import LabelledImage
from ageveil.types import CanonicalCrop, Image

VERSION = 1
SHARD = 512
"""Pictures of the data set that one shard stands for."""

HEAD = "prepared.json"
WEIGHTS = "weights"
"""Entry of the head: SHA-256 of the weights of the detector and of the landmarks; null where it has none."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedFaces:
    """The faces of a prepared folder. Crops stay on the disk and are read as they are asked for.

    Attributes:
        folder: Where they lie.
        dataset: Key in `ageveil.training.datasets.DATASETS`.
        images: Label of each face; N of them. A path says where the picture lay.
        without_face: Pictures that gave no usable face, each with the reason, in order.
        labels_left_out: Number of pictures that state no age, by reason; they are not among these.
        pipeline: How faces were found: `detector`, `landmarks` and further choices, by name.
        landmarks: In pixels of the crops, shape (N, 5, 2) or (N, 68, 2), float64.
        to_image: Maps (x, y, 1) of each crop to pixels of its picture, shape (N, 2, 3), float64.
        outside: Share of each crop that lies outside its picture, shape (N,), float64.
        shards: Crops, each of shape (n, 224, 224, 3), uint8, read-only.
        ends: Number of faces up to and with each shard.
    """

    folder: Path
    dataset: str
    images: tuple[LabelledImage, ...]
    without_face: tuple[tuple[Path, str], ...]
    labels_left_out: Mapping[str, int]
    pipeline: Mapping[str, Any]
    landmarks: NDArray[np.float64]
    to_image: NDArray[np.float64]
    outside: NDArray[np.float64]
    shards: tuple[Image, ...]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def left_out(self) -> dict[str, int]:
        """Number of pictures that gave no usable face, by reason."""
        return dict(Counter(reason for _, reason in self.without_face))

    def pixels(self, index: int) -> Image:
        """The crop of a face as a read-only view of the file, shape (224, 224, 3), uint8.

        Raises:
            IndexError: There is no such face.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"faces are numbered 0 to {len(self) - 1}, got {index}")
        shard = int(np.searchsorted(self.ends, index, "right"))
        view: Image = self.shards[shard][index - int(self.ends[shard])]  # counted from the shard's end
        return view

    def crop(self, index: int) -> CanonicalCrop:
        """The crop of a face with its geometry: a bare face, for use in memory only.

        Raises:
            IndexError: There is no such face.
        """
        return CanonicalCrop(
            self.pixels(index), self.landmarks[index], self.to_image[index], float(self.outside[index])
        )

    def __reduce__(self) -> tuple[Callable[[Path], PreparedFaces], tuple[Path]]:
        # A worker process opens the files itself rather than being sent gigabytes.
        return load_prepared, (self.folder,)


def load_prepared(folder: Path) -> PreparedFaces:
    """Open the faces that `prepare` left in a folder.

    Raises:
        DataError: There is no such folder, its preparation was not finished, a file is damaged or was made by
            another version, or it holds no face.
    """
    head = read_json(folder / HEAD)
    if head.get("version") != VERSION:
        raise DataError(
            f"expected prepared faces of version {VERSION} in {str(folder)!r}; prepare them anew elsewhere"
        )
    try:
        total, root, dataset = shard_count(head), Path(head["root"]), str(head["dataset"])
        labels_left_out = {str(reason): int(count) for reason, count in head["labels_left_out"].items()}
        pipeline = dict(head["pipeline"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{str(folder / HEAD)!r} is damaged") from error
    done = sum(is_done(folder, number) for number in range(total))
    if done < total:
        raise DataError(
            f"the preparation of {str(folder)!r} is not finished: {done} of {total} shards are there; run "
            "`ageveil prepare` again with the same data set and folder"
        )
    shards = [_load_shard(folder, number, root) for number in range(total)]
    left_out = [entry for shard in shards for entry in shard.left_out]
    images = tuple(image for shard in shards for image in shard.images)
    if len(images) + len(left_out) != int(head["pictures"]):
        raise DataError(f"the shards of {str(folder)!r} hold more or fewer pictures than were prepared")
    if not images:
        counts = Counter(reason for _, reason in left_out)
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise DataError(f"no face of the data set could be used: {reasons}")
    filled = [shard for shard in shards if shard.images]
    if len({shard.landmarks.shape[1:] for shard in filled}) > 1:
        raise DataError(f"the shards of {str(folder)!r} hold different landmark sets")
    return PreparedFaces(
        folder,
        dataset,
        images,
        tuple(left_out),
        labels_left_out,
        pipeline,
        np.concatenate([shard.landmarks for shard in filled]),
        np.concatenate([shard.to_image for shard in filled]),
        np.concatenate([shard.outside for shard in filled]),
        tuple(shard.pixels for shard in filled),
        np.cumsum([len(shard.images) for shard in filled]),
    )


def write_shard(
    folder: Path,
    number: int,
    pixels: Image,
    faces: Sequence[Mapping[str, Any]],
    left_out: Sequence[Mapping[str, str]],
) -> None:
    """Write the crops of a shard, shape (n, 224, 224, 3), then their description: with it the shard is done.

    Raises:
        OutputError: It cannot be written; then the shard is not done.
    """
    crops, description = _shard_paths(folder, number)
    _write_array(crops, pixels)
    write_json(description, {"faces": faces, "left_out": left_out})


def label_record(labelled: LabelledImage, root: Path) -> dict[str, Any]:
    """A label as JSON values."""
    record = {"file": relative_name(labelled.path, root)} | asdict(labelled)
    del record["path"]
    return record


def _labelled(face: Mapping[str, Any], root: Path) -> LabelledImage:
    return LabelledImage(
        root / face["file"],
        int(face["age_low"]),
        int(face["age_high"]),
        face["identity"],
        face["gender"],
        face["race"],
        bool(face["aligned"]),
        face["fold"],
    )


def shard_count(head: Mapping[str, Any]) -> int:
    """How many shards a folder has once it is finished."""
    return -(-int(head["pictures"]) // SHARD)


def _shard_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """The crops of a shard and their description."""
    return folder / f"shard-{number:05}.npy", folder / f"shard-{number:05}.json"


def is_done(folder: Path, number: int) -> bool:
    """Has the shard been written?"""
    return all(path.is_file() for path in _shard_paths(folder, number))


def relative_name(path: Path, root: Path) -> str:
    """A picture's path below the folder that holds the data set, alike on every system."""
    return Path(os.path.relpath(path, root)).as_posix()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: The file cannot be read or holds none.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read prepared faces: {str(path)!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} is damaged: it is not JSON") from error
    if not isinstance(value, dict):
        raise DataError(f"{str(path)!r} is damaged: expected a JSON object")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object that its owner alone may read.

    Raises:
        OutputError: It cannot be written.
    """
    write_bytes(path, [json.dumps(value, allow_nan=False).encode()], private=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Shard:
    """What one shard holds, as in `PreparedFaces`."""

    images: tuple[LabelledImage, ...]
    left_out: tuple[tuple[Path, str], ...]
    landmarks: NDArray[np.float64]
    to_image: NDArray[np.float64]
    outside: NDArray[np.float64]
    pixels: Image


def _load_shard(folder: Path, number: int, root: Path) -> _Shard:
    npy, description = _shard_paths(folder, number)
    record = read_json(description)
    try:
        faces = record["faces"]
        shard = _Shard(
            tuple(_labelled(face, root) for face in faces),
            tuple((root / str(entry["file"]), str(entry["reason"])) for entry in record["left_out"]),
            np.array([face["landmarks"] for face in faces], np.float64),
            np.array([face["to_image"] for face in faces], np.float64).reshape(-1, 2, 3),
            np.array([face["outside"] for face in faces], np.float64).reshape(-1),
            # Never a pickle: such a file is refused.
            np.lib.format.open_memmap(npy, mode="r"),
        )
        count = len(faces)
        if shard.pixels.shape != (count, CROP_SIZE, CROP_SIZE, 3) or shard.pixels.dtype != np.uint8:
            raise ValueError("the crops and their descriptions do not fit")
        if count and shard.landmarks.shape[1:] not in {(5, 2), (68, 2)}:
            raise ValueError("landmarks of another shape")
        if len(shard.to_image) != count or len(shard.outside) != count:
            raise ValueError("geometry of another shape")
    except OSError as error:  # it may be whole: too many open files, a disk that went
        raise DataError(f"cannot read prepared faces: {str(npy)!r}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, EOFError) as error:
        raise DataError(
            f"{str(npy)!r} and its description do not read as written: delete both and prepare again"
        ) from error
    return shard


def _write_array(path: Path, array: NDArray[np.uint8]) -> None:
    """Write a `.npy` file. The error of `np.save` on a full disk would not say that the disk is full."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    write_bytes(path, [header.getvalue(), array.reshape(-1).data], private=True)
