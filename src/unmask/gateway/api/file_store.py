"""Files of callers on the disk: ``ID.data`` holds the bytes, ``ID.json`` says whose they are. No JSON, no file.

A batch's output is written to ``ID.data`` while it runs, and becomes a file when its JSON appears.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Final, Literal

from unmask.gateway.api.batch_schemas import FileObject
from unmask.gateway.api.storing import Owned, Shelf, sync_folder, whole_file

_MISSING: Final = "There is no file {id}. Files are listed by GET /v1/files."


class FileStore:
    """The files in a folder.

    Args:
        folder: made if it is not there.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._files = Shelf(folder, Owned[FileObject], _MISSING)
        self._folder = folder
        self._clock = clock

    def sweep(self, written: Collection[str]) -> None:
        """Delete bytes that are no file's, but for those that are still ``written``."""
        for path in self._folder.glob("*.data"):
            if path.stem not in self._files and path.stem not in written:
                path.unlink()

    def data(self, file_id: str) -> Path:
        """Return where a file's bytes lie, or would."""
        return self._folder / f"{file_id}.data"

    def add(self, source: IO[bytes], *, filename: str, owner: str) -> FileObject:
        """Keep an uploaded file.

        Raises:
            OSError: it cannot be written; nothing is left of it.
        """
        file_id = f"file-{uuid.uuid4().hex}"
        path = self.data(file_id)
        try:
            with whole_file(path) as target:
                shutil.copyfileobj(source, target)
            return self.publish(file_id, filename=filename, owner=owner, purpose="batch")
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def publish(
        self, file_id: str, *, filename: str, owner: str, purpose: Literal["batch", "batch_output"]
    ) -> FileObject:
        """Make a file of bytes that lie there.

        Raises:
            OSError: it cannot be written.
        """
        size = self.data(file_id).stat().st_size
        file = FileObject(id=file_id, bytes=size, created_at=int(self._clock()), filename=filename, purpose=purpose)
        self._files.put(owner, file)
        return file

    def get(self, file_id: str, owner: str) -> FileObject:
        """Return a file.

        Raises:
            NotFoundError: the owner has none of this name.
        """
        return self._files.get(file_id, owner)

    def of(self, owner: str) -> list[FileObject]:
        """Return an owner's files, the oldest first."""
        return self._files.of(owner)

    def delete(self, file_id: str, owner: str) -> None:
        """Delete a file; whoever is reading it reads on.

        Raises:
            NotFoundError: the owner has none of this name.
        """
        self.get(file_id, owner)
        # The JSON first: bytes without it are swept away, JSON without bytes would be a broken file.
        self._files.drop(file_id)
        self.data(file_id).unlink(missing_ok=True)
        sync_folder(self._folder)


def synced_append(file: IO[bytes], lines: bytes) -> None:
    """Append lines and see them on the disk, or leave the file as it was.

    Raises:
        OSError: the lines cannot be written.
    """
    end = file.seek(0, os.SEEK_END)
    try:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        os.ftruncate(file.fileno(), end)
        raise
