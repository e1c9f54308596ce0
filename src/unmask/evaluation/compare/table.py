"""The grid and the differences as text: for a terminal, as Markdown, as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from unmask.evaluation.bootstrap import CONFIDENCE
from unmask.evaluation.compare.comparing import Comparison
from unmask.evaluation.compare.layout import MARKS, NONE, Cell, grid, probability, spread, tasks
from unmask.evaluation.compare.published import COLLECTED
from unmask.evaluation.compare.testing import SIGNIFICANT

#: Columns of tasks, averages and costs up to which models stand below one another; beyond, the table is turned.
WIDEST: Final = 8
#: How Markdown writes the best figure.
BOLD: Final = "**{}**"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of strings.

    Attributes:
        title: of the table.
        header: of the columns.
        rows: as wide as the header.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def scores(comparison: Comparison, *, best: str = BOLD) -> Sheet:
    """Return every figure, times 100 with intervals; a row a model, or a row a task where there are many tasks.

    Args:
        comparison: of models.
        best: how the best figure of a column is written.
    """
    found = grid(comparison)
    header = ("", *(f"{head.label}, {head.below}" if head.below else head.label for head in found.heads))
    lines = [
        (
            f"{line.model} (published)" if line.source else line.model,
            *(_text(cell, best) for cell in line.cells),
        )
        for line in found.lines
    ]
    return upright(Sheet(title="Scores", header=header, rows=tuple(lines)))


def upright(sheet: Sheet) -> Sheet:
    """Return a sheet as it is, or turned if it has many columns: a page has more length than width."""
    if len(sheet.header) - 1 <= WIDEST:
        return sheet
    header, *rows = zip(sheet.header, *sheet.rows, strict=True)
    return Sheet(title=sheet.title, header=header, rows=tuple(rows))


def _text(cell: Cell, best: str) -> str:
    figure = best.format(cell.text) if cell.best else cell.text
    return " ".join(part for part in (figure, cell.mark, cell.interval) if part)


def differences(comparison: Comparison) -> Sheet | None:
    """Return every model's difference from the baseline, a row a task; None if nothing was tested."""
    names = [row.model.name for row in comparison.rows if row.model.name != comparison.baseline]
    if not comparison.tests:
        return None
    found = {(contrast.model, contrast.task): contrast for contrast in comparison.contrasts}

    def cell(name: str, task: str) -> str:
        contrast = found[name, task]
        if contrast.difference is None or contrast.adjusted is None:
            return f"{NONE} {contrast.why}"
        return f"{spread(contrast.difference)}, {probability(contrast.adjusted)} {MARKS[contrast.verdict]}".rstrip()

    return Sheet(
        title=f"Differences from {comparison.baseline}",
        header=("", *names),
        rows=tuple((column.task, *(cell(name, column.task) for name in names)) for column in comparison.columns),
    )


def published() -> tuple[Sheet, ...]:
    """Return the tables of published figures, a sheet each."""
    return tuple(
        Sheet(
            title=f"Published: {each.title}",
            header=("published", *each.tasks, "source"),
            rows=tuple(
                (row.model, *(_figure(row.figures.get(task)) for task in each.tasks), row.source) for row in each.rows
            ),
        )
        for each in COLLECTED
    )


def _figure(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def explanation(comparison: Comparison, *, best: str = "bold") -> list[str]:
    """Return how the figures are to be read, a sentence or two each; the notes come last.

    Args:
        comparison: of models.
        best: what the best figures are.
    """
    common = comparison.common
    parts = [
        f"Times 100, with the {100 * CONFIDENCE:g} % bootstrap interval; the best measured figure of a task is {best}. "
        f"Averages run over the {tasks(len(common))} that every model has, each with the same weight.",
    ]
    if comparison.tests:
        better, worse = (sum(each.verdict == verdict for each in comparison.contrasts) for verdict in (1, -1))
        parts.append(
            f"{MARKS[1]} better, {MARKS[-1]} worse than {comparison.baseline}: a paired bootstrap over the items "
            f"({comparison.resamples:,} resamples) gives p < {SIGNIFICANT:g} after Holm's correction for all "
            f"{comparison.tests} tests together ({better} better, {worse} worse). Models share their items, so a "
            "difference is surer than two intervals look."
        )
    if comparison.published:
        sources = "; ".join(f"{row.model}: {row.source}" for row in comparison.published)
        parts.append(
            f"Published figures were not measured here; data revision, prompts and lengths may differ ({sources})."
        )
    return [*parts, *comparison.notes]


def markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown: scores, differences, how to read them, published figures."""
    parts = [as_markdown(scores(comparison)), *explanation(comparison)]
    tested = differences(comparison)
    if tested:
        parts += [f"### {tested.title}", as_markdown(tested)]
    for sheet in published():
        parts += [f"### {sheet.title}", as_markdown(sheet)]
    return "\n\n".join(parts) + "\n"


def as_markdown(sheet: Sheet) -> str:
    """Return a table as Markdown, numbers to the right."""
    lines = [sheet.header, ("---", *("---:" for _ in sheet.header[1:])), *sheet.rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def as_data(comparison: Comparison) -> dict[str, Any]:
    """Return everything as JSON takes it; figures between 0 and 1 but for published ones, which are in hundredths."""
    return {
        "baseline": comparison.baseline,
        "tasks": [asdict(column) for column in comparison.columns],
        "models": [
            {
                "model": asdict(row.model),
                "average": row.overall,
                "averages": dict(row.kinds),
                "scores": {task: asdict(score) for task, score in row.scores.items()},
                "missing": dict(row.missing),
                "cut": asdict(row.cut) if row.cut else None,
            }
            for row in comparison.rows
        ],
        "differences": [{**asdict(each), "verdict": each.verdict} for each in comparison.contrasts],
        "resamples": comparison.resamples,
        "correction": "Holm",
        "published": [_plain(each) for each in comparison.published],
        "published_tables": [
            {"title": each.title, "tasks": list(each.tasks), "rows": [_plain(row) for row in each.rows]}
            for each in COLLECTED
        ],
        "notes": list(comparison.notes),
    }


def _plain(row: Any) -> dict[str, Any]:
    return {"model": row.model, "source": row.source, "figures": dict(row.figures)}
