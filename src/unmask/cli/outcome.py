"""How a command ends: its exit status, and one line where something went wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

import typer

from unmask.errors import TrainingError, UnmaskError

SYSTEM, BAD_INPUT, INTERRUPTED, BROKEN_PIPE, TERMINATED = 1, 2, 130, 141, 143

_STOPPED: Final = "stopped; nothing half-written is left"
#: Everything the parser of the command line raises; which module it lives in differs between typer's releases.
_USAGE: Final[type[Exception]] = typer.BadParameter.__bases__[0]


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run ``app`` and return its exit status; whatever goes wrong on purpose is one line on standard error."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        status = app(list(arguments), prog_name="unmask", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - what is not foreseen is raised again
        status, message = _outcome(error)
        if status == BROKEN_PIPE:
            _silence()
            return status
        return _fail(message, status)
    if status == INTERRUPTED:  # typer turns Ctrl-C into this status itself
        return _fail(_STOPPED, INTERRUPTED)
    return status if isinstance(status, int) else 0


def _outcome(error: BaseException) -> tuple[int, str]:
    """Return the exit status and the line for an error; one that nobody foresaw is raised as it is."""
    if isinstance(error, _USAGE):
        return BAD_INPUT, _usage(error)
    if isinstance(error, UnmaskError):
        # A run that ends for what the system raised: a full disk, a damaged file.
        of_system = isinstance(error, TrainingError) and error.__cause__ is not None
        return SYSTEM if of_system else BAD_INPUT, str(error)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED, _STOPPED
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE, ""
    if isinstance(error, OSError):
        return SYSTEM, f"{error.filename or 'the system'}: {error.strerror or error}"
    raise error


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"unmask: {' '.join(message.split())}\n")
    return status


def _usage(error: Exception) -> str:
    """Return what the parser says, and where help is; the bare command has said all with its help."""
    message = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    return f"{message.rstrip('.')}. See: {context.command_path if context else 'unmask'} --help"


def _terminate(signal_number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(TERMINATED)


def _silence() -> None:
    """Keep Python from complaining, when it ends, that it cannot flush what nobody reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
