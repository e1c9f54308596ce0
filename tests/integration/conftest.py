"""The command line, run in the process of the tests."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tiny import write_home
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


@pytest.fixture(scope="module")
def model_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the short names are tiny models."""
    return write_home(tmp_path_factory.mktemp("home"), hidden_size=64)


@pytest.fixture
def own_home(model_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which no vectors are kept yet, and a working directory."""
    folder = tmp_path / "home"
    shutil.copytree(model_home, folder)
    monkeypatch.setenv("UNMASK_HOME", str(folder))
    monkeypatch.setattr("unmask.hub.locate.SHIPPED", folder / "encoders")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder
