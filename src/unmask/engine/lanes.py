"""The queue of one model and priority, in which callers have equal shares. Pure bookkeeping.

Each caller has a count of the tokens it was given; the lowest comes next, and one who joins starts where the queue
stands (start-time fair queueing, Goyal et al., 1996). Inside a caller, requests keep their order; inside a request, the
longest text comes first, so that equal lengths meet in a batch. A text that does not fit into what is left of a batch
lets others pass and heads the next one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from unmask.engine.contract import Priority


@dataclass(eq=False, kw_only=True)
class Request:
    """The texts of one call, as the scheduler sees them.

    Attributes:
        model: what they run on; texts of equal models share batches.
        caller: whose they are.
        priority: of all of them.
        lengths: tokens of each text, at least 1.
        closed: answered, failed or cancelled: what of it waits or runs is of no use.
    """

    model: Hashable
    caller: str
    priority: Priority
    lengths: Sequence[int]
    closed: bool = False
    waiting: list[int] = field(init=False, repr=False)
    """Indices of texts that are not in a batch yet; the next one is the last."""
    strikes: Counter[int] = field(default_factory=Counter, init=False, repr=False)
    """How often each text failed alone."""

    def __post_init__(self) -> None:
        self.waiting = sorted(range(len(self.lengths)), key=lambda index: (self.lengths[index], -index))


class Item(NamedTuple):
    """One text of a request."""

    request: Request
    place: int
    """In its request."""

    @property
    def tokens(self) -> int:
        """How many it has."""
        return self.request.lengths[self.place]


class Lane:
    """A queue.

    Attributes:
        tokens: that wait in it.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._shares: dict[str, _Share] = {}
        self._given = 0

    def add(self, request: Request) -> None:
        """Queue all texts of a request."""
        share = self._shares.setdefault(request.caller, _Share(self._given))
        share.requests.append(request)
        self.tokens += sum(request.lengths)

    def remove(self, request: Request) -> None:
        """Take off what of a request still waits."""
        share = self._shares[request.caller]
        share.requests.remove(request)
        if not share.requests:
            del self._shares[request.caller]
        self.tokens -= sum(request.lengths[index] for index in request.waiting)

    def requests(self) -> list[Request]:
        """Return the requests of which texts wait."""
        return [request for share in self._shares.values() for request in share.requests]

    def take(self, room: int, *, whole: bool) -> list[Item]:
        """Take texts off the queue.

        Args:
            room: for how many tokens.
            whole: the batch is empty so far: a text that is longer than ``room`` may take it.
        """
        taken: list[Item] = []
        # In order of what callers were given; the place in the dict, which is that of joining, decides between equals.
        turns = [(share.given, place, caller) for place, (caller, share) in enumerate(self._shares.items())]
        heapify(turns)
        while turns and room > 0:
            given, place, caller = heappop(turns)
            share = self._shares[caller]
            request = share.requests[0]
            item = Item(request, request.waiting[-1])
            if item.tokens > room and (taken or not whole):
                continue
            request.waiting.pop()
            taken.append(item)
            room -= item.tokens
            self.tokens -= item.tokens
            self._given = max(self._given, given)
            share.given += item.tokens
            if not request.waiting:
                share.requests.popleft()
            if share.requests:
                heappush(turns, (share.given, place, caller))
            else:
                del self._shares[caller]
        return taken


@dataclass
class _Share:
    """A caller in a queue: the tokens it was given, and its requests in order."""

    given: int
    requests: deque[Request] = field(default_factory=deque)
