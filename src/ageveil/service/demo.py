"""A small relying party, to try the service with: everything here a party's own server would do.

It calls what the API's routes call, for a party that the first start has made, so that its key need not be
kept anywhere. Off by the setting `demo`, and with a database of one's own.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from pydantic import Field

from ageveil.service.checks import Mode
from ageveil.service.database import parties, reading
from ageveil.service.parties import Party
from ageveil.service.problems import Problem
from ageveil.service.routes import Running, count_address, create_check, redeem
from ageveil.service.schemas import Claims, Input, NewCheck, Output
from ageveil.service.schemas import Redeem as RedeemToken
from ageveil.service.service import DEMO, Service

_FILES = {"demo.js": "text/javascript", "demo.css": "text/css"}
_FOLDER = Path(__file__).with_name("demo_page")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}

router = APIRouter(prefix="/demo")


class Wanted(Input):
    """What the demo's visitor chose."""

    minimum_age: Annotated[int, Field(ge=1, le=25)] = 18
    mode: Mode = "anonymized"


class Begun(Output):
    """What the demo's page needs; a real party would keep the nonce in its own session."""

    url: str
    nonce: str


def is_on(service: Service) -> bool:
    """Whether there is a demo party, on embedded state."""
    settings = service.settings
    if not settings.demo or settings.database.get_secret_value():
        return False
    with reading(service.engine) as connection:
        return connection.scalar(sa.select(sa.func.count()).where(parties.c.id == DEMO)) == 1


def _count(request: Request, service: Service) -> Party:
    count_address(request, service)
    return Party(DEMO, (service.settings.origin,))


@router.get("")
async def get_demo() -> FileResponse:
    """The page."""
    return FileResponse(_FOLDER / "index.html", headers=_HEADERS)


@router.get("/{name}")
async def get_file(name: str) -> FileResponse:
    """Its script and its style."""
    if name not in _FILES:
        raise Problem("not_found", "the demo has no such file")
    return FileResponse(_FOLDER / name, headers=_HEADERS, media_type=_FILES[name])


@router.post("/checks")
def post_check(request: Request, service: Running, wanted: Wanted) -> Begun:
    """Create a check, as a party's server does with its API key."""
    nonce = secrets.token_urlsafe(16)
    asked = NewCheck(
        minimum_age=wanted.minimum_age, audience=service.settings.origin, nonce=nonce, modes=[wanted.mode]
    )
    return Begun(url=create_check(service, _count(request, service), asked).url, nonce=nonce)


@router.post("/redeem")
def post_redeem(request: Request, service: Running, sent: RedeemToken) -> Claims:
    """Redeem the token, as a party's server does before it believes anything."""
    return redeem(service, _count(request, service), sent)
