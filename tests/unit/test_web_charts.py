"""Charts: where things are drawn, what is escaped, and that a table says the same."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from datetime import date

import pytest

from unmask.gateway.accounts.usage import DayUsage
from unmask.gateway.catalogue import Catalogue, Listing, compare
from unmask.gateway.web.charts import Bar, Chart, Dot, DotRow, bars, dots
from unmask.gateway.web.drawing import TALL, axis, ticks
from unmask.gateway.web.planes import Point, columns, line, scatter
from unmask.gateway.web.plots import measured, published, requests_by_day, side_by_side, usage_by_day

EVIL = '<script>alert("&")</script>'


def parsed(chart: Chart) -> ElementTree.Element:
    """Return the drawing as XML, which it must be."""
    return ElementTree.fromstring(str(chart.svg))


def charts() -> list[Chart]:
    """One of each kind, with labels that would do harm."""
    row = DotRow(label=EVIL, about=EVIL, dots=(Dot(value=50, low=40, high=60), None))
    return [
        bars("a", EVIL, [Bar(label=EVIL, value=3, shown=EVIL)]),
        dots("b", EVIL, [row], [EVIL, "other"]),
        columns("c", EVIL, ["1 Nov", EVIL], [(EVIL, [1, 0]), ("x", [2, 3])]),
        line("d", EVIL, [EVIL, "2 Nov"], [1, 2]),
        scatter("e", EVIL, [Point(label=EVIL, x=1e8, y=50), Point(label="b", x=7e9, y=60)], x=EVIL, y=EVIL),
    ]


@pytest.mark.parametrize("chart", charts(), ids=lambda chart: chart.name)
def test_a_chart_is_an_image_with_a_title_a_description_and_no_style_of_its_own(chart: Chart) -> None:
    drawing = parsed(chart)
    assert drawing.get("role") == "img"
    ids = {each.get("id") for each in drawing}
    assert set((drawing.get("aria-labelledby") or "").split()) <= ids
    assert drawing[0].text == EVIL
    assert EVIL in (drawing[1].text or "")
    assert not [each for each in drawing.iter() if "style" in each.attrib or each.tag == "script"]
    assert chart.rows
    assert all(len(row) == len(chart.heads) for row in chart.rows)


def test_bars_are_as_long_as_their_values() -> None:
    chart = bars("a", "speed", [Bar(label="x", value=50, shown="50"), Bar(label="y", value=25, shown="25")], most=100)
    drawn = re.findall(r'class="s0" x="0" y="\d+" width="([\d.]+)%"', chart.svg)
    assert drawn == ["50.00", "25.00"]


def test_dots_lie_within_their_interval_on_the_axis() -> None:
    chart = dots("a", "t", [DotRow(label="x", dots=(Dot(value=50, low=0, high=100),))], ["ours"])
    assert 'x1="2.00%" x2="98.00%"' in chart.svg
    assert 'class="spot s0" x="50.00%"' in chart.svg
    assert chart.rows == (("x", "50.0 (0.0–100.0)"),)
    assert chart.legend == ()


def test_columns_stand_one_upon_the_other() -> None:
    chart = columns("a", "t", ["1", "2"], [("x", [1, 0]), ("y", [3, 4])])
    drawn = re.findall(r'class="s(\d)" x="([\d.]+)%" y="([\d.]+)" width="[\d.]+%" height="([\d.]+)"', chart.svg)
    first, second, third = [(int(a), float(y), float(height)) for a, _, y, height in drawn]
    assert first[1] + first[2] == pytest.approx(TALL, abs=0.1)
    assert second[1] + second[2] == pytest.approx(first[1], abs=0.1)
    assert third[2] == pytest.approx(first[2] + second[2], abs=0.1)
    assert chart.legend == ("x", "y")


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (0.2, 0.7), (56.2, 64.8), (-3, 5), (7, 7), (0, 1234567)])
def test_an_axis_has_round_ends_that_hold_its_values(low: float, high: float) -> None:
    first, last, step = axis(low, high)
    assert first <= low
    assert high <= last
    assert 1 <= len(ticks(first, last, step)) - 1 <= 7


def listings(*slugs: str) -> list[Listing]:
    """Return models of the catalogue."""
    catalogue = Catalogue.load()
    return [Listing(entry=catalogue.find(slug), status="live") for slug in slugs]


def test_own_and_published_figures_are_told_apart() -> None:
    catalogue = Catalogue.load()
    ours, theirs = catalogue.find("smollm2-135m-sup"), catalogue.find("llm2vec-sheared-llama-supervised")
    assert measured(theirs) is None
    assert published(ours) is None
    own, other = measured(ours), published(theirs)
    assert own
    assert other
    assert ours.measured
    assert len(own.rows) == len(ours.measured.figures)
    assert other.rows == (("MTEB, 56 English tasks, average", "61.85"),)


def test_models_side_by_side_are_drawn_where_they_were_measured_alike() -> None:
    chosen = listings("smollm2-135m-sup", "smollm2-135m-unsup")
    found = side_by_side(compare(Catalogue.load(), chosen), chosen)
    assert [chart.name for chart in found] == ["ours"]  # of one size, so none by size
    assert "(81.7–88.7)" in found[0].rows[0][1]
    others = listings("llm2vec-sheared-llama-supervised", "llm2vec-mistral-7b-instruct-v2-supervised")
    assert [each.name for each in side_by_side(compare(Catalogue.load(), others), others)] == ["size", "theirs"]
    mixed = listings("smollm2-135m-sup", "llm2vec-sheared-llama-supervised")
    assert side_by_side(compare(Catalogue.load(), mixed), mixed) == []


def test_usage_is_drawn_by_day_and_model_and_the_many_small_ones_together() -> None:
    today = date(2026, 11, 23)

    def used(model: str, amount: int, day: date = today) -> DayUsage:
        return DayUsage(day=day, model=model, requests=2, units=10, amount=amount)

    assert usage_by_day([], today, "EUR") is None
    usage = [used(f"m{number}", 1_000_000 * (9 - number)) for number in range(8)]
    usage.append(used("m0", 500_000, date(2026, 11, 22)))
    chart = usage_by_day(usage, today, "EUR")
    assert chart
    assert chart.legend == ("m0", "m1", "m2", "m3", "m4", "others")
    assert chart.rows == (("22 Nov", "0.5", "0", "0", "0", "0", "0"), ("23 Nov", "9", "8", "7", "6", "5", "9"))
    assert requests_by_day(usage, today).rows == (("22 Nov", "2"), ("23 Nov", "16"))
