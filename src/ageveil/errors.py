"""Every error that Ageveil raises on purpose, with the exit code of the command line.

    AgeveilError                   1   the root: catch this one
    ├── ImageError                 3   what came is no usable picture
    │   ├── UnreadableImageError       empty, truncated, not a picture
    │   │   └── MissingImageError      no such file
    │   └── ImageLimitError            more bytes or pixels, or a longer side, than allowed
    ├── FaceError                  6   no face that can be used
    │   ├── NoFaceError            4   none was found
    │   ├── SeveralFacesError      5   more than one could be the viewer, or not as many as expected
    │   └── UnusableFaceError          half a face, a landmark set outside, eyes already covered
    ├── LeakError                  7   an anonymized picture may still show a face; it was not written
    ├── CipherError                8   wrong key, key file or receipt
    ├── OutputError                9   the output cannot be written
    ├── ModelError                12   weights missing or damaged, or a model that fails
    ├── DataError                 13   a data set or a board file does not read as documented
    └── InspectionError           14   a crop is not anonymized as its receipt says; nothing was estimated

A bad argument is a ValueError (exit code 2), as everywhere in Python. Messages say what was expected and
what came; they never hold pixels. Exit codes 10 and 11 mean deny and step up (`ageveil rate --exit-code`).
"""

from __future__ import annotations

from typing import ClassVar


class AgeveilError(Exception):
    """Root of all errors below; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class ImageError(AgeveilError):
    """What came is no usable picture."""

    exit_code = 3


class UnreadableImageError(ImageError):
    """The source is missing, empty, truncated or not a picture."""


class MissingImageError(UnreadableImageError):
    """There is no such file."""


class ImageLimitError(ImageError):
    """The picture has more bytes, pixels or a longer side than the limits allow."""


class FaceError(AgeveilError):
    """No face that can be used."""

    exit_code = 6


class NoFaceError(FaceError):
    """No face was found."""

    exit_code = 4


class SeveralFacesError(FaceError):
    """More than one face could be the viewer, or the number of faces is not the expected one."""

    exit_code = 5


class UnusableFaceError(FaceError):
    """A face was found, but too little of it is in the picture or its eyes are already covered."""


class LeakError(AgeveilError):
    """An anonymized picture may still show a face; nothing was written."""

    exit_code = 7


class CipherError(AgeveilError):
    """A key, a key file or a receipt does not fit."""

    exit_code = 8


class OutputError(AgeveilError):
    """The output cannot be written."""

    exit_code = 9


class ModelError(AgeveilError):
    """Weights are missing or damaged, or a model fails on its input."""

    exit_code = 12


class DataError(AgeveilError):
    """A data set or a board file does not read as documented."""

    exit_code = 13


class InspectionError(AgeveilError):
    """A crop is not anonymized as its receipt says, or eyes are bare; nothing was estimated."""

    exit_code = 14
