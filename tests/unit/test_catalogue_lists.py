"""Prices, status, lists and comparisons: pure functions of entries."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.errors import InputError
from unmask.gateway.catalogue import (
    ORDERS,
    Catalogue,
    Entry,
    Figure,
    Licence,
    Listing,
    Measurement,
    Prices,
    Provider,
    Published,
    Query,
    Status,
    Tier,
    choices,
    compare,
    select,
    status_of,
)
from unmask.gateway.catalogue.measuring import as_json, main, read_results, write_all
from unmask.gateway.catalogue.reading import Origin


def entry(slug: str, **fields: Any) -> Entry:
    given: dict[str, Any] = {
        "slug": slug, "title": slug, "source": f"me/{slug}", "task": "sentence-similarity",
        "licence": Licence(spdx="MIT"), "architecture": "a line", "about": "a text",
        "prices": Prices(realtime=20, batch=10),
    }  # fmt: skip
    return Entry(**(given | fields))


def listing(slug: str, status: Status = "live", **fields: Any) -> Listing:
    return Listing(entry=entry(slug, **fields), status=status)


def slugs(listings: list[Listing]) -> list[str]:
    return [each.entry.slug for each in listings]


def catalogue(*entries: Entry) -> Catalogue:
    return Catalogue(Origin(entry=each, files=dict.fromkeys(Entry.model_fields, Path("a"))) for each in entries)


# --- prices -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "tier", "price"),
    [
        (0, "realtime", 0),
        (1, "realtime", 1),  # a fiftieth of a millionth
        (50, "realtime", 1),
        (51, "realtime", 2),
        (1_000_000, "realtime", 20_000),
        (1_000_000, "batch", 10_000),
        (1_000_001, "batch", 10_001),
    ],
)
def test_a_price_is_rounded_up_to_the_millionth(count: int, tier: Tier, price: int) -> None:
    assert entry("a", prices=Prices(realtime=20_000, batch=10_000)).price_of(count, tier) == price


def test_documents_are_priced_by_the_thousand() -> None:
    prices = Prices(per="1k documents", realtime=2_000, batch=999)
    assert [prices.price_of(count, "realtime") for count in (1, 1000)] == [2, 2000]
    assert prices.price_of(1, "batch") == 1
    assert entry("a", task="text-ranking", prices=prices).price_of(3, "realtime") == 6


@given(count=st.integers(0, 10**15), price=st.integers(0, 10**12), more=st.integers(0, 10**9))
def test_no_price_is_below_its_share_nor_a_millionth_above(count: int, price: int, more: int) -> None:
    prices = Prices(realtime=price, batch=price)
    exact = Fraction(count * price, 1_000_000)
    assert prices.price_of(count, "realtime") == math.ceil(exact)
    assert prices.price_of(count + more, "batch") >= prices.price_of(count, "batch")


def test_a_negative_count_has_no_price() -> None:
    with pytest.raises(ValueError, match="expected at least 0"):
        Prices(realtime=1, batch=1).price_of(-1, "realtime")


def test_prices_are_shown_exactly() -> None:
    prices = Prices(realtime=50_000_000, batch=1)
    assert (prices.shown("realtime"), prices.shown("batch")) == ("50 per 1M tokens", "0.000001 per 1M tokens")


# --- status -------------------------------------------------------------------------------------------

ELSEWHERE = (Provider(name="p", url="https://p/v1", model="m"),)


@pytest.mark.parametrize(
    ("fields", "served", "status"),
    [
        ({}, {}, "coming soon"),
        ({}, {"b": "ready"}, "coming soon"),
        ({}, {"a": "ready"}, "live"),
        ({}, {"ME/A": "cold"}, "live"),
        ({}, {"a": "warming"}, "warming"),
        ({}, {"a": "failed"}, "coming soon"),
        ({}, {"a": "failed", "me/a": "warming"}, "warming"),
        ({}, {"me/a": "warming", "a": "ready"}, "live"),
        ({"providers": ELSEWHERE}, {}, "live"),
        ({"providers": ELSEWHERE}, {"a": "failed"}, "live"),
        ({"retired": True}, {"a": "ready"}, "retired"),
        ({"retired": True, "providers": ELSEWHERE}, {}, "retired"),
    ],
)
def test_status_follows_from_what_is_served(fields: dict[str, Any], served: dict[str, str], status: str) -> None:
    assert status_of(entry("a", **fields), served) == status


def test_an_engines_states_are_all_known() -> None:
    from typing import get_args

    from unmask.engine.contract import State

    for state in get_args(State):
        status_of(entry("a"), {"a": state})


# --- lists --------------------------------------------------------------------------------------------

MODELS = [
    listing("a", "coming soon", parameters=7, dimensions=4, published="2024-04", about="Likes Wikipedia"),
    listing("b", task="text-generation", parameters=1, dimensions=2, published="2024-05-01", title="Zed"),
    listing("c", "retired", licence=Licence(name="Own", link="https://own"), prices=Prices(realtime=1, batch=1)),
    listing("d", "warming", parameters=3, dimensions=2, published="2023-12-31", languages=("pt-BR",)),
]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), "bdac"),
        (Query(text="WIKIPEDIA  likes"), "a"),
        (Query(text="wikipedia zed"), ""),
        (Query(text="pt-br"), "d"),
        (Query(text="me/b"), "b"),
        (Query(text="own"), "c"),
        (Query(tasks=("text-generation",)), "b"),
        (Query(tasks=("text-generation", "sentence-similarity")), "bdac"),
        (Query(statuses=("retired", "live")), "bc"),
        (Query(licences=("Own",)), "c"),
        (Query(dimensions=(2,)), "bd"),
        (Query(dimensions=(2, 4), max_parameters=6), "bd"),
        (Query(min_parameters=3), "da"),
        (Query(min_parameters=0), "bda"),
        (Query(min_parameters=3, max_parameters=3), "d"),
        (Query(order="title"), "acdb"),
        (Query(order="newest"), "badc"),
        (Query(order="smallest"), "bdac"),
        (Query(order="largest"), "adbc"),
        (Query(order="dimensions"), "bdac"),
        (Query(order="cheapest"), "cabd"),
    ],
)
def test_lists_are_searched_filtered_and_sorted(query: Query, found: str) -> None:
    assert "".join(slugs(select(MODELS[::-1], query))) == found


def test_every_order_sorts_models_of_which_little_is_known() -> None:
    for order in ORDERS:
        assert len(select([*MODELS, listing("e")], Query(order=order))) == 5


def test_an_unknown_order_is_told() -> None:
    with pytest.raises(InputError, match="The order is 'best'; expected one of status, title"):
        Query(order="best")


def test_what_there_is_to_filter_by() -> None:
    found = choices(MODELS)
    assert found.tasks == {"sentence-similarity": 3, "text-generation": 1}
    assert list(found.statuses) == ["live", "warming", "coming soon", "retired"]
    assert found.licences == {"MIT": 3, "Own": 1}
    assert list(found.dimensions.items()) == [(2, 2), (4, 1)]


# --- side by side -------------------------------------------------------------------------------------


def measurement(value: float, **changes: Any) -> Measurement:
    length = changes.pop("max_length", 48)
    given: dict[str, Any] = {
        "name": "STS",
        "kind": "sts",
        "metric": "spearman",
        "value": value,
        "items": 9,
        "data": "x",
    }
    return Measurement(date="2026-11-23", hardware="a CPU", max_length=length, figures=(Figure(**(given | changes)),))


def test_rows_have_a_value_a_model_in_the_order_given() -> None:
    models = [listing("b", base="a", parameters=1000, licence=Licence(spdx="MIT")), MODELS[2], listing("a")]
    rows = {row.label: row for row in compare(catalogue(*(each.entry for each in models)), models)}
    shown = {label: " | ".join(row.texts) for label, row in rows.items()}
    assert shown["made from"] == "a | – | –"
    assert shown["parameters"] == "1,000 | – | –"
    assert list(rows["parameters"].numbers) == [1000, None, None]
    assert shown["status"] == "live | retired | live"
    assert shown["licence"] == "MIT | Own | MIT"
    assert shown["price, batch"] == "0.00001 per 1M tokens | 0.000001 per 1M tokens | 0.00001 per 1M tokens"
    assert [rows[label].differs for label in ("status", "task")] == [True, False]


@pytest.mark.parametrize(
    ("other", "together"),
    [
        ({}, True),
        ({"low": 40.0, "high": 60.0}, True),
        ({"data": "y"}, False),
        ({"items": 8}, False),
        ({"max_length": 512}, False),
        ({"metric": "pearson"}, False),
    ],
)
def test_figures_stand_in_a_row_only_if_measured_alike(other: dict[str, Any], together: bool) -> None:
    models = [listing("a", measured=measurement(50)), listing("b", measured=measurement(51, **other))]
    rows = [row for row in compare(catalogue(*(each.entry for each in models)), models) if row.label.startswith("STS")]
    assert len(rows) == (1 if together else 2)
    assert list(rows[0].numbers) == [50, 51 if together else None]
    if "low" in other:
        assert list(rows[0].texts) == ["50.0", "51.0 (40.0–60.0)"]


def test_a_published_figure_is_never_beside_one_of_ours() -> None:
    figure = Published(name="STS", metric="spearman", value=70, source="a paper")
    models = [listing("a", measured=measurement(50)), listing("b", benchmarks=(figure,))]
    rows = [row for row in compare(catalogue(*(each.entry for each in models)), models) if row.label.startswith("STS")]
    assert [row.texts for row in rows] == [("50.0", "–"), ("–", "70")]
    assert "published: a paper" in rows[1].about
    assert "9 items, texts of at most 48 tokens" in rows[0].about


def test_related_models_are_named_ones_then_kin() -> None:
    found = catalogue(entry("base"), entry("a", base="base", related=("far",)), entry("b", base="base"), entry("far"))
    assert [each.slug for each in found.related(found.find("a"))] == ["far", "base", "b"]
    assert [each.slug for each in found.related(found.find("base"))] == ["a", "b"]
    assert found.related(found.find("far")) == ()


def test_licences_follow_the_bases_down() -> None:
    own = Licence(name="Own", link="https://own")
    found = catalogue(entry("c", licence=own), entry("b", base="c"), entry("a", base="b"))
    assert [each.label for each in found.licences(found.find("a"))] == ["MIT", "Own"]
    circle = catalogue(entry("a", base="b"), entry("b", base="a", licence=own))
    assert [each.label for each in circle.licences(circle.find("b"))] == ["Own", "MIT"]


# --- measured figures ---------------------------------------------------------------------------------


def results(folder: Path, slug: str = "mine", value: float = 0.123456789) -> Path:
    (folder / slug).mkdir(parents=True)
    model = {"name": slug, "date": "2026-11-23T07:16:23+00:00", "hardware": "a CPU", "max_length": 48}
    (folder / slug / "model.json").write_text(json.dumps(model | {"tokens_per_second": None}))
    metrics = {"map": {"value": 0.9, "low": None, "high": None}, "ndcg@10": {"value": value, "low": 0.1, "high": 0.2}}
    task = {"task": "CISI", "kind": "retrieval", "main": "ndcg@10", "metrics": metrics, "items": 76}
    (folder / slug / "CISI.json").write_text(json.dumps(task | {"settings": {"data": "abc"}}))
    (folder / slug / ".CISI.json").write_text("a draft")
    return folder


def test_the_main_figure_of_each_task_is_taken(tmp_path: Path) -> None:
    found = read_results(results(tmp_path) / "mine")
    figure = Figure(
        name="CISI", kind="retrieval", metric="ndcg@10", value=12.3457, low=10, high=20, items=76, data="abc"
    )
    assert found == Measurement(date="2026-11-23", hardware="a CPU", max_length=48, figures=(figure,))
    assert found.average == figure.value


def test_results_are_written_beside_their_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = results(results(tmp_path / "results"), "unknown")
    models = tmp_path / "models"
    models.mkdir()
    with pytest.raises(InputError, match="has results of no model"):
        write_all(found, models)
    (models / "mine.toml").write_text(
        'title = "Mine"\nsource = "mine"\ntask = "sentence-similarity"\narchitecture = "a"\nabout = "b"\n'
        'licence = { spdx = "MIT" }\nprices = { realtime = 1, batch = 1 }\n'
    )
    main([str(found), str(models)])
    written = models / "mine.measured.json"
    assert capsys.readouterr().out == f"{written}\n"
    assert sorted(models.iterdir()) == [written, models / "mine.toml"]
    assert written.read_text() == as_json(read_results(found / "mine"))
    assert Catalogue.load([models], shipped=False).find("mine").measured == read_results(found / "mine")
    with pytest.raises(SystemExit, match="Expected: python -m"):
        main([])


def test_damaged_results_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.json cannot be read as a result"):
        read_results(tmp_path)
    (results(tmp_path) / "mine" / "CISI.json").write_text("{}")
    with pytest.raises(InputError, match=r"CISI\.json cannot be read as a result"):
        read_results(tmp_path / "mine")
