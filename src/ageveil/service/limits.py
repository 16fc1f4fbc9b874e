"""Rate limits: by party, and by address as a salted digest that is forgotten within minutes.

Counters live in the process's memory, so several processes allow several times as much.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from ageveil.service.problems import Problem

_SALT_SECONDS = 600


class RateLimits:
    """Counts requests; no address is kept.

    Args:
        party: Requests of one party a minute.
        address: Requests of one address a minute.
    """

    def __init__(self, party: int, address: int) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._party, self._address = RateLimitItemPerMinute(party), RateLimitItemPerMinute(address)
        self._salt, self._salted = secrets.token_bytes(32), time.monotonic()

    def party(self, name: str) -> None:
        """Count a request of a party.

        Raises:
            Problem: It was one too many.
        """
        self._hit(self._party, "party", name)

    def address(self, address: str) -> None:
        """Count a request of an address; those of one IPv6 network of 64 bits count together.

        Raises:
            Problem: It was one too many.
        """
        if time.monotonic() - self._salted > _SALT_SECONDS:
            self._salt, self._salted = secrets.token_bytes(32), time.monotonic()
        digest = hmac.digest(self._salt, network(address).encode(), hashlib.sha256).hex()
        self._hit(self._address, "address", digest)

    def _hit(self, item: RateLimitItemPerMinute, kind: str, name: str) -> None:
        if not self._limiter.hit(item, kind, name):
            raise Problem("too_many_requests", "too many requests; come back in a minute")


def network(address: str) -> str:
    """What counts as one address.

    >>> network("192.0.2.7"), network("2001:db8::1:2"), network("::ffff:192.0.2.7"), network("somewhere")
    ('192.0.2.7', '2001:db8::/64', '192.0.2.7', 'somewhere')
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a socket without an address
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    # IPv4 written as IPv6 lies in one network of 64 bits as a whole.
    within = ipaddress.ip_network((parsed, 64), strict=False)
    return str(parsed.ipv4_mapped or within)
