"""Charts over time: what is drawn where, what is left out, and that words and a table say the same."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable

import pytest

from unmask.gateway.routing.histograms import Histogram, bucket_of
from unmask.gateway.routing.history import Figures, Traffic
from unmask.gateway.web.charts import Chart
from unmask.gateway.web.speeds import SPANS, speeds_of
from unmask.gateway.web.times import Strip, Times, curves, strips

EVIL = '<script>alert("&")</script>'
TIMES = Times(steps=("21 Nov, 00:00", "21 Nov, 06:00", "21 Nov, 12:00", "21 Nov, 18:00", EVIL), labelled=2)


def whole(value: float) -> str:
    return f"{value:.0f}"


def drawn(chart: Chart) -> ElementTree.Element:
    """Return the drawing as XML, and check what every drawing has."""
    drawing = ElementTree.fromstring(str(chart.svg))
    assert drawing.get("role") == "img"
    assert set((drawing.get("aria-labelledby") or "").split()) <= {each.get("id") for each in drawing}
    assert not [each for each in drawing.iter() if "style" in each.attrib or each.tag == "script"]
    assert all(len(row) == len(chart.heads) for row in chart.rows)
    return drawing


def classes(drawing: ElementTree.Element, tag: str) -> list[str]:
    return [each.get("class") or "" for each in drawing.iter(tag)]


def test_a_curve_breaks_off_where_nothing_is_known_and_a_value_alone_is_seen() -> None:
    chart = curves("a", EVIL, TIMES, [("p50", [10, 20, None, 40, None]), (EVIL, [10, None, None, 100, None])], whole)
    drawing = drawn(chart)
    paths = [each.get("d") or "" for each in drawing.iter("path") if "curve" in (each.get("class") or "")]
    assert [re.findall("[ML]", path) for path in paths] == [["M", "L", "M"], ["M", "M"]]
    assert chart.rows == (
        ("21 Nov, 00:00", "10", "10"),
        ("21 Nov, 06:00", "20", "–"),
        ("21 Nov, 18:00", "40", "100"),
    )
    assert drawing[1].text == f"p50: the latest 40, between 10 and 40; {EVIL}: the latest 100, between 10 and 100"
    assert chart.legend == ("p50", EVIL)
    # What a pointer is told, for each step of which something is known.
    tips = [rect.find("title") for rect in drawing.iter("rect")]
    assert [tip.text for tip in tips if tip is not None][1] == "21 Nov, 06:00: p50 20"
    # Every second step has its time below, without the hour.
    below = [each.text for each in drawing.iter("text") if each.get("class") == "tick"]
    assert below == ["21 Nov", "21 Nov", EVIL]


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([12, 90], ["10", "20", "50", "100"]),
        ([7], ["5", "10"]),
        ([5], ["5", "10"]),
        ([0.02, 0.03], ["0.02", "0.05"]),
        ([1, 1], ["1", "2"]),
        ([3, 80_000], ["10", "100", "1k", "10k", "100k"]),
        ([999_999], ["500k", "1000k"]),
        ([1000], ["1k", "2k"]),
    ],
)
def test_levels_are_round_and_hold_every_value(values: list[float], levels: list[str]) -> None:
    drawing = drawn(curves("a", "t", Times(steps=("x",) * len(values), labelled=1), [("s", values)], whole))
    found = [each.text for each in drawing.iter("text") if each.get("class") == "tick end"]
    assert found == levels
    ys = [float(y) for each in drawing.iter("path") for y in re.findall(r"[ML]\S+ (-?[\d.]+)", each.get("d") or "")]
    assert all(0 <= y <= 150 for y in ys)


def test_a_bar_is_as_high_as_its_share_and_less_than_all_looks_different() -> None:
    rows = [Strip(label=EVIL, shown="75.00 %", shares=(1.0, 0.9999, 0.0, None, 1.0))]
    chart = strips("a", EVIL, TIMES, rows)
    drawing = drawn(chart)
    bars = [(each.get("class"), float(each.get("height") or 0)) for each in drawing.iter("rect")]
    assert bars == [("s0", 24), ("part", 24), ("down", 3), ("none", 3), ("s0", 24)]
    assert chart.rows == (
        ("21 Nov, 00:00", "100.0 %"),
        ("21 Nov, 06:00", "99.9 %"),
        ("21 Nov, 12:00", "0.0 %"),
        (EVIL, "100.0 %"),
    )
    assert drawing[1].text == f"{EVIL}: 75.00 %, less at 21 Nov, 06:00 99.9 %, 21 Nov, 12:00 0.0 %"


def figures(values: Iterable[float], **plain: int) -> Figures:
    counts: dict[int, int] = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    return Figures(latency=Histogram(counts), throughput=Histogram(counts), **plain)


def test_for_both_latency_and_throughput_p99_is_the_slow_end() -> None:
    from tests.integration.test_web_support import report

    values = [float(value) for value in range(1, 101)]
    now = {"local": figures(values, answered=100, up=5)}
    empty = (Figures(),) * 23
    traffic = Traffic(
        now=now, starts=tuple(range(24, 48)), step=1, steps={"local": (*empty, now["local"])}, uptime={"second": 0.5}
    )
    found = speeds_of(report(), traffic, SPANS["day"])
    local, second = found.lines
    assert [round(value or 0) for value in local.latency] == pytest.approx([50, 90, 99], rel=0.06)
    assert [round(value or 0) for value in local.throughput] == pytest.approx([51, 11, 2], rel=0.1)
    assert second.latency == second.throughput == (None, None, None)
    assert (local.uptime, second.uptime) == (None, 0.5)
    assert [chart.name for chart in found.charts] == ["latency", "throughput", "uptime"]
    assert (found.requests, found.failed) == (100, 0)
    assert found.charts[0].rows[0][0] == "23:00"
    nothing = Traffic(now={}, starts=traffic.starts, step=1, steps={}, uptime={})
    assert speeds_of(report(), nothing, SPANS["day"]).charts == ()
    assert speeds_of(None, nothing, SPANS["week"]).lines == ()
