"""The engine: requests of many callers → full batches on device workers → vectors.

One event loop, one worker process a device. This process holds settings, tokenizers and queues, and neither torch nor
a model: a worker may die without harm to it. Texts are tokenised in threads; workers get numbers.

    embed ──► tokens (threads) ──► Scheduler ──► Dispatch ──► WorkerProcess ═pipe═ worker
        Roster: which model is ready ◄── Loading: what is read and loaded where
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar

from unmask.engine.attempts import Entry
from unmask.engine.contract import PATIENCE, Admit, Embedded, Load, Priority, Served, check_total
from unmask.engine.devices import Device
from unmask.engine.dispatch import Call, Dispatch
from unmask.engine.loading import Loading
from unmask.engine.messages import Answer, Computed, Failed, Refused, Up, WasLoaded, WasRead
from unmask.engine.process import WORKER, WorkerProcess
from unmask.engine.roster import Roster
from unmask.engine.scheduling import Scheduler
from unmask.engine.settings import EngineSettings, Weights
from unmask.engine.tokens import texts_of
from unmask.errors import (
    InputError,
    ModelColdError,
    ModelUnavailableError,
    QueueFullError,
    ServingError,
    StoppingError,
)
from unmask.text import Text, TextTokenizer, TokenizedText

_T = TypeVar("_T")

#: Texts that are tokenised in one go; between them other requests have their turn.
_SLICE: Final = 64
#: Threads that tokenise: one for long requests, one for those that come meanwhile.
_THREADS: Final = 2
#: Seconds after which to ask again where no batch has been measured yet.
_UNMEASURED: Final = 5.0


class Engine:
    """An :class:`~unmask.engine.contract.EmbeddingEngine` on worker processes.

    Made anywhere, started and used in one event loop.

    Args:
        settings: what it serves.
        worker: the command that is a worker.
        clock: seconds, from any origin.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        worker: Sequence[str] = WORKER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="tokenize")
        self._scheduler = Scheduler(settings.queue_tokens)
        self._devices: list[Device] = []
        self._born: dict[Device, float] = {}
        for number, name in enumerate(settings.devices):
            process = WorkerProcess(
                name,
                threads=settings.threads,
                command=worker,
                received=partial(self._received, number),
                died=partial(self._died, number),
            )
            self._devices.append(Device(process))
        self._dispatch = Dispatch(
            self._scheduler,
            self._devices,
            batch_tokens=settings.batch_tokens,
            batch_seconds=settings.batch_seconds,
            ahead_seconds=settings.ahead_seconds,
            clock=clock,
        )
        self._loading = Loading(settings, self._devices, pool=self._pool, gave_up=self._gave_up, clock=clock)
        self._roster = Roster(self._loading, retry_seconds=settings.retry_seconds, clock=clock)
        self._taken = 0
        self._nothing_taken = asyncio.Event()
        self._nothing_taken.set()
        self._stopping = False
        self._closed = False

    # --- life --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the workers; they read all tokenizers and load the models to be preloaded. Returns at once."""
        for device in self._devices:
            self._born[device] = self._clock()
            device.process.start()
        self._roster.begin()

    async def stop(self, grace: float) -> None:
        """Take nothing more, finish what was taken within ``grace`` seconds, end the workers.

        What is not finished then raises :class:`~unmask.errors.StoppingError` in those who wait for it.
        """
        self._stopping = True
        try:
            async with asyncio.timeout(grace):
                await self._nothing_taken.wait()
        except TimeoutError:
            pass
        finally:
            self._closed = True
            self._roster.close()
            self._dispatch.fail_all(_stopping)
        await self._nothing_taken.wait()
        await asyncio.gather(*(device.process.close() for device in self._devices))
        self._pool.shutdown(cancel_futures=True)

    @contextmanager
    def _taking(self) -> Iterator[None]:
        """Have :meth:`stop` wait for a request."""
        if self._stopping:
            raise _stopping()
        self._taken += 1
        self._nothing_taken.clear()
        try:
            yield
        finally:
            self._taken -= 1
            if not self._taken:
                self._nothing_taken.set()

    # --- what it says ------------------------------------------------------------------------------

    def served(self) -> tuple[Served, ...]:
        """Return every model, in the order of the settings."""
        return self._roster.served()

    def load(self) -> Load:
        """Return how busy the engine is."""
        return Load(
            queued_tokens=dict(self._scheduler.queued),
            queue_limit=self._scheduler.limit,
            running_tokens=self._dispatch.running_tokens,
            tokens_per_second=self._rate(),
            batches=self._dispatch.meter.batches,
            batch_tokens=self._dispatch.meter.tokens,
            restarts=sum(device.process.deaths for device in self._devices),
        )

    def _rate(self) -> float | None:
        rate = self._dispatch.meter.rate(self._clock())
        return rate and rate * max(1, sum(device.up for device in self._devices))

    # --- requests ----------------------------------------------------------------------------------

    async def tokenize(
        self, model: str, texts: Sequence[Text], *, truncate: bool = True, wait: float = PATIENCE
    ) -> list[TokenizedText]:
        """Return the tokens of ``texts`` as the model reads them; see the contract."""
        entry = self._roster.entry(model)
        with self._taking():
            reading = await self._roster.ready(entry, wait, weights=False)
            return await self._tokens(reading.tokenizer, texts, truncate)

    async def detokenize(self, model: str, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts that token arrays stand for; see the contract."""
        entry = self._roster.entry(model)
        with self._taking():
            reading = await self._roster.ready(entry, PATIENCE, weights=False)
            return await self._in_thread(partial(texts_of, reading.tokenizer, ids))

    async def embed(
        self,
        model: str,
        texts: Sequence[Text],
        *,
        caller: str,
        priority: Priority = "realtime",
        truncate: bool = True,
        wait: float = 0.0,
        most_tokens: int | None = None,
        admit: Admit | None = None,
    ) -> Embedded:
        """Encode ``texts``; see the contract."""
        entry = self._roster.entry(model)
        if not texts:
            raise InputError("No text is given; expected at least one.")
        with self._taking(), self._roster.using(entry):
            reading = await self._roster.ready(entry, wait)
            # A full queue refuses before the work of tokenising; a text has at least one token.
            self._check_room(caller, priority, len(texts))
            tokenized = await self._tokens(reading.tokenizer, texts, truncate, most_tokens)
            tokens = tuple(len(text.ids) for text in tokenized)
            self._check_room(caller, priority, sum(tokens))
            if admit is not None:
                await admit(tokens)
            return Embedded(vectors=await self._computed(entry, tokenized, tokens, caller, priority), tokens=tokens)

    async def _computed(
        self,
        entry: Entry,
        texts: Sequence[TokenizedText],
        tokens: Sequence[int],
        caller: str,
        priority: Priority,
    ) -> Any:
        """Queue tokenised texts and wait for their vectors."""
        call = Call(
            model=entry.settings.weights,
            caller=caller,
            priority=priority,
            lengths=tokens,
            texts=texts,
            answer=asyncio.get_running_loop().create_future(),
        )
        return await self._answered(call)

    async def _answered(self, call: Call) -> Any:
        """Queue a request and wait for its answer; whoever is cancelled leaves the queue."""
        try:
            self._dispatch.submit(call)
            return await call.answer
        finally:
            self._dispatch.drop(call)

    def _check_room(self, caller: str, priority: Priority, tokens: int) -> None:
        if self._scheduler.fits(caller, priority, tokens):
            return
        queued = self._scheduler.queued[priority]
        rate = self._rate()
        after = max(1.0, queued / rate) if rate else _UNMEASURED
        raise QueueFullError(
            f"{queued} tokens of {self._scheduler.limit} wait already; there is no room for {tokens} more of this "
            f"caller. Ask again in {after:.0f} s.",
            retry_after=after,
        )

    async def _tokens(
        self, tokenizer: TextTokenizer, texts: Sequence[Text], truncate: bool, most: int | None = None
    ) -> list[TokenizedText]:
        tokenized: list[TokenizedText] = []
        total = 0
        for first in range(0, len(texts), _SLICE):
            part = texts[first : first + _SLICE]
            indices = range(first, first + len(part))
            done = await self._in_thread(partial(tokenizer.tokenize, part, indices=indices, truncate=truncate))
            total += sum(len(text.ids) for text in done)
            check_total(total, most)
            tokenized += done
        return tokenized

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        result = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        if self._closed:
            raise _stopping()
        return result

    # --- workers -----------------------------------------------------------------------------------

    def _received(self, number: int, answer: Answer) -> None:
        """Pass an answer of a worker on to where it belongs."""
        device = self._devices[number]
        match answer:
            case Computed():
                self._dispatch.computed(device, answer)
            case Failed():
                self._dispatch.failed(device, answer)
            case Up():
                self._loading.up(device, self._clock() - self._born[device])
            case WasRead():
                self._loading.was_read(device, answer)
            case WasLoaded():
                self._loading.was_loaded(device, answer)
                self._dispatch.pump()
            case Refused():
                self._loading.refused(device, answer)

    def _died(self, number: int) -> None:
        """Have others take over what a dead worker had, or itself when it is back."""
        device = self._devices[number]
        self._born[device] = self._clock()
        was_up, device.up = device.up, False
        self._dispatch.died(device)
        self._loading.died(device, was_up=was_up)
        self._dispatch.pump()

    def _gave_up(self, weights: Weights, *, lasting: bool) -> None:
        """Answer those who wait for weights that were there, and do not come back."""
        said, pause = "The model could not be loaded again; the server's log says why.", self.settings.retry_seconds
        cold = partial(ModelColdError, f"{said} Ask again in {max(1.0, pause):.0f} s.", retry_after=max(1.0, pause))
        error: Callable[[], ServingError] = cold
        if lasting:
            error = partial(ModelUnavailableError, f"{said} Tell its operator.")
        self._dispatch.fail_all(error, weights=weights)


def _stopping() -> StoppingError:
    return StoppingError("The engine shuts down and takes nothing more. Ask another server.")
