"""Which model is ready, for whom it is kept in memory, and what those are told for whom it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from unmask.engine.attempts import Entry
from unmask.engine.contract import Served, State
from unmask.engine.loading import Loading
from unmask.engine.tokens import Reading
from unmask.errors import ModelColdError, ModelUnavailableError, StoppingError, UnknownModelError

#: Seconds that a load is expected to take before one was measured.
UNMEASURED: Final = 10.0


class Roster:
    """The models of an engine and their states.

    Args:
        loading: has them read and loaded.
        retry_seconds: how long a model that could not be loaded is left alone.
        clock: seconds, from any origin.
    """

    def __init__(self, loading: Loading, *, retry_seconds: float, clock: Callable[[], float]) -> None:
        self._loading = loading
        self._retry_seconds, self._clock = retry_seconds, clock
        self._closed = False

    def begin(self) -> None:
        """Want what is to be there from the start: all tokenizers, and the weights that the settings say."""
        for entry in self._loading.entries.values():
            self._loading.want(entry.read, *([entry.load] if entry.settings.preload else []))

    def close(self) -> None:
        """Answer all who wait."""
        self._closed = True
        for entry in self._loading.entries.values():
            entry.read.settled.set()
            entry.load.settled.set()

    def entry(self, name: str) -> Entry:
        """Return a model.

        Raises:
            UnknownModelError: it is not served.
        """
        if name not in self._loading.entries:
            known = ", ".join(self._loading.entries)
            raise UnknownModelError(f"Model {name!r} is not served here; expected one of {known}.")
        return self._loading.entries[name]

    @contextmanager
    def using(self, entry: Entry) -> Iterator[None]:
        """Keep a model's weights in memory, once they are there, while a request is answered."""
        self._loading.use(entry.settings.weights)
        try:
            yield
        finally:
            self._loading.release(entry.settings.weights)

    async def ready(self, entry: Entry, wait: float, *, weights: bool = True) -> Reading:
        """Wait until a model is ready; if it is not on its way, it is from now on.

        Args:
            entry: the model.
            wait: most seconds.
            weights: also wait for its weights, not for its tokenizer alone.

        Raises:
            ModelColdError: it is not ready within ``wait`` seconds, or could not be loaded.
            ModelUnavailableError: it could not be loaded, and trying again alone will not help.
            StoppingError: the engine shuts down.
        """
        deadline = self._clock() + wait
        attempts = (entry.read, entry.load) if weights else (entry.read,)
        while True:
            if self._closed:
                raise StoppingError("The engine shuts down and takes nothing more. Ask another server.")
            missing = [attempt for attempt in attempts if not self._loading.done(attempt)]
            if not missing:
                assert entry.reading is not None
                return entry.reading
            self._loading.want(*missing)
            failed = [attempt for attempt in missing if attempt.error]
            if any(attempt.lasting for attempt in failed):
                raise ModelUnavailableError(
                    f"Model {entry.settings.name!r} cannot be loaded; the server's log says why. Tell its operator."
                )
            if failed:
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
                max_length=entry.reading.tokenizer.max_length if entry.reading else None,
                query_instruction=entry.reading.query_instruction if entry.reading else None,
                error=entry.read.error or entry.load.error,
            )
            for name, entry in self._loading.entries.items()
        )

    def _state(self, entry: Entry) -> State:
        if entry.read.error or entry.load.error:
            return "failed"
        if self._loading.done(entry.read) and self._loading.done(entry.load):
            return "ready"
        return "warming" if entry.load.wanted else "cold"

    def _cold(self, entry: Entry, what: str) -> ModelColdError:
        """Return the error that says when to ask again."""
        now = self._clock()
        waits = [0.0]
        for attempt in (entry.read, entry.load):
            if attempt.error:
                waits.append(attempt.failed_at + self._retry_seconds - now)
            elif not self._loading.done(attempt):
                waits.append((UNMEASURED if attempt.seconds is None else attempt.seconds) - (now - attempt.since))
        after = max(1.0, self._loading.start_seconds + max(waits))
        name = entry.settings.name
        return ModelColdError(f"Model {name!r} {what}. Ask again in {after:.0f} s.", retry_after=after)
