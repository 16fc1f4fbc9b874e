"""The whole way, composed: photograph -> detection -> alignment -> anonymization -> estimation -> decision.

Between alignment and anonymization a bare face is held in memory; it is never logged or written. Who asks for
one by name gets it: `Pipeline.align_viewer`, and the approach "original".
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from ageveil import alignment, anonymization, boards, calibration, decision, detection, estimation, runtime
from ageveil.calibration import Buffer
from ageveil.detection import DetectorOptions
from ageveil.errors import (
    AgeveilError,
    CipherError,
    LeakError,
    NoFaceError,
    OutputError,
    SeveralFacesError,
    UnusableFaceError,
)
from ageveil.files import write_bytes, write_text
from ageveil.image import Limits, Source, check_output, read_image, write_image
from ageveil.types import (
    AgeDistribution,
    AnonymizedFace,
    AnonymizedPicture,
    Box,
    BufferSource,
    CanonicalCrop,
    Decision,
    Draws,
    Face,
    Image,
    Policy,
    Rating,
    Receipt,
)

DEFAULT_APPROACH = "mosaic"

LEAK_DETECTOR = "libfacedetection"
_LEAK_OPTIONS = DetectorOptions(max_side=960, threshold=detection.DETECTORS[LEAK_DETECTOR].low_threshold)
# A whole picture is searched at full size up to here; beyond, a network's memory would grow to gigabytes, so
# it is searched shrunk, and in tiles of this size. A coarser search alone would not do: the leak check sees
# fewer small and turned faces than CenterFace does, so it cannot tell when that was not enough (searched from
# 480 on, every second face of 32 px stayed bare).
_PICTURE_SIDE = 1920
# A box of which so much lies in a larger one is of the same face.
_WITHIN = 0.8
# Seconds a pixel that the first detector takes to prepare a picture for its network, generously.
_HEAD_START = 1.5e-8
# Above this disagreement between landmarks and detector the eye region may be misplaced: hide the whole face.
_TRUSTED_EYES = 0.3
# Around bare eyes no rectangle of a bar's size is flat; a bar is, even where it draws the landmarks to its
# edge. Sizes are fractions of the crop's side, flatness is the standard deviation of grey values. Measured:
# of 2,376 UTKFace, 1,498 LFW and 3,412 FairFace faces 3 have such a rectangle (all FairFace); of faces under
# our mask or a black or grey bar 98 % and more have it, and 87 % of those under a white one that got so far.
_BAR = (0.30, 0.08)
_AROUND_EYES = (0.15, 0.17, 0.85, 0.40)
_FLAT = 1.0
# Where a side of the picture cuts a face, its box is narrow: under this share of its height for 78 % of the
# faces cut by 30 % that were usable otherwise, and for 1 in 964 that only touch the side (LFW, FairFace).
_NARROW = 0.65
_MAX_RECEIPT_BYTES = 1 << 20
# Neighbours in a photograph resemble each other, those of a wrongly deciphered one do not. The correlation of
# 200 LFW faces 24 pixels high is 0.66 and more, under a wrong key 0.33 and less (the permutation's; DES gives
# none); of faces half as high it is as low as 0.17, so such small ones tell nothing of the key.
_NOISE_CORRELATION = 0.6
_TELLING_SIDE = 24


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What was read from one photograph.

    Attributes:
        box: Where the viewer's face is, in pixels of the photograph.
        face: The anonymized crop: all that the estimator saw.
        distribution: How probable each age is.
    """

    box: Box
    face: AnonymizedFace
    distribution: AgeDistribution


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of a viewer, with the buffer that counts; `Pipeline.terms` makes them.

    Attributes:
        rating: The title's.
        policy: How sure the answer must be; its buffer is a whole number.
        source: Where that buffer comes from.
        stored: Its record, where it was measured.
    """

    rating: Rating
    policy: Policy
    source: BufferSource
    stored: Buffer | None = None

    def settle(self) -> Decision | None:
        """As `ageveil.decision.settle`: the decision that needs no face, or None."""
        settled = decision.settle(self.rating, self.policy)
        return None if settled is None else self._quoted(settled)

    def decide(self, distribution: AgeDistribution) -> Decision:
        """As `ageveil.decision.decide`, with the buffer's origin and what it promises."""
        return self._quoted(decision.decide(distribution, self.rating, self.policy))

    def _quoted(self, decided: Decision) -> Decision:
        statement = None if self.stored is None else self.stored.statement()
        return replace(decided, buffer_source=self.source, buffer_statement=statement)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The way through with its choices made. Holds no state: weights are loaded once for the whole process.

    Attributes:
        approach: Name in `ageveil.anonymization.APPROACHES`.
        model: Name in `ageveil.estimation.MODELS`.
        detector: Name in `ageveil.detection.DETECTORS`.
        landmarks: "5", or "68" with the extra `dlib-models`.
        allow_others: Take the largest face even where another one is of similar size.
        options: How the detector looks at a photograph of a viewer.
        limits: Largest picture that is read.
        buffers: File of `ageveil calibrate` from which stored buffers are taken; None takes those that lie
            beside the model's weights.
    """

    approach: str = DEFAULT_APPROACH
    model: str = field(default_factory=estimation.default_model)
    detector: str = "centerface"
    landmarks: str = "5"
    allow_others: bool = False
    options: DetectorOptions = DetectorOptions()
    limits: Limits = Limits()
    buffers: Path | None = None

    def __post_init__(self) -> None:
        anonymization.get_approach(self.approach)
        estimation.get_model(self.model)
        detection.get_detector(self.detector)
        detection.get_landmarks(self.landmarks)

    def anonymize_viewer(self, photo: Source, *, rng: Draws | None = None) -> tuple[Box, AnonymizedFace]:
        """Find the viewer in a photograph and anonymize the face.

        Args:
            photo: Path, bytes, binary file or RGB array.
            rng: Source of random draws; by default a fresh cryptographic one.

        Returns:
            The face's box in the photograph and the anonymized crop.

        Raises:
            ValueError: An array is no RGB picture.
            ImageError: The photograph cannot be read.
            NoFaceError: It shows no face.
            SeveralFacesError: It shows a second face of similar size.
            UnusableFaceError: Too little of the face is in it, it is turned too far, or its eyes are covered.
        """
        face, crop = self.align_viewer(read_image(photo, limits=self.limits))
        return face.box, anonymization.anonymize_crop(crop, self.approach, rng=rng)

    def estimate(self, photo: Source, *, rng: Draws | None = None) -> Estimate:
        """Anonymize the viewer's face and estimate the age from what is left.

        Args and errors as `anonymize_viewer`; ModelError where weights are missing or damaged.
        """
        box, face = self.anonymize_viewer(photo, rng=rng)
        (distribution,) = estimation.estimate([face], self.model, threads=self.options.threads)
        return Estimate(box, face, distribution)

    def rate(self, photo: Source, board: str, rating: str, policy: Policy = Policy()) -> Decision:
        """Decide whether the viewer in a photograph may see a title of that rating.

        The photograph is not even opened where the answer does not depend on it (as for a minimum age of 0).

        Args:
            photo: Path, bytes, binary file or RGB array.
            board: Key of a classification body, as "mpa".
            rating: One of its marks, as "R".
            policy: How sure the answer must be; without a buffer of its own, the stored one counts.

        Raises:
            ValueError: Unknown board or rating.
            DataError: The file of stored buffers is damaged.
            AgeveilError: As `estimate`.
        """
        terms = self.terms(boards.get_rating(board, rating), policy)
        return terms.settle() or terms.decide(self.estimate(photo).distribution)

    def terms(self, rating: Rating, policy: Policy = Policy()) -> Terms:
        """Find the buffer that counts: the policy's own, else the one that was measured, else 0.

        A stored buffer counts for the very weights, minimum age, approach, detector and landmarks that it was
        solved for, and for its confidence and every higher one.

        Nothing is read where the rating needs no age.

        Raises:
            DataError: The file of stored buffers is damaged, or the one named is missing.
        """
        if policy.buffer is not None:
            return Terms(rating, policy, "hand")
        settled = decision.settle(rating, policy) is not None
        age = None if settled else decision.required_age(rating, policy)
        stored = None if age is None else self._stored_buffer(age, policy.confidence)
        if stored is None:
            return Terms(rating, replace(policy, buffer=0), "none")
        return Terms(rating, replace(policy, buffer=stored.buffer), "stored", stored)

    def _stored_buffer(self, minimum_age: int, confidence: float) -> Buffer | None:
        entry = estimation.get_model(self.model)
        if self.buffers is None:
            known = calibration.read_stored_buffers(runtime.find(entry.weights))
        else:
            known = calibration.read_buffers(self.buffers)
        approach = anonymization.get_approach(self.approach).name
        use = calibration.Use(
            entry.info.sha256, minimum_age, approach, confidence, self.detector, self.landmarks
        )
        return calibration.find_buffer(known, use)

    def estimate_many(
        self, photos: Iterable[Source], *, workers: int | None = None
    ) -> Generator[Estimate | AgeveilError, None, None]:
        """Estimate many photographs on all cores, in order.

        Whoever may stop before the end closes what is returned, as with `contextlib.closing`, so that no
        thread stays behind.

        Args:
            photos: Any number of photographs; read as they are needed.
            workers: Threads, by default as many as there are cores.

        Yields:
            For each photograph its estimate, or the error that it ended in.
        """
        # One thread for each photograph serves many of them better than several for one.
        single = replace(self, options=replace(self.options, threads=1))
        yield from map_ordered(single.estimate, photos, workers)

    def anonymize_picture(
        self,
        photo: Source,
        *,
        expect_faces: int | None = None,
        regions: Sequence[anonymization.Region] = (),
        key: anonymization.Key | None = None,
        rng: Draws | None = None,
    ) -> AnonymizedPicture:
        """Anonymize every face of a whole picture in place, and check that none was missed.

        After the faces that this pipeline's detector finds, a second, different detector looks for faces at a
        lower threshold: where it finds one that was not processed, the picture is refused. What both miss is
        not noticed: docs/approaches.md tells how often.

        Args:
            photo: Path, bytes, binary file or RGB array.
            expect_faces: How many faces there are: another number is an error.
            regions: Rectangles that are hidden whatever the detectors find, xyxy in whole pixels, half open.
            key: For a cipher; by default a fresh one that is thrown away.
            rng: Source of random draws; by default a fresh cryptographic one.

        Raises:
            ValueError: The approach is "original", a key is of the wrong kind, a region lies outside, or
                `expect_faces` is negative.
            ImageError: The picture cannot be read.
            LeakError: The second detector still sees a face that was not processed.
            NoFaceError: Neither detector found a face and no region was given, or fewer than expected.
            SeveralFacesError: More faces than expected. A box within another is of the same face.
            UnusableFaceError: A face was found that the approach cannot hide: it lies outside the picture, or
                the picture is too small for a cipher.
        """
        anonymization.protective_approach(self.approach)
        if expect_faces is not None and expect_faces < 0:
            raise ValueError(f"expect_faces is 0 or more, got {expect_faces}")
        image = read_image(photo, limits=self.limits)
        with ThreadPoolExecutor(1) as pool:
            # Both detectors look at once. The second keeps Python's lock while it works, so the first must
            # have entered its network before, which lets go of it.
            search = pool.submit(self._all_faces, image)
            wait([search], timeout=_HEAD_START * image.shape[0] * image.shape[1])
            suspects = detection.find_boxes(image, LEAK_DETECTOR, _LEAK_OPTIONS)
            faces = search.result()
        picture = self._hide(image, faces, regions=regions, key=key, rng=rng)
        exposed = [p.box for p in suspects if not _is_covered(p.box, picture.receipts)]
        if exposed:
            raise LeakError(
                f"a second detector sees {_count(len(exposed), 'face')} that the first did not; nothing was "
                f"written (hide by hand: {', '.join(_as_region(box) for box in exposed)})"
            )
        _check_count(picture.faces, expect_faces, named_regions=bool(regions))
        return picture

    def align_viewer(self, image: Image) -> tuple[Face, CanonicalCrop]:
        """Find the viewer's face and warp it upright. What comes back is a bare face, for use in memory only.

        Args:
            image: Picture, shape (H, W, 3), uint8 RGB.

        Raises:
            FaceError: As `anonymize_viewer`.
        """
        faces = detection.detect(image, self.detector, landmarks=self.landmarks, options=self.options)
        face = detection.choose_viewer(faces, allow_others=self.allow_others)
        if face is None:
            raise NoFaceError("no face found in the photograph")
        _check_whole(face, image.shape[1])
        crop = alignment.align(image, face)
        _check_eyes_visible(crop)
        return face, crop

    def _all_faces(self, image: Image) -> tuple[Face, ...]:
        threshold = detection.get_detector(self.detector).low_threshold
        # The second detector works beside this one, on a picture of limited size. While both take about as
        # long, one core for each serves best; on larger pictures this one takes longer and gets them all.
        threads = 1 if max(image.shape) <= _LEAK_OPTIONS.max_side else 0
        options = replace(
            self.options, max_side=_PICTURE_SIDE, threshold=threshold, threads=threads, tiles=True
        )
        return detection.detect(image, self.detector, landmarks=self.landmarks, options=options)

    def _hide(
        self,
        image: Image,
        faces: Sequence[Face],
        *,
        regions: Sequence[anonymization.Region],
        key: anonymization.Key | None,
        rng: Draws | None,
    ) -> AnonymizedPicture:
        """Hide faces and named regions, one after the other."""
        entry = anonymization.protective_approach(self.approach)
        key = key or (anonymization.draw_key(entry) if entry.cipher else None)
        height, width = image.shape[:2]
        picture, receipts = image, []
        rectangles = list(regions)
        for face in faces:
            if entry.cipher is not None:
                rectangles.append(anonymization.cipher_region(face.box.as_tuple(), width, height))
            elif face.eye_disagreement > _TRUSTED_EYES:
                rectangles.append(_whole_pixels(face.box, width, height))
            else:
                # From what is hidden already: where faces overlap, nothing bare comes back.
                crop = alignment.align(picture, face, max_outside=1.0)
                anonymized = anonymization.anonymize_crop(crop, self.approach, rng=rng, key=key)
                picture, receipt = anonymization.paste(picture, crop, anonymized)
                receipts.append(receipt)
        for rectangle in rectangles:
            picture, receipt = anonymization.anonymize_region(
                picture, rectangle, self.approach, rng=rng, key=key
            )
            receipts.append(receipt)
        return AnonymizedPicture(picture, tuple(receipts), _distinct([face.box for face in faces]))


def save_anonymized(path: str | os.PathLike[str], result: AnonymizedFace | AnonymizedPicture) -> None:
    """Write an anonymized face or picture, and its receipts beside it as `<name>.receipt.json`.

    Args:
        path: Where to; the suffix names the format, a lossless one where a cipher is to be undone.
        result: What to write.

    Raises:
        ValueError: A receipt says that the face was left bare ("original"), or there is no receipt.
        OutputError: The path cannot be written; then everything is as it was.
    """
    receipts = (result.receipt,) if isinstance(result, AnonymizedFace) else result.receipts
    if not receipts:
        raise ValueError("nothing was anonymized: there is no receipt")
    entries = [anonymization.protective_approach(receipt.approach) for receipt in receipts]
    lossless = any(entry.reversible for entry in entries)
    target = check_output(path, lossless=lossless)
    content = json.dumps({"receipts": [receipt.to_json() for receipt in receipts]}, indent=1) + "\n"
    with _undone_on_error(receipt_path(target)):
        write_text(receipt_path(target), content)
        write_image(target, result.pixels, lossless=lossless)


@contextlib.contextmanager
def _undone_on_error(path: Path) -> Iterator[None]:
    """Bring a small file back to what it was, or to nothing, if the block fails.

    An earlier picture that stays where it is needs its own receipts: without them a cipher cannot be undone.
    """
    try:
        before = path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise OutputError(f"cannot replace {str(path)!r}: {error.strerror}") from error
    try:
        yield
    except BaseException:
        # What failed is told; that even this fails is not worth more than that.
        with contextlib.suppress(OSError, OutputError):
            if before is not None:
                write_bytes(path, [before])
            elif path.is_file():
                path.unlink()
        raise


def receipt_path(picture: Path) -> Path:
    """Where the receipts of a picture stand."""
    return picture.with_name(picture.name + ".receipt.json")


def load_receipts(path: str | os.PathLike[str]) -> tuple[Receipt, ...]:
    """Read the receipts that `save_anonymized` wrote.

    Raises:
        CipherError: The file is missing, too large or holds no receipts.
    """
    try:
        with open(path, "rb") as file:
            data = json.loads(file.read(_MAX_RECEIPT_BYTES))
        receipts = tuple(Receipt.from_json(entry) for entry in data["receipts"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CipherError(f"{os.fspath(path)!r} holds no receipts that can be read") from error
    if not receipts:
        raise CipherError(f"{os.fspath(path)!r} holds no receipts")
    return receipts


def decrypt_picture(picture: Image, receipts: Sequence[Receipt], key: anonymization.Key) -> Image:
    """Undo the cipher of every receipt, the last one first. The result shows bare faces.

    Raises:
        CipherError: A receipt is of an approach that cannot be undone; picture, receipts and key do not fit;
            or the result is noise wherever it can be told, as a wrong key gives.
    """
    try:
        for receipt in reversed(receipts):
            picture = anonymization.decrypt_region(picture, receipt, key)
    except ValueError as error:
        raise CipherError(str(error)) from error
    parts = [picture[y0:y1, x0:x1] for x0, y0, x1, y1 in (receipt.region for receipt in receipts)]
    telling = [part for part in parts if min(part.shape[:2]) >= _TELLING_SIDE]
    if telling and all(map(_is_noise, telling)):
        raise CipherError("the result is noise: the key is another one, or the picture was changed since")
    return picture


def _is_noise(pixels: Image) -> bool:
    """Do neighbours resemble each other less than in a photograph? A flat picture is no noise."""
    grey = pixels.mean(axis=2)
    left, right = grey[:, :-1].ravel(), grey[:, 1:].ravel()
    if left.std() == 0 or right.std() == 0:
        return False
    return float(np.corrcoef(left, right)[0, 1]) < _NOISE_CORRELATION


def _check_whole(face: Face, width: int) -> None:
    """Refuse a face that a side of the picture cuts: landmarks would be invented for what is missing.

    Raises:
        UnusableFaceError: The face's box touches a side and is too narrow for a whole face.
    """
    at_side = face.box.x0 <= 0.01 * width or face.box.x1 >= 0.99 * width
    if at_side and face.box.width < _NARROW * face.box.height:
        raise UnusableFaceError("only a part of the face is in the picture")


def _check_eyes_visible(crop: CanonicalCrop) -> None:
    """Refuse a face whose eyes are already under a bar: an estimate from it would be of an unknown approach.

    Raises:
        UnusableFaceError: A rectangle of a bar's size around the eyes is flat.
    """
    x0, y0, x1, y1 = (round(share * crop.size) for share in _AROUND_EYES)
    across, down = (round(share * crop.size) for share in _BAR)
    grey = crop.pixels[y0:y1, x0:x1].mean(axis=2)
    mean, square = (cv2.blur(values, (across, down)) for values in (grey, grey * grey))
    # Only where the whole rectangle lies within; a blur's anchor is its middle.
    inside = np.s_[
        down // 2 : down // 2 + y1 - y0 - down + 1, across // 2 : across // 2 + x1 - x0 - across + 1
    ]
    if float((square - mean * mean)[inside].min()) < _FLAT**2:
        raise UnusableFaceError("the eyes of the face are already covered")


def _check_count(found: int, expected: int | None, *, named_regions: bool) -> None:
    if expected is not None and found > expected:
        raise SeveralFacesError(f"{_count(expected, 'face')} expected, {found} found; nothing was written")
    if expected is not None and found < expected:
        raise NoFaceError(f"{_count(expected, 'face')} expected, {found} found; nothing was written")
    if found == 0 and not named_regions:
        raise NoFaceError("no face found in the picture; nothing was written")


def _distinct(boxes: Sequence[Box]) -> int:
    """How many boxes, the largest first, do not lie within an earlier one."""
    return sum(
        all(box.overlap(larger) < _WITHIN * box.area for larger in boxes[:at]) for at, box in enumerate(boxes)
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _is_covered(box: Box, receipts: Sequence[Receipt]) -> bool:
    """A suspected face is covered where a processed region lies in it and is no mere speck of it.

    An eye region takes up about a quarter of its face's box. A box that shares only an edge with a processed
    region, or is far larger than it, is of another face.
    """
    for receipt in receipts:
        region = Box(*receipt.region)
        shared = box.overlap(region)
        if shared >= 0.5 * region.area and shared >= 0.1 * box.area:
            return True
        if shared >= 0.5 * box.area:
            return True
    return False


def _whole_pixels(box: Box, width: int, height: int) -> anonymization.Region:
    """The pixels that a box touches within a picture.

    Raises:
        UnusableFaceError: There are none.
    """
    inside = box.clipped(width, height)
    if inside is None:
        raise UnusableFaceError("a face's box lies outside the picture")
    return math.floor(inside.x0), math.floor(inside.y0), math.ceil(inside.x1), math.ceil(inside.y1)


def _as_region(box: Box) -> str:
    return "--region " + ",".join(str(max(0, round(value))) for value in box.as_tuple())


T = TypeVar("T")
R = TypeVar("R")


def map_ordered(
    function: Callable[[T], R], items: Iterable[T], workers: int | None = None
) -> Generator[R | AgeveilError, None, None]:
    """Apply a function to many items on several threads, in order, with few of them in memory at a time.

    Args:
        function: What is done with an item; called from several threads.
        items: Read only as far ahead as keeps the workers busy.
        workers: Threads; by default as many as there are cores.

    Yields:
        For each item the function's result, or the AgeveilError that it raised. Other errors are raised.
        Close it, as with `contextlib.closing`, wherever it may be left before its end.

    Raises:
        ValueError: `workers` is below 1.
    """
    workers = workers if workers is not None else os.cpu_count() or 1
    if workers < 1:
        raise ValueError(f"workers is 1 or more, got {workers}")
    pool = ThreadPoolExecutor(workers)
    try:
        pending: deque[Future[R | AgeveilError]] = deque()
        for item in items:
            pending.append(pool.submit(_outcome, function, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Whoever stops early, by Ctrl-C as well, does not wait for what has not begun.
        pool.shutdown(cancel_futures=True)


def _outcome(function: Callable[[T], R], item: T) -> R | AgeveilError:
    try:
        return function(item)
    except AgeveilError as error:
        # Its traceback would keep every frame alive, and with it the photograph and the bare crop.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)


def rate(
    photo: Source, board: str, rating: str, *, approach: str = DEFAULT_APPROACH, policy: Policy = Policy()
) -> Decision:
    """Decide with the default pipeline; see `Pipeline.rate`."""
    return Pipeline(approach=approach).rate(photo, board, rating, policy)


def estimate(photo: Source, *, approach: str = DEFAULT_APPROACH) -> Estimate:
    """Estimate with the default pipeline; see `Pipeline.estimate`."""
    return Pipeline(approach=approach).estimate(photo)


def anonymize(photo: Source, *, approach: str = DEFAULT_APPROACH) -> AnonymizedPicture:
    """Anonymize every face of a picture with the default pipeline; see `Pipeline.anonymize_picture`."""
    return Pipeline(approach=approach).anonymize_picture(photo)
