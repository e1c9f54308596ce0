"""A comparison as one HTML file that needs nothing else: no network, no other file, any screen, light or dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from unmask._version import __version__
from unmask.evaluation.compare import plots
from unmask.evaluation.compare.comparing import Comparison
from unmask.evaluation.compare.layout import (
    MARKS,
    NONE,
    Cell,
    Grid,
    Line,
    described,
    grid,
    hundredths,
    probability,
    spread,
    tasks,
)
from unmask.evaluation.compare.published import COLLECTED, Collected
from unmask.evaluation.compare.table import explanation
from unmask.evaluation.compare.testing import Contrast
from unmask.hub.cache import atomic_file

#: The browser itself is told to fetch nothing.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_TITLES: Final = {1: "better than the baseline", -1: "worse than the baseline"}
_STYLES: Final = {MARKS[1]: "up", MARKS[-1]: "down"}


def write_page(comparison: Comparison, file: Path, *, replace: bool = False) -> None:
    """Write the page; it appears whole or not at all.

    Raises:
        InputError: ``file`` exists and ``replace`` is False, or it cannot be written.
    """
    with atomic_file(file, replace=replace) as draft:
        draft.write_text(page(comparison), encoding="utf-8")


def page(comparison: Comparison) -> str:
    """Return the page."""
    title = f"{', '.join(row.model.name for row in comparison.rows)}: encoders compared"
    sections = (
        _section("scores-title", "Scores", _scores(grid(comparison)), _list(explanation(comparison))),
        _differences(comparison),
        _section("tasks-title", "Score per task", _figures(plots.scores(comparison))),
        _section("cost-title", "Quality and cost", _figures(plots.against_cost(comparison))),
        _section("published-title", "Published figures", _PUBLISHED, *map(_published, COLLECTED)),
        _section("how-title", "What was measured, and how", _models(comparison), _settings(comparison)),
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<header>
<h1>{len(comparison.rows)} encoders on {tasks(len(comparison.columns))}</h1>
<p class="lead">{escape(_summary(comparison))}</p>
</header>
<main>
{"".join(sections)}</main>
<footer><p class="below">Made by unmask {__version__}, unmask eval compare.</p></footer>
<div id="tip" role="tooltip" hidden></div>
<script>
{_asset("page.js")}</script>
</body>
</html>
"""


_PUBLISHED: Final = (
    "<p>What others published, not measured here. These are other sets than ours, or other splits of them, so they "
    "stand apart; where a task of MTEB was run here, its published figures stand in the table of scores, too.</p>"
)


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _summary(comparison: Comparison) -> str:
    highest = hundredths(max(row.overall for row in comparison.rows))
    best = " and ".join(row.model.name for row in comparison.rows if hundredths(row.overall) == highest)
    first = f"Highest average over the {tasks(len(comparison.common))} that all have: {best}, {highest}."
    if not comparison.tests:
        return first
    found = sum(contrast.verdict != 0 for contrast in comparison.contrasts)
    return (
        f"{first} Baseline: {comparison.baseline}; {found} of {comparison.tests} differences from it are beyond chance "
        "after correction for their number."
    )


def _section(name: str, title: str, *parts: str) -> str:
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n{"".join(parts)}</section>\n'


def _list(sentences: Iterable[str]) -> str:
    lines = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in sentences)
    return f'<ul class="notes">\n{lines}</ul>\n'


def _wide(table: str, label: str) -> str:
    """Let a table scroll within itself, by keyboard too, so that the page never does sideways."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">{table}</div>\n'


def _scores(found: Grid) -> str:
    groups = [(name, len(list(heads))) for name, heads in groupby(found.heads, key=lambda head: head.group)]
    over = "".join(
        f'<th scope="colgroup" colspan="{width}" class="group">{escape(name)}</th>' for name, width in groups
    )
    starts = _starts([width for _, width in groups])
    heads = "".join(
        f'<th scope="col" data-column="{place}" data-tip="{escape(head.about)}" class="{_first(place, starts)}">'
        f"<button>{escape(head.label)}</button><small>{escape(head.below)}</small></th>"
        for place, head in enumerate(found.heads, start=1)
    )
    lines = "".join(_line(line, starts) for line in found.lines)
    model = '<th scope="col" rowspan="2" data-column="0" class="stick"><button>model</button></th>'
    table = (
        f'<table id="scores"><thead><tr>{model}{over}</tr><tr>{heads}</tr></thead>\n<tbody>\n{lines}</tbody></table>'
    )
    return _wide(table, "Scores, a row a model")


def _starts(widths: Sequence[int]) -> set[int]:
    return {1 + sum(widths[:place]) for place in range(len(widths))}


def _first(place: int, starts: set[int]) -> str:
    return "first" if place in starts else ""


def _line(line: Line, starts: set[int]) -> str:
    tag = f'<br><span class="tag">published</span><small>{escape(line.source)}</small>' if line.source else ""
    name = (
        f'<th scope="row" class="stick" data-name="{escape(line.model)}" data-tip="{escape(line.about)}">'
        f"{escape(line.model)}{tag}</th>"
    )
    cells = "".join(_cell(cell, _first(place, starts)) for place, cell in enumerate(line.cells, start=1))
    return f'<tr class="{"published" if line.source else ""}">{name}{cells}</tr>\n'


def _cell(cell: Cell, style: str) -> str:
    value = "" if cell.value is None else f"{cell.value:.9g}"
    figure = f"<b>{cell.text}</b>" if cell.best else cell.text
    mark = f' <span class="{_STYLES[cell.mark]}">{cell.mark}</span>' if cell.mark else ""
    below = f"<small>{cell.interval}</small>" if cell.interval else ""
    tip = f' data-tip="{escape(cell.about)}"' if cell.about else ""
    return f'<td data-value="{value}" class="{style}"{tip}>{figure}{mark}{below}</td>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """Return a plain table; cells are HTML, the header is text. Numbers stand to the right, words may fold."""
    styles = ["" if all(_is_figure(row[place]) for row in rows) else "text" for place in range(len(header))]
    styles[0] = "stick"
    heads = "".join(
        f'<th scope="col" class="{style}">{escape(name)}</th>' for name, style in zip(header, styles, strict=True)
    )
    lines = "".join(
        f'<tr><th scope="row" class="stick">{row[0]}</th>'
        + "".join(f'<td class="{style}">{cell}</td>' for cell, style in zip(row[1:], styles[1:], strict=True))
        + "</tr>\n"
        for row in rows
    )
    return _wide(f"<table><thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}</tbody></table>", label)


def _is_figure(cell: str) -> bool:
    return cell[:1] in "+−–0123456789" and not cell[:4].isdigit()  # a date is none


def _differences(comparison: Comparison) -> str:
    if not comparison.contrasts:
        return ""
    found = {(contrast.model, contrast.task): contrast for contrast in comparison.contrasts}
    names = list(dict.fromkeys(contrast.model for contrast in comparison.contrasts))
    rows = [
        (escape(column.task), *(_contrast(found[name, column.task]) for name in names)) for column in comparison.columns
    ]
    title = f"Differences from {comparison.baseline}"
    about = (
        "<p>Times 100, with the 95 % interval of the difference and the p-value after Holm's correction. An interval "
        "is not corrected: it may leave out 0 where the corrected p-value does not call the difference one.</p>"
    )
    return _section("differences-title", escape(title), about, _table(("task", *names), rows, title))


def _contrast(contrast: Contrast) -> str:
    if contrast.difference is None or contrast.adjusted is None:
        return f'{NONE}<small class="why">{escape(contrast.why)}</small>'
    mark = MARKS[contrast.verdict]
    shown = f' <span class="{_STYLES[mark]}" title="{_TITLES[contrast.verdict]}">{mark}</span>' if mark else ""
    value, _, ends = spread(contrast.difference).partition(" ")
    return f"{value}{shown}<small>{ends}</small><small>{escape(probability(contrast.adjusted))}</small>"


def _figures(drawn: Iterable[plots.Plot]) -> str:
    figures = "".join(
        f'<figure><figcaption>{escape(plot.title)}<span class="below">{escape(plot.below)}</span></figcaption>'
        f"{plot.image}</figure>\n"
        for plot in drawn
    )
    return f'<div class="plots">\n{figures}</div>\n'


def _published(sheet: Collected) -> str:
    rows = [
        (
            f'{escape(row.model)}<br><span class="tag">published</span>',
            *(f"{row.figures[task]:.2f}" if task in row.figures else NONE for task in sheet.tasks),
            escape(row.source),
        )
        for row in sheet.rows
    ]
    table = _table(("model", *sheet.tasks, "source"), rows, f"Published: {sheet.title}")
    return f"<h3>{escape(sheet.title)}</h3>\n{table}"


def _models(comparison: Comparison) -> str:
    rows = [
        (
            escape(row.model.name),
            escape(row.model.source),
            f"{row.model.max_length:,}",
            escape(row.model.hardware),
            escape(row.model.date),
            escape(", ".join(f"{name} {version}" for name, version in row.model.versions.items())),
        )
        for row in comparison.rows
    ]
    return _table(("model", "source", "most tokens", "hardware", "date", "versions"), rows, "Models")


def _settings(comparison: Comparison) -> str:
    rows = [
        (escape(column.task), escape(described(column)), escape(_said(column.settings)))
        for column in comparison.columns
    ]
    return "<h3>Tasks</h3>\n" + _table(("task", "metric", "settings"), rows, "Settings of the tasks")


def _said(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or NONE
