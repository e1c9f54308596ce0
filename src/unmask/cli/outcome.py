"""How a command ends: its exit status, and one line where something went wrong."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

import typer

from unmask.errors import UnmaskError

SYSTEM, BAD_INPUT, INTERRUPTED, BROKEN_PIPE, TERMINATED = 1, 2, 130, 141, 143

#: Everything the parser of the command line raises; which module it lives in differs between typer's releases.
_USAGE: Final[type[Exception]] = typer.BadParameter.__bases__[0]


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run ``app`` and return its exit status; whatever goes wrong on purpose is one line on standard error."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status = app(list(arguments), prog_name="unmask", standalone_mode=False)
        sys.stdout.flush()
    except _USAGE as error:
        return _fail(_usage(error), BAD_INPUT)
    except UnmaskError as error:
        return _fail(str(error), BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("stopped; nothing half-written is left", INTERRUPTED)
    except BrokenPipeError:
        _silence()
        return BROKEN_PIPE
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", SYSTEM)
    if status == INTERRUPTED:  # typer turns Ctrl-C into this status itself
        return _fail("stopped; nothing half-written is left", INTERRUPTED)
    return status if isinstance(status, int) else 0


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
