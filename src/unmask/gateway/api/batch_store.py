"""Batches on the disk: what each is, and which of its requests are answered.

``ID.json`` is the batch as its owner sees it. Answers are lines appended to the bytes of the files that the batch is
going to have, and count as given when they are on the disk: after a crash a batch goes on with the requests whose
``custom_id`` is in neither file.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import orjson

from unmask.gateway.api.batch_schemas import ENDED, BatchError, BatchErrors, BatchObject, BatchRequest, Status
from unmask.gateway.api.file_store import FileStore, synced_append
from unmask.gateway.api.storing import Owned, Shelf, whole_file

#: Seconds of the one completion window there is, 24h.
WINDOW_SECONDS: Final = 86_400
#: Kept free for each running batch, so that its end can be written on a disk that is full.
_RESERVE: Final = bytes(65_536)
#: Errors of a failed batch that are listed.
_LISTED: Final = 100
_MISSING: Final = "There is no batch {id}. They are listed by GET /v1/batches."


class BatchStore:
    """The batches in a folder.

    Args:
        folder: made if it is not there.
        files: where their files are.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path, files: FileStore, clock: Callable[[], float] = time.time) -> None:
        self._batches = Shelf(folder, Owned[BatchObject], _MISSING)
        self.files = files
        self._folder = folder
        self._clock = clock
        files.sweep([name for batch in self.unfinished() for name in file_ids(batch.id)])

    def add(self, request: BatchRequest, owner: str, payer: str) -> BatchObject:
        """Keep a new batch.

        Args:
            request: what it is.
            owner: whose it is.
            payer: as :meth:`unmask.gateway.api.access.Access.resume` takes it.

        Raises:
            NotFoundError: the owner has no such input file.
            OSError: it cannot be written.
        """
        self.files.get(request.input_file_id, owner)
        now = int(self._clock())
        batch = BatchObject(
            id=f"batch_{uuid.uuid4().hex}",
            endpoint=request.endpoint,
            input_file_id=request.input_file_id,
            completion_window=request.completion_window,
            status="validating",
            created_at=now,
            expires_at=now + WINDOW_SECONDS,
            metadata=request.metadata,
        )
        with whole_file(self._reserve(batch.id)) as file:
            file.write(_RESERVE)
        self._batches.put(owner, batch, payer)
        return batch

    def get(self, batch_id: str, owner: str) -> BatchObject:
        """Return a batch.

        Raises:
            NotFoundError: the owner has none of this name.
        """
        return self._batches.get(batch_id, owner)

    def of(self, owner: str) -> list[BatchObject]:
        """Return an owner's batches, the oldest first."""
        return self._batches.of(owner)

    def owner(self, batch_id: str) -> str:
        """Return whose a batch is."""
        return self._batches[batch_id].owner

    def payer(self, batch_id: str) -> str:
        """Return who pays for a batch."""
        kept = self._batches[batch_id]
        return kept.owner if kept.payer is None else kept.payer

    def current(self, batch_id: str) -> BatchObject:
        """Return a batch as it is now, whoever's it is."""
        return self._batches[batch_id].thing

    def unfinished(self) -> list[BatchObject]:
        """Return the batches that have not ended, the oldest first."""
        return [kept.thing for kept in self._batches.all() if kept.thing.status not in ENDED]

    def move(self, batch_id: str, status: Status, **changes: Any) -> None:
        """Bring a batch to a status, on the disk first.

        Args:
            batch_id: of the batch.
            status: to come to.
            changes: of its other fields.

        Raises:
            OSError: it cannot be written; the batch is as it was.
        """
        changes |= {"status": status, f"{status}_at": int(self._clock())}
        self._batches.put(self.owner(batch_id), self.current(batch_id).model_copy(update=changes))

    def finish(self, batch_id: str, status: Status, errors: Iterable[BatchError] = ()) -> None:
        """End a batch: what was answered becomes its files.

        Raises:
            OSError: even the space kept free does not suffice.
        """
        self._reserve(batch_id).unlink(missing_ok=True)
        output, failed = (
            self._publish(batch_id, file_id, kind)
            for file_id, kind in zip(file_ids(batch_id), ("output", "errors"), strict=True)
        )
        listed = list(errors)[:_LISTED]
        told = BatchErrors(data=listed) if listed else None
        self.move(batch_id, status, output_file_id=output, error_file_id=failed, errors=told)

    def note(self, batch_id: str, status: Status, errors: list[BatchError]) -> None:
        """Bring a batch to a status in memory alone: the disk takes nothing more."""
        changes = {"status": status, "errors": BatchErrors(data=errors)}
        self._batches[batch_id].thing = self.current(batch_id).model_copy(update=changes)

    def _publish(self, batch_id: str, file_id: str, kind: str) -> str | None:
        data = self.files.data(file_id)
        if not data.exists() or not data.stat().st_size:
            data.unlink(missing_ok=True)
            return None
        name = f"{batch_id}_{kind}.jsonl"
        return self.files.publish(file_id, filename=name, owner=self.owner(batch_id), purpose="batch_output").id

    def _reserve(self, batch_id: str) -> Path:
        return self._folder / f"{batch_id}.reserve"


def file_ids(batch_id: str) -> tuple[str, str]:
    """Return the ids of a batch's output and error files, which it has from the start."""
    number = batch_id.removeprefix("batch_")
    return f"file-{number}o", f"file-{number}e"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A request of a batch, answered.

    Attributes:
        custom_id: of the request.
        good: whether it belongs to the output, not to the errors.
        text: the line, its end included.
    """

    custom_id: str
    good: bool
    text: bytes


class Answers:
    """The answers of a batch on the disk, to be added to.

    Opening cuts off the last line of a write that a crash interrupted.
    """

    def __init__(self, store: BatchStore, batch_id: str) -> None:
        self.done: set[str] = set()
        self.counts = [0, 0]
        self._files: list[IO[bytes]] = []
        for number, file_id in enumerate(file_ids(batch_id)):
            file = store.files.data(file_id).open("a+b")
            self._files.append(file)
            self._recover(number, file)

    def _recover(self, number: int, file: IO[bytes]) -> None:
        file.seek(0)
        whole = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            self.done.add(orjson.loads(line)["custom_id"])
            self.counts[number] += 1
        os.ftruncate(file.fileno(), whole)
        os.fsync(file.fileno())

    def add(self, lines: Iterable[Line]) -> None:
        """Put answers on the disk; they count from then on.

        Raises:
            OSError: they cannot be written; the files are as they were, or hold the good ones.
        """
        given = list(lines)
        for number, good in enumerate((True, False)):
            chosen = [line for line in given if line.good is good]
            if chosen:
                synced_append(self._files[number], b"".join(line.text for line in chosen))
                self.done.update(line.custom_id for line in chosen)
                self.counts[number] += len(chosen)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
