"""Files that outlive a power cut: written whole or not at all, and a folder that one process owns."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from unmask.errors import InputError

_DRAFT: Final = ".draft"


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder are on the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to be written that appears under its name when the block ends, and not at all if that fails.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    draft = path.with_name(path.name + _DRAFT)
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def own_folder(folder: Path) -> IO[bytes]:
    """Make a folder this process's own, for as long as the file that is returned is open.

    Raises:
        InputError: it cannot be written, or another process owns it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("wb")
    except OSError as error:
        raise InputError(
            f"The data folder {folder} cannot be written: {error.strerror or error}. Choose another with --data."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise InputError(
            f"The data folder {folder} is another server's, which still runs. Stop it, or choose another with --data."
        ) from error
    for draft in folder.rglob(f"*{_DRAFT}"):
        draft.unlink()
    return lock
