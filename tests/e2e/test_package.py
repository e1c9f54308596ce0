"""Wheel and sdist install into an empty environment and run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_builds_and_installs_into_an_empty_environment(kind: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "build", f"--{kind}", "--outdir", str(tmp_path), str(ROOT)], check=True)
    (package,) = [*tmp_path.glob("*.whl"), *tmp_path.glob("*.tar.gz")]
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "torch==2.13.0"], check=True)
    subprocess.run([*pip, str(package)], check=True)
    command = str(tmp_path / "venv" / "bin" / "unmask")
    version = subprocess.run([command, "--version"], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert version.stdout.startswith("unmask ")
    listed = subprocess.run([command, "pull", "--list"], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "smollm2-135m" in listed.stdout + listed.stderr
