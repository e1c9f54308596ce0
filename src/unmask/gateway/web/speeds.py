"""How fast and how reliable a model's providers were, as its page shows it: a table of now, and charts over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from unmask.gateway.routing.history import Figures, Traffic, together
from unmask.gateway.routing.reports import ModelReport, ProviderStatus
from unmask.gateway.web.charts import Chart
from unmask.gateway.web.formats import milliseconds
from unmask.gateway.web.times import Strip, Times, curves, strips

#: Shares of the answers that were so good or better.
SHARES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True, kw_only=True)
class Span:
    """A time that the charts can be of.

    Attributes:
        words: what it is called.
        every: what a step of it is called.
        hours: of all of it.
        step: hours of a step.
        labelled: every so many steps have their time below the chart: as many as there is room for on a phone.
        time: how a step is written; below the chart without what stands behind a comma.
    """

    words: str
    every: str
    hours: int
    step: int
    labelled: int
    time: Callable[[datetime], str]


#: By its name in an address; the first is shown to who asks for none.
SPANS: Final[dict[str, Span]] = {
    "day": Span(words="24 hours", every="by the hour", hours=24, step=1, labelled=6, time=lambda at: f"{at:%H:%M}"),
    "week": Span(
        words="7 days", every="by six hours", hours=168, step=6, labelled=8, time=lambda at: f"{at.day} {at:%b, %H:%M}"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A provider, as the table has it.

    Attributes:
        name: of it.
        status: at this moment; None if it does not answer for the model any more.
        latency: seconds that half, 90 % and 99 % of the answers took at most; None for each without an answer.
        throughput: tokens a second that half, 90 % and 99 % of them had at least; likewise.
        uptime: share of the last 30 days' checks that found it up, None without a check.
    """

    name: str
    status: ProviderStatus | None
    latency: tuple[float | None, ...]
    throughput: tuple[float | None, ...]
    uptime: float | None


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What is shown of a model's providers.

    Attributes:
        lines: a provider each, in the operator's order.
        charts: over time; empty if nothing was seen.
        requests: that providers were sent in that time.
        failed: of these.
    """

    lines: tuple[Line, ...]
    charts: tuple[Chart, ...]
    requests: int
    failed: int


def speeds_of(report: ModelReport | None, traffic: Traffic, span: Span) -> Speeds:
    """Return what is shown of a model's providers.

    Args:
        report: how they do at this moment, None if nobody answers for it.
        traffic: what was seen of them.
        span: that the charts are of.
    """
    every = traffic.all()
    whole = together(every)
    providers = report.providers if report else ()
    return Speeds(
        lines=tuple(_line(each.name, each.status, traffic) for each in providers),
        charts=tuple(_charts(every, traffic, [each.name for each in providers], span)),
        requests=whole.answered + whole.failed,
        failed=whole.failed,
    )


def _line(name: str, status: ProviderStatus, traffic: Traffic) -> Line:
    now = traffic.now.get(name, Figures())
    return Line(
        name=name,
        status=status,
        latency=tuple(now.latency.at_most(share) for share in SHARES.values()),
        throughput=tuple(now.throughput.at_least(share) for share in SHARES.values()),
        uptime=traffic.uptime.get(name),
    )


def _charts(every: Sequence[Figures], traffic: Traffic, names: Sequence[str], span: Span) -> list[Chart]:
    times = Times(
        steps=tuple(span.time(datetime.fromtimestamp(start * 3600, UTC)) for start in traffic.starts),
        labelled=span.labelled,
    )
    found = []
    if any(each.latency.total for each in every):
        latency = [
            (name, [None if (took := each.latency.at_most(share)) is None else 1000 * took for each in every])
            for name, share in SHARES.items()
        ]
        rate = [(name, [each.throughput.at_least(share) for each in every]) for name, share in SHARES.items()]
        found += [
            curves("latency", f"Latency in milliseconds, {span.every}", times, latency, milliseconds),
            curves("throughput", f"Tokens a second, {span.every}", times, rate, _rate),
        ]
    seen = [each for each in names if each in traffic.steps]
    if any(figures.uptime is not None for each in seen for figures in traffic.steps[each]):
        found.append(strips("uptime", f"Up, {span.every}", times, [_strip(each, traffic) for each in seen]))
    return found


def _strip(name: str, traffic: Traffic) -> Strip:
    steps = traffic.steps[name]
    whole = together(steps).uptime
    return Strip(
        label=name,
        shown="–" if whole is None else f"{100 * whole:.2f} %",
        shares=tuple(each.uptime for each in steps),
    )


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
