"""Which model is ready, where, and what is done so that another becomes it.

Reading a tokenizer and loading weights are *attempts*: wanted once asked for, given to workers until they are carried
out, failed when a worker refuses or dies over them again and again. :meth:`Roster.assign` compares what is wanted with
what workers have and gives the orders that are missing; it is called after every change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, cast

from unmask.engine.attempts import Attempt, Entry, named
from unmask.engine.contract import Served, State
from unmask.engine.devices import Device
from unmask.engine.messages import Load, Read, Refused, Unload, WasLoaded, WasRead
from unmask.engine.residency import Residency
from unmask.engine.settings import EngineSettings, Weights
from unmask.engine.tokens import unpacked
from unmask.errors import ModelColdError, StoppingError, UnknownModelError
from unmask.text import TextTokenizer

log = logging.getLogger(__name__)

#: Deaths of workers in a row over the same attempt after which it has failed.
DEATHS: Final = 3
#: Seconds that a load is expected to take before one was measured.
UNMEASURED: Final = 10.0


class Roster:
    """The models of an engine and their states.

    Args:
        settings: of the engine.
        devices: where models are loaded.
        pool: where tokenizers are unpickled.
        gave_up: called with weights that could not be loaded: no request for them can be answered.
        clock: seconds, from any origin.
    """

    def __init__(
        self,
        settings: EngineSettings,
        devices: Sequence[Device],
        *,
        pool: Executor,
        gave_up: Callable[[Weights], None],
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._devices = settings, devices
        self._pool, self._gave_up, self._clock = pool, gave_up, clock
        self._residency = Residency(settings.memory)
        self._loads = {model.weights: Attempt(Load(model.weights)) for model in settings.models}
        self._entries = {
            model.name: Entry(model, Attempt(Read(model)), self._loads[model.weights]) for model in settings.models
        }
        self._pending: dict[Weights, None] = {}
        self._start_seconds = 0.0
        self._closed = False

    # --- asked by requests -------------------------------------------------------------------------

    def begin(self) -> None:
        """Want what is to be there from the start: all tokenizers, and the weights that the settings say."""
        for entry in self._entries.values():
            self._want(entry.read)
            if entry.settings.preload:
                self._want(entry.load)
        self.assign()

    def close(self) -> None:
        """Answer all who wait."""
        self._closed = True
        for entry in self._entries.values():
            entry.read.settled.set()
            entry.load.settled.set()

    def entry(self, name: str) -> Entry:
        """Return a model.

        Raises:
            UnknownModelError: it is not served.
        """
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise UnknownModelError(f"Model {name!r} is not served here; expected one of {known}.")
        return self._entries[name]

    @contextmanager
    def using(self, entry: Entry) -> Iterator[None]:
        """Keep a model's weights in memory, once they are there, while a request is answered."""
        weights = entry.settings.weights
        self._residency.use(weights)
        try:
            yield
        finally:
            unload = self._residency.release(weights)
            self._unload(unload)
            if unload or self._pending:
                self.assign()

    async def ready(self, entry: Entry, wait: float, *, weights: bool = True) -> TextTokenizer:
        """Wait until a model is ready; if it is not on its way, it is from now on.

        Args:
            entry: the model.
            wait: most seconds.
            weights: also wait for its weights, not for its tokenizer alone.

        Raises:
            ModelColdError: it is not ready within ``wait`` seconds, or could not be loaded.
            StoppingError: the engine shuts down.
        """
        deadline = self._clock() + wait
        attempts = (entry.read, entry.load) if weights else (entry.read,)
        while True:
            if self._closed:
                raise StoppingError("The engine shuts down and takes nothing more. Ask another server.")
            missing = [attempt for attempt in attempts if not self._done(attempt)]
            if not missing:
                assert entry.texts is not None
                return entry.texts
            for attempt in missing:
                self._want(attempt)
            self.assign()
            if any(attempt.error for attempt in missing):
                raise self._cold(entry, "could not be loaded; the server's log says why")
            left = deadline - self._clock()
            if left <= 0:
                raise self._cold(entry, "is being loaded")
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await missing[0].settled.wait()

    def served(self) -> tuple[Served, ...]:
        """Return every model, in the order of the settings."""
        return tuple(
            Served(
                name=name,
                state=self._state(entry),
                dimension=entry.dimension,
                max_length=entry.texts.max_length if entry.texts else None,
                error=entry.read.error or entry.load.error,
            )
            for name, entry in self._entries.items()
        )

    def _state(self, entry: Entry) -> State:
        if entry.read.error or entry.load.error:
            return "failed"
        if self._done(entry.read) and self._done(entry.load):
            return "ready"
        return "warming" if entry.load.wanted else "cold"

    def _cold(self, entry: Entry, what: str) -> ModelColdError:
        """Return the error that says when to ask again."""
        now = self._clock()
        waits = [0.0 if any(device.up for device in self._devices) else self._start_seconds]
        for attempt in (entry.read, entry.load):
            if attempt.error:
                waits.append(attempt.failed_at + self._settings.retry_seconds - now)
            elif not self._done(attempt):
                waits.append((UNMEASURED if attempt.seconds is None else attempt.seconds) - (now - attempt.since))
        after = max(1.0, waits[0] + max(waits[1:], default=0.0))
        name = entry.settings.name
        return ModelColdError(f"Model {name!r} {what}. Ask again in {after:.0f} s.", retry_after=after)

    # --- told by workers ---------------------------------------------------------------------------

    def up(self, device: Device, seconds: float) -> None:
        """Note that a worker takes orders, ``seconds`` after it was started."""
        device.up = True
        self._start_seconds = seconds
        self.assign()

    def was_read(self, device: Device, answer: WasRead) -> None:
        """Take a tokenizer."""
        device.jobs.popleft()
        device.process.recovered()
        entry = self._entries[answer.name]
        entry.read.arriving = True
        loop = asyncio.get_running_loop()
        unpickled = loop.run_in_executor(self._pool, unpacked, answer.tokenizer)
        unpickled.add_done_callback(partial(self._take_tokenizer, entry))

    def _take_tokenizer(self, entry: Entry, unpickled: asyncio.Future[TextTokenizer]) -> None:
        entry.read.arriving = False
        if unpickled.cancelled():
            return
        error = unpickled.exception()
        if error is not None:
            self._fail(entry.read, f"its tokenizer cannot be used: {error}")
            return
        entry.texts = unpickled.result()
        self._succeed(entry.read, self._clock() - entry.read.since)

    def was_loaded(self, device: Device, answer: WasLoaded) -> None:
        """Take note of weights that are ready."""
        device.jobs.popleft()
        device.process.recovered()
        device.loaded[answer.weights] = answer
        attempt = self._loads[answer.weights]
        if answer.weights not in self._residency:  # nobody wants it any more
            self._unload([answer.weights])
            return
        for entry in self._entries.values():
            if entry.load is attempt:
                entry.dimension = answer.dimension
        unload = self._residency.measured(answer.weights, answer.size)
        if self._residency.too_large(answer.weights):
            self._fail(
                attempt,
                f"it takes {answer.size} bytes of memory; expected at most {self._settings.memory}. Raise the limit.",
            )
            return
        self._unload(unload)
        self._succeed(attempt, answer.seconds)
        self.assign()

    def refused(self, device: Device, answer: Refused) -> None:
        """Take note that a worker could not do something."""
        device.jobs.popleft()
        attempt = self._attempt(answer.order)
        log.error("%s failed on %s: %s", named(answer.order), device.process.device, answer.error)
        attempt.refused_by.add(device)
        if not self._done(attempt) and not self._given(attempt):
            self._fail(attempt, answer.error)
        self.assign()

    def died(self, device: Device, *, was_up: bool) -> None:
        """Take note that a worker is gone, and what it had with it."""
        blamed = [self._attempt(order) for order in list(device.jobs)[:1]]
        if not was_up:
            blamed = [attempt for attempt in self._attempts() if attempt.wanted and not self._done(attempt)]
        lost = [self._loads[weights] for weights in device.loaded]
        device.loaded.clear()
        device.jobs.clear()
        for attempt in self._attempts():
            attempt.refused_by.discard(device)
        for attempt in lost:
            if not self._done(attempt):
                attempt.since = self._clock()
                attempt.settled.clear()
        for attempt in blamed:
            attempt.deaths += 1
            if attempt.deaths >= DEATHS and not self._given(attempt):
                self._fail(attempt, f"the worker died over it {DEATHS} times in a row; see the server's log")
        self.assign()

    # --- inside ------------------------------------------------------------------------------------

    def assign(self) -> None:
        """Give the orders that are missing."""
        for weights in list(self._pending):
            unload = self._residency.admit(weights)
            if unload is not None:
                del self._pending[weights]
                self._unload(cast("list[Weights]", unload))
        able = [device for device in self._devices if device.up]
        for entry in self._entries.values():
            if entry.read.wanted and not self._done(entry.read) and not self._given(entry.read) and able:
                self._give(min(able, key=lambda device: len(device.jobs)), entry.read)
        for weights in cast("list[Weights]", self._residency.resident()):
            attempt = self._loads[weights]
            for device in able:
                # The first to load may have to fetch and convert what the others then find.
                alone = attempt.seconds is None and self._given(attempt)
                there = weights in device.loaded or attempt.order in device.jobs or device in attempt.refused_by
                if not there and not alone:
                    self._give(device, attempt)

    def _give(self, device: Device, attempt: Attempt) -> None:
        device.jobs.append(attempt.order)
        device.process.send(attempt.order)

    def _want(self, attempt: Attempt) -> None:
        """Have something done, unless it is being done or has failed a short time ago."""
        now = self._clock()
        if attempt.wanted or (attempt.error and now < attempt.failed_at + self._settings.retry_seconds):
            return
        attempt.wanted, attempt.error, attempt.since, attempt.deaths = True, None, now, 0
        attempt.refused_by.clear()
        attempt.settled.clear()
        if isinstance(attempt.order, Load):
            self._pending[attempt.order.weights] = None

    def _succeed(self, attempt: Attempt, seconds: float) -> None:
        attempt.seconds, attempt.deaths = seconds, 0
        attempt.settled.set()

    def _fail(self, attempt: Attempt, error: str) -> None:
        attempt.wanted, attempt.error, attempt.failed_at = False, error, self._clock()
        log.error("%s has failed: %s", named(attempt.order), error)
        if isinstance(attempt.order, Load):
            weights = attempt.order.weights
            self._pending.pop(weights, None)
            self._residency.remove(weights)
            self._unload([weights])
            self._gave_up(weights)
        attempt.settled.set()

    def _unload(self, unload: Sequence[object]) -> None:
        for weights in cast("Sequence[Weights]", unload):
            attempt = self._loads[weights]
            attempt.wanted = False
            attempt.settled.clear()
            for device in self._devices:
                if device.loaded.pop(weights, None) is not None:
                    device.process.send(Unload(weights))

    def _done(self, attempt: Attempt) -> bool:
        if isinstance(attempt.order, Read):
            return self._entries[attempt.order.model.name].texts is not None
        return any(attempt.order.weights in device.loaded for device in self._devices)

    def _given(self, attempt: Attempt) -> bool:
        return attempt.arriving or any(attempt.order in device.jobs for device in self._devices)

    def _attempts(self) -> list[Attempt]:
        return [*(entry.read for entry in self._entries.values()), *self._loads.values()]

    def _attempt(self, order: Read | Load) -> Attempt:
        return self._loads[order.weights] if isinstance(order, Load) else self._entries[order.model.name].read
