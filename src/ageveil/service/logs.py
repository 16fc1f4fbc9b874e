"""Structured logs: one JSON object a line, of fields that are chosen here.

An exception is told by its type and where it was raised, never by its message: that could hold what a
visitor sent.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

LOG = logging.getLogger("ageveil.service")
_OURS = ("ageveil.service", "uvicorn.error")


class JsonFormatter(logging.Formatter):
    """Formats a record; a dictionary as its only argument gives further fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": _event(record),
        }
        if isinstance(record.args, dict):
            entry |= record.args
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            entry["exception"] = record.exc_info[0].__name__
            entry["at"] = [f"{frame.name}:{frame.lineno}" for frame in frames[-5:]]
        return json.dumps(entry)


def _event(record: logging.LogRecord) -> str:
    """What happened. Of other libraries only the name is told: their messages may hold anything."""
    if record.name not in _OURS:
        return record.name
    return str(record.msg) if isinstance(record.args, dict) else record.getMessage()


def configure(level: int = logging.INFO) -> None:
    """Send all logs to standard error, libraries' from warnings on; the server's access log stays off."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
