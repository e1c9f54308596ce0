"""Where Unmask keeps what it fetched, and folders and files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unmask.errors import InputError


def home() -> Path:
    """Return the folder for what Unmask fetched and converted, read from the environment at each call.

    It is ``UNMASK_HOME`` if set, else ``unmask`` in ``XDG_CACHE_HOME``, else ``~/.cache/unmask``. The
    folder need not exist yet.
    """
    if own := os.environ.get("UNMASK_HOME"):
        return Path(own).expanduser().absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification: a relative path there is to be ignored.
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "unmask"


@contextmanager
def atomic_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that becomes ``target`` if the block succeeds.

    If the block raises, Ctrl-C included, nothing of it stays and ``target`` is as it was.

    Args:
        target: the folder to write; its parents are made, and stay.
        replace: whether an existing folder may be replaced, with everything in it.

    Raises:
        InputError: ``target`` exists and ``replace`` is False, it is not a folder, or nothing can be
            written there.
    """
    final = target.resolve()
    _refuse_existing(target, replace=replace)
    if final.exists() and not final.is_dir():
        raise InputError(f"{target} is a file; expected a folder to replace. Choose another folder.")
    draft = _draft_of(final)
    try:
        _make(draft, target)
        yield draft
        _refuse_existing(target, replace=replace)  # someone else may have been quicker
        _move_folder(draft, final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextmanager
def atomic_file(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield the path of a file to write, beside ``target``, that becomes ``target`` if the block succeeds.

    The file does not exist yet; its name ends like ``target``'s. If the block raises, Ctrl-C included,
    nothing of it stays and ``target`` is as it was.

    Args:
        target: the file to write; its parents are made, and stay.
        replace: whether an existing file may be replaced.

    Raises:
        InputError: ``target`` exists and ``replace`` is False, it is a folder, or its folder cannot be made.
    """
    final = target.resolve()
    _refuse_existing(target, replace=replace)
    if final.is_dir():
        raise InputError(f"{target} is a folder; expected a file to write. Name a file in it.")
    _make(final.parent, target)
    draft = _draft_of(final)
    try:
        yield draft
        _refuse_existing(target, replace=replace)
        draft.replace(final)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _refuse_existing(target: Path, *, replace: bool) -> None:
    if not replace and target.exists():
        raise InputError(
            f"{target} exists already; expected a path where nothing is yet. Choose another one, remove it, "
            "or ask for it to be replaced."
        )


def _draft_of(final: Path) -> Path:
    """Return a free path beside ``final``, on the same file system, hidden, with the same ending."""
    return final.with_name(f".part-{secrets.token_hex(4)}-{final.name}")


def _make(folder: Path, target: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}); expected a place where you may write. Choose another one."
        ) from error


def _move_folder(draft: Path, final: Path) -> None:
    """Put ``draft`` in the place of ``final``; a folder already there is restored if that fails."""
    if not final.exists():
        draft.rename(final)
        return
    old = _draft_of(final)
    final.rename(old)
    try:
        draft.rename(final)
    except BaseException:
        old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
