"""What crosses the network as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ageveil.boards import MAX_MINIMUM_AGE
from ageveil.service.checks import Computed, Mode
from ageveil.service.judge import PICTURE_TEXT
from ageveil.service.problems import CODES
from ageveil.types import Outcome

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Printable = Annotated[str, Field(pattern=r"^[!-~]+$")]
_MOST_FIELDS = 32


class Input(BaseModel):
    """A body that is sent: unknown fields and values of another kind are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, data: Any) -> Any:  # noqa: ANN401 - whatever was sent
        # Each unknown field would be an error of its own: thousands of them keep the process busy.
        if isinstance(data, dict) and len(data) > _MOST_FIELDS:
            raise ValueError(f"an object here has at most {_MOST_FIELDS} fields")
        return data


class Output(BaseModel):
    """A body that is answered."""

    model_config = ConfigDict(frozen=True)


class NewCheck(Input):
    """What a party asks: a board's rating, or a minimum age."""

    board: Annotated[str, Field(min_length=1, max_length=20)] | None = None
    rating: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    minimum_age: Annotated[int, Field(ge=0, le=MAX_MINIMUM_AGE)] | None = Field(
        default=None,
        description="In years; beside a rating, which of its readings counts where sources disagree.",
    )
    accompanied: bool = Field(
        default=False, description="An adult is at the viewer's side, as the party knows."
    )
    audience: Annotated[Printable, Field(max_length=300)] = Field(
        description="Origin that the token is for and whose pages may embed the check."
    )
    nonce: Annotated[Printable, Field(min_length=16, max_length=128)] = Field(
        description="Unguessable, and used once."
    )
    tries: Annotated[int, Field(ge=1, le=5)] = 3
    ttl_seconds: Annotated[int, Field(ge=60, le=3600)] = 600
    modes: Annotated[list[Mode], Field(min_length=1, max_length=2)] = Field(
        default=["anonymized"],
        description="anonymized: the server estimates from an anonymized crop. device: the browser decides, "
        "and the token says that it was computed by the client.",
    )

    @model_validator(mode="after")
    def _one_ask(self) -> Self:
        if (self.board is None) != (self.rating is None):
            raise ValueError("board and rating go together")
        if self.board is None and self.minimum_age is None:
            raise ValueError("expected board and rating, or minimum_age")
        return self


class CreatedCheck(Output):
    """A new check. Where the rating alone decides, it is completed and the token is here."""

    id: str
    secret: str = Field(description="For the browser alone; it stands behind the # of the URL as well.")
    url: str
    expires_at: int = Field(description="Unix time in seconds.")
    outcome: Outcome | None
    token: str | None


class Model(Output):
    """The estimator, for a browser that runs it itself."""

    name: str
    version: str
    sha256: str
    licence: str
    url: str


class Filter(Output):
    """The network that the browser hides faces with."""

    sha256: str
    licence: str
    url: str


class Terms(Output):
    """The rule: allow if P(age >= minimum + buffer) >= confidence, deny if P(age < minimum) >= confidence."""

    buffer: int
    confidence: float
    temperature: float = Field(
        description="The probabilities are raised to 1 / temperature and scaled to sum 1."
    )


class CheckView(Output):
    """What a browser must know of a check."""

    id: str
    state: Literal["open", "completed", "expired"]
    audience: str
    board: str | None
    rating: str | None
    minimum_age: int | None
    approach: str
    filter: Filter | None = Field(description="What the approach runs on the device, where it is a network.")
    frames: int = Field(description="Most pictures that a try accepts.")
    tries_left: int
    modes: list[Mode]
    outcome: Outcome | None = Field(description="Of the last try.")
    expires_at: int
    model: Model
    terms: Terms


class Signals(Input):
    """Signals of presentation attacks, as the client reports them; nobody can check them."""

    antispoof: Share | None = Field(default=None, description="How real the picture looks, 1 the most.")
    liveness: Share | None = Field(default=None, description="How alive the face looks, 1 the most.")
    motion: Share | None = Field(default=None, description="How much the pictures differ; 0 for a still one.")
    challenge: Literal["passed", "failed", "not_asked"] | None = Field(
        default=None, description="Turn of the head."
    )
    virtual_camera: bool | None = Field(
        default=None, description="The camera's name is that of a known virtual one."
    )


class Frame(Input):
    """An anonymized canonical crop with its receipt."""

    pixels: str = Field(
        min_length=1, max_length=PICTURE_TEXT,
        description="224 x 224 RGB bytes, rows from the top, as a zlib stream (RFC 1950) in base64.",
    )  # fmt: skip
    receipt: dict[str, Any] = Field(description="As the anonymization gave it.")


class Faces(Input):
    """A try with anonymized pictures."""

    frames: Annotated[list[Frame], Field(min_length=1, max_length=30)]
    signals: Signals | None = None


class DeviceDecision(Input):
    """A try that was decided on the device."""

    outcome: Outcome
    model: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="SHA-256 of the model's file."
    )
    signals: Signals | None = None


class TryResult(Output):
    """How a try ended; the token is there once the check is completed."""

    outcome: Outcome
    tries_left: int
    token: str | None


class Redeem(Input):
    """A token, once."""

    token: Annotated[str, Field(min_length=1, max_length=4096)]
    nonce: Annotated[Printable, Field(min_length=16, max_length=128)]


class Claims(Output):
    """What a token says."""

    iss: str
    aud: str
    nonce: str
    jti: str
    iat: int
    exp: int
    outcome: Outcome
    minimum_age: int | None
    approach: str | None
    model: str | None
    computed: Computed
    signals: Signals | None


class NewAppeal(Input):
    """An appeal or another proof. What proves the age stays with the party: nothing is uploaded here."""

    kind: Literal["another_proof", "guardian"]
    result: Literal["opened", "granted", "refused"] = "opened"


class Recorded(Output):
    """The hash of its record in the ledger, in hex: whoever keeps the ledger finds it by that."""

    record: str


class ProblemBody(Output):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may end in, for the OpenAPI document."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code], []).append(code)
    problem = {"model": ProblemBody, "content": {"application/problem+json": {}}}
    return {status: {**problem, "description": ", ".join(names)} for status, names in by_status.items()}
