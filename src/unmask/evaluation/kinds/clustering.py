"""Clustering: whether k-means finds the labels again."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask.errors import InputError
from unmask.evaluation.kinds.cosines import refuse_constant
from unmask.evaluation.kinds.tables import draw, read_table, settings_of
from unmask.evaluation.outcome import Samples
from unmask.evaluation.tasks import Kind, Matrix, Model, Options, Task
from unmask.text import Text

#: Starts of k-means; the figure is their mean.
SEEDS: Final = 5


def statistic(samples: Samples) -> dict[str, float]:
    """Return the V-measure of each column of ``clusters`` ``[n, seeds]`` against ``gold``, averaged.

    The clusterings stay as they are when items are resampled: the interval is that of the items.
    """
    gold, clusters = samples["gold"], samples["clusters"]
    return {"v_measure": float(np.mean([_v_measure(gold, column) for column in clusters.T]))}


def _v_measure(gold: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Return mutual information over mean entropy: what the V-measure is (Rosenberg and Hirschberg, EMNLP 2007).

    scikit-learn's own takes ten times as long, most of it for checks: too long for a thousand resamples. The figure
    itself is held against scikit-learn's wherever a model is measured.
    """
    from scipy.special import entr
    from sklearn.metrics import mutual_info_score

    width = int(found.max()) + 1
    table = np.bincount(gold * width + found, minlength=(int(gold.max()) + 1) * width).reshape(-1, width)
    apart = sum(entr(table.sum(axis=axis) / len(gold)).sum() for axis in (0, 1))
    return float(2 * mutual_info_score(None, None, contingency=table) / apart) if apart else 1.0


KIND: Final = Kind(name="clustering", main="v_measure", statistic=statistic)


def read(file: Path, options: Options) -> list[Task]:
    """Read lines ``label<TAB>text``.

    Raises:
        InputError: a line is not as above, or all have one label.
    """
    found = read_table(file, ("label", "text"))
    rows = draw(found, options)
    names, gold = np.unique([row.cells[0] for row in rows], return_inverse=True)
    if len(names) < 2:
        raise InputError(
            f"{file}: {len(rows):,} texts, all of label {str(names[0])!r}; expected at least two labels. "
            "Add texts, or raise --limit."
        )
    instruction = options.instruction(file.stem)

    def run(model: Model) -> Samples:
        vectors = model.vectors(Text(instruction, row.cells[1]) for row in rows)
        refuse_constant(vectors)
        clusters = [_cluster(vectors, len(names), options.seed + number) for number in range(SEEDS)]
        return _checked({"gold": gold, "clusters": np.stack(clusters, axis=1)})

    settings = settings_of(options, file, texts=(len(rows), len(found)))
    settings |= {"instruction": instruction, "clusters": len(names), "seeds": SEEDS, "seed": options.seed}
    return [Task(name=file.stem, kind=KIND, size=len(rows), settings=settings, run=run)]


def _checked(samples: Samples) -> Samples:
    """Return ``samples``; the figure they give is scikit-learn's."""
    from sklearn.metrics import v_measure_score

    theirs = np.mean([v_measure_score(samples["gold"], column) for column in samples["clusters"].T])
    ours = statistic(samples)["v_measure"]
    assert math.isclose(ours, theirs, abs_tol=1e-9), f"{ours} is not scikit-learn's {theirs}"
    return samples


def _cluster(vectors: Matrix, count: int, seed: int) -> NDArray[np.int64]:
    """Return the cluster of each vector, of ``count``, by k-means from one start."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Fewer different vectors than clusters: some clusters stay empty, which costs the model its score.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(count, n_init=1, random_state=seed).fit_predict(vectors)
    return np.asarray(found, dtype=np.int64)
