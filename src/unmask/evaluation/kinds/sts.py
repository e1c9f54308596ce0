"""Semantic textual similarity: how well cosines order pairs as people did."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np

from unmask.errors import InputError
from unmask.evaluation.kinds.cosines import cosines
from unmask.evaluation.kinds.tables import draw, settings_of
from unmask.evaluation.outcome import Samples
from unmask.evaluation.tasks import Kind, Model, Options, Task
from unmask.files.pairs import read_scored_pairs
from unmask.text import Text


def statistic(samples: Samples) -> dict[str, float]:
    """Return the correlations of ``cosine`` with ``gold``: of ranks (Spearman), and linear (Pearson)."""
    from scipy.stats import pearsonr

    cosine, gold = samples["cosine"], samples["gold"]
    if np.ptp(cosine) == 0 or np.ptp(gold) == 0:
        return {"spearman": math.nan, "pearson": math.nan}
    return spearman(samples) | {
        "pearson": float(pearsonr(cosine, gold).statistic),
    }


def spearman(samples: Samples) -> dict[str, float]:
    """Return the correlation of the ranks of ``cosine`` and ``gold``."""
    from scipy.stats import spearmanr

    cosine, gold = samples["cosine"], samples["gold"]
    if np.ptp(cosine) == 0 or np.ptp(gold) == 0:
        return {"spearman": math.nan}
    return {"spearman": float(spearmanr(cosine, gold).statistic)}


KIND: Final = Kind(name="sts", main="spearman", statistic=statistic, bounds=(-1.0, 1.0), main_alone=spearman)


def read(file: Path, options: Options) -> list[Task]:
    """Read lines ``score<TAB>sentence<TAB>sentence``; a first line without a number is a heading.

    Raises:
        InputError: a line is not as above, or there are not two pairs of different scores.
    """
    found = read_scored_pairs(file)
    rows = draw(found, options)
    gold = np.array([score for score, _, _ in rows])
    if np.ptp(gold) == 0:
        raise InputError(
            f"{file}: {len(rows):,} pairs drawn, all of score {gold[0]:g}; expected different scores, else no "
            "correlation is defined. Raise --limit."
        )
    instruction = options.instruction(file.stem)

    def run(model: Model) -> Samples:
        sentences = [*(left for _, left, _ in rows), *(right for _, _, right in rows)]
        vectors = model.vectors(Text(instruction, sentence) for sentence in sentences)
        return {"gold": gold, "cosine": cosines(vectors[: len(rows)], vectors[len(rows) :])}

    settings = settings_of(options, file, pairs=(len(rows), len(found))) | {"instruction": instruction}
    return [Task(name=file.stem, kind=KIND, size=2 * len(rows), settings=settings, run=run)]
