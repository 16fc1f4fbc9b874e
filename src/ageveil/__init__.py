"""Content-rating decisions from anonymized faces.

    import ageveil

    decision = ageveil.rate("viewer.jpg", board="mpa", rating="R")
    print(decision.outcome, decision.reason)

The names below are the public ones; docs/design.md shows the rooms behind them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ageveil.anonymization import APPROACHES, anonymize_crop
    from ageveil.boards import equivalents, get_rating, load_boards
    from ageveil.decision import decide, fuse
    from ageveil.errors import AgeveilError
    from ageveil.estimation import MODELS
    from ageveil.image import Limits, read_image, write_image
    from ageveil.pipeline import Pipeline, anonymize, estimate, rate
    from ageveil.types import (
        AgeDistribution,
        AnonymizedFace,
        AnonymizedPicture,
        Decision,
        Policy,
        Rating,
        Receipt,
    )

__version__ = "0.1.0"

# Public name -> module that defines it. Modules are imported when a name is first used, so that
# `import ageveil` costs nothing.
_PUBLIC = {
    "APPROACHES": "anonymization",
    "AgeDistribution": "types",
    "AgeveilError": "errors",
    "AnonymizedFace": "types",
    "AnonymizedPicture": "types",
    "Decision": "types",
    "Limits": "image",
    "MODELS": "estimation",
    "Pipeline": "pipeline",
    "Policy": "types",
    "Rating": "types",
    "Receipt": "types",
    "anonymize": "pipeline",
    "anonymize_crop": "anonymization",
    "decide": "decision",
    "equivalents": "boards",
    "estimate": "pipeline",
    "fuse": "decision",
    "get_rating": "boards",
    "load_boards": "boards",
    "rate": "pipeline",
    "read_image": "image",
    "write_image": "image",
}

__all__ = [
    "APPROACHES",
    "MODELS",
    "AgeDistribution",
    "AgeveilError",
    "AnonymizedFace",
    "AnonymizedPicture",
    "Decision",
    "Limits",
    "Pipeline",
    "Policy",
    "Rating",
    "Receipt",
    "anonymize",
    "anonymize_crop",
    "decide",
    "equivalents",
    "estimate",
    "fuse",
    "get_rating",
    "load_boards",
    "rate",
    "read_image",
    "write_image",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public object
    """Import a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ageveil' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ageveil.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]
