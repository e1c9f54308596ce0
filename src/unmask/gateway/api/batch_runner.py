"""Batches at work, in the background of the engine that answers everybody else.

What a batch has come to lies on the disk, so that a server that is stopped, or killed, goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from unmask.errors import StoppingError
from unmask.gateway.api.access import Access
from unmask.gateway.api.batch_lines import check_requests
from unmask.gateway.api.batch_schemas import ENDED, BatchError, BatchObject, Status
from unmask.gateway.api.batch_store import BatchStore
from unmask.gateway.api.batch_work import UNDONE, BatchWork, to_the_end
from unmask.gateway.api.embeddings import Embeddings
from unmask.gateway.api.errors import RequestError, is_full_disk

_log: Final = logging.getLogger("unmask.batches")

#: Batches that run at a time; others wait for their turn.
_JOBS: Final = 4


class BatchRunner:
    """Runs batches.

    Args:
        store: where they are.
        embeddings: answers their requests.
        access: lets their requests in.
        clock: seconds since 1970.
    """

    def __init__(
        self, store: BatchStore, embeddings: Embeddings, access: Access, clock: Callable[[], float] = time.time
    ) -> None:
        self.store = store
        self._embeddings = embeddings
        self._access = access
        self._clock = clock
        self._turn = asyncio.Semaphore(_JOBS)
        # Whoever moves a batch looks first where it is, and nobody else moves it meanwhile.
        self._moving = asyncio.Lock()
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._work: dict[str, asyncio.Task[Status]] = {}

    def start(self) -> None:
        """Go on with every batch that has not ended."""
        for batch in self.store.unfinished():
            self.submit(batch.id)

    def submit(self, batch_id: str) -> None:
        """Run a batch, or go on with it."""
        job = asyncio.create_task(self._run(batch_id), name=f"batch {batch_id}")
        self._jobs[batch_id] = job
        job.add_done_callback(lambda _: self._jobs.pop(batch_id, None))

    async def cancel(self, batch: BatchObject) -> BatchObject:
        """Cancel a batch; what is answered stays.

        Raises:
            RequestError: it has ended.
        """
        async with self._moving:
            status = self.store.current(batch.id).status
            if status in ENDED:
                raise RequestError(f"The batch is {status}; only one that has not ended can be cancelled.")
            if status in ("validating", "in_progress"):
                await to_the_end(self.store.move, batch.id, "cancelling")
        if work := self._work.get(batch.id):
            work.cancel()
        return self.store.current(batch.id)

    async def stop(self) -> None:
        """Stop; every batch stays as it is on the disk, to be gone on with."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def running(self) -> int:
        """Return how many batches have not ended."""
        return len(self._jobs)

    async def _run(self, batch_id: str) -> None:
        async with self._turn:
            try:
                await self._carry_out(batch_id)
            except StoppingError:
                return
            except Exception as error:  # noqa: BLE001 - a batch that fails must not take the server with it
                full = is_full_disk(error)
                _log.error("batch failed", extra={"fields": {"batch": batch_id}}, exc_info=None if full else error)
                told = BatchError(
                    code="storage_full" if full else "internal_error",
                    message="The server's disk is full." if full else "The server failed on this batch.",
                )
                try:
                    await self._end(batch_id, "failed", [told])
                except OSError:
                    _log.critical(
                        "the end of a batch cannot be written: it will be run again",
                        extra={"fields": {"batch": batch_id}},
                    )
                    self.store.note(batch_id, "failed", [told])

    async def _carry_out(self, batch_id: str) -> None:
        batch = self.store.current(batch_id)
        if batch.status == "validating":
            path = self.store.files.data(batch.input_file_id)
            total, errors = await asyncio.to_thread(check_requests, path, batch.endpoint)
            if errors:
                await self._end(batch_id, "failed", errors)
                return
            self.store.current(batch_id).request_counts.total = total
            await self._move(batch_id, "validating", "in_progress")
        work = await asyncio.to_thread(BatchWork, self.store, self._embeddings, self._access, batch_id)
        try:
            status = await self._work_off(batch_id, work)
            await self._move(batch_id, "in_progress", "finalizing")
            if self.store.current(batch_id).status == "cancelling":
                status = "cancelled"
            if status in UNDONE:
                await work.give_up(status)
        finally:
            work.close()
        await self._end(batch_id, status)

    async def _work_off(self, batch_id: str, work: BatchWork) -> Status:
        """Have a batch's requests answered, and return as what it ends."""
        batch = self.store.current(batch_id)
        if batch.status == "cancelling":
            return "cancelled"
        task = asyncio.create_task(work.answer_all(batch.expires_at - self._clock()))
        self._work[batch_id] = task
        try:
            return await task
        except asyncio.CancelledError:
            await _cancelled(task)
            if self.store.current(batch_id).status == "cancelling" and not _being_cancelled():
                return "cancelled"
            raise
        finally:
            del self._work[batch_id]

    async def _move(self, batch_id: str, origin: Status, status: Status) -> None:
        """Move a batch that is at ``origin``; one that was moved elsewhere stays there."""
        async with self._moving:
            if self.store.current(batch_id).status == origin:
                await to_the_end(self.store.move, batch_id, status)

    async def _end(self, batch_id: str, status: Status, errors: list[BatchError] | None = None) -> None:
        async with self._moving:
            await to_the_end(self.store.finish, batch_id, status, errors or ())
        _log.info("batch ended", extra={"fields": {"batch": batch_id, "status": status}})


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _cancelled(work: asyncio.Task[Status]) -> None:
    """Cancel ``work`` and wait until it has ended."""
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
