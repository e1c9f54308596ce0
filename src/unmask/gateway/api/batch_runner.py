"""Batches at work, in the background of the engine that answers everybody else.

What a batch has come to lies on the disk, so that a server that is stopped, or killed, goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from unmask.errors import ModelColdError, QueueFullError, StoppingError, UnmaskError
from unmask.gateway.api.batch_lines import (
    Request,
    check_requests,
    good_line,
    read_requests,
    refused_line,
    undone_line,
)
from unmask.gateway.api.batch_schemas import ENDED, BatchError, BatchObject, Status
from unmask.gateway.api.batch_store import Answers, BatchStore, Line
from unmask.gateway.api.embeddings import Embeddings
from unmask.gateway.api.errors import RequestError, is_full_disk, refusal_of
from unmask.gateway.api.http import Terms
from unmask.gateway.api.parsing import validate
from unmask.gateway.api.schemas import EmbeddingRequest

_log: Final = logging.getLogger("unmask.batches")

#: Batches that run at a time; others wait for their turn.
_JOBS: Final = 4
#: Requests of a batch that the engine has at a time, and inputs of all of them: their answers are held in memory.
_WINDOW: Final = 64
_WINDOW_INPUTS: Final = 4096
#: Seconds until a full queue or a cold model is asked again, if it does not say itself.
_PAUSE: Final = 2.0
_UNDONE: Final[dict[Status, tuple[str, str]]] = {
    "expired": ("batch_expired", "The request was not answered before the batch's completion window ended."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before the request was answered."),
}


class BatchRunner:
    """Runs batches.

    Args:
        store: where they are.
        embeddings: answers their requests.
        clock: seconds since 1970.
    """

    def __init__(self, store: BatchStore, embeddings: Embeddings, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._embeddings = embeddings
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
                await _to_the_end(self.store.move, batch.id, "cancelling")
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
        answers = await asyncio.to_thread(Answers, self.store, batch_id)
        try:
            self._count(batch_id, answers)
            status = await self._work_off(batch_id, answers)
            await self._move(batch_id, "in_progress", "finalizing")
            if self.store.current(batch_id).status == "cancelling":
                status = "cancelled"
            if status in _UNDONE:
                await self._give_up(batch_id, answers, status)
        finally:
            answers.close()
        await self._end(batch_id, status)

    async def _work_off(self, batch_id: str, answers: Answers) -> Status:
        """Answer what is to be answered, and return as what the batch ends."""
        if self.store.current(batch_id).status == "cancelling":
            return "cancelled"
        work = asyncio.create_task(self._answer_all(batch_id, answers))
        self._work[batch_id] = work
        try:
            return await work
        except asyncio.CancelledError:
            await _cancelled(work)
            if self.store.current(batch_id).status == "cancelling" and not _being_cancelled():
                return "cancelled"
            raise
        finally:
            del self._work[batch_id]

    async def _answer_all(self, batch_id: str, answers: Answers) -> Status:
        pending: dict[asyncio.Task[Line], int] = {}
        owner = self.store.owner(batch_id)
        left = self.store.current(batch_id).expires_at - self._clock()
        try:
            async with asyncio.timeout(max(0.0, left)):
                async for request in self._remaining(batch_id, answers):
                    inputs = _inputs(request)
                    while len(pending) >= _WINDOW or (pending and sum(pending.values()) + inputs > _WINDOW_INPUTS):
                        await self._collect(batch_id, answers, pending)
                    pending[asyncio.create_task(self._answer(request, owner))] = inputs
                while pending:
                    await self._collect(batch_id, answers, pending)
        except TimeoutError:
            return "expired"
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        return "completed"

    async def _remaining(self, batch_id: str, answers: Answers) -> AsyncIterator[Request]:
        blocks = read_requests(self.store.files.data(self.store.current(batch_id).input_file_id))
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            for request in block:
                if request.custom_id not in answers.done:
                    yield request

    async def _collect(self, batch_id: str, answers: Answers, pending: dict[asyncio.Task[Line], int]) -> None:
        """Wait for the next answers, take them from ``pending``, and put them on the disk."""
        done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del pending[task]
        await _to_the_end(answers.add, [task.result() for task in done])
        self._count(batch_id, answers)

    async def _answer(self, request: Request, owner: str) -> Line:
        """Return the answer to a request; what passes by itself is waited for."""
        terms = Terms(caller=owner, priority="batch", wait=60.0)
        while True:
            try:
                reply = await self._embeddings.answer(validate(EmbeddingRequest, request.body), terms)
            except (QueueFullError, ModelColdError) as error:
                if self._is_broken(request):
                    return refused_line(request.custom_id, refusal_of(error))
                # Spread out: all of a batch's requests are told the same time.
                await asyncio.sleep((error.retry_after or _PAUSE) * random.uniform(1, 2))  # noqa: S311
            except StoppingError:
                raise
            except Exception as error:  # noqa: BLE001 - one request that fails must not take the others with it
                if not isinstance(error, UnmaskError):
                    _log.error("request of a batch failed", exc_info=error)
                return refused_line(request.custom_id, refusal_of(error))
            else:
                return good_line(request.custom_id, reply.body)

    def _is_broken(self, request: Request) -> bool:
        """Return whether a request's model could not be loaded: a batch would wait for it to its end."""
        served = self._embeddings.served(str(request.body.get("model")))
        return served is not None and served.state == "failed"

    async def _give_up(self, batch_id: str, answers: Answers, status: Status) -> None:
        """Answer what is left with why it is not done."""
        code, message = _UNDONE[status]
        left = [undone_line(each.custom_id, code, message) async for each in self._remaining(batch_id, answers)]
        await _to_the_end(answers.add, left)
        self._count(batch_id, answers)

    def _count(self, batch_id: str, answers: Answers) -> None:
        counts = self.store.current(batch_id).request_counts
        counts.completed, counts.failed = answers.counts

    async def _move(self, batch_id: str, origin: Status, status: Status) -> None:
        """Move a batch that is at ``origin``; one that was moved elsewhere stays there."""
        async with self._moving:
            if self.store.current(batch_id).status == origin:
                await _to_the_end(self.store.move, batch_id, status)

    async def _end(self, batch_id: str, status: Status, errors: list[BatchError] | None = None) -> None:
        async with self._moving:
            await _to_the_end(self.store.finish, batch_id, status, errors or ())
        _log.info("batch ended", extra={"fields": {"batch": batch_id, "status": status}})


def _inputs(request: Request) -> int:
    """Return how many inputs a request seems to have; whether they are any good is seen later."""
    given = request.body.get("input")
    return len(given) if isinstance(given, list) and not all(isinstance(each, int) for each in given) else 1


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _to_the_end(function: Callable[..., None], *arguments: Any) -> None:
    """Run a function that writes in a thread; a task that is cancelled meanwhile waits until it has written."""
    writing = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        raise


async def _cancelled(work: asyncio.Task[Status]) -> None:
    """Cancel ``work`` and wait until it has ended."""
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
