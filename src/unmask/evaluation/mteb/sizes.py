"""How many texts tasks of mteb have, as far as mteb's own statistics say: for the time that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from unmask.progress import Progress


def texts_of(task: Any) -> int | None:
    """Return about how many texts a task encodes; None if mteb has no statistics of it."""
    splits = task.metadata.descriptive_stats or {}
    if not all(split in splits for split in task.eval_splits):
        return None
    return sum(_texts(part) for split in task.eval_splits for part in _parts(splits[split], task.hf_subsets))


def _parts(statistics: Mapping[str, Any], subsets: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the statistics of the subsets that are run; those of all together where they are not apart."""
    apart = statistics.get("hf_subset_descriptive_stats") or {}
    return [apart[subset] for subset in subsets if subset in apart] or [statistics]


def _texts(statistics: Mapping[str, Any]) -> int:
    sides = 2 if "text2_statistics" in statistics else 1
    return sides * int(statistics["num_samples"])


class TaskBar(Progress):
    """Counts texts of tasks, how many of which are still to come is an estimate.

    Attributes:
        rest: texts of the tasks behind the one that is run.
    """

    rest = 0

    def begin(self, sizes: Sequence[int | None], note: str) -> None:
        """Begin the first of the tasks that are left.

        Args:
            sizes: their texts; the median stands for those that are not known. If none is, no time left is shown.
            note: a word on the task.
        """
        known = [size for size in sizes if size is not None]
        self.note = note
        if not known:
            self.total, self.rest = None, 0
            return
        usual = int(median(known))
        first, *others = [usual if size is None else size for size in sizes]
        self.rest = sum(others)
        self.total = self.count + first + self.rest

    def advance(self, amount: int = 1, *, extra: int = 0) -> None:
        """Count texts; a task that has more than was thought moves the end."""
        if self.total is not None:
            self.total = max(self.total, self.count + amount + self.rest)
        super().advance(amount, extra=extra)
