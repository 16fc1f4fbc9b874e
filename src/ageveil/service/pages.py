"""The browser client's files, and the networks that it may run itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from ageveil.runtime import locate
from ageveil.service import checks
from ageveil.service.database import reading
from ageveil.service.problems import Problem
from ageveil.service.routes import Running, count_address
from ageveil.service.schemas import documented

if TYPE_CHECKING:
    from starlette.types import Scope

STATIC = Path(__file__).with_name("static")
"""The build of `web/`: index.html, element.js, assets."""

_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "connect-src 'self'; "
    "style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; "
    "form-action 'none'; "
)
_FOREVER = "public, max-age=31536000, immutable"

router = APIRouter(responses=documented("not_found", "client_not_built", "unavailable", "too_many_requests"))


def page_headers(*ancestors: str) -> Mapping[str, str]:
    """Headers of the page: no third party, the camera for it alone, and only these origins may embed it."""
    embedders = " ".join(("'self'", *ancestors)) if ancestors else "'none'"
    return {
        "Content-Security-Policy": f"{_POLICY}frame-ancestors {embedders}",
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
        "Cache-Control": "no-cache",
    }


_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {}}},
    404: {"content": {"text/html": {}}, "description": "the same page, for a check that is not there"},
}


@router.get("/check/{check_id}", response_class=FileResponse, responses=_PAGE)
def get_page(request: Request, service: Running, check_id: str) -> FileResponse:
    """The page on which a visitor is checked; only the check's audience may embed it."""
    count_address(request, service)
    page = STATIC / "index.html"
    if not page.is_file():
        raise Problem("client_not_built", "the browser client is not built: run make web")
    with reading(service.engine) as connection:
        found = checks.find(connection, check_id)
    ancestors = () if found is None else (found[0].audience,)
    return FileResponse(page, 404 if found is None else 200, page_headers(*ancestors), "text/html")


@router.get("/v1/models/{sha256}.onnx", response_class=FileResponse)
def get_model(service: Running, sha256: str) -> FileResponse:
    """The estimator's file, for browsers that decide on the device; or that of the approach's network."""
    judge = service.judge
    served = {judge.model.info.sha256: judge.model.weights} if judge.runs_on_device else {}
    if judge.filter is not None:
        served[judge.filter.sha256] = judge.filter
    if sha256 not in served:
        raise Problem("not_found", "there is no such model here")
    headers = {"Cache-Control": _FOREVER}
    return FileResponse(locate(served[sha256]), headers=headers, media_type="application/octet-stream")


class ClientFiles(StaticFiles):
    """The client's files. Workers obey the policy of their own file, so each carries the page's."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """A file with its headers."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(page_headers())
        name = Path(full_path).relative_to(STATIC.resolve()).as_posix()
        if name.startswith("assets/"):  # their names hold a digest
            response.headers["Cache-Control"] = _FOREVER
        if name == "element.js":  # parties' pages load it
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            response.headers["Access-Control-Allow-Origin"] = "*"
        return response
