"""From what a browser sends to an outcome: the receipt is read, the pixels inspected, the age estimated."""

from __future__ import annotations

import binascii
import contextlib
import functools
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ageveil import boards, decision, estimation
from ageveil.alignment import CROP_SIZE
from ageveil.anonymization import get_approach, mean_eye_region
from ageveil.errors import InspectionError
from ageveil.inspection import inspect
from ageveil.pipeline import Pipeline, Terms
from ageveil.runtime import locate, open_session
from ageveil.service import metrics
from ageveil.service.problems import Problem
from ageveil.service.settings import Settings
from ageveil.types import AnonymizedFace, Image, ModelInfo, Outcome, Policy, Rating, RatingKind, Receipt

CROP_BYTES = 3 * CROP_SIZE**2
"""Of one picture: 224 x 224 RGB bytes, rows from the top."""

PICTURE_TEXT = -(-(CROP_BYTES + 1024) // 3) * 4
"""Longest text of a picture: base64 of a zlib stream, which may be a little longer than what it holds."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a party asks: a rating of a board, or a bare minimum age.

    Attributes:
        board: Key of a board; None for a bare age.
        mark: Its mark.
        minimum_age: In years; with a board, which reading of the mark counts (None for its own).
        accompanied: An adult is at the viewer's side, as the party knows.
    """

    board: str | None
    mark: str | None
    minimum_age: int | None
    accompanied: bool


class Judge:
    """Holds the choices of the operator and the loaded model.

    Raises:
        ValueError: Unknown model.
        ModelError: Its weights, or those that the approach needs, are missing or damaged.
    """

    def __init__(self, settings: Settings) -> None:
        self.model = estimation.get_model(estimation.choose_model(settings.model or None))
        self.approach, self.frames = settings.approach or _best_approach(self.model.info), settings.frames
        # Of the network that browsers hide faces with; None for an approach that needs none.
        self.filter = get_approach(self.approach).weights
        if self.filter is not None:
            locate(self.filter)
        self._pipeline = Pipeline(self.approach, self.model.info.name, buffers=settings.buffers)
        self._settings = settings
        # A name may be a file's: the entry knows what its file says of itself.
        self._name = settings.model or self.model.info.name
        session = open_session(self.model.weights, 1)
        temperatures = json.loads(session.metadata.get("temperatures", "{}"))
        self.temperature = float(temperatures.get(self.approach, 1.0))
        self.runs_on_device = set(session.inputs) == {"crops", "eye_mask"}
        self.terms = functools.lru_cache(maxsize=1024)(self._terms)
        self._warm_up()

    def _warm_up(self) -> None:
        """Load what the first try would otherwise wait for."""
        size = (CROP_SIZE, CROP_SIZE)
        region = (0, 0, *size)
        blank = np.zeros((*size, 3), np.uint8)
        with contextlib.suppress(InspectionError):
            entry, eyes = get_approach(self.approach), mean_eye_region(CROP_SIZE)
            claim = Receipt(entry.name, entry.sizes(CROP_SIZE), entry.region(eyes, CROP_SIZE), eyes, size)
            inspect(blank, claim, approach=entry.name)
        face = AnonymizedFace(blank, blank[..., 0] > 0, Receipt(self.approach, {}, region, region, size))
        estimation.estimate([face], self._name, threads=1)

    def _terms(self, ask: Ask) -> Terms:
        """What is asked of a viewer.

        Raises:
            Problem: There is no such rating.
        """
        chosen = self._settings
        policy = Policy(chosen.confidence, chosen.buffer, ask.accompanied, chosen.waive_voluntary)
        return self._pipeline.terms(rating_of(ask), policy)

    def judge(self, terms: Terms, frames: Sequence[tuple[str, Any]]) -> Outcome:
        """Decide from anonymized pictures of one viewer, each as text, see `decode`, and receipt.

        Raises:
            Problem: A picture or its receipt is not as it should be, or the face is bare.
            ModelError: The model failed.
        """
        if not 1 <= len(frames) <= self.frames:
            raise Problem("frames_invalid", f"a try takes 1 to {self.frames} pictures, got {len(frames)}")
        faces = [self._inspected(pixels, receipt) for pixels, receipt in frames]
        start = time.perf_counter()
        found = estimation.estimate(faces, self._name, threads=1)
        metrics.MODEL_SECONDS.observe(time.perf_counter() - start)
        return terms.decide(decision.fuse(found)).outcome

    def _inspected(self, pixels: str, receipt: Any) -> AnonymizedFace:  # noqa: ANN401 - JSON
        try:
            read = Receipt.from_json(receipt)
        except ValueError as error:
            raise Problem("receipt_invalid", str(error)) from None
        if read.approach != self.approach:
            raise Problem("approach_not_accepted", f"faces come under the approach {self.approach}")
        try:
            return inspect(decode(pixels), read, approach=self.approach, threads=1)
        except InspectionError as error:
            raise Problem("not_anonymized", str(error)) from None
        except ValueError as error:
            raise Problem("receipt_invalid", str(error)) from None


def _best_approach(model: ModelInfo) -> str:
    """The approach that leaves least of a face among those that the estimator was calibrated for."""
    least = get_approach("veil")
    return least.name if least.usable and least.name in model.calibrated else "mosaic"


def decode(text: str) -> Image:
    """The picture in a text, shape (224, 224, 3): its bytes as a zlib stream (RFC 1950), and that in base64.

    Raises:
        Problem: It is none of so many bytes. Nothing is unpacked beyond them.
    """
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(binascii.a2b_base64(text, strict_mode=True), CROP_BYTES + 1)
    except (ValueError, zlib.error):
        raise Problem("frames_invalid", "the pixels are not a zlib stream in base64") from None
    if len(data) != CROP_BYTES or not stream.eof or stream.unused_data:
        raise Problem("frames_invalid", f"a picture is one zlib stream of {CROP_BYTES} bytes")
    return np.frombuffer(data, np.uint8).reshape(CROP_SIZE, CROP_SIZE, 3)


def rating_of(ask: Ask) -> Rating:
    """The rating that is asked for; a bare age is a legal one of no board.

    Raises:
        Problem: There is no such board or mark.
    """
    if ask.board is not None and ask.mark is not None:
        try:
            return boards.get_rating(ask.board, ask.mark, minimum_age=ask.minimum_age)
        except ValueError as error:
            raise Problem("rating_unknown", str(error)) from None
    kind: RatingKind = "legal" if ask.minimum_age else "none"
    return Rating("", "", f"{ask.minimum_age}+", ask.minimum_age, kind, None, "any", "the relying party")
