"""The tutorial runs as it is written: on a tiny model each time, on the real one in the slow tests."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.tiny import write_home
from unmask import Encoder
from unmask.cli import app
from unmask.cli.outcome import run

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), flags=re.DOTALL)
RUNS = ("mntp", "simcse")


def run_block(kind: str, code: str) -> None:
    if kind == "python":
        exec(compile(code, str(TUTORIAL), "exec"), {})
        return
    for line in code.strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "unmask"
        assert run(app, arguments) == 0, line


def test_the_tutorial_runs_on_a_tiny_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = write_home(tmp_path / "home")
    monkeypatch.setenv("UNMASK_HOME", str(home))
    monkeypatch.setattr("unmask.hub.locate.SHIPPED", home / "encoders")
    monkeypatch.chdir(tmp_path)
    assert [kind for kind, _ in BLOCKS] == ["python", "python", "sh", "sh", "python", "sh"]
    for kind, code in BLOCKS:
        run_block(kind, code)
    printed = capsys.readouterr().out
    assert all(re.search(rf"my-run/{name}/encoder +-?[01]\.\d+", printed) for name in RUNS)
    for name in RUNS:
        card = (tmp_path / "my-run" / name / "encoder" / "README.md").read_text(encoding="utf-8")
        assert str(tmp_path) not in card
    assert (tmp_path / "vectors.npy").is_file()
    assert Encoder.load("my-run/simcse/encoder").bidirectional


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tutorial_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, code in BLOCKS:
        if kind == "python":
            exec(compile(code, str(TUTORIAL), "exec"), {})
        else:
            subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
    assert (tmp_path / "my-run" / "simcse" / "1-simcse" / "plot.png").is_file()
