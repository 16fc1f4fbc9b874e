"""Recipes: all that decides what a training run makes, read from one TOML file."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ageveil import anonymization
from ageveil.errors import DataError
from ageveil.training.faces import REPEATABLE
from ageveil.training.labels import OLDEST
from ageveil.training.networks import get_network


def _ordered(span: tuple[int, int, float]) -> tuple[int, int, float]:
    if span[0] > span[1]:
        raise ValueError(f"a span runs from its youngest age to its oldest, got {span[0]} to {span[1]}")
    return span


_Age = Annotated[int, Field(ge=0, le=OLDEST)]

HeldOut = Annotated[tuple[_Age, _Age, Annotated[float, Field(ge=0, le=1)]], AfterValidator(_ordered)]
"""Youngest age, oldest age (included) and the share of the faces whose exact age lies there."""

Emphasis = Annotated[tuple[_Age, _Age, Annotated[float, Field(gt=0)]], AfterValidator(_ordered)]
"""Youngest age, oldest age (included) and how much a face counts whose exact age lies there."""

_MODEL = "model:"  # before the name of a teacher that is no run


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Validation(_Section):
    """Which faces are kept out of training.

    Attributes:
        share: Of all faces, 0 to 1.
        seed: Of the draw.
        hold_out: Larger shares for exact ages, [youngest, oldest, share].
        test_fold: Fold of the data set that neither trains nor validates, since it tests; None where the data
            set has a test part of its own.
    """

    share: float = Field(default=0.1, gt=0, lt=1)
    seed: int = Field(default=2018, ge=0)
    hold_out: tuple[HeldOut, ...] = ()
    test_fold: int | None = Field(default=None, ge=0)


class Optimization(_Section):
    """How weights are fitted: AdamW, a short warm-up, then a cosine to zero.

    Attributes:
        epochs: Passes over the training faces.
        batch: Faces in a step, over all devices.
        learning_rate: At its highest.
        head_learning_rate: Of layers that the initial weights do not hold; as the rest when left out.
        weight_decay: Of everything with two dimensions or more.
        warmup_steps: Steps until the highest learning rate.
        average: Decay of the exponential average of the weights, which is what is kept; 0 keeps the last.
        clip: Largest norm of a gradient.
        patience: Epochs without a better validation loss after which the run ends.
        frozen: So many of the network's first convolutions stay as they are.
        precision: Of the arithmetic, as Lightning names it.
    """

    epochs: int = Field(default=8, ge=1)
    batch: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=4e-4, gt=0)
    head_learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    average: float = Field(default=0.998, ge=0, lt=1)
    clip: float = Field(default=5.0, gt=0)
    patience: int = Field(default=5, ge=1)
    frozen: int = Field(default=0, ge=0)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"


class Loss(_Section):
    """What is minimised.

    Attributes:
        ranked: Weight of the ranked probability score beside the likelihood, for networks over years.
        grouped: Weight of the true age group's likelihood beside that of the year, for networks over years.
        expected: Weight of the expected age's error in years, for networks over years.
        distillation: Share of the loss that asks to answer as the teacher does on the bare face.
        bounded: Where a label is an interval, hear of the teacher only how likely each year in it is.
        smoothing: Of group labels, for networks over groups.
        emphasis: How much more faces of these exact ages count, [youngest, oldest, weight].
    """

    ranked: float = Field(default=0.1, ge=0)
    grouped: float = Field(default=0.0, ge=0)
    expected: float = Field(default=0.0, ge=0)
    distillation: float = Field(default=0.0, ge=0, lt=1)
    bounded: bool = False
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    emphasis: tuple[Emphasis, ...] = ()


class Recipe(_Section):
    """A training run.

    Attributes:
        name: Of the model that it makes.
        network: Key of `ageveil.training.networks.NETWORKS`.
        side: Pixels at which the network looks at a crop; its makers' when left out.
        initial: Key of `ageveil.training.initial.INITIAL`, "run:NAME" for the weights of an earlier run, or
            "random".
        data: Names of prepared folders.
        approaches: How often each approach is drawn; the shares are scaled to sum 1.
        vary: Share of the training crops that are moved, lit and degraded at random, 0 to 1. Unless it is 0,
            every second crop is mirrored.
        teacher: Name of an earlier run, or "model:NAME" for a key of `ageveil.estimation.MODELS`, whose
            answers on bare faces are imitated; a network over groups may hear one over years.
        licence: SPDX expression for the weights that come out.
        training_data: What the weights have seen, for the model's metadata: data sets with their licences.
        seed: Of everything random in training.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    network: str
    side: int | None = Field(default=None, ge=32, le=512)
    initial: str = "random"
    data: tuple[str, ...] = Field(min_length=1)
    approaches: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=lambda: {"original": 1.0}, min_length=1
    )
    vary: float = Field(default=1.0, ge=0, le=1)
    teacher: str | None = None
    licence: str
    training_data: tuple[str, ...] = Field(min_length=1)
    seed: int = Field(default=2018, ge=0)
    validation: Validation = Validation()
    optimization: Optimization = Optimization()
    loss: Loss = Loss()

    @field_validator("network")
    @classmethod
    def _known_network(cls, name: str) -> str:
        get_network(name)
        return name

    @field_validator("approaches")
    @classmethod
    def _known_approaches(cls, shares: dict[str, float]) -> dict[str, float]:
        for name in shares:
            if anonymization.get_approach(name).name != name or name not in REPEATABLE:
                raise ValueError(f"a recipe may use {', '.join(REPEATABLE)}, got {name}")
        return shares

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        known = ("random", *get_network(self.network).initial)
        if self.initial not in known and not self.initial.startswith("run:"):
            raise ValueError(f"{self.network} starts from {', '.join(known)} or run:NAME, got {self.initial}")
        return self

    @model_validator(mode="after")
    def _teacher_is_used(self) -> Self:
        if (self.teacher is None) != (self.loss.distillation == 0):
            raise ValueError("a teacher and a share of distillation above 0 go together")
        if self.loss.bounded and (self.teacher is None or get_network(self.network).resolution != "year"):
            raise ValueError("only a teacher's answers over years can be bounded")
        return self

    @model_validator(mode="after")
    def _loss_is_used(self) -> Self:
        resolution = get_network(self.network).resolution
        others = ("smoothing",) if resolution == "year" else ("ranked", "grouped", "expected")
        for name in others:
            if getattr(self.loss, name) != Loss.model_fields[name].default:
                raise ValueError(f"{name} says nothing to {self.network}, which answers over {resolution}s")
        return self

    @property
    def teaching_model(self) -> str | None:
        """Key of the model that teaches; None where a run does, or nobody."""
        if self.teacher is None or not self.teacher.startswith(_MODEL):
            return None
        return self.teacher.removeprefix(_MODEL)

    @property
    def pixels(self) -> int:
        """Side in pixels at which the network looks at a crop."""
        return self.side or get_network(self.network).side

    def without_fold(self, fold: int) -> Self:
        """The same recipe for the run that leaves a fold to test on; the fold's number ends its name.

        So it does the names of the earlier runs on which it builds: they leave the same fold out.
        """
        changes: dict[str, Any] = {
            "name": f"{self.name}-{fold}",
            "validation": self.validation.model_copy(update={"test_fold": fold}),
        }
        if self.initial.startswith("run:"):
            changes["initial"] = f"{self.initial}-{fold}"
        if self.teacher is not None and self.teaching_model is None:
            changes["teacher"] = f"{self.teacher}-{fold}"
        return self.model_copy(update=changes)

    def with_seed(self, seed: int) -> Self:
        """The same recipe with other chance in training; the seed ends its name.

        The faces stay the same, and so do the earlier runs on which it builds.
        """
        return self.model_copy(update={"name": f"{self.name}-seed-{seed}", "seed": seed})

    def digest(self) -> str:
        """SHA-256 of all that is in the recipe, 64 hex digits: equal recipes continue each other's runs."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        DataError: The file cannot be read, is no TOML, or says something that no recipe says; the message
            names the first entry that is wrong.
    """
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise DataError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"the recipe {path} is no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "recipe"
        raise DataError(f"the recipe {path} is wrong at {place}: {first['msg']}") from error
