"""The service on uvicorn, with time limits that it lacks: for headers, and for clients that do not read.

Kept connections stay longer than common proxies keep them (60 s), so that none is closed under a request.
"""

from __future__ import annotations

import asyncio
import resource
import socket

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ageveil.service.app import guarded
from ageveil.service.logs import LOG, configure
from ageveil.service.service import Service


class PatientProtocol(H11Protocol):
    """Closes connections whose next request's header is not complete within some seconds."""

    seconds = 10.0
    _watch: asyncio.TimerHandle | None = None
    _seen: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the base
        """Begin to watch."""
        super().connection_made(transport)
        # Nor may a client stop to read: what it leaves unread this long ends the connection.
        transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(3000 * self.seconds)
        )
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch no longer."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        self._watch = self.loop.call_later(self.seconds, self._look)

    def _look(self) -> None:
        # `cycle` is the request that was begun last: the same at two looks means that none came between.
        begun = self.cycle is None or bool(self.conn.trailing_data[0])  # one that is only kept open may wait
        if begun and self.conn.their_state is h11.IDLE and self.cycle is self._seen:
            self.transport.close()
            return
        self._seen = self.cycle
        self._look_later()


def serve(service: Service) -> None:
    """Serve until a signal ends it; requests that have begun may end."""
    settings = service.settings
    configure()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no memory, and so no face, on the disk
    PatientProtocol.seconds = settings.body_seconds
    config = uvicorn.Config(
        guarded(service), settings.host, settings.port, http=PatientProtocol, ws="none", log_config=None,
        access_log=False, server_header=False, date_header=False, limit_concurrency=settings.connections,
        timeout_graceful_shutdown=settings.shutdown_seconds, timeout_keep_alive=75,
        proxy_headers=bool(settings.trusted_proxies), forwarded_allow_ips=settings.trusted_proxies or None,
    )  # fmt: skip
    uvicorn.Server(config).run()
    LOG.info("ended", {})
