"""Signed answers: what a party gets, and how it is read again."""

from __future__ import annotations

from typing import Any

from ageveil.service.keys import KeyRing
from ageveil.service.problems import Problem

KIND = "ageveil-check+jwt"
"""Type in a token's header: nothing else that the keys sign can be taken for a token."""

LEEWAY = 30
"""Seconds that clocks of several servers may differ by."""


def issue(keys: KeyRing, claims: dict[str, Any], minute: int, seconds: int, now: float) -> str:
    """Sign an answer. Its times are whole minutes, so that they tell little about the moment.

    Args:
        keys: One of them signs.
        claims: Everything but the times.
        minute: Of the completion, in minutes since 1970: the same check gives the same times again.
        seconds: How long it is valid, at least; the end is rounded up to a minute.
        now: Unix time, for the choice of the key.
    """
    valid = -(-seconds // 60) + 1  # a check that ends late in its minute loses none of its time
    return keys.sign({**claims, "iat": 60 * minute, "exp": 60 * (minute + valid)}, KIND, now)


def read(keys: KeyRing, token: str, *, issuer: str, now: float) -> dict[str, Any]:
    """The claims of a token of this service.

    Raises:
        Problem: It is not one, or its time is over or has not begun.
    """
    try:
        claims = keys.verify(token, KIND)
    except ValueError as error:
        raise Problem("token_invalid", str(error)) from None
    if claims.get("iss") != issuer or claims["iat"] > now + LEEWAY:
        raise Problem("token_invalid", "the token is of another issuer, or of a time to come")
    if claims["exp"] <= now - LEEWAY:
        raise Problem("token_expired", "the token's time is over")
    return claims
