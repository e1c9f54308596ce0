"""Who may call, and who pays: what the API asks of whoever keeps the keys.

Two keep them: a list of keys in the settings (here), and accounts with prepaid credit (:mod:`unmask.gateway.hosting`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from unmask.engine.contract import Priority
from unmask.gateway.api.keys import Keys
from unmask.gateway.api.limits import Allowance, Allowances


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a request is about to take.

    Attributes:
        model: by the name it is served under.
        priority: at which it is answered.
        tokens: of each text.
    """

    model: str
    priority: Priority
    tokens: Sequence[int]


class AnsweredBeforeError(Exception):
    """The request is a retry of one that was answered: nothing is computed, and nothing is paid.

    Attributes:
        body: of the first answer.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__("answered before")
        self.body = body


class Visit(Protocol):
    """One request of a caller.

    Attributes:
        caller: whose files and batches these are, and who shares the engine with others; says nothing of keys.
        payer: from which :meth:`Access.resume` makes another visit later.
    """

    caller: str
    payer: str

    def headers(self) -> Mapping[str, str]:
        """Return what answers say of the caller's limits."""

    def expect(self, key: str, request: bytes) -> None:
        """Take an ``Idempotency-Key``.

        Args:
            key: as the client sent it.
            request: what tells it from other requests.

        Raises:
            UnmaskError: it cannot be one.
        """

    async def take(self, order: Order) -> None:
        """Let a request in, or refuse it; called at most once, when its tokens are known and nothing is computed.

        Raises:
            AnsweredBeforeError: it was answered before.
            UnmaskError: the caller's credit or limits do not permit it.
        """

    def end(self, body: bytes | None, tokens: int) -> None:
        """Say that the request is over; does not wait.

        Args:
            body: it was answered with; None if it was not.
            tokens: that it took, which may be fewer than were thought.
        """


class Access(Protocol):
    """Lets callers in."""

    async def enter(self, authorization: bytes | None) -> Visit:
        """Begin a request.

        Args:
            authorization: the header's value.

        Raises:
            UnmaskError: it holds no key, or one that opens nothing; or the caller's limits are reached.
        """

    def resume(self, payer: str) -> Visit:
        """Begin a request in the background, of a caller who came before."""

    async def close(self) -> None:
        """Finish what :meth:`Visit.end` began."""


class ListedKeys:
    """The keys of the settings; each has the same limits a minute, and pays nothing.

    Args:
        keys: that may call.
        requests: a minute, None for any number.
        tokens: a minute, None for any number.
    """

    def __init__(self, keys: Keys, *, requests: int | None = None, tokens: int | None = None) -> None:
        self._keys = keys
        self._allowances = Allowances(requests=requests, tokens=tokens)

    async def enter(self, authorization: bytes | None) -> Visit:
        """Begin a request; see :meth:`Access.enter`.

        Raises:
            AuthenticationError: there is no key, or an unknown one.
            RateLimitError: its requests of this minute are used up.
        """
        caller = self._keys.caller(authorization)
        allowance = self._allowances.of(caller)
        allowance.take("requests")
        return _Listed(caller, allowance)

    def resume(self, payer: str) -> Visit:
        """Begin a request of a batch: it counts against no limit, for it waits its turn anyway."""
        return _Listed(payer, _FREE)

    async def close(self) -> None:
        """Do nothing: nothing was begun."""


_FREE = Allowance(requests=None, tokens=None)


class _Listed:
    def __init__(self, caller: str, allowance: Allowance) -> None:
        self.caller = self.payer = caller
        self._allowance = allowance
        self._taken = 0

    def headers(self) -> Mapping[str, str]:
        return self._allowance.headers()

    def expect(self, key: str, request: bytes) -> None:
        """Do nothing: a request that costs nothing may be answered twice."""

    async def take(self, order: Order) -> None:
        tokens = sum(order.tokens)
        self._allowance.take("tokens", tokens)
        self._taken = tokens

    def end(self, body: bytes | None, tokens: int) -> None:
        if body is None and self._taken:
            self._allowance.settle("tokens", self._taken, 0)
