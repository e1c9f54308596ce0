"""The corpus that every machine has: real, large enough, and the same on each run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unmask import corpora
from unmask.corpora import Entry, demo_entries, long_mix, short_mix, stdlib_docstrings


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return stdlib_docstrings()


def test_there_are_many_sorted_and_different(entries: list[Entry]) -> None:
    assert len(entries) >= 1500
    names, texts = [entry.name for entry in entries], [entry.text for entry in entries]
    assert names == sorted(set(names))
    assert len(set(texts)) == len(texts)
    assert all(text == " ".join(text.split()) and len(text.split()) > 1 for text in texts)
    by_name = {entry.name: entry.text for entry in entries}
    assert by_name["gzip.compress"].startswith("Compress data in one shot and return the compressed string.")
    assert {"json", "shutil.rmtree", "argparse.ArgumentParser"} <= by_name.keys()


def test_nothing_private_tested_or_installed_is_among_them(entries: list[Entry]) -> None:
    assert not any(part.startswith("_") for entry in entries for part in entry.name.split("."))
    assert not {entry.name.partition(".")[0] for entry in entries} & {
        "test",
        "tests",
        "idlelib",
        "lib2to3",
        "numpy",
        "pip",
    }


def test_nothing_is_imported() -> None:
    before = set(sys.modules)
    stdlib_docstrings()
    assert set(sys.modules) - before <= {"ast"}


def test_sources_are_parsed_not_believed(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(
        '"""A module.\n\nMore."""\ndef f():\n    """Do  a\n    thing."""\nclass _C:\n    "No no."\n'
    )
    (tmp_path / "bad.py").write_text("def (")
    (tmp_path / "odd.py").write_bytes(b"\0")
    found = [entry for name in ("good", "bad", "odd") for entry in corpora._entries_of(tmp_path / f"{name}.py", name)]
    assert found == [Entry("good", "A module."), Entry("good.f", "Do a thing.")]


def test_kept_entries_are_the_same(entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(tmp_path))
    assert stdlib_docstrings(keep=True) == entries
    monkeypatch.setattr(corpora, "_entries_of", None)
    assert stdlib_docstrings(keep=True) == entries
    demo = demo_entries()
    assert 1500 <= len(demo) <= 1700
    assert demo == demo_entries()
    assert max(len(entry.document) for entry in demo) <= 202


def test_mixes_have_the_length_they_promise(entries: list[Entry]) -> None:
    short, long = short_mix(entries, 512), long_mix(entries, 128)
    assert (len(short), len(long)) == (512, 128)
    assert all(10 <= len(text.split()) <= 40 for text in short)
    assert all(90 <= len(text.split()) <= 112 for text in long)
    assert len(short_mix(entries[:50], 200)) == 200
