"""An open database: one writer, a few readers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self, TypeVar

from unmask.gateway.db.backends import parse_url
from unmask.gateway.db.errors import DatabaseUnavailableError
from unmask.gateway.db.link import Link
from unmask.gateway.db.migrating import prepare
from unmask.gateway.db.statements import Transaction
from unmask.gateway.db.writer import Writer

_READERS: Final = 2

T = TypeVar("T")


class Database:
    """The gateway's database, of one process and one event loop.

    A database without tables gets them; one of another version is refused, for its operator decides when to migrate.

    Args:
        url: ``sqlite:///FILE``, which is made if it is not there, or ``postgresql://USER@HOST/NAME``.
        always_durable: whether all that is written outlives a power cut, at a wait for the disk (see ``writer.py``).

    Raises:
        InputError: the URL cannot be used.
        SchemaError: the tables are of another version.
        DatabaseUnavailableError: it cannot be reached.
    """

    def __init__(self, url: str, *, always_durable: bool = False) -> None:
        self._url, self._backend = parse_url(url)
        prepare(url)
        self._writer = Writer(self._url, self._backend, always_durable=always_durable)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="gateway-reader")
        self._local = threading.local()
        self._links: list[Link] = []

    @property
    def kind(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._backend.name

    async def write(
        self, run: Callable[[Transaction], T], *, user: int | None = None, durable: bool = False, hurry: bool = True
    ) -> T:
        """Have an operation done; see :meth:`Writer.write`."""
        return await self._writer.write(run, user=user, durable=durable, hurry=hurry)

    async def read(self, run: Callable[[Transaction], T]) -> T:
        """Return what a function reads in one transaction: one state of the database, however long it takes.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        try:
            future = asyncio.get_running_loop().run_in_executor(self._readers, self._read, run)
        except RuntimeError as error:
            raise DatabaseUnavailableError("The database is closed. Nothing was read.") from error
        return await future

    async def close(self) -> None:
        """Do what waits to be written, then close every connection."""
        await self._writer.close()
        await asyncio.get_running_loop().run_in_executor(None, self._readers.shutdown)
        for link in self._links:
            link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _read(self, run: Callable[[Transaction], T]) -> T:
        link = getattr(self._local, "link", None)
        if link is None:
            link = self._local.link = Link(self._url, self._backend)
            self._links.append(link)
        transaction = link.run(self._backend.begin_read)
        try:
            found = run(transaction)
            link.commit()
        except BaseException as error:
            link.undo()
            if isinstance(error, self._backend.failures):
                raise link.unavailable(error) from error
            raise
        return found
