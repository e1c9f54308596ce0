"""A comparison → a grid of cells, which the terminal, Markdown and the page then draw, each its own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from unmask.evaluation.bootstrap import Difference
from unmask.evaluation.compare.comparing import Column, Comparison, Row
from unmask.evaluation.compare.testing import Contrast
from unmask.evaluation.outcome import Measured, Metric

#: What stands where there is nothing to show.
NONE: Final = "–"
#: What a verdict looks like beside a figure; told by shape, not by colour alone.
MARKS: Final = {1: "▲", 0: "", -1: "▼"}


@dataclass(frozen=True, kw_only=True)
class Head:
    """The head of a column of the grid.

    Attributes:
        label: what it shows.
        below: a word more: the metric, how many tasks.
        about: a sentence for those who ask.
        group: what stands over several columns together.
    """

    label: str
    below: str = ""
    about: str = ""
    group: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure of the grid.

    Attributes:
        text: the figure, or a dash.
        value: what it is sorted by; None sorts last.
        interval: its 95 % interval, empty if there is none.
        best: whether no other measured model shows a higher figure.
        mark: better or worse than the baseline, beyond chance.
        about: a sentence for those who ask: the exact figures, or why there are none.
    """

    text: str = NONE
    value: float | None = None
    interval: str = ""
    best: bool = False
    mark: str = ""
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A model's row of the grid.

    Attributes:
        model: its name.
        source: of published figures; empty for what was measured here.
        about: what was measured.
        cells: one a head.
    """

    model: str
    source: str
    about: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every figure of a comparison.

    Attributes:
        heads: of the columns.
        lines: the models that were measured, then published ones.
    """

    heads: tuple[Head, ...]
    lines: tuple[Line, ...]


def count(number: float) -> str:
    """Return ``135M`` or ``7.24B``."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


_AVERAGES: Final = "averages"
_COST: Final = "cost"
#: What a model costs: head, what it says, its value and how it is written.
_COSTS: Final[tuple[tuple[str, str, Callable[[Measured], float | None], Callable[[float], str]], ...]] = (
    ("tokens/s", "while encoding", lambda model: model.tokens_per_second, lambda value: f"{value:,.0f}"),
    ("dimension", "of a vector", lambda model: model.dimension, lambda value: f"{value:,.0f}"),
    ("parameters", "of the backbone", lambda model: model.parameters, count),
)


def grid(comparison: Comparison) -> Grid:
    """Return the grid of a comparison: averages, tasks, costs; published rows at the end."""
    kinds = list(dict.fromkeys(kind for row in comparison.rows for kind in row.kinds))
    heads = (*_average_heads(comparison, kinds), *_task_heads(comparison), *_cost_heads())
    contrasts = {(contrast.model, contrast.task): contrast for contrast in comparison.contrasts}
    columns = [
        [_average(row.overall) for row in comparison.rows],
        *([_average(row.kinds[kind]) for row in comparison.rows] for kind in kinds),
        *([_score(row, column.task, contrasts) for row in comparison.rows] for column in comparison.columns),
    ]
    costs = [[_cost(value(row.model), write) for row in comparison.rows] for _, _, value, write in _COSTS]
    marked = [_with_best(column) for column in columns] + costs
    measured = tuple(
        Line(model=row.model.name, source="", about=_about(row.model), cells=tuple(column[place] for column in marked))
        for place, row in enumerate(comparison.rows)
    )
    published = tuple(
        Line(
            model=row.model,
            source=row.source,
            about=f"Published, not measured here: {row.source}",
            cells=(
                *(Cell() for _ in range(1 + len(kinds))),
                *(_published(row.figures.get(column.task)) for column in comparison.columns),
                *(Cell() for _ in _COSTS),
            ),
        )
        for row in comparison.published
    )
    return Grid(heads=heads, lines=measured + published)


def _average_heads(comparison: Comparison, kinds: list[str]) -> list[Head]:
    common = comparison.common
    number = {kind: sum(column.kind == kind for column in common) for kind in kinds}
    names = ", ".join(column.task for column in common)
    every = Head(label="all", below=tasks(len(common)), about=f"Mean of {names}", group=_AVERAGES)
    return [
        every,
        *(
            Head(label=kind, below=tasks(number[kind]), about=f"Mean of the tasks of {kind}", group=_AVERAGES)
            for kind in kinds
        ),
    ]


def _task_heads(comparison: Comparison) -> list[Head]:
    return [
        Head(
            label=column.task,
            below=column.metric,
            about=described(column)
            + ("" if column.common else "; not measured for every model, so not in the averages"),
            group=column.kind,
        )
        for column in comparison.columns
    ]


def _cost_heads() -> list[Head]:
    return [Head(label=label, about=about, group=_COST) for label, about, _, _ in _COSTS]


def _average(value: float) -> Cell:
    return Cell(text=hundredths(value), value=value)


def _score(row: Row, task: str, contrasts: Mapping[tuple[str, str], Contrast]) -> Cell:
    if task not in row.scores:
        return Cell(about=row.missing[task])
    score, contrast = row.scores[task], contrasts.get((row.model.name, task))
    tested = f". {describe(contrast)}" if contrast and contrast.difference else ""
    return Cell(
        text=hundredths(score.value),
        value=score.value,
        interval=interval(score),
        mark=MARKS[contrast.verdict] if contrast else "",
        about=f"{row.model.name}, {task}: {hundredths(score.value, 2)} {interval(score, 2)}".rstrip() + tested,
    )


def _cost(value: float | None, write: Callable[[float], str]) -> Cell:
    return Cell(about="every vector was kept already") if value is None else Cell(text=write(value), value=value)


def _published(figure: float | None) -> Cell:
    return Cell() if figure is None else Cell(text=f"{figure:.1f}", value=figure / 100, about="published")


def _with_best(column: list[Cell]) -> list[Cell]:
    """Mark the highest figures as shown: two that look alike are both best."""
    values = [cell.value for cell in column if cell.value is not None]
    if len(values) < 2:
        return column
    highest = hundredths(max(values))
    return [_marked(cell) if cell.text == highest else cell for cell in column]


def _marked(cell: Cell) -> Cell:
    return Cell(text=cell.text, value=cell.value, interval=cell.interval, best=True, mark=cell.mark, about=cell.about)


def _about(model: Measured) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in model.versions.items())
    return f"{model.source}, at most {model.max_length} tokens a text; {model.hardware}; {model.date}; {versions}"


def described(column: Column) -> str:
    """Return the metric of a task, and of how many items it is where that is known."""
    return f"{column.metric}, {column.items:,} items" if column.items else column.metric


def tasks(number: int) -> str:
    """Return ``1 task`` or ``12 tasks``."""
    return f"{number} task{'' if number == 1 else 's'}"


def hundredths(value: float, places: int = 1) -> str:
    """Return a figure times 100, with a true minus."""
    return f"{100 * value:.{places}f}".replace("-", "−")


def interval(score: Metric, places: int = 1) -> str:
    """Return ``(74.1–78.2)``, empty if there is no interval."""
    if score.low is None or score.high is None:
        return ""
    between = " to " if score.low < 0 else "–"  # a dash before a minus cannot be read
    return f"({hundredths(score.low, places)}{between}{hundredths(score.high, places)})"


def signed(value: float, places: int = 1) -> str:
    """Return a difference times 100, with its sign (a true minus)."""
    text = f"{100 * value:+.{places}f}"
    return text.replace("-", "−")


def probability(value: float) -> str:
    """Return a p-value to three places; never a bare zero."""
    return "p < 0.001" if value < 0.001 else f"p = {min(value, 1.0):.3f}"


def spread(difference: Difference) -> str:
    """Return ``+1.2 (0.3 to 2.1)``: a difference may be negative, so no dash between the ends."""
    return f"{signed(difference.value)} ({signed(difference.low)} to {signed(difference.high)})"


def describe(contrast: Contrast) -> str:
    """Return a contrast as a sentence without its end."""
    if contrast.difference is None or contrast.adjusted is None:
        return contrast.why
    return (
        f"To the baseline {spread(contrast.difference)}, {probability(contrast.difference.p)}, "
        f"adjusted {probability(contrast.adjusted)}"
    )
