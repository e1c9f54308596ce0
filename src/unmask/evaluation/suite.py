"""A folder of data → tasks.

    suite/
      sts/NAME.tsv                score<TAB>sentence<TAB>sentence
      pairs/NAME.tsv              0/1<TAB>sentence<TAB>sentence
      classification/NAME/        train.tsv and test.tsv: label<TAB>text
      clustering/NAME.tsv         label<TAB>text
      retrieval/NAME/             corpus.jsonl, queries.jsonl, qrels.tsv
      tokens/                     sentences with tags a word: NAME.train.conll and NAME.test.conll, or NAME.conllu

NAME is the task's name; that of words has the column behind it, such as ``NAME POS``. What cannot be read costs its
own task, no other.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from unmask.errors import InputError, UnmaskError
from unmask.evaluation.kinds import classification, clustering, pairs, retrieval, sts, words
from unmask.evaluation.outcome import file_stem
from unmask.evaluation.tasks import Options, Task


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks of a folder.

    Attributes:
        tasks: in the order in which they are run.
        failed: names of tasks that cannot be run, and why.
        notes: what was left out, and why.
    """

    tasks: tuple[Task, ...]
    failed: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _tables(folder: Path) -> dict[str, Path]:
    """Return each file of rows by its task's name."""
    return {path.stem: path for path in _visible(folder) if path.is_file() and path.suffix == ".tsv"}


def _folders(folder: Path) -> dict[str, Path]:
    """Return each sub-folder by its task's name."""
    return {path.name: path for path in _visible(folder) if path.is_dir()}


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """How the folder of a kind is read.

    Attributes:
        read: from a path to its tasks.
        find: from the folder to the path of each task; None: ``read`` takes the folder, and names the tasks itself.
        expected: what ``find`` looks for.
    """

    read: Callable[[Path, Options], list[Task]]
    find: Callable[[Path], dict[str, Path]] | None
    expected: str = ""


_READERS: Final = {
    "sts": _Reader(read=sts.read, find=_tables, expected=".tsv"),
    "pairs": _Reader(read=pairs.read, find=_tables, expected=".tsv"),
    "classification": _Reader(read=classification.read, find=_folders, expected="folders"),
    "clustering": _Reader(read=clustering.read, find=_tables, expected=".tsv"),
    "retrieval": _Reader(read=retrieval.read, find=_folders, expected="folders"),
    "tokens": _Reader(read=words.read, find=None),
}


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A task found but not read: its name (that of the folder, where reading tells), and its data."""

    name: str
    path: Path
    reader: _Reader


def read_suite(folder: Path, options: Options | None = None, *, chosen: Sequence[str] = ()) -> Suite:
    """Find the tasks of a folder and read them.

    Args:
        folder: see above.
        options: how to read them.
        chosen: names of tasks, every one if there are none. A name that does not exist is a failed task.

    Raises:
        InputError: it is no folder, holds no task, two tasks have one name, or none of the chosen exists.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; expected a suite of tasks. Make an example: unmask eval --init {folder}"
        )
    sources, notes = _sources(folder)
    tasks, failed = _read(sources, options or Options(), set(chosen))
    _refuse_clashes([(task.name, file_stem(task.name)) for task in tasks])
    names = [*(source.name for source in sources if source.reader.find), *(task.name for task in tasks)]
    unknown = {name: _unknown(name, names) for name in chosen if name not in names}
    if chosen:
        tasks = [task for task in tasks if task.name in chosen]
        if not tasks and not failed:
            raise InputError(" ".join(unknown.values()))
    if not tasks and not failed:
        raise InputError(
            f"{folder} holds no task; expected data in folders called {', '.join(_READERS)}. "
            "See what they look like: unmask eval --init FOLDER"
        )
    return Suite(tasks=tuple(tasks), failed=failed | unknown, notes=tuple(notes))


def _sources(folder: Path) -> tuple[list[_Source], list[str]]:
    """Return the tasks of a folder, in the order of the kinds, and what is none."""
    sources: list[_Source] = []
    notes = [
        f"{path} is left out: no kind of task is called so; expected {', '.join(_READERS)}."
        + _nearest(path.name, _READERS)
        for path in _visible(folder)
        if path.is_dir() and path.name not in _READERS
    ]
    for kind, reader in _READERS.items():
        place = folder / kind
        if not place.is_dir():
            continue
        found = reader.find(place) if reader.find else {kind: place}
        sources += [_Source(name=name, path=path, reader=reader) for name, path in found.items()]
        if reader.find:
            notes += [
                f"{path} is left out; expected {reader.expected} in {place}."
                for path in _visible(place)
                if path not in found.values() and not path.name.startswith("README")
            ]
    _refuse_clashes([(str(source.path), file_stem(source.name)) for source in sources if source.reader.find])
    return sources, notes


def _read(sources: Sequence[_Source], options: Options, chosen: set[str]) -> tuple[list[Task], dict[str, str]]:
    """Return the tasks of the sources, of the chosen ones if there are any, and what could not be read."""
    tasks: list[Task] = []
    failed: dict[str, str] = {}
    told_apart = {source.name for source in sources if source.reader.find}
    for source in sources:
        # A folder that names its tasks itself has to be read where a name might be one of its.
        wanted = source.name in chosen if source.reader.find else bool(chosen - told_apart)
        if chosen and not wanted:
            continue
        try:
            tasks += source.reader.read(source.path, options)
        except UnmaskError as error:
            failed[source.name] = str(error)
    return tasks, failed


def _refuse_clashes(named: Iterable[tuple[str, str]]) -> None:
    """Raise :class:`InputError` if two of the first have the same second."""
    seen: dict[str, str] = {}
    for what, name in named:
        if name in seen:
            raise InputError(
                f"{seen[name]} and {what} are both a task called {name!r}; expected a name for each. Rename one."
            )
        seen[name] = what


def _unknown(name: str, names: Sequence[str]) -> str:
    listed = ", ".join(dict.fromkeys(names)) or "none"
    return f"There is no task {name!r}; expected some of: {listed}.{_nearest(name, names)}"


def _nearest(name: str, names: Iterable[str]) -> str:
    """Return a question that proposes the names most like ``name``, nothing if none is."""
    by_folded = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(by_folded[each] for each in near)}?" if near else ""


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
