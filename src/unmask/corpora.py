"""Real texts that every machine has: the docstrings of the running Python's standard library."""

from __future__ import annotations

import ast
import hashlib
import inspect
import itertools
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TypeVar

from unmask.hub.cache import atomic_file, home

#: Folders of the library that hold no library: tests, applications, what others installed, test data.
_SKIPPED: Final = frozenset({
    "test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data", "site-packages",
    "dist-packages", "__pycache__",
})  # fmt: skip
#: Left out of the demonstration: what is gone from newer Pythons, and what hardly anybody asks about.
_ASIDE: Final = frozenset({
    "antigravity", "bdb", "curses", "dbm", "distutils", "doctest", "encodings", "imghdr", "importlib", "mailbox",
    "msilib", "pdb", "pickletools", "pydoc", "site", "sndhdr", "this", "tkinter", "turtle", "unittest", "wsgiref",
    "xdrlib", "xmlrpc",
})  # fmt: skip
#: Characters of a document.
_DOCUMENT: Final = 200
#: Raise it when the rules below change: corpora kept by an earlier release are then made anew.
_RULES: Final = 1

_T = TypeVar("_T")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing of the library and what it says of itself.

    Attributes:
        name: its dotted name, such as ``gzip.compress``.
        text: first paragraph of its docstring, on one line.
    """

    name: str
    text: str

    @property
    def document(self) -> str:
        """Return name and text as one string of about 48 tokens at most, to be searched for."""
        whole = f"{self.name}: {self.text}"
        return whole if len(whole) <= _DOCUMENT else whole[:_DOCUMENT].rpartition(" ")[0] + " …"


def stdlib_docstrings(*, keep: bool = False) -> list[Entry]:
    """Return public modules, classes and functions of the standard library with their docstrings.

    The sources are parsed, never imported. Where two have the same text, the shorter name stays.
    Sorted by name; the same on each run of the same Python.

    Args:
        keep: keep the result in the cache folder, where the next call finds it: parsing takes seconds.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(_sources(root))
    kept = home() / "corpora" / f"stdlib-{_fingerprint(root, files)}.json"
    if keep and kept.is_file():
        return [Entry(**entry) for entry in json.loads(kept.read_text(encoding="utf-8"))]
    found = itertools.chain.from_iterable(_entries_of(file, _module_name(root, file)) for file in files)
    entries = _deduplicated(found)
    if keep:
        with atomic_file(kept, replace=True) as draft:
            draft.write_text(json.dumps([asdict(entry) for entry in entries]), encoding="utf-8")
    return entries


def demo_entries(count: int = 1700) -> list[Entry]:
    """Return at most ``count`` entries for a demonstration, the same on each run, spread over the library.

    They are kept as :func:`stdlib_docstrings` says.
    """
    entries = [entry for entry in stdlib_docstrings(keep=True) if entry.name.partition(".")[0] not in _ASIDE]
    # A module says most about what the library is for; classes and functions follow while there is room.
    modules = {entry.name.rpartition(".")[0] for entry in entries}
    first = [entry for entry in entries if entry.name in modules or "." not in entry.name]
    rest = [entry for entry in entries if entry not in first]
    chosen = first[:count] + _spread(rest, min(len(rest), max(0, count - len(first))))
    return sorted(chosen, key=lambda entry: entry.name)


def short_mix(entries: Sequence[Entry], count: int) -> list[str]:
    """Return ``count`` texts of about a sentence, 10 to 40 words each, spread over the entries."""
    fitting = [entry.text for entry in entries if 10 <= len(entry.text.split()) <= 40]
    return _spread(fitting, count)


def long_mix(entries: Sequence[Entry], count: int, *, words: int = 90) -> list[str]:
    """Return ``count`` texts of about a paragraph: neighbouring entries joined up to ``words`` words or a bit more."""
    texts: list[str] = []
    collected: list[str] = []
    for entry in entries:
        collected += entry.text.split()
        if len(collected) >= words:
            texts.append(" ".join(collected[: words + words // 4]))
            collected = []
    return _spread(texts, count)


def _spread(texts: Sequence[_T], count: int) -> list[_T]:
    """Return ``count`` of ``texts`` at equal distances; from the start again where there are too few."""
    if count <= len(texts):
        return [texts[i * len(texts) // count] for i in range(count)]
    return list(itertools.islice(itertools.cycle(texts), count))


def _sources(root: Path) -> Iterator[Path]:
    for path in root.iterdir():
        if path.is_dir() and path.name not in _SKIPPED and not path.name.startswith(("_", "config-", ".")):
            yield from _sources(path)
        elif path.suffix == ".py" and (not path.name.startswith("_") or path.name == "__init__.py"):
            yield path


def _fingerprint(root: Path, files: Sequence[Path]) -> str:
    stats = [(file.relative_to(root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr((_RULES, sys.version, stats)).encode()).hexdigest()[:16]


def _module_name(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _entries_of(file: Path, module: str) -> Iterator[Entry]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in someone else's source are no concern of ours
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # templates and files of another Python lie about, too
        return
    yield from _entries(tree, module)


def _entries(node: ast.Module | _Definition, name: str) -> Iterator[Entry]:
    """Yield the entry of a module and those of its public classes and functions."""
    docstring = ast.get_docstring(node, clean=False)
    if text := _first_paragraph(docstring or ""):
        yield Entry(name, text)
    if isinstance(node, ast.Module):
        for child in node.body:
            if isinstance(child, _Definition) and not child.name.startswith("_"):
                yield from _entries(child, f"{name}.{child.name}")


def _first_paragraph(docstring: str) -> str:
    """Return the first paragraph on one line; nothing if it says nothing (no letters, one word)."""
    paragraph = inspect.cleandoc(docstring).split("\n\n")[0]
    words = paragraph.split()
    return " ".join(words) if len(words) > 1 and any(word.isalpha() for word in words) else ""


def _deduplicated(entries: Iterator[Entry]) -> list[Entry]:
    chosen: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: (len(entry.name), entry.name)):
        chosen.setdefault(entry.text, entry)
    return sorted(chosen.values(), key=lambda entry: entry.name)
