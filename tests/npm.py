"""npm's ``openai``, for tests: installed once a checkout, or the test is skipped with the reason."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

#: The newest line that runs on node 20.
PACKAGE: Final = "openai@6"
_SECONDS: Final = 120


def folder_with_openai(config: pytest.Config) -> Path:
    """Return a folder in which a script may import ``openai``; it lies in pytest's cache."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    assert config.cache is not None
    folder = config.cache.mkdir("npm-openai")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers of the same run wait for it
        _install(folder)
    return folder


def _install(folder: Path) -> None:
    done = folder / "installed"
    if not (done.is_file() and done.read_text() == PACKAGE):
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=20000"]
        command = ["npm", "install", "--prefix", str(folder), *options, PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"npm cannot install {PACKAGE}; is its registry there? {error.stderr.strip()[-300:]}")
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not install {PACKAGE} in {_SECONDS} s; is its registry there?")
        done.write_text(PACKAGE)


def run_script(folder: Path, name: str, script: str, *arguments: str) -> str:
    """Run a script with what is installed in ``folder``, and return what it prints."""
    path = folder / f"{name}.mjs"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(
        ["node", str(path), *arguments], check=False, capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
