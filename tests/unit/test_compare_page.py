"""What the table, Markdown, JSON and the page say, without a browser; and the published figures."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.compared import KIND, MAIN, figures, measured, outcome, write_three
from unmask.errors import InputError
from unmask.evaluation.compare import plots
from unmask.evaluation.compare.comparing import Comparison, compare
from unmask.evaluation.compare.drawing import Scale, fitted, labels, shortened, ticks
from unmask.evaluation.compare.layout import count, grid, interval, probability, signed
from unmask.evaluation.compare.page import page, write_page
from unmask.evaluation.compare.published import COLLECTED, beside
from unmask.evaluation.compare.reading import Cut, Entrant, read_entrants
from unmask.evaluation.compare.table import as_data, differences, explanation, markdown, scores
from unmask.evaluation.outcome import Metric

#: Elements that have no end.
VOID = {"meta", "br", "link", "img", "input", "hr"}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A base, an equal and a better model."""
    return compare(read_entrants(write_three(tmp_path_factory.mktemp("results"))))


def of(**values: dict[str, float]) -> Comparison:
    """A comparison of models with given scores, by task."""
    return compare(
        [
            Entrant(
                folder=Path(name),
                model=measured(name),
                outcomes={
                    task: outcome(task, figures(0.3), metrics={MAIN: Metric(value=value)})
                    for task, value in each.items()
                },
            )
            for name, each in values.items()
        ],
        tested=False,
    )


class Structure(HTMLParser):
    """Checks that elements are closed in order, and keeps what has attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str]]:
        """Every element of a name."""
        return [attributes for name, attributes in self.seen if name == tag]


# --- published figures ------------------------------------------------------------------------------


def test_published_figures_are_those_of_the_facts() -> None:
    facts = Path(__file__).parents[3] / "shared" / "facts.md"
    if not facts.exists():
        pytest.skip("../shared/facts.md is not here")
    text = facts.read_text(encoding="utf-8")
    paper = [
        value
        for sheet in COLLECTED
        for row in sheet.rows
        if "2404.05961" in row.source
        for value in row.figures.values()
    ]
    assert len(paper) == 4 * 4 + 2 * 7 + 5 * 3
    assert [value for value in paper if f"{value:.2f}" not in text] == []


def test_a_published_figure_stands_beside_the_same_task_only() -> None:
    found = beside({("mteb", "STSBenchmark"), ("mteb", "SciFact"), ("sts", "STS12"), ("sts", "STS-B")})
    assert {row.model: dict(row.figures) for row in found} == {
        "LLM2Vec S-LLaMA-1.3B + MNTP + SimCSE": {"STSBenchmark": 73.36},
        "LLM2Vec Llama-3-8B + MNTP + SimCSE": {"STSBenchmark": 77.44},
        "all-MiniLM-L6-v2": {"STSBenchmark": 82.03, "SciFact": 64.51},
    }
    assert beside({("sts", "STS-B"), ("retrieval", "SciFact")}) == ()
    assert all(row.source for sheet in COLLECTED for row in sheet.rows)
    assert all(set(row.figures) <= set(sheet.tasks) for sheet in COLLECTED for row in sheet.rows)


# --- the grid ---------------------------------------------------------------------------------------


def test_figures_that_look_alike_are_both_best_and_published_ones_never() -> None:
    found = grid(of(a={"A": 0.7504, "B": 0.2}, b={"A": 0.7496, "B": 0.3}))
    place = next(number for number, head in enumerate(found.heads) if head.label == "A")
    assert [line.cells[place].text for line in found.lines] == ["75.0", "75.0"]
    assert [line.cells[place].best for line in found.lines] == [True, True]
    assert [line.cells[place + 1].best for line in found.lines] == [False, True]


def test_what_one_model_alone_has_is_not_the_best() -> None:
    found = grid(of(a={"A": 0.7, "C": 0.2}, b={"A": 0.6}))
    place = next(number for number, head in enumerate(found.heads) if head.label == "C")
    assert [line.cells[place].best for line in found.lines] == [False, False]
    assert found.lines[1].cells[place].about == "not measured"


def test_published_rows_are_marked_and_fill_their_columns_only(three: Comparison) -> None:
    found = grid(three)
    row = next(line for line in found.lines if line.source and line.model == "all-MiniLM-L6-v2")
    cells = {head.label: cell.text for head, cell in zip(found.heads, row.cells, strict=True)}
    assert {label: text for label, text in cells.items() if text != "–"} == {"STS12": "72.4", "STSBenchmark": "82.0"}
    assert not any(cell.best for cell in row.cells)


# --- text -------------------------------------------------------------------------------------------


def test_markdown_has_a_row_a_model_as_long_as_that_is_readable() -> None:
    narrow = of(a={"A": 0.7}, b={"A": 0.6})
    assert [row[0] for row in scores(narrow).rows] == ["a", "b"]
    assert scores(narrow).rows[0][2] == "**70.0**"
    wide = of(**{name: {f"T{number}": 0.5 for number in range(9)} for name in "ab"})
    assert scores(wide).header == ("", "a", "b")
    assert [row[0] for row in scores(wide).rows][:3] == ["all, 9 tasks", f"{KIND}, 9 tasks", f"T0, {MAIN}"]
    lines = markdown(wide).splitlines()
    assert lines[1] == "| --- | ---: | ---: |"
    assert all(line.count("|") == 4 for line in lines[:15])


def test_markdown_shows_differences_notes_and_published_figures(three: Comparison) -> None:
    text = markdown(three)
    assert "▲" in text
    assert "### Differences from base" in text
    assert "TIME: no figure for equal: not measured." in text
    assert "Holm's correction for all 5 tests" in text
    assert "| LLM2Vec Mistral-7B | 42.46 | 49.43 | 56.80 | 64.80 | LLM2Vec paper, arXiv 2404.05961 |" in text
    assert "all-MiniLM-L6-v2 (published)" in text


def test_a_name_breaks_no_table() -> None:
    found = of(**{"a|b": {"A": 0.7}, "<b>x</b>": {"A": 0.6}})
    assert "| a\\|b |" in markdown(found)
    assert "<b>x</b>" not in page(found)


def test_json_has_every_figure(three: Comparison) -> None:
    data = json.loads(json.dumps(as_data(three), allow_nan=False))
    assert [each["model"]["name"] for each in data["models"]] == ["base", "equal", "better"]
    found = {(each["model"], each["task"]): each for each in data["differences"]}
    assert found["better", "CACM"]["verdict"] == 1
    assert found["better", "CACM"]["difference"]["p"] <= found["better", "CACM"]["adjusted"] < 0.05
    assert found["equal", "TIME"]["difference"] is None
    assert data["correction"] == "Holm"
    assert data["models"][0]["cut"] == {"measure": "Spearman", "points": [[16, 0.4375], [32, 0.46875], [64, 0.484375]]}


def test_nothing_is_said_of_tests_where_there_were_none() -> None:
    found = of(a={"A": 0.7}, b={"A": 0.6})
    assert differences(found) is None
    assert not any("Holm" in sentence for sentence in explanation(found))


@pytest.mark.parametrize(
    ("value", "text"), [(134_515_008, "135M"), (7_241_732_096, "7.24B"), (12, "12"), (22_713, "22.7k")]
)
def test_counts_are_short(value: int, text: str) -> None:
    assert count(value) == text


def test_a_difference_has_its_sign_and_a_probability_is_never_nought() -> None:
    assert interval(Metric(value=0.1, low=-0.2, high=0.31)) == "(−20.0 to 31.0)"
    assert (interval(Metric(value=0.1, low=0.05, high=0.31)), interval(Metric(value=0.1))) == ("(5.0–31.0)", "")
    assert (signed(0.012), signed(-0.012)) == ("+1.2", "−1.2")
    assert (probability(0.0004), probability(0.035)) == ("p < 0.001", "p = 0.035")


# --- the page ---------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else_and_asks_for_nothing(three: Comparison) -> None:
    text = page(three)
    found = Structure(text)
    assert found.open == []
    assert not re.search(r"https?:|@import|url\(|\bsrc=|<link|<iframe|<object", text)
    policy = next(meta for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")


def test_the_page_can_be_read_by_those_who_do_not_see_it(three: Comparison) -> None:
    found = Structure(page(three))
    assert found.all("html") == [{"lang": "en"}]
    assert len(found.all("h1")) == 1
    headings = [tag for tag, _ in found.seen if re.fullmatch(r"h\d", tag)]
    assert all(int(after[1]) <= int(before[1]) + 1 for before, after in itertools.pairwise(headings))
    assert found.all("th")
    assert all(each.get("scope") in {"col", "row", "colgroup"} for each in found.all("th"))
    assert all(each["role"] == "img" and len(each["aria-label"]) > 20 for each in found.all("svg"))
    assert all(each["aria-label"] for each in found.all("div") if each.get("role") == "region")
    named = {each["id"] for _, each in found.seen if "id" in each}
    assert all(each["aria-labelledby"] in named for each in found.all("section"))


def test_the_page_is_whole_or_not_there(three: Comparison, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_page(three, file)
    assert file.read_text(encoding="utf-8").endswith("</html>\n")
    with pytest.raises(InputError, match="exists already"):
        write_page(three, file)
    write_page(three, file, replace=True)
    assert list(tmp_path.iterdir()) == [file]


# --- plots ------------------------------------------------------------------------------------------


def test_a_plot_says_all_its_figures_and_is_xml(three: Comparison) -> None:
    drawn = {plot.title: plot for plot in plots.scores(three)}
    assert list(drawn) == ["CACM", "CISI", "TIME", "STS12", "STSBenchmark"]
    for title, marks in (("CACM", 3), ("TIME", 2), ("STS12", 2 + 3)):
        root = ET.fromstring(drawn[title].image)
        assert len([each for each in root.iter("g") if "mark" in each.get("class", "")]) == marks
    row = three.rows[2].scores["CACM"]
    assert f"better {100 * row.value:.1f} ({100 * row.low:.1f}–{100 * row.high:.1f})" in drawn["CACM"].image  # type: ignore[operator]
    hollow = [each for each in ET.fromstring(drawn["STS12"].image).iter("g") if "hollow" in each.get("class", "")]
    assert len(hollow) == 3
    assert all("(published)" in each.get("data-tip", "") for each in hollow)


def test_quality_is_drawn_against_speed_dimension_and_cut_vectors(three: Comparison) -> None:
    drawn = {plot.title: ET.fromstring(plot.image) for plot in plots.against_cost(three)}
    assert list(drawn) == ["Quality and speed", "Quality and dimension", "Quality of cut vectors"]
    tips = [each.get("data-tip", "") for each in drawn["Quality and speed"].iter("g")]
    assert tips[1] == f"equal: {100 * three.rows[1].overall:.2f} at 900 tokens/s"
    assert len(list(drawn["Quality of cut vectors"].iter("polyline"))) == 3


def test_cut_vectors_of_other_measures_have_a_plot_of_their_own() -> None:
    def row(name: str, cut: Cut | None, **about: Any) -> Entrant:
        return Entrant(
            folder=Path(name), model=measured(name, **about), outcomes={"A": outcome("A", figures(0.3))}, cut=cut
        )

    points = ((8, 0.4), (16, 0.5))
    rows = [
        row("a", Cut(measure="x", points=points), tokens_per_second=None),
        row("b", Cut(measure="y", points=points), tokens_per_second=None),
    ]
    drawn = plots.against_cost(compare([*rows, row("c", None, tokens_per_second=None)], tested=False))
    assert [plot.below for plot in drawn[1:]] == ["x; components that are kept", "y; components that are kept"]
    assert drawn[0].title == "Quality and dimension"  # no speed was measured, so there is no such plot


@pytest.mark.parametrize("values", [[50.0], [12.1, 12.2], [0.0, 100.0], [-3.0, 4.0]])
def test_a_scale_shows_all_with_round_ticks(values: list[float]) -> None:
    scale = fitted(values, 0, 300)
    assert all(0 < scale(value) < 300 for value in values)
    found = ticks(scale)
    assert 1 <= len(found) <= 6
    assert all(0 <= scale(value) <= 300 for value in found)


def test_a_scale_of_ratios() -> None:
    scale = fitted([32, 512], 0, 300, log=True)
    assert scale(128) == pytest.approx((scale(32) + scale(512)) / 2)
    assert ticks(scale) == [32, 64, 128, 256, 512]
    assert ticks(Scale(low=1, high=5000, start=0, end=1, log=True)) == [1, 8, 64, 512, 4096]


def test_labels_do_not_touch_and_stay_inside() -> None:
    placed = labels([100, 101, 102, 20, 198, 199], 10, 200)
    ordered = sorted(placed)
    assert all(after - before >= 13 - 1e-9 for before, after in itertools.pairwise(ordered))
    assert ordered[0] >= 10
    assert ordered[-1] <= 200
    assert placed[3] == 20


def test_long_names_keep_both_ends() -> None:
    assert shortened("smollm2-135m-instruct-supervised", 20) == "smollm2-1…supervised"
    assert shortened("short", 20) == "short"
