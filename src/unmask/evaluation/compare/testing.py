"""Paired tests of models against a baseline, without computing the same resample twice.

Of many tests some succeed by chance: p-values are adjusted, over all tests of a comparison together, by S. Holm,
A simple sequentially rejective multiple test procedure (Scandinavian Journal of Statistics 6, 1979), which bounds the
probability of even one false finding.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from unmask.errors import InputError
from unmask.evaluation.bootstrap import RESAMPLES, Difference, Statistic, difference
from unmask.evaluation.compare.matching import Missing, Outcomes
from unmask.evaluation.outcome import Outcome, Samples
from unmask.progress import Progress

if TYPE_CHECKING:
    from unmask.evaluation.tasks import Kind  # brings torch, which a table does not need

#: An adjusted p-value below this is called a difference.
SIGNIFICANT: Final = 0.05
#: The smallest p-value a bootstrap can give is about 1 / resamples, and Holm multiplies it by the number of tests:
#: there must be somewhat more than 1 / SIGNIFICANT resamples a test, or no difference could ever be found.
_RESAMPLES_A_TEST: Final = 1.25 / SIGNIFICANT
#: Arrays that travel with the samples: which item a row is, and whose.
_ITEM: Final = "\0item"
_MODEL: Final = "\0model"


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A model against the baseline on a task.

    Attributes:
        model: its name.
        task: name of the task.
        difference: model minus baseline; None if it cannot be tested.
        adjusted: its p-value after Holm's correction; None if it cannot be tested.
        why: why it cannot be tested, else empty.
    """

    model: str
    task: str
    difference: Difference | None
    adjusted: float | None
    why: str = ""

    @property
    def verdict(self) -> int:
        """1 if the model is better than the baseline, -1 if it is worse, 0 if neither can be said."""
        if self.difference is None or self.adjusted is None or self.adjusted >= SIGNIFICANT:
            return 0
        return 1 if self.difference.value > 0 else -1


def contrasts_of(
    pairs: Sequence[tuple[str, str]],
    models: Outcomes,
    baseline: str,
    missing: Missing,
    kinds: Mapping[str, Kind] | None,
    *,
    progress: bool,
) -> tuple[tuple[Contrast, ...], int]:
    """Return the contrasts and how many resamples they took."""
    if kinds is None and pairs:
        from unmask.evaluation.kinds import KINDS as kinds  # noqa: N811 - only if something is tested: it takes time
    whys = {}
    for name, task in pairs:
        why = missing[name].get(task) or missing[baseline].get(task)
        whys[name, task] = why or _untestable(models[name][task], models[baseline][task], kinds or {})
    testable = [pair for pair, why in whys.items() if not why]
    resamples = max(RESAMPLES, math.ceil(_RESAMPLES_A_TEST * len(testable)))
    found: dict[tuple[str, str], Difference] = {}
    with Progress("Testing differences", total=len(testable), unit="tests", enabled=progress) as bar:
        for task, outcome in models[baseline].items():
            names = [name for name, tested in testable if tested == task]
            if not names:
                continue
            kind = (kinds or {})[outcome.kind]
            tests = PairedTests(kind.main_alone or kind.statistic, outcome.main, outcome.samples)
            for name in names:
                bar.note = f"{name}, {task}"
                try:
                    found[name, task] = tests.against(models[name][task].samples, resamples=resamples)
                except InputError as error:
                    whys[name, task] = str(error)
                bar.advance()
    adjusted = dict(zip(found, holm([each.p for each in found.values()]), strict=True))
    contrasts = (
        Contrast(
            model=name, task=task, difference=found.get((name, task)), adjusted=adjusted.get((name, task)), why=why
        )
        for (name, task), why in whys.items()
    )
    return tuple(contrasts), resamples


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number: the i-th smallest of m times m - i + 1, never falling, at most 1."""
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted


class PairedTests:
    """Tests of models against a baseline on a task.

    Every model is resampled with the same items, the baseline once for each other model. The baseline's figures are
    kept, which for many models halves the time.

    Args:
        statistic: computes the metrics.
        metric: the one that is compared.
        baseline: samples of the baseline.
    """

    def __init__(self, statistic: Statistic, metric: str, baseline: Samples) -> None:
        self._statistic = statistic
        self._metric = metric
        self._baseline = _marked(baseline, own=True)
        self._kept: dict[bytes, float] = {}

    def against(self, samples: Samples, *, resamples: int) -> Difference:
        """Return how much better than the baseline a model is, see :func:`unmask.evaluation.bootstrap.difference`."""
        return difference(self._figures, self._metric, self._baseline, _marked(samples, own=False), resamples=resamples)

    def _figures(self, samples: Samples) -> dict[str, float]:
        own = {name: array for name, array in samples.items() if name not in {_ITEM, _MODEL}}
        if not samples[_MODEL][0]:
            return {self._metric: self._statistic(own)[self._metric]}
        # A hash: a thousand draws of thousands of items would fill the memory.
        items = hashlib.sha256(samples[_ITEM].tobytes()).digest()
        if items not in self._kept:
            self._kept[items] = self._statistic(own)[self._metric]
        return {self._metric: self._kept[items]}


def _marked(samples: Samples, *, own: bool) -> Samples:
    count = len(next(iter(samples.values())))
    return {**samples, _ITEM: np.arange(count, dtype=np.int32), _MODEL: np.full(count, own)}


def _untestable(outcome: Outcome, reference: Outcome, kinds: Mapping[str, Kind]) -> str:
    if not outcome.samples or not reference.samples:
        return "no samples to test with"
    if outcome.kind not in kinds:
        return f"kind {outcome.kind} is not known here"
    shapes = [{name: len(array) for name, array in each.samples.items()} for each in (outcome, reference)]
    return "" if shapes[0] == shapes[1] else "samples of different items"
