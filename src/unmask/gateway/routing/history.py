"""What was seen of providers in the last 90 days, by hour, in the database: of all processes, before a restart too.

A row is a number: how often something was counted of a provider of a model in an hour. Processes only ever add, with
one statement for all that they counted, so nothing that another one writes is lost, and whoever reads adds up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, get_args

from sqlalchemy import cast, delete, func, or_, select, text

from unmask.gateway.accounts.binds import number, words
from unmask.gateway.accounts.clock import SECOND, Clock, microseconds
from unmask.gateway.db.database import Database
from unmask.gateway.db.statements import Row, Statement, Transaction
from unmask.gateway.db.tables import Integer64, traffic
from unmask.gateway.routing.histograms import Histogram, merged
from unmask.gateway.routing.tallies import Cell, Figure

#: Days that are kept, and days over which uptime is told.
KEPT: Final = 90
MONTH: Final = 30
#: Hours that stand for now: this one, and the one before.
NOW: Final = 2
_DAY: Final = 24

_COLUMNS: Final = ("slug", "provider", "figure", "hour", "bucket", "count")
#: Figures that are one count each.
_PLAIN: Final = ("answered", "failed", "up", "down")
_NUMBERS: Final = ("hour", "bucket", "count")
_ADDS: Final = "ON CONFLICT (figure, slug, hour, provider, bucket) DO UPDATE SET count = traffic.count + excluded.count"


def _adding(items: str, item: Callable[[int], str]) -> str:
    """Return the statement that adds rows of a JSON array; in one order, or two processes could wait in a circle."""
    fields = [
        f"CAST({item(at)} AS BIGINT)" if name in _NUMBERS else f"CAST({item(at)} AS TEXT)"
        for at, name in enumerate(_COLUMNS)
    ]
    chosen = f"SELECT {', '.join(fields)} FROM {items} WHERE true ORDER BY 1, 2, 3, 4, 5"  # noqa: S608 - all of it ours
    return f"INSERT INTO traffic ({', '.join(_COLUMNS)}) {chosen} {_ADDS}"


_hour: Final = traffic.c.hour
_ADD: Final = Statement(
    {
        "sqlite": text(_adding("json_each(:rows)", lambda at: f"json_extract(value, '$[{at}]')")),
        "postgresql": text(_adding("jsonb_array_elements(CAST(:rows AS JSONB))", lambda at: f"value ->> {at}")),
    }
)
# An hour at a time: a gateway that was off for months has a lot to forget, and others want to write.
_SWEEP: Final = Statement(
    delete(traffic).where(_hour == select(func.min(_hour)).scalar_subquery(), _hour < number("before"))
)
_sum: Final = cast(func.sum(traffic.c.count), Integer64)
_start: Final = _hour - _hour % number("step")
_is_of: Final = traffic.c.slug == words("model")
_OF_MODEL: Final = Statement(
    select(traffic.c.provider, _start, traffic.c.figure, traffic.c.bucket, _sum)
    .where(traffic.c.figure == words("what"), _is_of, _hour >= number("since"))
    .group_by(traffic.c.provider, _start, traffic.c.figure, traffic.c.bucket)
)
_checks: Final = (
    select(traffic.c.slug, traffic.c.provider, traffic.c.figure, _sum)
    .where(or_(traffic.c.figure == "up", traffic.c.figure == "down"), _hour >= number("since"))
    .group_by(traffic.c.slug, traffic.c.provider, traffic.c.figure)
)
_CHECKS: Final = Statement(_checks)
_CHECKS_OF_MODEL: Final = Statement(_checks.where(_is_of))


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was seen of a provider, or of several, over some time.

    Attributes:
        answered: requests that were answered.
        failed: requests that it failed; another provider may have answered them.
        up: checks that found it up.
        down: checks that did not.
        latency: seconds of each answer.
        throughput: tokens a second of each answer.
    """

    answered: int = 0
    failed: int = 0
    up: int = 0
    down: int = 0
    latency: Histogram = field(default_factory=Histogram)
    throughput: Histogram = field(default_factory=Histogram)

    @property
    def uptime(self) -> float | None:
        """Share of the checks that found it up, None without a check."""
        checks = self.up + self.down
        return self.up / checks if checks else None


def together(figures: Iterable[Figures]) -> Figures:
    """Return the figures of several providers, or times, as one."""
    every = tuple(figures)
    return Figures(
        **{name: sum(getattr(each, name) for each in every) for name in _PLAIN},
        latency=merged(each.latency for each in every),
        throughput=merged(each.throughput for each in every),
    )


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What was seen of a model's providers.

    Attributes:
        now: of each provider, in this hour and the one before.
        starts: hours since 1970 at which the steps begin, the oldest first; the last one goes on.
        step: hours of each.
        steps: of each provider, as many figures as there are ``starts``.
        uptime: of each provider, share of the last 30 days' checks that found it up; those apart without a check.
    """

    now: Mapping[str, Figures]
    starts: tuple[int, ...]
    step: int
    steps: Mapping[str, tuple[Figures, ...]]
    uptime: Mapping[str, float]

    def all(self) -> tuple[Figures, ...]:
        """Return the figures of each step, of all providers together."""
        return tuple(together(each) for each in zip(*self.steps.values(), strict=True)) or (Figures(),) * len(
            self.starts
        )


class History:
    """The figures of a database.

    Args:
        database: where they are.
        clock: the time.
    """

    def __init__(self, database: Database, *, clock: Clock = microseconds) -> None:
        self._database = database
        self._clock = clock

    async def add(self, counts: Mapping[Cell, int]) -> None:
        """Add what a process counted, in one statement.

        Args:
            counts: by what they are of, a model's name being its slug; at most some hundred, for while they are written
                nothing else is.

        Raises:
            DatabaseUnavailableError: the database cannot be written now; they may have been added all the same.
        """
        if counts:
            rows = json.dumps([[*cell, count] for cell, count in counts.items()])
            await self._database.write(lambda transaction: transaction.run(_ADD, rows=rows), hurry=False)

    async def sweep(self) -> int:
        """Forget what is older than 90 days; return how many rows there were.

        Raises:
            DatabaseUnavailableError: the database cannot be written now.
        """
        before, gone = self._hour() - KEPT * _DAY, 0
        while found := await self._database.write(
            lambda transaction: transaction.run(_SWEEP, before=before), hurry=False
        ):
            gone += found
        return gone

    async def of(self, slug: str, *, hours: int, step: int) -> Traffic:
        """Return what was seen of a model's providers.

        Args:
            slug: of the model.
            hours: that the steps are to cover, this one among them; a multiple of ``step``.
            step: hours of each; it begins where UTC's hours since 1970 are a multiple.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        hour = self._hour()
        last = hour - hour % step
        starts = tuple(range(last - hours + step, last + 1, step))

        def operation(transaction: Transaction) -> tuple[Sequence[Row], ...]:
            return (
                _rows(transaction, slug, since=starts[0], step=step),
                _rows(transaction, slug, since=hour - NOW + 1, step=1),
                transaction.rows(_CHECKS_OF_MODEL, model=slug, since=hour - MONTH * _DAY + 1),
            )

        spread, now, checks = await self._database.read(operation)
        found, latest = _figures(spread), _figures(now)
        return Traffic(
            now={
                each: together(figures for (provider, _), figures in latest.items() if provider == each)
                for each in {provider for provider, _ in latest}
            },
            starts=starts,
            step=step,
            steps={
                each: tuple(found.get((each, start), Figures()) for start in starts)
                for each in sorted({provider for provider, _ in found})
            },
            uptime={provider: share for (_, provider), share in _shares(checks).items()},
        )

    async def uptimes(self) -> dict[tuple[str, str], float]:
        """Return the share of the last 30 days' checks that found each provider up, by slug and provider's name.

        Raises:
            DatabaseUnavailableError: the database cannot be read now.
        """
        since = self._hour() - MONTH * _DAY + 1
        return _shares(await self._database.read(lambda transaction: transaction.rows(_CHECKS, since=since)))

    def _hour(self) -> int:
        return self._clock() // (3600 * SECOND)


def _rows(transaction: Transaction, slug: str, *, since: int, step: int) -> list[Row]:
    """Return the rows of a model; figure by figure, which is how they lie in the table."""
    return [
        row
        for figure in get_args(Figure)
        for row in transaction.rows(_OF_MODEL, what=figure, model=slug, since=since, step=step)
    ]


def _figures(rows: Sequence[Row]) -> dict[tuple[str, int], Figures]:
    """Return figures by provider and hour."""
    counts: dict[tuple[str, int], dict[str, dict[int, int]]] = {}
    for provider, start, figure, bucket, count in rows:
        counts.setdefault((provider, start), {}).setdefault(figure, {})[bucket] = count
    return {
        key: Figures(
            **{name: found.get(name, {}).get(0, 0) for name in _PLAIN},
            latency=Histogram(found.get("latency", {})),
            throughput=Histogram(found.get("throughput", {})),
        )
        for key, found in counts.items()
    }


def _shares(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """Return the share of checks that found each provider up."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for slug, provider, figure, count in rows:
        counts.setdefault((slug, provider), {})[figure] = count
    return {key: found.get("up", 0) / sum(found.values()) for key, found in counts.items()}
