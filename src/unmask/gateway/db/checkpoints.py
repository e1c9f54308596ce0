"""SQLite's log put on the disk and into the database file, aside from the writer.

SQLite would do it within a commit, every 1000 pages: tens of milliseconds in which every request waits. A thread with
a connection of its own does nearly all of it meanwhile; what is left to the writer, once the log is large, is to begin
the log anew.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from sqlalchemy import URL

from unmask.gateway.db.backends import Backend
from unmask.gateway.db.errors import DatabaseUnavailableError
from unmask.gateway.db.link import Link

_log = logging.getLogger(__name__)

#: Seconds between two flushes, and so the most that a power cut takes back.
FLUSH_SECONDS: Final = 1.0


class Checkpointer:
    """The thread that flushes; none for a database that does so itself.

    Args:
        url: of the database.
        backend: that drives it.
    """

    def __init__(self, url: URL, backend: Backend) -> None:
        self._link = Link(url, backend)
        self._dirty = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if backend.flush is not None:
            self._thread = threading.Thread(
                target=self._work, args=(backend.flush,), name="gateway-checkpoints", daemon=True
            )
            self._thread.start()

    def wrote(self) -> None:
        """Say that there is something to flush."""
        self._dirty = True

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self, statement: str) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            if self._dirty:
                self._dirty = False
                self._flush(statement)
        self._link.close()

    def _flush(self, statement: str) -> None:
        try:
            self._link.run(statement)
        except DatabaseUnavailableError as error:
            self._dirty = True
            _log.warning("the log was not flushed: %s", error)
