"""Pair classification: whether the cosine tells paraphrases from other pairs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np

from unmask.errors import InputError
from unmask.evaluation.kinds.cosines import cosines
from unmask.evaluation.kinds.tables import draw, malformed, read_table, settings_of
from unmask.evaluation.outcome import Samples
from unmask.evaluation.tasks import Kind, Model, Options, Task
from unmask.text import Text

_COLUMNS: Final = ("0/1", "sentence", "sentence")
_LABELS: Final = {"0": 0, "1": 1}


def statistic(samples: Samples) -> dict[str, float]:
    """Return the average precision of ``cosine`` as a score for ``gold`` being 1."""
    from sklearn.metrics import average_precision_score

    gold = samples["gold"]
    if np.ptp(gold) == 0:
        return {"average_precision": math.nan}
    return {"average_precision": float(average_precision_score(gold, samples["cosine"]))}


KIND: Final = Kind(name="pairs", main="average_precision", statistic=statistic)


def read(file: Path, options: Options) -> list[Task]:
    """Read lines ``0/1<TAB>sentence<TAB>sentence``; a first line that begins with a word is a heading.

    Raises:
        InputError: a line is not as above, or all pairs are of one class.
    """
    found = read_table(file, _COLUMNS, heading=str.isidentifier)
    for row in found:
        if row.cells[0] not in _LABELS:
            raise malformed(row, "<TAB>".join(_COLUMNS))
    rows = draw(found, options)
    gold = np.array([_LABELS[row.cells[0]] for row in rows])
    if np.ptp(gold) == 0:
        raise InputError(
            f"{file}: {len(rows):,} pairs, all of class {gold[0]}; expected both classes. Add pairs, or raise --limit."
        )
    instruction = options.instruction(file.stem)

    def run(model: Model) -> Samples:
        vectors = model.vectors(Text(instruction, row.cells[side]) for side in (1, 2) for row in rows)
        return {"gold": gold, "cosine": cosines(vectors[: len(rows)], vectors[len(rows) :])}

    settings = settings_of(options, file, pairs=(len(rows), len(found))) | {"instruction": instruction}
    return [Task(name=file.stem, kind=KIND, size=2 * len(rows), settings=settings, run=run)]
