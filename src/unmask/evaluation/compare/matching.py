"""Which figures may stand in one column: those of the same task, from the same data, with the same settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from unmask.evaluation.outcome import Measured, Outcome

T = TypeVar("T")

#: What goes before a model's texts belongs to the model, not to what it is measured on: it may differ, which is noted.
INSTRUCTION: Final = "instruction"
#: Settings that belong to the model; the other one is the revision of its weights, which mteb records.
OWN_SETTINGS: Final = frozenset({INSTRUCTION, "revision"})
NOT_MEASURED: Final = "not measured"

#: Outcomes of models, by the model's name and the task's.
Outcomes = Mapping[str, Mapping[str, Outcome]]
#: Why a model has no comparable figure, by the model's name and the task's.
Missing = Mapping[str, Mapping[str, str]]


def missing_of(outcomes: Mapping[str, Outcome], firsts: Mapping[str, Outcome]) -> dict[str, str]:
    """Return the tasks that a model has no comparable score for, with the reasons."""
    reasons = {task: _reason(outcomes.get(task), first) for task, first in firsts.items()}
    return {task: reason for task, reason in reasons.items() if reason}


def _reason(outcome: Outcome | None, first: Outcome) -> str:
    if outcome is None:
        return NOT_MEASURED
    if not math.isfinite(outcome.score.value):
        return "undefined"
    facts, others = _facts(outcome), _facts(first)
    return "; ".join(
        f"{name} is {_short(facts.get(name))}, but {_short(others.get(name))} for another model"
        for name in (facts | others)
        if facts.get(name) != others.get(name)
    )


def _facts(outcome: Outcome) -> dict[str, Any]:
    """Return all that must be alike for two figures to stand in one column."""
    return {"kind": outcome.kind, "metric": outcome.main, "items": outcome.items} | settings_of(outcome)


def settings_of(outcome: Outcome) -> dict[str, Any]:
    """Return the settings of a task that do not belong to the model."""
    return {name: value for name, value in outcome.settings.items() if name not in OWN_SETTINGS}


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {each}" for name, each in value.items())
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def notes_on(models: Outcomes, missing: Missing, measured: Sequence[Measured]) -> Iterable[str]:
    """Say, a sentence each, which figures are missing and why, and what else differs between the models."""
    absent = [((task, why), name) for name, reasons in missing.items() for task, why in reasons.items()]
    for (task, why), names in _gathered(absent):
        yield f"{task}: no figure for {', '.join(names)}: {why}."
    tasks = sorted({task for outcomes in models.values() for task in outcomes})
    for said, alike in _gathered((_instructions(models, task), task) for task in tasks):
        if said:
            yield f"Instructions differ on {', '.join(alike)} ({said})."
    for length, names in (cut := _gathered((model.max_length, model.name) for model in measured)):
        if len(cut) > 1:
            yield f"Texts are cut at {length:,} tokens for {', '.join(names)}."
    hardware = {model.hardware for model in measured if model.tokens_per_second is not None}
    if len(hardware) > 1:
        yield f"Speeds were measured on different hardware ({'; '.join(sorted(hardware))}): do not compare them."


def _instructions(models: Outcomes, task: str) -> str:
    """Return what each model was told on a task; nothing if they were told the same."""
    told = [(outcomes[task].settings.get(INSTRUCTION), name) for name, outcomes in models.items() if task in outcomes]
    by_instruction = _gathered(told)
    if len(by_instruction) < 2:
        return ""
    return "; ".join(f"{', '.join(names)}: {instruction or 'none'}" for instruction, names in by_instruction)


def _gathered(pairs: Iterable[tuple[T, str]]) -> list[tuple[T, list[str]]]:
    """Return what belongs to each key, in the order in which the keys came."""
    found: dict[T, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return list(found.items())
