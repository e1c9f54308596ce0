"""Vectors in the forms that callers want are those of the library; instructions are split where they are registered."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import orjson
import pytest

from unmask.errors import InputError
from unmask.form import Form, Output
from unmask.gateway.api.forms import TYPES, Wanted
from unmask.gateway.api.instructions import (
    DEFAULTS,
    Instructions,
    as_lines,
    mteb_instructions,
    of_mteb,
    read_instructions,
)
from unmask.gateway.api.settings import Settings
from unmask.hub.catalogue import DEFAULT
from unmask.text import Text

VECTORS = np.random.default_rng(5).standard_normal((4, 12)).astype(np.float32)
VECTORS[2] = 0
OUTPUTS: dict[str, Output] = {"float": "float32", "int8": "int8", "binary": "binary"}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dimensions", [None, 5])
def test_forms_are_those_of_the_library(kind: str, normalize: bool, dimensions: int | None) -> None:
    wanted = Wanted(normalize=normalize, dimensions=dimensions, type=kind, base64=False)
    expected = Form(normalize=normalize, dimensions=dimensions, output=OUTPUTS[kind]).apply(VECTORS)
    rows = orjson.loads(asyncio_free(wanted, VECTORS))
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], dtype=expected.dtype), expected)


def test_rows_hold_the_very_numbers() -> None:
    plain = Wanted(normalize=False, dimensions=None, type="float", base64=False)
    packed = Wanted(normalize=False, dimensions=None, type="float", base64=True)
    rows = orjson.loads(asyncio_free(plain, VECTORS))
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], dtype=np.float32), VECTORS)
    for row, vector in zip(orjson.loads(asyncio_free(packed, VECTORS)), VECTORS, strict=True):
        assert base64.b64decode(row["embedding"]) == vector.astype("<f4").tobytes()


def asyncio_free(wanted: Wanted, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> bytes:
    """Return the rows without an event loop: so few are written at once."""
    coroutine = wanted.rows(vectors)
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    rows: bytes = ended.value.value
    return rows


def test_more_dimensions_than_there_are_is_an_error() -> None:
    wanted = Wanted(normalize=True, dimensions=13, type="float", base64=False)
    with pytest.raises(InputError, match="have 1 to 12"):
        wanted.check(12)
    wanted.check(13)
    wanted.check(None)
    assert asyncio.iscoroutinefunction(wanted.rows)


def test_the_longest_instruction_that_fits_is_split_off() -> None:
    known = Instructions("Find:", ["Find: it", "  Sort it:  ", "", "Find:"])
    assert known.known == ("Find:", "Find: it", "Sort it:", *DEFAULTS)
    assert known.split("Find: it now") == Text("Find: it", " now")
    assert known.split("Find: item") == Text("Find:", " item")
    assert known.split("Sort it:\tx") == Text("Sort it:", "\tx")
    for plain in ("Find:x", "Find: ", "Find:", " Find: x", "find: x", ""):
        assert known.split(plain) == Text("", plain)


def test_a_file_of_instructions(tmp_path: Path) -> None:
    file = tmp_path / "instructions.txt"
    file.write_text("Instruct: find\\nQuery:\n\nSort:\n", encoding="utf-8")
    assert read_instructions(file) == ["Instruct: find\nQuery:", "Sort:"]
    with pytest.raises(InputError, match="cannot be read"):
        read_instructions(tmp_path / "none")
    file.write_bytes("Wähle:".encode("latin-1"))
    with pytest.raises(InputError, match="line 1: .* not UTF-8"):
        read_instructions(file)


def test_mteb_s_instructions_are_those_of_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = ["Find it.", {"query": "Find it: "}, {"query": "Sort it", "document": "Never."}, "Why?"]
    tasks = [SimpleNamespace(metadata=SimpleNamespace(name=f"T{i}", prompt=each)) for i, each in enumerate(prompts)]
    monkeypatch.setitem(sys.modules, "mteb", SimpleNamespace(get_tasks=lambda: tasks))
    assert mteb_instructions() == ["Find it:", "Sort it:", "Why?:"]


def test_mteb_s_instructions_are_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path))
    monkeypatch.setattr(metadata, "version", lambda name: f"{name}-9")
    done = SimpleNamespace(returncode=0, stdout=as_lines(["Find it:", "One\nor two:"]), stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: done)
    assert of_mteb() == ["Find it:", "One\nor two:"]
    monkeypatch.setattr(subprocess, "run", None)  # nothing is run again
    assert of_mteb() == ["Find it:", "One\nor two:"]
    assert Settings(mteb_instructions=True).instructions()[DEFAULT].split("Find it: x") == Text("Find it:", " x")
    assert Settings().instructions()[DEFAULT].split("Find it: x") == Text("", "Find it: x")


def test_a_broken_mteb_is_an_error_and_none_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path))
    monkeypatch.setattr(metadata, "version", lambda name: "9")
    broken = SimpleNamespace(returncode=1, stdout="half", stderr="Traceback\nImportError: no torch\n")
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: broken)
    with pytest.raises(InputError, match="ImportError: no torch.*set mteb_instructions to false"):
        of_mteb()
    assert not list(tmp_path.rglob("*.txt"))

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert of_mteb() == []


def test_the_checkpoints_own_instruction_joins_the_operators() -> None:
    for told, own, query in (("A:", "B:", "A:"), (None, "B:", "B:"), ("", "B:", ""), ("A:", None, "A:")):
        both = Instructions(told, ["C:"]).with_own(own)
        assert both.query == query
        assert both.known == tuple(filter(None, (told, own, "C:", *DEFAULTS)))
