"""The application: routes, errors and guard, composed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ageveil import __version__
from ageveil.service import demo, metrics, operations, pages, routes
from ageveil.service.guard import SMALL_BODY, Guard
from ageveil.service.judge import PICTURE_TEXT
from ageveil.service.logs import LOG
from ageveil.service.problems import Problem
from ageveil.service.service import Service

_STATUSES = {404: "not_found", 405: "method_not_allowed"}


def make_app(service: Service | None = None) -> FastAPI:
    """The routes; without a service only their document can be asked for."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if service is not None:
            # Requests that wait for the estimator hold a thread each; the others need some as well.
            anyio.to_thread.current_default_thread_limiter().total_tokens = service.settings.queue + 40
        yield
        if service is not None:
            service.close()

    app = FastAPI(
        title="Ageveil", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="May this visitor see this title? Answered from an anonymized face, as a signed token.",
        generate_unique_id_function=_operation_name,
    )  # fmt: skip
    app.state.service = service
    app.openapi = partial(_document, app)  # type: ignore[method-assign] # as FastAPI's manual does
    for router in (routes.router, operations.router, pages.router):
        app.include_router(router)
    if service is not None and demo.is_on(service):
        app.include_router(demo.router, include_in_schema=False)
    if pages.STATIC.is_dir():
        app.mount("/", pages.ClientFiles())
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(SQLAlchemyError, _unavailable)
    app.add_exception_handler(Exception, _internal)
    return app


def guarded(service: Service) -> Guard:
    """The application as it is served."""
    picture = PICTURE_TEXT + 2048  # a receipt is far under 2 kB
    limit = SMALL_BODY + service.settings.frames * picture
    return Guard(make_app(service), picture_bytes=limit, seconds=service.settings.body_seconds)


def openapi_document() -> str:
    """The OpenAPI document, as docs/openapi.json holds it."""
    return json.dumps(make_app().openapi(), indent=1, sort_keys=True) + "\n"


def _document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with problems under their own media type alone."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    for operation in (one for path in document["paths"].values() for one in path.values()):
        for response in operation["responses"].values():
            content = response.get("content", {})
            if "application/problem+json" in content:
                content["application/problem+json"] = content.pop("application/json")
    return document


def _operation_name(route: APIRoute) -> str:
    return route.name


def _answer(problem: Problem) -> Response:
    metrics.REFUSED.labels(problem.code).inc()
    return problem.response()


async def _problem(_: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return _answer(error)


async def _invalid(_: Request, error: Exception) -> Response:
    """Names the first field that is wrong, never its value."""
    found: Any = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    where = ".".join(str(part)[:40] for part in found.get("loc", ())[:6])
    return _answer(Problem("request_invalid", f"{where}: {found.get('msg', 'is wrong')}"))


async def _refused(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status in _STATUSES:
        return _answer(Problem(_STATUSES[status], "there is nothing here that answers to this"))
    return _answer(Problem("request_invalid" if status < 500 else "internal", "this cannot be read"))


async def _unavailable(_: Request, error: Exception) -> Response:
    LOG.error("database", {"exception": type(error).__name__})
    return _answer(Problem("unavailable", "the database does not answer; nothing was changed"))


async def _internal(_: Request, error: Exception) -> Response:  # noqa: ARG001 - the server logs where it was
    return _answer(Problem("internal", "something went wrong; nothing was changed"))
