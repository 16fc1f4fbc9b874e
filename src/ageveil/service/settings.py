"""The service's settings: a frozen record from the environment (`AGEVEIL_...`) and a TOML file."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ageveil.inspection import CHECKS
from ageveil.service.parties import check_origin

Seconds = Annotated[int, Field(ge=1, le=86_400)]
PerMinute = Annotated[int, Field(ge=1, le=1_000_000)]


def _state_directory() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base, "ageveil")


class Settings(BaseSettings):
    """What an operator chooses. Arguments win over the environment.

    Raises:
        ValidationError: A value lies outside its range, or an argument is unknown.
    """

    model_config = SettingsConfigDict(env_prefix="AGEVEIL_", frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65_535, description="Port to listen on.")
    public_url: str = Field(
        "", description="Origin under which browsers reach the service, as https://age.example; also the "
        "issuer of tokens. By default that of host and port."
    )  # fmt: skip
    state_directory: Path = Field(
        default_factory=_state_directory, description="Private directory of the keys and the SQLite file."
    )
    database: SecretStr = Field(
        SecretStr(""), description="URL, as postgresql://user@host/name. By default SQLite in the state "
        "directory.",
    )  # fmt: skip
    approach: str = Field(
        "", description="The approach that faces must come in; by default `veil` where its network is "
        "installed and the estimator knows it, otherwise `mosaic`."
    )  # fmt: skip
    frames: int = Field(
        1, ge=1, le=30, description="Most pictures that a try accepts; docs/audit.md tells what "
        "more of them cost."
    )  # fmt: skip
    model: str = Field("", description="Estimator; by default the best one installed.")
    buffers: Path | None = Field(None, description="File of stored buffers; by default the model's own.")
    confidence: float = Field(0.99, gt=0.5, lt=1, description="Probability that allow and deny need.")
    buffer: int | None = Field(
        None, ge=0, le=50, description="Years above the minimum age; by default as stored."
    )
    waive_voluntary: bool = Field(False, description="Treat voluntary ratings as advice.")
    token_seconds: Seconds = Field(300, description="How long a token is valid, at least.")
    key_delay_seconds: int = Field(
        600, ge=0, le=86_400, description="How long a new key is published before it signs."
    )
    estimator_threads: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)), ge=1, le=256, description="Faces at a time."
    )
    queue: int = Field(64, ge=1, le=10_000, description="Faces that may wait; beyond, answers are 503.")
    body_seconds: Seconds = Field(10, description="Within which a request's header and body each must come.")
    connections: int = Field(
        512, ge=1, le=100_000, description="Connections at a time; beyond, answers are 503."
    )
    shutdown_seconds: Seconds = Field(20, description="How long requests may take to end at shutdown.")
    party_per_minute: PerMinute = Field(12_000, description="Requests of one party.")
    address_per_minute: PerMinute = Field(120, description="Requests of one address without an API key.")
    trusted_proxies: str = Field(
        "", description="Addresses of proxies whose X-Forwarded-For counts, with commas between."
    )
    metrics_key: SecretStr = Field(
        SecretStr(""), description="Bearer key of /metrics; without one only loopback may read it, and "
        "where public_url is set nobody.",
    )  # fmt: skip
    demo: bool = Field(
        True, description="Make a demo party and serve /demo where the state is new and embedded."
    )

    @field_validator("approach")
    @classmethod
    def _inspected(cls, name: str) -> str:
        if name and name not in CHECKS:
            raise ValueError(f"faces come under one of {', '.join(CHECKS)}")
        return name

    @field_validator("public_url")
    @classmethod
    def _origin(cls, url: str) -> str:
        return check_origin(url.rstrip("/")) if url else url

    @property
    def origin(self) -> str:
        """Scheme, host and port under which browsers reach the service."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{host}:{self.port}"

    @property
    def keys_directory(self) -> Path:
        """Where the signing keys lie."""
        return self.state_directory / "keys"

    @property
    def database_url(self) -> str:
        """URL for SQLAlchemy."""
        url = self.database.get_secret_value()
        if not url:
            return f"sqlite:///{self.state_directory.absolute() / 'ageveil.sqlite'}"
        for prefix in ("postgresql://", "postgres://"):
            if url.startswith(prefix):
                return "postgresql+psycopg://" + url.removeprefix(prefix)
        return url


def read_settings(file: Path | None = None, **arguments: Any) -> Settings:  # noqa: ANN401 - the fields' own types
    """Read the settings.

    Args:
        file: TOML with fields of `Settings`.
        arguments: Fields that win over all else; None leaves one alone.

    Raises:
        ValueError: The file cannot be read, or a value is unknown or not as it should be; none is shown.
    """
    given = _from_file(file) if file is not None else {}
    environment = {name.upper() for name in os.environ}
    given = {name: value for name, value in given.items() if f"AGEVEIL_{name.upper()}" not in environment}
    given |= {name: value for name, value in arguments.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise ValueError(f"settings: {name}: {first['msg']}") from None


def _from_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:  # a parser's message names a place, not a value
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"cannot read the settings in {str(file)!r}: {reason}") from None
