"""How often something may be done: counted in the database, for all processes together.

A count is kept as the time until which it is used up, had it been used evenly (GCRA, as in ``reserving.py``): one row
for each that acts, none of whose address can be read from it, and swept when it is as good as new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import LargeBinary, bindparam, case, delete, insert, literal, or_, select, update

from unmask.errors import InputError
from unmask.gateway.accounts.binds import number
from unmask.gateway.accounts.clock import SECOND, Clock, microseconds
from unmask.gateway.accounts.errors import ThrottledError
from unmask.gateway.accounts.tokens import Keyed
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Statement, Transaction
from unmask.gateway.db.tables import Integer64, throttle


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How often something may be done.

    Attributes:
        name: of what is done; limits of the same name share their counts.
        count: times, at once or spread.
        seconds: in which it may be done so often.

    Raises:
        InputError: it permits nothing.
    """

    name: str
    count: int
    seconds: float

    def __post_init__(self) -> None:
        if self.count < 1 or self.cost < 1:
            raise InputError(f"A limit of {self.count} times in {self.seconds} s cannot be. Expected 1 or more.")

    @property
    def period(self) -> int:
        """Microseconds in which it may be done so often."""
        return int(self.seconds * SECOND)

    @property
    def cost(self) -> int:
        """Microseconds of the period that one time uses up."""
        return self.period // self.count


#: What is done, and who does it.
Act = tuple[Limit, str]

_print: Final = bindparam("print", type_=LargeBinary)
_now: Final = number("now")
_until: Final = throttle.c.used_until
# Further ahead than a period it cannot be unless the clock went back; the second is for clocks that do not quite agree.
_level: Final = case(
    (or_(_until < _now, _until > _now + literal(2, Integer64) * number("period")), _now),
    else_=_until,
)
_OVER: Final = Statement(select(_level + number("cost") - _now - number("period")).where(throttle.c.digest == _print))
_ADD: Final = Statement(insert(throttle).values(digest=_print, used_until=_now + number("cost")))
_RAISE: Final = Statement(
    update(throttle)
    .where(throttle.c.digest == _print, _level + number("cost") <= _now + number("period"))
    .values(used_until=_level + number("cost"))
)
_LOWER: Final = Statement(
    update(throttle).where(throttle.c.digest == _print).values(used_until=_until - number("cost"))
)
_SWEEP: Final = Statement(
    delete(throttle).where(
        _until <= _now,
        throttle.c.digest.in_(select(throttle.c.digest).where(_until <= _now).order_by(_until).limit(1000)),
    )
)


class Throttle:
    """Counts of what is done, in a database.

    Args:
        database: where they are.
        secret: the server's.
        clock: the time.

    Raises:
        InputError: the secret is too short.
    """

    def __init__(self, database: Database, secret: bytes, *, clock: Clock = microseconds) -> None:
        self._database = database
        self._keyed = Keyed(secret, "throttle")
        self._clock = clock

    async def take(self, *acts: Act) -> None:
        """Count something that is done once, by each of those who do it; all or none of it.

        Raises:
            ThrottledError: one of them did it too often.
            DatabaseUnavailableError: the database cannot be written now.
        """
        counted = self._counted(acts)

        def operation(transaction: Transaction) -> None:
            over = [transaction.rows(_OVER, **values) for values in counted]
            _require_none(max((rows[0][0] for rows in over if rows), default=0))
            for values, rows in zip(counted, over, strict=True):
                if not rows:
                    transaction.run(_ADD, now=values["now"], cost=values["cost"], print=values["print"])
                elif not transaction.run(_RAISE, **values):  # another process came in between
                    _require_none(transaction.rows(_OVER, **values)[0][0])

        await self._database.write(operation)

    async def give_back(self, *acts: Act) -> None:
        """Take back what was counted for something that was not done after all.

        Raises:
            DatabaseUnavailableError: the database cannot be written now.
        """
        counted = self._counted(acts)

        def operation(transaction: Transaction) -> None:
            for values in counted:
                transaction.run(_LOWER, cost=values["cost"], print=values["print"])

        await self._database.write(operation)

    async def sweep(self) -> int:
        """Forget the counts that are as good as new, a thousand at most; return how many there were.

        Raises:
            DatabaseUnavailableError: the database cannot be written now.
        """
        now = self._clock()
        return await self._database.write(lambda transaction: transaction.run(_SWEEP, now=now), hurry=False)

    def _counted(self, acts: tuple[Act, ...]) -> list[dict[str, Any]]:
        now = self._clock()
        counted: list[dict[str, Any]] = [
            {"print": self._keyed.digest(f"{limit.name} {who}"), "now": now, "cost": limit.cost, "period": limit.period}
            for limit, who in acts
        ]
        # In one order, so that two processes never wait for each other in a circle.
        return sorted(counted, key=lambda values: values["print"])


def _require_none(over: int) -> None:
    if over > 0:
        seconds = -(-over // SECOND)
        wait = f"{seconds} s" if seconds < 120 else f"{-(-seconds // 60)} minutes"
        raise ThrottledError(f"This was tried too often. Try again in {wait}.", retry_after=over / SECOND)
