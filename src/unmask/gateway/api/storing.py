"""Things that outlive a power cut: files written whole or not at all, owned things, a folder that one process owns."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Generic, TypeVar

from pydantic import BaseModel

from unmask.errors import InputError
from unmask.gateway.api.errors import NotFoundError

_DRAFT: Final = ".draft"


class Thing(BaseModel):
    """Something that a caller owns, and that lists hold by its time."""

    id: str
    created_at: int


T = TypeVar("T", bound=Thing)


class Owned(BaseModel, Generic[T]):
    """What the JSON of a thing holds.

    Attributes:
        owner: whose it is.
        payer: who pays for the work on it; None where there is none.
        thing: as its owner sees it.
    """

    owner: str
    payer: str | None = None
    thing: T


class Shelf(Generic[T]):
    """Things of callers, each in a JSON file ``ID.json`` of a folder, and in memory.

    Args:
        folder: made if it is not there.
        kind: of the JSON: ``Owned[…]``.
        missing: what a caller is told who asks for a thing that is not there, with ``{id}`` for its name.
    """

    def __init__(self, folder: Path, kind: type[Owned[T]], missing: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._kind, self._missing = folder, kind, missing
        kept = [kind.model_validate_json(path.read_bytes()) for path in folder.glob("*.json")]
        self._kept = {each.thing.id: each for each in kept}

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    def __getitem__(self, name: str) -> Owned[T]:
        """Return a thing that is there, whoever's it is."""
        return self._kept[name]

    def get(self, name: str, owner: str) -> T:
        """Return a thing of an owner.

        Raises:
            NotFoundError: the owner has none of this name.
        """
        kept = self._kept.get(name)
        if kept is None or kept.owner != owner:
            raise NotFoundError(self._missing.format(id=repr(name[:64])), param="id")
        return kept.thing

    def all(self) -> list[Owned[T]]:
        """Return all things, the oldest first."""
        return _oldest_first(self._kept.values())

    def of(self, owner: str) -> list[T]:
        """Return an owner's things, the oldest first."""
        # First a list: other threads put things onto the shelf meanwhile.
        return [kept.thing for kept in _oldest_first(kept for kept in list(self._kept.values()) if kept.owner == owner)]

    def put(self, owner: str, thing: T, payer: str | None = None) -> None:
        """Keep a thing, in the place of an older one of its name.

        Args:
            owner: whose it is.
            thing: to be kept.
            payer: who pays for the work on it; None: as before.

        Raises:
            OSError: it cannot be written; what was kept is kept on.
        """
        if payer is None and (before := self._kept.get(thing.id)):
            payer = before.payer
        kept = self._kind(owner=owner, payer=payer, thing=thing)
        with whole_file(self._folder / f"{thing.id}.json") as file:
            file.write(kept.model_dump_json().encode())
        self._kept[thing.id] = kept

    def drop(self, name: str) -> None:
        """Keep a thing no more."""
        del self._kept[name]
        (self._folder / f"{name}.json").unlink()


def _oldest_first(kept: Iterable[Owned[T]]) -> list[Owned[T]]:
    return sorted(kept, key=lambda each: (each.thing.created_at, each.thing.id))


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
