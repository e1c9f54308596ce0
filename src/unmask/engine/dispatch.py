"""Requests → batches → workers → answers. Every request gets one, whatever happens to the workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from math import inf
from typing import cast

import numpy as np
from numpy.typing import NDArray

from unmask.engine.devices import Device
from unmask.engine.lanes import Item, Request
from unmask.engine.messages import Compute, Computed, Failed
from unmask.engine.meter import Meter
from unmask.engine.scheduling import Pack, Scheduler
from unmask.engine.settings import Weights
from unmask.errors import EncodingFailedError, ServingError
from unmask.text import TokenizedText

log = logging.getLogger(__name__)


@dataclass(eq=False, kw_only=True)
class Call(Request):
    """A request, and what becomes of it.

    Attributes:
        texts: what to encode.
        answer: ``[n, D]`` float32, or the error.
        left: texts of which nothing is known yet.
    """

    texts: Sequence[TokenizedText]
    answer: asyncio.Future[NDArray[np.float32]]
    left: int = field(init=False)
    _vectors: NDArray[np.float32] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.left = len(self.texts)

    def fill(self, place: int, vector: NDArray[np.float32]) -> None:
        """Take the vector of a text; with the last one, the call is answered."""
        if self._vectors is None:
            self._vectors = np.empty((len(self.texts), len(vector)), dtype=np.float32)
        self._vectors[place] = vector
        self.settled(self._vectors)

    def gave_up(self, place: int, why: str) -> EncodingFailedError | None:
        """Hear that workers failed on a text, alone and again; return the error that ends the call, None to go on."""
        return EncodingFailedError(
            f"Text {place} could not be encoded, alone and again: {why}. Remove it, or change it."
        )

    def settled(self, vectors: NDArray[np.float32]) -> None:
        """Count a text; with the last one, the call is answered with ``vectors``."""
        self.left -= 1
        if not self.left:
            self.closed = True
            if not self.answer.done():
                self.answer.set_result(vectors)


class Dispatch:
    """Keeps workers busy with what waits.

    Args:
        scheduler: what waits.
        devices: whose workers compute.
        batch_tokens: most tokens of a batch; None: as each model's worker says.
        batch_seconds: a worker that takes longer over a batch is killed.
        ahead_seconds: a full batch is kept ready behind one that takes less.
        clock: seconds, from any origin.

    Attributes:
        meter: what was done.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        devices: Sequence[Device],
        *,
        batch_tokens: int | None,
        batch_seconds: float,
        ahead_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.meter = Meter()
        self._scheduler, self._devices = scheduler, devices
        self._batch_tokens, self._batch_seconds, self._ahead_seconds = batch_tokens, batch_seconds, ahead_seconds
        self._clock = clock
        self._numbers = count()
        self._calls: set[Call] = set()

    @property
    def running_tokens(self) -> int:
        """Tokens in batches that workers have."""
        return sum(pack.tokens for device in self._devices for _, pack in device.packs)

    def submit(self, call: Call) -> None:
        """Queue a request."""
        self._calls.add(call)
        self._scheduler.add(call)
        self.pump()

    def drop(self, call: Call) -> None:
        """Forget a request, answered or not."""
        self._calls.discard(call)
        self._scheduler.drop(call)

    def fail(self, call: Call, error: ServingError) -> None:
        """Answer a request with an error; what of it waits leaves the queue."""
        self._scheduler.drop(call)
        if not call.answer.done():
            call.answer.set_exception(error)

    def fail_all(self, error: Callable[[], ServingError], *, weights: Weights | None = None) -> None:
        """Answer all requests with an error, or those that still wait for ``weights``."""
        calls = list(self._calls) if weights is None else cast("list[Call]", self._scheduler.of_model(weights))
        for call in calls:
            self.fail(call, error())

    # --- to workers --------------------------------------------------------------------------------

    def pump(self) -> None:
        """Give every worker what it can take: idle ones first."""
        for depth in (0, 1):
            for device in self._devices:
                if device.up and len(device.packs) == depth:
                    pack = self._next(device)
                    if pack is not None:
                        self._send(device, pack)

    def _next(self, device: Device) -> Pack | None:
        budgets = {weights: self._batch_tokens or loaded.budget for weights, loaded in device.loaded.items()}
        if not device.packs:
            return self._scheduler.take(budgets)
        if device.packs[0][1].suspect:
            return None
        quick = {w: budget for w, budget in budgets.items() if device.pace.get(w, inf) * budget < self._ahead_seconds}
        return self._scheduler.take(quick, full=True)

    def _send(self, device: Device, pack: Pack) -> None:
        number = next(self._numbers)
        device.packs.append((number, pack))
        texts = [cast("Call", item.request).texts[item.place] for item in pack.items]
        lengths = tuple(len(text.ids) for text in texts)
        ids = np.fromiter(chain.from_iterable(text.ids for text in texts), dtype=np.int32, count=sum(lengths))
        starts = tuple(text.start for text in texts)
        device.process.send(Compute(number, cast("Weights", pack.model), ids, lengths, starts))
        if len(device.packs) == 1:
            self._watch(device)

    def _watch(self, device: Device) -> None:
        """Start the time of the batch that is computed now, if there is one."""
        if device.timer is not None:
            device.timer.cancel()
        device.timer = None
        if device.packs:
            device.timer = asyncio.get_running_loop().call_later(self._batch_seconds, self._hung, device)

    def _hung(self, device: Device) -> None:
        log.error(
            "a batch takes more than %g s on %s: its worker is killed", self._batch_seconds, device.process.device
        )
        device.process.kill()

    # --- from workers ------------------------------------------------------------------------------

    def computed(self, device: Device, answer: Computed) -> None:
        """Hand the vectors of a batch to those who wait for them."""
        pack = self._done(device, answer.number)
        device.process.recovered()
        device.pace[cast("Weights", pack.model)] = answer.seconds / pack.tokens
        self.meter.add(self._clock(), pack.tokens, answer.seconds)
        broken = set(answer.broken)
        for row, item in enumerate(pack.items):
            if row not in broken and not item.request.closed:
                cast("Call", item.request).fill(item.place, answer.vectors[row])
        if broken:
            self._give_up(self._scheduler.failed(pack, answer.broken), "its vector holds numbers that are not finite")
        self.pump()

    def failed(self, device: Device, answer: Failed) -> None:
        """Try a batch that raised an error again, in halves."""
        log.warning("a batch failed on %s: %s", device.process.device, answer.error)
        pack = self._done(device, answer.number)
        self._give_up(self._scheduler.failed(pack), f"its worker raised {answer.error.partition(':')[0]}")
        self.pump()

    def died(self, device: Device) -> None:
        """Try the batches of a dead worker again: the one that it computed in halves, those behind it as they are."""
        packs = [pack for _, pack in device.packs]
        device.packs.clear()
        self._watch(device)
        for pack in packs[1:]:
            self._scheduler.returned(pack)
        if packs:
            self._give_up(self._scheduler.failed(packs[0]), "its worker died over it, or hung")

    def _done(self, device: Device, number: int) -> Pack:
        """Take the batch that a worker answered off what it has: always the first."""
        expected, pack = device.packs.popleft()
        assert expected == number, f"batch {number} was answered before batch {expected}"
        self._watch(device)
        return pack

    def _give_up(self, items: Sequence[Item], why: str) -> None:
        for item in items:
            call = cast("Call", item.request)
            error = call.gave_up(item.place, why)
            if error is not None:
                self.fail(call, error)
