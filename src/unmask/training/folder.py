"""Whose folder it is: a run is begun where nothing is, and gone on with only as what it was begun as."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from unmask.errors import InputError
from unmask.hub.cache import atomic_file
from unmask.training.checkpoints import writing
from unmask.training.sts import StsFile

RECIPE: Final = "recipe.json"
OPTIONS: Final = "options.json"
DONE: Final = "done.json"
_DATA: Final = "data.json"
_LOCK: Final = ".lock"


@contextmanager
def claim(folder: Path, begun_as: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """Hold the folder of a run while the block lasts: a new one, or that of the run to go on with.

    What a killed run left half-written is removed.

    Args:
        folder: of the run.
        begun_as: names of JSON files in it, and what they hold: all that must stay as it is. With the last one
            the folder is a run.
        resume: go on with the run in it.

    Raises:
        InputError: the folder is taken, or holds no run, or one that was begun otherwise or goes on elsewhere.
    """
    free = is_free(folder)
    if free and resume:
        raise InputError(f"{folder} holds no run to go on with. Leave out --resume to begin one there.")
    if not free and not resume:
        raise InputError(f"{folder} exists already. Give another folder, or --resume to go on with the run in it.")
    if not free:
        _refuse_changes(folder, begun_as)
    with _alone(folder):
        _clear(folder)
        if free:
            for name, content in begun_as.items():
                write_json(folder / name, content)
        yield


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, made with it; the system takes the lock back from a process that ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}); expected a place where you may write. Choose another one."
        ) from error
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise InputError(
                f"{folder} is a run that goes on in another process; expected one that has stopped. Wait for its end, "
                "or stop it."
            ) from error
        except OSError:
            pass  # a network file system without locks, on which one may train all the same
        yield


def _refuse_changes(folder: Path, begun_as: Mapping[str, Any]) -> None:
    for name, content in begun_as.items():
        before = read_json(folder / name)
        if changed := sorted(_changed(before, json.loads(json.dumps(content)))):
            raise InputError(
                f"{folder} is a run of other settings: {'; '.join(changed)}. Resume with the same ones, or start in "
                "another folder."
            )


def is_free(folder: Path) -> bool:
    """Return whether a run can begin in ``folder``: there is nothing, or what a run killed at once left."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    return all(path.name in (_LOCK, OPTIONS) or path.name.startswith(".part-") for path in folder.iterdir())


def is_done(place: Path) -> bool:
    """Return whether the stage in ``place`` has come to its end."""
    return (place / DONE).is_file()


def same_data(place: Path, report: Mapping[str, Any]) -> None:
    """Keep what a stage's data is, or see that it is what it was.

    Raises:
        InputError: it is not.
    """
    file = place / _DATA
    if not file.is_file():
        write_json(file, report)
    elif read_json(file) != json.loads(json.dumps(report)):
        raise InputError(
            f"The data of {place} is no longer what it was begun with. Put it back, or start in another folder."
        )


def digest(sts: StsFile | None) -> str | None:
    """Return what tells scored pairs from others."""
    return None if sts is None else hashlib.sha256(repr((sts.gold, sts.left, sts.right)).encode()).hexdigest()[:16]


def write_json(file: Path, content: Any) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        TrainingError: it cannot be written.
    """
    with writing(file), atomic_file(file, replace=True) as draft:
        draft.write_text(json.dumps(content, indent=2), encoding="utf-8")


def read_json(file: Path) -> Any:
    """Read a file of a run.

    Raises:
        InputError: it is not there, or damaged.
    """
    if not file.is_file():
        raise InputError(f"{file} is not there, so {file.parent} is no run that can be gone on with. Give another.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is damaged: {error}. Start in another folder.") from error


def _changed(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield each setting that differs, ``simcse.lora.rank was 8, is 16``."""
    if isinstance(before, dict) and isinstance(now, dict):
        # Stages are called by their kinds, as on the command line.
        own = now.get("kind", name)
        for key in sorted(before.keys() | now.keys()):
            yield from _changed(before.get(key), now.get(key), f"{own}.{key}" if own else key)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, pair in enumerate(zip(before, now, strict=True)):
            yield from _changed(*pair, f"{name}[{number}]")
    elif before != now:
        yield f"{name} was {json.dumps(before)[:60]}, is {json.dumps(now)[:60]}"


def _clear(folder: Path) -> None:
    """Remove what a killed run had half-written, and checkpoints that are no longer needed."""
    for pattern in (".part-*", "*/.part-*", "*/checkpoints/.part-*"):
        for draft in folder.glob(pattern):
            if draft.is_dir():
                shutil.rmtree(draft)
            else:
                draft.unlink()
    for done in folder.glob(f"*/{DONE}"):
        shutil.rmtree(done.parent / "checkpoints", ignore_errors=True)
