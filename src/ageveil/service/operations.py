"""What an operator's machinery asks: is it alive, is it ready, how does it do?"""

from __future__ import annotations

import hmac
import ipaddress

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ageveil.service.database import reading
from ageveil.service.metrics import REGISTRY
from ageveil.service.problems import Problem
from ageveil.service.routes import Running
from ageveil.service.schemas import documented

router = APIRouter(responses=documented("credentials_invalid", "not_found", "unavailable"))


@router.get("/healthz")
async def get_health() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz")
def get_readiness(service: Running) -> dict[str, str]:
    """The database answers too; the model is loaded before the first request."""
    with reading(service.engine) as connection:
        connection.execute(sa.text("SELECT sequence FROM ledger_end"))
    return {"status": "ready"}


@router.get("/metrics", response_class=Response)
def get_metrics(request: Request, service: Running) -> Response:
    """Prometheus metrics, with the operator's key, or for loopback where no proxy stands before."""
    key = service.settings.metrics_key.get_secret_value()
    if key:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
            raise Problem("credentials_invalid", "this is not the key of the metrics")
    # A proxy on the same machine would make everybody a caller from loopback.
    elif service.settings.public_url or request.client is None or not _is_loopback(request.client.host):
        raise Problem("not_found", "metrics are for the operator")
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
