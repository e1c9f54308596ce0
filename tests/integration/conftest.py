"""The command line, run in the process of the tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from unmask.cli import app
from unmask.cli.outcome import run

#: Takes the arguments of a command line; returns its status, standard output and standard error.
Unmask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def unmask(capsys: pytest.CaptureFixture[str]) -> Iterator[Unmask]:
    """Run a command line in this process: status, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run(app, arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    before = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, before)
