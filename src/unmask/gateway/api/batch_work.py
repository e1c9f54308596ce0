"""One batch at work: its requests are asked of the engine, a window of them at a time, and answers put on the disk."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

from unmask.errors import ModelColdError, QueueFullError, StoppingError, UnmaskError
from unmask.gateway.api.access import Access, Visit
from unmask.gateway.api.batch_lines import Request, good_line, read_requests, refused_line, undone_line
from unmask.gateway.api.batch_schemas import Status
from unmask.gateway.api.batch_store import Answers, BatchStore, Line
from unmask.gateway.api.embeddings import Embeddings, Reply
from unmask.gateway.api.errors import refusal_of
from unmask.gateway.api.http import Terms
from unmask.gateway.api.parsing import validate
from unmask.gateway.api.schemas import EmbeddingRequest

_log: Final = logging.getLogger("unmask.batches")

#: Requests of a batch that the engine has at a time, and inputs of all of them: their answers are held in memory.
_WINDOW: Final = 64
_WINDOW_INPUTS: Final = 4096
#: Seconds until a full queue or a cold model is asked again, if it does not say itself.
_PAUSE: Final = 2.0
#: As what a batch may end early → the code and message of each request that is left.
UNDONE: Final[dict[Status, tuple[str, str]]] = {
    "expired": ("batch_expired", "The request was not answered before the batch's completion window ended."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before the request was answered."),
}


@dataclass(frozen=True, kw_only=True)
class _Done:
    """A request that is answered, not yet on the disk.

    Attributes:
        line: of the answer.
        visit: that is to be ended.
        paid: the answer that is paid for, None for a refusal.
        tokens: that it took.
    """

    line: Line
    visit: Visit
    paid: bytes | None = None
    tokens: int = 0


class BatchWork:
    """The requests of a batch, and their answers.

    Args:
        store: where the batch is.
        embeddings: answers its requests.
        access: lets them in.
        batch_id: of the batch.
    """

    def __init__(self, store: BatchStore, embeddings: Embeddings, access: Access, batch_id: str) -> None:
        self._store = store
        self._embeddings = embeddings
        self._access = access
        self._id = batch_id
        self._answers = Answers(store, batch_id)
        self._pending: dict[asyncio.Task[_Done], int] = {}
        self._count()

    def close(self) -> None:
        """Close the files."""
        self._answers.close()

    async def answer_all(self, seconds: float) -> Status:
        """Answer what is to be answered within ``seconds``, and return as what the batch ends."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                async for request in self._remaining():
                    inputs = _inputs(request)
                    while self._pending and not self._fits(inputs):
                        await self._collect()
                    self._pending[asyncio.create_task(self._answer(request))] = inputs
                while self._pending:
                    await self._collect()
        except TimeoutError:
            return "expired"
        finally:
            for task in self._pending:
                task.cancel()
            await asyncio.gather(*self._pending, return_exceptions=True)
        return "completed"

    async def give_up(self, status: Status) -> None:
        """Answer what is left with why it is not done."""
        code, message = UNDONE[status]
        left = [undone_line(each.custom_id, code, message) async for each in self._remaining()]
        await to_the_end(self._answers.add, left)
        self._count()

    async def _remaining(self) -> AsyncIterator[Request]:
        blocks = read_requests(self._store.files.data(self._store.current(self._id).input_file_id))
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            for request in block:
                if request.custom_id not in self._answers.done:
                    yield request

    def _fits(self, inputs: int) -> bool:
        return len(self._pending) < _WINDOW and sum(self._pending.values()) + inputs <= _WINDOW_INPUTS

    async def _collect(self) -> None:
        """Wait for the next answers, and put them on the disk."""
        done, _ = await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del self._pending[task]
        results = [task.result() for task in done]
        await to_the_end(self._answers.add, [each.line for each in results])
        # Paid for when it is on the disk: after a crash before that it is computed again.
        for each in results:
            each.visit.end(each.paid, each.tokens)
        self._count()

    async def _answer(self, request: Request) -> _Done:
        """Return the answer to a request."""
        visit = self._access.resume(self._store.payer(self._id))
        try:
            reply = await self._reply(request, Terms(visit=visit, priority="batch", wait=60.0))
        except BaseException:
            visit.end(None, 0)
            raise
        if isinstance(reply, Line):
            return _Done(line=reply, visit=visit)
        line = good_line(request.custom_id, reply.body)
        return _Done(line=line, visit=visit, paid=reply.body, tokens=reply.tokens)

    async def _reply(self, request: Request, terms: Terms) -> Reply | Line:
        """Return the answer to a request, or the line that says why there is none; what passes is waited for."""
        while True:
            try:
                return await self._embeddings.answer(validate(EmbeddingRequest, request.body), terms)
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

    def _is_broken(self, request: Request) -> bool:
        """Return whether a request's model could not be loaded: a batch would wait for it to its end."""
        served = self._embeddings.served(str(request.body.get("model")))
        return served is not None and served.state == "failed"

    def _count(self) -> None:
        counts = self._store.current(self._id).request_counts
        counts.completed, counts.failed = self._answers.counts


def _inputs(request: Request) -> int:
    """Return how many inputs a request seems to have; whether they are any good is seen later."""
    given = request.body.get("input")
    return len(given) if isinstance(given, list) and not all(isinstance(each, int) for each in given) else 1


async def to_the_end(function: Callable[..., None], *arguments: Any) -> None:
    """Run a function that writes in a thread; a task that is cancelled meanwhile waits until it has written."""
    writing = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        raise
