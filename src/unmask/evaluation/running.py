"""Tasks × a model → a folder of results. What is done is not done again, and a failure costs no other task."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from unmask.errors import EvaluationError, InputError, UnmaskError
from unmask.evaluation.bootstrap import RESAMPLES, intervals, size
from unmask.evaluation.outcome import Outcome, file_stem, read_outcome, write_model, write_outcome
from unmask.evaluation.ownership import take_over
from unmask.evaluation.store import VectorStore
from unmask.evaluation.subject import Subject, describe, now
from unmask.evaluation.suite import Suite
from unmask.evaluation.tasks import Task
from unmask.progress import Progress

#: What the kinds of tasks need beyond Unmask's own dependencies: module, and the package it comes with.
_EXTRAS: Final = {"sklearn": "scikit-learn", "scipy": "scipy", "ir_measures": "ir-measures", "seqeval": "seqeval"}

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What an evaluation came to.

    Attributes:
        folder: where the results lie.
        outcomes: by task, those found done included.
        failed: tasks without figures, and why.
        measured: how many tasks were measured now, not found done.
    """

    folder: Path
    outcomes: dict[str, Outcome]
    failed: dict[str, str]
    measured: int

    def check(self) -> None:
        """Raise :class:`EvaluationError` if a task failed."""
        if self.failed:
            count = len(self.failed) + len(self.outcomes)
            raise EvaluationError(
                f"{len(self.failed)} of {count} tasks failed: {', '.join(self.failed)}. Each has a line above that "
                "says why; the same command measures only them."
            )


def evaluate(
    subject: Subject,
    suite: Suite,
    output: Path,
    *,
    replace_other: bool = False,
    vectors: Path | None = None,
    say: Say = lambda line: None,
    progress: bool = False,
) -> Run:
    """Measure a model on the tasks of a suite.

    Each task's figures are on disk when the task is done. A run that was stopped, or killed, is taken up by calling
    this again: nothing is encoded twice. A task that fails is told to ``say``, and the others go on.

    Args:
        subject: the model.
        suite: the tasks.
        output: the results go to a folder of the model's name in it.
        replace_other: whether figures of another model of this name may be removed.
        vectors: where vectors are kept; Unmask's cache folder by default.
        say: takes a line for the user.
        progress: show how far it is.

    Raises:
        InputError: the folder holds another model's figures, or a library is missing.
    """
    _require_extras()
    folder = output / file_stem(subject.name)
    earlier = take_over(folder, subject, replace_other=replace_other)
    for line in (*suite.notes, *(f"{name}: {why}" for name, why in suite.failed.items())):
        say(line)
    kept = [_done(folder, task, subject, say) for task in suite.tasks]
    outcomes = {outcome.task: outcome for outcome in kept if outcome is not None}
    failed, done = dict(suite.failed), len(outcomes)
    bar = _bar(suite, outcomes.keys(), progress)
    store = VectorStore(subject, folder=vectors, bar=bar, say=say)
    about = describe(subject, tokens_per_second=earlier.tokens_per_second if earlier else None)
    write_model(folder, about)  # first: it says whose the figures are
    with bar:
        for number, task in enumerate(suite.tasks, start=1):
            if task.name in outcomes:
                continue
            bar.note = f"{task.name}, {number} of {len(suite.tasks)} tasks"
            before = bar.count
            try:
                outcome = _measure(task, store, _settings(task, subject))
            except UnmaskError as error:
                failed[task.name] = str(error)
                say(f"{task.name}: {error}")
            else:
                outcomes[task.name] = outcome
                write_outcome(folder, outcome)
                speed = store.tokens_per_second or about.tokens_per_second
                write_model(folder, replace(about, tokens_per_second=speed, date=now()))
            bar.advance(max(0, task.size - (bar.count - before)))
    in_order = {task.name: outcomes[task.name] for task in suite.tasks if task.name in outcomes}
    return Run(folder=folder, outcomes=in_order, failed=failed, measured=len(outcomes) - done)


def _bar(suite: Suite, done: Container[str], progress: bool) -> Progress:
    return Progress(
        "Evaluating",
        total=sum(task.size for task in suite.tasks),
        initial=sum(task.size for task in suite.tasks if task.name in done),
        unit="texts",
        extra_unit="tokens",
        enabled=progress,
    )


def _measure(task: Task, store: VectorStore, settings: dict[str, Any]) -> Outcome:
    start = time.perf_counter()
    samples = task.run(store)
    metrics = intervals(task.kind.statistic, samples, bounds=task.kind.bounds)
    items = size(samples)
    undefined = [name for name, metric in metrics.items() if not math.isfinite(metric.value)]
    if undefined:
        raise InputError(f"{', '.join(undefined)}: undefined on these {items:,} items. Check the data, or add to it.")
    return Outcome(
        task=task.name,
        kind=task.kind.name,
        main=task.kind.main,
        metrics=metrics,
        items=items,
        settings=settings,
        seconds=round(time.perf_counter() - start, 2),
        samples=samples,
    )


def _settings(task: Task, subject: Subject) -> dict[str, Any]:
    """Return all that a task's figures depend on but the model, in the form in which it comes back from the file."""
    settings = task.settings | {"max_length": subject.max_length, "resamples": RESAMPLES}
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _done(folder: Path, task: Task, subject: Subject, say: Say) -> Outcome | None:
    """Return the outcome of a task if it is there and was measured with the same settings."""
    try:
        found = read_outcome(folder, task.name)
    except InputError as error:
        say(f"{error} It is measured again.")
        return None
    same = found is not None and found.kind == task.kind.name and found.settings == _settings(task, subject)
    return found if same else None


def _require_extras() -> None:
    missing = [package for module, package in _EXTRAS.items() if find_spec(module) is None]
    if missing:
        raise InputError(
            f"Evaluation needs {', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed. "
            'Install it with: pip install "unmask[eval]"'
        )
