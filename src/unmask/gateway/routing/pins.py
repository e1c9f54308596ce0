"""Which provider each model is pinned to, where all processes see the same: in the database, or in memory for one.

    agreement.py   what follows from a pin, for one model in one process
    pinning.py     brings both together
    pins.py        the pins themselves

Whoever pins a model first has pinned it for all: one statement adds the row if there is none, and every change names
the row it was made of by its *mark*, so nobody changes what somebody else has changed meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import LargeBinary, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import Clock, microseconds
from unmask.gateway.accounts.money import fingerprint
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Row, Statement, Transaction
from unmask.gateway.db.tables import pins
from unmask.gateway.routing.agreement import PROBES, Pin
from unmask.text import Text

#: As they are kept, whatever machine wrote them.
_KEPT: Final = np.dtype("<f4")

_values: Final[dict[str, Any]] = {
    "provider": words("name"),
    "since": number("at"),
    "mark": words("new"),
    "probes": words("print"),
    "texts": number("rows"),
    "dimension": number("columns"),
    "vectors": bindparam("reference", type_=LargeBinary),
}
_CLAIM: Final = Statement(
    {
        "sqlite": sqlite.insert(pins).values(model=words("whose"), **_values).on_conflict_do_nothing(),
        "postgresql": postgresql.insert(pins).values(model=words("whose"), **_values).on_conflict_do_nothing(),
    }
)
_as_it_was: Final = (pins.c.model == words("whose"), pins.c.mark == words("old"))
_CHANGE: Final = Statement(update(pins).where(*_as_it_was).values(**_values))
_FORGET: Final = Statement(delete(pins).where(*_as_it_was))
_COLUMNS: Final = tuple(pins.columns)
_ONE: Final = Statement(select(*_COLUMNS).where(pins.c.model == words("whose")))
_MARKS: Final = Statement(select(pins.c.model, pins.c.mark))
_LISTED: Final = Statement(select(pins.c.model, pins.c.provider, pins.c.since, pins.c.mark).order_by(pins.c.model))


class Pins(Protocol):
    """Keeps which provider each model is pinned to."""

    async def claim(self, model: str, provider: str, reference_ND: NDArray[np.float32] | None) -> Pin:
        """Pin a model that has no pin, and return its pin: this one, or the one that somebody else made before.

        Args:
            model: to be pinned.
            provider: whose vectors are to be the model's.
            reference_ND: its vectors of the probe texts; None where it will not embed them.

        Raises:
            DatabaseError: it cannot be written now; nobody knows whose the model is.
        """

    async def change(self, pin: Pin, provider: str, reference_ND: NDArray[np.float32] | None) -> Pin | None:
        """Have a pin stand for another provider, or for vectors that were not known; return the pin there is then.

        Nothing is changed if somebody else has changed the pin, or it was forgotten, which is None.

        Raises:
            DatabaseError: it cannot be written now.
        """

    async def forget(self, model: str, mark: str) -> Pin | None:
        """Forget a pin that is still the one with this mark; return the pin there is then, None for none.

        Raises:
            DatabaseError: it cannot be written now.
        """

    async def news(self, known: Mapping[str, str | None]) -> dict[str, Pin | None]:
        """Return the pins that are others than those that are known, None for one that is gone.

        Args:
            known: the mark of each model's pin, None where no pin is known. Of other models nothing is returned.

        Raises:
            DatabaseUnavailableError: they cannot be read now.
        """


class PinsInMemory:
    """Pins of one process, forgotten with it.

    Args:
        clock: the time.
    """

    def __init__(self, clock: Clock = microseconds) -> None:
        self._pins: dict[str, Pin] = {}
        self._clock = clock

    async def claim(self, model: str, provider: str, reference_ND: NDArray[np.float32] | None) -> Pin:
        """Pin a model; see :class:`Pins`."""
        return self._pins.setdefault(model, self._pin(model, provider, self._clock(), reference_ND))

    async def change(self, pin: Pin, provider: str, reference_ND: NDArray[np.float32] | None) -> Pin | None:
        """Change a pin; see :class:`Pins`."""
        found = self._pins.get(pin.model)
        if found is not None and found.mark == pin.mark:
            since = pin.since if provider == pin.provider else self._clock()
            self._pins[pin.model] = self._pin(pin.model, provider, since, reference_ND)
        return self._pins.get(pin.model)

    async def forget(self, model: str, mark: str) -> Pin | None:
        """Forget a pin; see :class:`Pins`."""
        found = self._pins.get(model)
        if found is not None and found.mark == mark:
            del self._pins[model]
        return self._pins.get(model)

    async def news(self, known: Mapping[str, str | None]) -> dict[str, Pin | None]:
        """Return what has changed; see :class:`Pins`."""
        found = {model: self._pins.get(model) for model in known}
        return {model: pin for model, pin in found.items() if (pin.mark if pin else None) != known[model]}

    @staticmethod
    def _pin(model: str, provider: str, since: int, reference_ND: NDArray[np.float32] | None) -> Pin:
        return Pin(model=model, provider=provider, since=since, mark=_new_mark(), reference=reference_ND)


class PinsInDatabase:
    """Pins that all processes on a database share, and that outlive them.

    Args:
        database: where they are.
        probes: what vectors are compared on; vectors of others are as if they were not there.
        clock: the time.
    """

    def __init__(self, database: Database, *, probes: Sequence[Text] = PROBES, clock: Clock = microseconds) -> None:
        self._database = database
        self._clock = clock
        parts = (part.encode() for probe in probes for part in (probe.instruction, probe.content))
        self._print = fingerprint(*parts)

    async def claim(self, model: str, provider: str, reference_ND: NDArray[np.float32] | None) -> Pin:
        """Pin a model; see :class:`Pins`."""
        values = self._values(model, provider, self._clock(), reference_ND)

        def operation(transaction: Transaction) -> Pin:
            transaction.run(_CLAIM, **values)
            found = self._one(transaction, model)
            assert found is not None, "it is there, whoever added it"
            return found

        # A pin that a power cut takes back would be made anew, and not always the same.
        return await self._database.write(operation, durable=True)

    async def change(self, pin: Pin, provider: str, reference_ND: NDArray[np.float32] | None) -> Pin | None:
        """Change a pin; see :class:`Pins`."""
        since = pin.since if provider == pin.provider else self._clock()
        values = self._values(pin.model, provider, since, reference_ND)

        def operation(transaction: Transaction) -> Pin | None:
            transaction.run(_CHANGE, old=pin.mark, **values)
            return self._one(transaction, pin.model)

        return await self._database.write(operation, durable=True)

    async def forget(self, model: str, mark: str) -> Pin | None:
        """Forget a pin; see :class:`Pins`."""

        def operation(transaction: Transaction) -> Pin | None:
            transaction.run(_FORGET, whose=model, old=mark)
            return self._one(transaction, model)

        return await self._database.write(operation, durable=True)

    async def news(self, known: Mapping[str, str | None]) -> dict[str, Pin | None]:
        """Return what has changed; see :class:`Pins`."""

        def operation(transaction: Transaction) -> dict[str, Pin | None]:
            marks = {str(model): str(mark) for model, mark in transaction.rows(_MARKS)}
            others = [model for model, mark in known.items() if marks.get(model) != mark]
            return {model: self._one(transaction, model) if model in marks else None for model in others}

        return await self._database.read(operation)

    async def list(self) -> tuple[Pin, ...]:
        """Return all of them by model, without their vectors, for pages.

        Raises:
            DatabaseUnavailableError: they cannot be read now.
        """
        rows = await self._database.read(lambda each: each.rows(_LISTED))
        return tuple(
            Pin(model=model, provider=provider, since=int(since), mark=mark, reference=None)
            for model, provider, since, mark in rows
        )

    def _values(
        self, model: str, provider: str, since: int, reference_ND: NDArray[np.float32] | None
    ) -> dict[str, Any]:
        rows, columns = (0, 0) if reference_ND is None else reference_ND.shape
        return {
            "whose": model,
            "name": provider,
            "at": since,
            "new": _new_mark(),
            "print": self._print,
            "rows": rows,
            "columns": columns,
            "reference": None if reference_ND is None else reference_ND.astype(_KEPT).tobytes(),
        }

    def _one(self, transaction: Transaction, model: str) -> Pin | None:
        rows = transaction.rows(_ONE, whose=model)
        return self._pin(rows[0]) if rows else None

    def _pin(self, row: Row) -> Pin:
        model, provider, since, mark, probes, texts, dimension, vectors = row
        reference_ND = None
        if vectors is not None and probes == self._print:
            reference_ND = np.frombuffer(bytes(vectors), dtype=_KEPT).reshape(texts, dimension).astype(np.float32)
        return Pin(model=model, provider=provider, since=int(since), mark=mark, reference=reference_ND)


def _new_mark() -> str:
    return secrets.token_hex(8)
