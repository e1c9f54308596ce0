"""Folders of results → rows, columns, averages, and a paired test of each difference from the baseline.

A column holds figures that may stand side by side: of the same task, from the same data, with the same settings. A
figure that may not is left out with the reason. Averages run over the tasks that all models have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unmask.errors import InputError
from unmask.evaluation.compare.matching import NOT_MEASURED, Missing, missing_of, notes_on, settings_of
from unmask.evaluation.compare.published import MTEB, Published, beside
from unmask.evaluation.compare.reading import Cut, Entrant
from unmask.evaluation.compare.testing import Contrast, contrasts_of
from unmask.evaluation.outcome import Measured, Metric, Outcome

if TYPE_CHECKING:
    from unmask.evaluation.tasks import Kind  # brings torch, which a table does not need


@dataclass(frozen=True, kw_only=True)
class Column:
    """A task.

    Attributes:
        task: its name.
        kind: of task.
        metric: the main one.
        items: how many.
        settings: what the figures depend on besides the model, the models' own settings left out.
        common: whether every model has it, so that it counts in the averages.
    """

    task: str
    kind: str
    metric: str
    items: int
    settings: Mapping[str, Any]
    common: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model.

    Attributes:
        model: what was measured.
        scores: the main metric by task, only where it may stand in the task's column.
        missing: by task, why there is no score.
        kinds: average over the common tasks of each kind that has two or more.
        overall: average over the common tasks.
        cut: the quality of cut vectors; None if it was not measured.
    """

    model: Measured
    scores: Mapping[str, Metric]
    missing: Mapping[str, str]
    kinds: Mapping[str, float]
    overall: float
    cut: Cut | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Models side by side.

    Attributes:
        baseline: name of the model that the others are tested against.
        columns: tasks, by kind.
        rows: models, as they were given.
        contrasts: every other model against the baseline on every task.
        resamples: how many the tests used.
        published: figures of others for the same tasks.
        notes: what a reader must know to read the table, a sentence each.
    """

    baseline: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...]
    resamples: int
    published: tuple[Published, ...]
    notes: tuple[str, ...]

    @property
    def common(self) -> tuple[Column, ...]:
        """The tasks that all models have."""
        return tuple(column for column in self.columns if column.common)

    @property
    def tests(self) -> int:
        """How many differences were tested."""
        return sum(contrast.difference is not None for contrast in self.contrasts)


def compare(
    entrants: Sequence[Entrant],
    *,
    baseline: str | None = None,
    kinds: Mapping[str, Kind] | None = None,
    tested: bool = True,
    progress: bool = False,
) -> Comparison:
    """Set models side by side.

    Args:
        entrants: models with their outcomes.
        baseline: name of the model that the others are tested against; the first by default.
        kinds: kinds of tasks by name; Unmask's own by default.
        tested: whether differences are tested, which takes most of the time.
        progress: whether to show it.

    Raises:
        InputError: no model, a model twice, an unknown baseline, or no task that all models share.
    """
    reference = _baseline(entrants, baseline)
    models = {entrant.model.name: dict(entrant.outcomes) for entrant in entrants}
    # The baseline's settings define a column; where it lacks the task, those of the first model that has it.
    order = [reference, *(name for name in models if name != reference)]
    firsts = {task: models[name][task] for name in reversed(order) for task in models[name]}
    missing = {name: missing_of(outcomes, firsts) for name, outcomes in models.items()}
    columns = tuple(
        _column(first, common=all(task not in missing[name] for name in models))
        for task, first in sorted(firsts.items(), key=_place)
    )
    if not any(column.common for column in columns):
        raise InputError(_nothing_common(missing))
    rows = tuple(_row(entrant, columns, missing[entrant.model.name]) for entrant in entrants)
    pairs = [(name, column.task) for name in order[1:] for column in columns] if tested else []
    contrasts, resamples = contrasts_of(pairs, models, reference, missing, kinds, progress=progress)
    return Comparison(
        baseline=reference,
        columns=columns,
        rows=rows,
        contrasts=contrasts,
        resamples=resamples,
        published=beside({(column.kind, column.task) for column in columns}),
        notes=tuple(notes_on(models, missing, [entrant.model for entrant in entrants])),
    )


def _baseline(entrants: Sequence[Entrant], wanted: str | None) -> str:
    if not entrants:
        raise InputError("No model was given; expected folders of results. Name at least one.")
    seen: dict[str, Entrant] = {}
    for entrant in entrants:
        if (other := seen.setdefault(entrant.model.name, entrant)) is not entrant:
            raise InputError(
                f"{entrant.model.name} is given twice: {other.folder} and {entrant.folder}; expected each model once. "
                "Leave one out."
            )
    if wanted is not None and wanted not in seen:
        raise InputError(f"No model is called {wanted}; expected one of {', '.join(seen)}. Choose the baseline there.")
    return wanted or entrants[0].model.name


def _place(item: tuple[str, Outcome]) -> tuple[bool, str, str]:
    """Order tasks by kind, MTEB's own after the others."""
    task, outcome = item
    return outcome.kind == MTEB, outcome.kind, task


def _column(first: Outcome, *, common: bool) -> Column:
    return Column(
        task=first.task,
        kind=first.kind,
        metric=first.main,
        items=first.items,
        settings=settings_of(first),
        common=common,
    )


def _nothing_common(missing: Missing) -> str:
    others = {f"{task} ({why})" for reasons in missing.values() for task, why in reasons.items() if why != NOT_MEASURED}
    why = f" Measured but not comparable: {', '.join(sorted(others))}." if others else ""
    return (
        f"{', '.join(missing)} have no task in common; expected at least one, with the same data and settings.{why} "
        "Evaluate them on the same suite."
    )


def _row(entrant: Entrant, columns: Sequence[Column], missing: Mapping[str, str]) -> Row:
    scores = {c.task: entrant.outcomes[c.task].score for c in columns if c.task not in missing}
    kinds: dict[str, list[float]] = {}
    for column in columns:
        if column.common:
            kinds.setdefault(column.kind, []).append(scores[column.task].value)
    every = [value for values in kinds.values() for value in values]
    return Row(
        model=entrant.model,
        scores=scores,
        missing=missing,
        kinds={kind: _mean(values) for kind, values in kinds.items() if len(values) > 1},
        overall=_mean(every),
        cut=entrant.cut,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
