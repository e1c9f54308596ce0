"""Logs: one JSON object a line on standard error, with request ids and without texts of callers."""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import re
import sys
import time
import traceback
from typing import Any, Final, TextIO

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
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC),  # orjson writes it as ISO 8601
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


class TurnHandler(logging.StreamHandler[TextIO]):
    """Writes together what is logged in one turn of the event loop: under load, a call of the system for many lines.

    What is logged elsewhere, and warnings with all that came before them, are written at once.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, and see to it that it is written."""
        try:
            self._lines.append(self.format(record))
            if record.levelno >= logging.WARNING:
                self.flush()
            elif len(self._lines) == 1:
                self._flush_soon()
        except Exception:  # noqa: BLE001 - logging's own way: a log must not end what it tells of
            self.handleError(record)

    def _flush_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what was taken."""
        self.acquire()
        try:
            if self._lines:
                text = "\n".join(self._lines) + "\n"
                self._lines.clear()
                self.stream.write(text)
                self.stream.flush()
        finally:
            self.release()


#: A record as logging makes it, but for what each has of its own.
_RECORD: Final = logging.LogRecord("unmask.requests", logging.INFO, __file__, 0, "request", (), None).__dict__


def request_record(fields: dict[str, Any]) -> logging.LogRecord:
    """Return a record of a request, made without looking up who logs it and where: that takes longer than the rest."""
    record = logging.LogRecord.__new__(logging.LogRecord)
    now = time.time()
    record.__dict__.update(_RECORD, created=now, msecs=now % 1 * 1000, fields=fields)
    return record


def configure_logs(level: str) -> None:
    """Send the logs of this package and of the server to standard error."""
    handler = TurnHandler(sys.stderr)
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
    return f"req_{random.getrandbits(128):032x}"
