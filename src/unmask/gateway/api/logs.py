"""Logs: one JSON object a line on standard error, with request ids and without texts of callers."""

from __future__ import annotations

import datetime
import logging
import re
import secrets
import sys
import traceback
from typing import Any, Final

import orjson

from unmask.errors import UnmaskError

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
#: Loggers of ours, and of the server underneath.
_LOGGERS: Final = ("unmask", "uvicorn")


class JsonFormatter(logging.Formatter):
    """Writes a record as a line of JSON, with the ``fields`` that it was given as ``extra``.

    Of an exception that nobody foresaw it says where it arose, not what it says: that may quote a caller's text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1]:
            line["error"] = describe(record.exc_info[1])
        return orjson.dumps(line, default=str).decode()


def describe(error: BaseException) -> dict[str, Any]:
    """Return an exception's class and the places it came through; its message only if it is one of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    described: dict[str, Any] = {
        "class": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    return described | {"message": str(error)} if isinstance(error, UnmaskError) else described


def configure_logs(level: str) -> None:
    """Send the logs of this package and of the server to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False


def request_id(given: bytes | None) -> str:
    """Return a caller's own id for its request if it can be written as it is, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return f"req_{secrets.token_hex(16)}"
