"""What the README shows runs, on a tiny model under the short name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tiny import write_home
from unmask import Encoder

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_python_snippets_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unmask.hub.locate.SHIPPED", write_home(tmp_path / "home") / "encoders")
    assert len(BLOCKS) >= 2
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, str(README), "exec"), names)
    assert Encoder.load("my-encoder").dimension == 64


def test_the_annotated_tree_is_true() -> None:
    tree = re.search(r"## Where things are\n\n(.*?)\n\nImports", README.read_text(encoding="utf-8"), re.DOTALL)
    assert tree
    root = README.parent
    listed = re.findall(r"^      (\w[\w.]*/?) ", tree[1], re.MULTILINE)
    package = root / "src" / "unmask"
    there = {p.name + "/" * p.is_dir() for p in package.iterdir()} - {
        "__pycache__/",
        "__init__.py",
        "_version.py",
        "py.typed",
    }
    assert set(listed) == there
    for folder in re.findall(r"^    (\w+/) ", tree[1], re.MULTILINE):
        assert (root / folder).is_dir()
