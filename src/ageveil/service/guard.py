"""What stands before the routes, as plain ASGI: limits of a body, security headers, log and metrics."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from ageveil.service import metrics
from ageveil.service.logs import LOG
from ageveil.service.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SMALL_BODY = 16_384
"""Bytes of a request without pictures."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer that sets none of its own."""


class Guard:
    """Reads each body into memory, under a limit and within a time, before anything else sees the request.

    Args:
        app: What it stands before.
        picture_bytes: Largest body of a route that takes pictures.
        seconds: Within which the body must come.
    """

    def __init__(self, app: ASGIApp, *, picture_bytes: int, seconds: float) -> None:
        self._app, self._picture_bytes, self._seconds = app, picture_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # the client has gone before an answer

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._serve(scope, receive, observed)
        finally:
            _observe(scope, status, time.perf_counter() - start)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._picture_bytes if scope["path"].endswith("/faces") else SMALL_BODY
        try:
            body = await _read(scope, receive, limit, self._seconds)
        except Problem as problem:
            metrics.REFUSED.labels(problem.code).inc()
            response = problem.response()
            response.headers["Connection"] = "close"  # what else it sends is not read
            await response(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)


async def _read(scope: Scope, receive: Receive, limit: int, seconds: float) -> bytes | None:
    """The whole body; None where the client has gone.

    Raises:
        Problem: It is too long, too slow, encoded, or not JSON by its own word.
    """
    headers = Headers(scope=scope)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("content_encoding", "bodies come as they are, without a content encoding")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise Problem("length_invalid", "the content length is no number")
    if len(length) > 12 or int(length) > limit:
        raise Problem("body_too_large", f"a body here has at most {limit} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > limit:
                    raise Problem("body_too_large", f"a body here has at most {limit} bytes")
    except TimeoutError:
        raise Problem("body_slow", f"a body comes within {seconds:g} seconds") from None
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != "application/json":
        raise Problem("content_type", "bodies are application/json")
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the body at once, and then whatever comes after it."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _observe(scope: Scope, status: int, seconds: float) -> None:
    """Count and log a request by its route; paths hold ids and queries anything at all."""
    route = getattr(scope.get("route"), "path", "") or "other"
    method = scope["method"] if scope["method"] in {"GET", "POST", "HEAD"} else "other"
    metrics.REQUESTS.labels(method, route, status).inc()
    metrics.REQUEST_SECONDS.labels(route).observe(seconds)
    fields = {"method": method, "route": route, "status": status, "ms": round(1000 * seconds, 1)}
    LOG.info("request", fields)
