"""Which texts are computed next: pure bookkeeping, without clock, threads or event loop.

Each model has a queue for each priority, see :mod:`unmask.engine.lanes`. Models take turns. A batch is filled from the
realtime queue first; a model with realtime work goes before one that has other work only.

Batches on which a worker failed are *suspects*: split in halves until the bad text is alone, computed before all
else, and each on a worker that has nothing else to do, so that the next failure has one cause.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from unmask.engine.contract import Priority
from unmask.engine.lanes import Item, Lane, Request

#: In the order in which they are served.
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
#: How often a text must fail alone to be given up.
STRIKES: Final = 2


@dataclass(frozen=True, eq=False)
class Pack:
    """Texts that are computed together, longest first."""

    model: Hashable
    items: tuple[Item, ...]
    suspect: bool = False

    @property
    def tokens(self) -> int:
        """How many its texts have together."""
        return sum(item.tokens for item in self.items)


class Scheduler:
    """Queues of all models.

    Args:
        limit: most tokens that may wait, of each priority.

    Attributes:
        queued: tokens that wait, by priority.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.queued: dict[Priority, int] = dict.fromkeys(PRIORITIES, 0)
        self._of_caller: Counter[tuple[Priority, str]] = Counter()
        self._lanes: dict[tuple[Hashable, Priority], Lane] = {}
        self._suspects: deque[Pack] = deque()
        self._turns: dict[Hashable, int] = {}
        self._turn = 0

    # --- in and out --------------------------------------------------------------------------------

    def fits(self, caller: str, priority: Priority, tokens: int) -> bool:
        """Return whether a request may join the queue.

        A caller may have no more waiting than it leaves free, so that no number of requests of one caller shuts out
        the next caller. Where nothing waits any request may, however large: else it could never be served.
        """
        free = self.limit - self.queued[priority] - tokens
        return not self.queued[priority] or self._of_caller[priority, caller] + tokens <= free

    def add(self, request: Request) -> None:
        """Queue all texts of a request."""
        self._lane(request.model, request.priority).add(request)
        self._count(request, sum(request.lengths))

    def drop(self, request: Request) -> None:
        """Take a request off: what waits of it leaves at once, what runs is of no use when it comes."""
        if request.closed:
            return
        request.closed = True
        if request.waiting:
            self._count(request, -sum(request.lengths[index] for index in request.waiting))
            self._lane(request.model, request.priority).remove(request)
        for pack in [pack for pack in self._suspects if any(item.request is request for item in pack.items)]:
            self._suspects.remove(pack)
            for item in pack.items:
                self._count(item.request, -item.tokens)
            self._suspect([item for item in pack.items if not item.request.closed])

    def of_model(self, model: Hashable) -> list[Request]:
        """Return the requests that wait, or wait in part, for a model."""
        waiting = [request for priority in PRIORITIES for request in self._lane(model, priority).requests()]
        suspects = [item.request for pack in self._suspects if pack.model == model for item in pack.items]
        return list(dict.fromkeys(waiting + suspects))

    # --- batches -----------------------------------------------------------------------------------

    def take(self, budgets: Mapping[Any, int], *, full: bool = False) -> Pack | None:
        """Return the next batch, None if there is none.

        Args:
            budgets: the models that can be computed now, with the most tokens of a batch of each. A single longer
                text is a batch of its own.
            full: only a batch that uses up its budget, to be kept ready behind one that is being computed; a
                smaller one would better wait and grow. Never a suspect.
        """
        suspect = next((pack for pack in self._suspects if pack.model in budgets), None)
        if suspect is not None:
            if full:
                return None
            self._suspects.remove(suspect)
            for item in suspect.items:
                self._count(item.request, -item.tokens)
            return suspect
        model = self._whose_turn(budgets, full=full)
        if model is None:
            return None
        items: list[Item] = []
        room = budgets[model]
        for priority in PRIORITIES:
            taken = self._lane(model, priority).take(room, whole=not items)
            for item in taken:
                self._count(item.request, -item.tokens)
                room -= item.tokens
            items += taken
        return Pack(model, tuple(sorted(items, key=lambda item: -item.tokens)))

    def failed(self, pack: Pack, indices: Iterable[int] | None = None) -> list[Item]:
        """Take back a batch on which a worker failed.

        Args:
            pack: the batch; it is split in halves, or counts against its text where that is alone.
            indices: the items of it that failed, each suspected alone; None if any of them may be the cause.

        Returns:
            The texts to give up: they failed alone, and again.
        """
        if indices is not None:
            parts = [[pack.items[index]] for index in indices]
        elif len(pack.items) > 1:
            middle = len(pack.items) // 2
            parts = [list(pack.items[:middle]), list(pack.items[middle:])]
        else:
            parts = [list(pack.items)]
        given_up = []
        for part in parts:
            open_items = [item for item in part if not item.request.closed]
            if len(pack.items) == 1 and open_items:
                item = open_items[0]
                item.request.strikes[item.place] += 1
                if item.request.strikes[item.place] >= STRIKES:
                    given_up.append(item)
                    continue
            self._suspect(open_items)
        return given_up

    def returned(self, pack: Pack) -> None:
        """Take back a batch that a worker had when it died over another one."""
        self._suspect([item for item in pack.items if not item.request.closed])

    # --- inside ------------------------------------------------------------------------------------

    def _suspect(self, items: Sequence[Item]) -> None:
        if items:
            self._suspects.append(Pack(items[0].request.model, tuple(items), suspect=True))
        for item in items:
            self._count(item.request, item.tokens)

    def _count(self, request: Request, tokens: int) -> None:
        self.queued[request.priority] += tokens
        own = (request.priority, request.caller)
        self._of_caller[own] += tokens
        if not self._of_caller[own]:
            del self._of_caller[own]

    def _lane(self, model: Hashable, priority: Priority) -> Lane:
        return self._lanes.setdefault((model, priority), Lane())

    def _whose_turn(self, budgets: Mapping[Any, int], *, full: bool) -> Hashable | None:
        """Return the model that was served longest ago, of those with work of the highest priority at hand."""
        for priority in PRIORITIES:
            able = [
                model
                for model, budget in budgets.items()
                if self._lane(model, priority).tokens
                and (not full or sum(self._lane(model, each).tokens for each in PRIORITIES) >= budget)
            ]
            if able:
                model: Hashable = min(able, key=lambda model: self._turns.get(model, 0))
                self._turn += 1
                self._turns[model] = self._turn
                return model
        return None
