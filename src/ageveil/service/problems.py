"""What a request may end in, as `application/problem+json` (RFC 9457) with a stable code."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from starlette.responses import JSONResponse

from ageveil.errors import AgeveilError

CODES: Mapping[str, int] = MappingProxyType(
    {
        "request_invalid": 422,  # not what the OpenAPI document describes
        "length_invalid": 400,  # a Content-Length that is no number
        "credentials_missing": 401,
        "credentials_invalid": 401,
        "audience_unknown": 403,  # the party is not registered for that audience
        "mode_not_allowed": 403,  # the check does not take answers of that kind
        "not_found": 404,
        "method_not_allowed": 405,
        "body_slow": 408,
        "nonce_used": 409,
        "check_changed": 409,  # another request was faster
        "check_completed": 409,
        "check_open": 409,
        "token_redeemed": 409,
        "check_expired": 410,
        "body_too_large": 413,
        "content_type": 415,
        "content_encoding": 415,
        "not_anonymized": 422,  # the pixels are not what the receipt says, or eyes are bare
        "receipt_invalid": 422,
        "frames_invalid": 422,
        "approach_not_accepted": 422,
        "model_unknown": 422,
        "rating_unknown": 422,
        "token_invalid": 422,
        "token_expired": 422,
        "nonce_mismatch": 422,
        "too_many_requests": 429,
        "internal": 500,
        "busy": 503,
        "unavailable": 503,  # the database does not answer
        "client_not_built": 503,
    }
)
"""Every code with its status."""


class Problem(AgeveilError):  # noqa: N818 - as the standard calls it
    """A request that ends without an answer.

    Args:
        code: Key of `CODES`.
        detail: One sentence; never pixels, tokens or secrets.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.status = code, CODES[code]

    def response(self) -> JSONResponse:
        """The problem as an answer; one that passes says when to come back."""
        headers = {"Retry-After": "5"} if self.status in {429, 503} else {}
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer, Check"
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": str(self),
        }
        return JSONResponse(body, self.status, headers, media_type="application/problem+json")
