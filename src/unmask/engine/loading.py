"""What workers are told to read and to load, and what comes of it.

Reading a tokenizer and loading weights are *attempts*: wanted once asked for, given to workers until they are carried
out, failed when a worker refuses or dies over them again and again. :meth:`Loading.assign` compares what is wanted with
what workers have and gives the orders that are missing; it is called after every change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final, Protocol, cast

from unmask.engine.attempts import Attempt, Entry, named
from unmask.engine.devices import Device
from unmask.engine.messages import Load, Read, Refused, Unload, WasLoaded, WasRead
from unmask.engine.residency import Residency
from unmask.engine.settings import EngineSettings, Weights
from unmask.engine.tokens import Reading, unpacked

log = logging.getLogger(__name__)

#: Deaths of workers in a row over the same attempt after which it has failed.
DEATHS: Final = 3


class GaveUp(Protocol):
    """Hears of weights that could not be loaded: no request for them can be answered."""

    def __call__(self, weights: Weights, *, lasting: bool) -> None:
        """Take note; ``lasting``: trying again alone will not help."""


class Loading:
    """What is read and loaded on which device, or is to be.

    Args:
        settings: of the engine.
        devices: where models are loaded.
        pool: where tokenizers are unpickled.
        gave_up: hears of failures.
        clock: seconds, from any origin.

    Attributes:
        entries: the models by their names, in the order of the settings.
    """

    def __init__(
        self,
        settings: EngineSettings,
        devices: Sequence[Device],
        *,
        pool: Executor,
        gave_up: GaveUp,
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._devices = settings, devices
        self._pool, self._gave_up, self._clock = pool, gave_up, clock
        self._residency = Residency(settings.memory)
        self._loads = {model.weights: Attempt(Load(model.weights)) for model in settings.models}
        self.entries = {
            model.name: Entry(model, Attempt(Read(model)), self._loads[model.weights]) for model in settings.models
        }
        self._pending: dict[Weights, None] = {}
        self._start_seconds = 0.0

    # --- asked by requests -------------------------------------------------------------------------

    def want(self, *attempts: Attempt) -> None:
        """Have something done, unless it is being done or has failed a short time ago."""
        now = self._clock()
        for attempt in attempts:
            if attempt.wanted or (attempt.error and now < attempt.failed_at + self._settings.retry_seconds):
                continue
            attempt.wanted, attempt.error, attempt.since, attempt.deaths = True, None, now, 0
            attempt.refused_by.clear()
            attempt.settled.clear()
            if isinstance(attempt.order, Load):
                self._pending[attempt.order.weights] = None
        self.assign()

    def done(self, attempt: Attempt) -> bool:
        """Return whether something is done, and has not been undone."""
        if isinstance(attempt.order, Read):
            return self.entries[attempt.order.model.name].reading is not None
        return any(attempt.order.weights in device.loaded for device in self._devices)

    @property
    def start_seconds(self) -> float:
        """Seconds until a worker takes orders, as far as is known; 0 if one does."""
        return 0.0 if any(device.up for device in self._devices) else self._start_seconds

    def use(self, weights: Weights) -> None:
        """Keep weights in memory, once they are there, until :meth:`release`."""
        self._residency.use(weights)

    def release(self, weights: Weights) -> None:
        """Count one less who needs weights; others may take their place."""
        unload = self._residency.release(weights)
        self._unload(unload)
        if unload or self._pending:
            self.assign()

    # --- told by workers ---------------------------------------------------------------------------

    def up(self, device: Device, seconds: float) -> None:
        """Note that a worker takes orders, ``seconds`` after it was started."""
        device.up = True
        self._start_seconds = seconds
        self.assign()

    def was_read(self, device: Device, answer: WasRead) -> None:
        """Take what is known of a model's texts."""
        device.jobs.popleft()
        device.process.recovered()
        entry = self.entries[answer.name]
        entry.read.arriving = True
        unpickled = asyncio.get_running_loop().run_in_executor(self._pool, unpacked, answer.reading)
        unpickled.add_done_callback(partial(self._take_reading, entry))

    def _take_reading(self, entry: Entry, unpickled: asyncio.Future[Reading]) -> None:
        entry.read.arriving = False
        if unpickled.cancelled():
            return
        error = unpickled.exception()
        if error is not None:
            self._fail(entry.read, f"its tokenizer cannot be used: {error}")
            return
        entry.reading = unpickled.result()
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
        for entry in self.entries.values():
            if entry.load is attempt:
                entry.dimension = answer.dimension
        unload = self._residency.measured(answer.weights, answer.size)
        if self._residency.too_large(answer.weights):
            most = self._settings.memory
            reason = f"it takes {answer.size} bytes of memory; expected at most {most}. Raise the limit."
            self._fail(attempt, reason, lasting=True)
            return
        self._unload(unload)
        self._succeed(attempt, answer.seconds)
        self.assign()

    def refused(self, device: Device, answer: Refused) -> None:
        """Take note that a worker could not do something."""
        device.jobs.popleft()
        attempt = self._attempt(answer.order)
        log.error("%s failed on %s: %s", named(answer.order), device.process.device, answer.error)
        attempt.refused_by[device] = answer.error
        if not answer.lasting:  # memory of a process that died comes back a little later than a new process
            seconds = self._settings.retry_seconds
            asyncio.get_running_loop().call_later(seconds, self._forgive, attempt, device)
        others = isinstance(answer.order, Load) and any(each not in attempt.refused_by for each in self._devices)
        if not self.done(attempt) and not self._given(attempt) and (answer.lasting or not others):
            self._fail(attempt, answer.error, lasting=answer.lasting)
        self.assign()

    def _forgive(self, attempt: Attempt, device: Device) -> None:
        """Let a device try again what it has refused."""
        attempt.refused_by.pop(device, None)
        self.assign()

    def died(self, device: Device, *, was_up: bool) -> None:
        """Take note that a worker is gone, and what it had with it."""
        blamed = [self._attempt(order) for order in list(device.jobs)[:1]]
        if not was_up:
            blamed = [attempt for attempt in self._attempts() if attempt.wanted and not self.done(attempt)]
        lost = [self._loads[weights] for weights in device.loaded]
        device.loaded.clear()
        device.jobs.clear()
        for attempt in self._attempts():
            attempt.refused_by.pop(device, None)
        for attempt in lost:
            if not self.done(attempt):
                attempt.since = self._clock()
                attempt.settled.clear()
        for attempt in blamed:
            attempt.deaths += 1
            if attempt.deaths >= DEATHS and not self._given(attempt):
                self._despair(attempt, device)
        self.assign()

    def _despair(self, attempt: Attempt, device: Device) -> None:
        """Give up what workers died over: on this device alone where others have it."""
        why = f"the worker died over it {DEATHS} times in a row; see the server's log"
        if not self.done(attempt):
            self._fail(attempt, why)
            return
        log.error("%s is given up on %s: %s", named(attempt.order), device.process.device, why)
        attempt.refused_by[device], attempt.deaths = why, 0

    def trouble(self, device: Device, entry: Entry) -> str | None:
        """Return why a model cannot be had on a device, None if nothing is known to be wrong."""
        attempts = (entry.read, entry.load)
        known = [attempt.refused_by.get(device) or attempt.error for attempt in attempts]
        if device.process.row >= DEATHS:
            known.append(f"its worker ended {device.process.row} times in a row; see what it wrote")
        return next(filter(None, known), None)

    # --- inside ------------------------------------------------------------------------------------

    def assign(self) -> None:
        """Give the orders that are missing."""
        for weights in list(self._pending):
            unload = self._residency.admit(weights)
            if unload is not None:
                del self._pending[weights]
                self._unload(cast("list[Weights]", unload))
        able = [device for device in self._devices if device.up]
        for entry in self.entries.values():
            if entry.read.wanted and not self.done(entry.read) and not self._given(entry.read) and able:
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

    def _succeed(self, attempt: Attempt, seconds: float) -> None:
        attempt.seconds, attempt.deaths = seconds, 0
        attempt.settled.set()

    def _fail(self, attempt: Attempt, error: str, *, lasting: bool = False) -> None:
        attempt.wanted, attempt.error, attempt.lasting, attempt.failed_at = False, error, lasting, self._clock()
        log.error("%s has failed: %s", named(attempt.order), error)
        if isinstance(attempt.order, Load):
            weights = attempt.order.weights
            self._pending.pop(weights, None)
            self._residency.remove(weights)
            self._unload([weights])
            self._gave_up(weights, lasting=lasting)
        attempt.settled.set()

    def _unload(self, unload: Sequence[object]) -> None:
        for weights in cast("Sequence[Weights]", unload):
            attempt = self._loads[weights]
            attempt.wanted = False
            attempt.settled.clear()
            for device in self._devices:
                if device.loaded.pop(weights, None) is not None:
                    device.process.send(Unload(weights))

    def _given(self, attempt: Attempt) -> bool:
        return attempt.arriving or any(attempt.order in device.jobs for device in self._devices)

    def _attempts(self) -> list[Attempt]:
        return [*(entry.read for entry in self.entries.values()), *self._loads.values()]

    def _attempt(self, order: Read | Load) -> Attempt:
        return self._loads[order.weights] if isinstance(order, Load) else self.entries[order.model.name].read
