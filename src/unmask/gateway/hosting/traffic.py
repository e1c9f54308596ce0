"""What was asked of the API lately, for the admin; and what is counted in memory and written down now and then."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from unmask.errors import UnmaskError
from unmask.gateway.accounts.clock import SECOND, Clock, microseconds
from unmask.gateway.accounts.pulls import Calls
from unmask.gateway.api.http import Call
from unmask.gateway.catalogue import Entry
from unmask.gateway.routing.history import History
from unmask.gateway.routing.tallies import Cell, Tallies
from unmask.gateway.web.services import RequestRow

#: Requests that are remembered.
_KEPT: Final = 500
#: Counts that are written at once: a millisecond or so, in which no request is let in.
_TOGETHER: Final = 100


class Traffic:
    """The requests to this process.

    Args:
        calls: where they are counted for good.
        tallies: what the providers do.
        history: where that is kept for good.
        entry: the name a model is served under → what the catalogue says of it.
        clock: the time.
    """

    def __init__(
        self,
        calls: Calls,
        tallies: Tallies,
        history: History,
        entry: Callable[[str], Entry],
        *,
        clock: Clock = microseconds,
    ) -> None:
        self._calls = calls
        self._tallies = tallies
        self._history = history
        self._entry = entry
        self._clock = clock
        self._latest: deque[RequestRow] = deque(maxlen=_KEPT)
        self._counts: Counter[tuple[str, int]] = Counter()
        self._seen: Counter[Cell] = Counter()

    def observe(self, call: Call) -> None:
        """Remember a request that is over, and count it if a model answered it."""
        if call.operation is None or call.operation.open:
            return
        now = self._clock()
        if call.model is not None and call.operation.terms:
            self._counts[self._entry(call.model).slug, now // SECOND // 86_400] += 1
        self._latest.appendleft(
            RequestRow(
                at=now,
                id=call.request_id,
                path=call.operation.path,
                status=call.status,
                milliseconds=call.seconds * 1000,
                model=call.model,
                provider=call.provider,
                tokens=call.tokens,
                user_id=int(call.visit.payer.partition(".")[0]) if call.visit else None,
            )
        )

    def latest(self) -> Sequence[RequestRow]:
        """Return the latest requests, the newest first."""
        return tuple(self._latest)

    async def flush(self) -> None:
        """Write the counts down.

        Raises:
            DatabaseUnavailableError: they cannot be written now; those that were not are kept.
        """
        for cell, count in self._tallies.take().items():
            self._seen[cell._replace(model=self._entry(cell.model).slug)] += count
        while self._seen:
            some = dict(islice(self._seen.items(), _TOGETHER))
            # Whoever is cancelled meanwhile has written it: only what is refused is kept.
            for cell in some:
                del self._seen[cell]
            try:
                await self._history.add(some)
            except UnmaskError:
                self._seen.update(some)
                raise
        for slug, day in list(self._counts):
            count = self._counts.pop((slug, day))
            try:
                await self._calls.add(slug, datetime.fromtimestamp(day * 86_400, UTC).date(), count)
            except UnmaskError:
                self._counts[slug, day] += count
                raise
