"""Classification: what a logistic regression on frozen vectors learns, from all rows and from a few a class."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask.errors import InputError
from unmask.evaluation.kinds.cosines import refuse_constant
from unmask.evaluation.kinds.tables import Row, draw, read_table, settings_of
from unmask.evaluation.outcome import Samples
from unmask.evaluation.tasks import Kind, Matrix, Model, Options, Task
from unmask.text import Text

#: Rows a class of the few-shot setting; fewer where a class has fewer.
SHOTS: Final = 8
#: Draws of these rows; the figure is their mean.
SEEDS: Final = 5
#: Steps of the regression's optimiser.
STEPS: Final = 1_000


def statistic(samples: Samples) -> dict[str, float]:
    """Return accuracy and macro-F1 of the predictions ``full`` ``[n]``, and means over ``shots`` ``[n, seeds]``.

    Macro-F1 is over the classes that occur, in gold or prediction, as in scikit-learn.
    """
    from sklearn.metrics import f1_score

    gold = samples["gold"][:, None]
    predicted = np.column_stack([samples["full"], samples["shots"]])
    hits = (predicted == gold).mean(axis=0)
    # One call for all columns, whose labels are kept apart: a thousand resamples are to take seconds.
    classes, columns = int(max(gold.max(), predicted.max())) + 1, predicted.shape[1]
    apart = classes * np.arange(columns)
    each = f1_score(
        (gold + apart).ravel(),
        (predicted + apart).ravel(),
        labels=np.arange(classes * columns),
        average=None,
        zero_division=math.nan,
    )
    macro = np.nanmean(each.reshape(columns, classes), axis=1)
    return {
        "accuracy": float(hits[0]),
        "macro_f1": float(macro[0]),
        f"accuracy_{SHOTS}shot": float(hits[1:].mean()),
        f"macro_f1_{SHOTS}shot": float(macro[1:].mean()),
    }


def accuracy(samples: Samples) -> dict[str, float]:
    """Return the accuracy of the predictions ``full``."""
    return {"accuracy": float((samples["full"] == samples["gold"]).mean())}


KIND: Final = Kind(name="classification", main="accuracy", statistic=statistic, main_alone=accuracy)


def read(folder: Path, options: Options) -> list[Task]:
    """Read ``train.tsv`` and ``test.tsv``, lines ``label<TAB>text``.

    Raises:
        InputError: a line is not as above, or all of a file have one label.
    """
    files = [folder / "train.tsv", folder / "test.tsv"]
    found = [read_table(file, ("label", "text")) for file in files]
    train, test = (draw(rows, options) for rows in found)
    for file, rows in zip(files, (train, test), strict=True):
        _refuse_one_class(file, rows)
    names, codes = np.unique([row.cells[0] for row in (*train, *test)], return_inverse=True)
    taught, gold = codes[: len(train)], codes[len(train) :]
    instruction = options.instruction(folder.name)

    def run(model: Model) -> Samples:
        vectors = model.vectors(Text(instruction, row.cells[1]) for row in (*train, *test))
        refuse_constant(vectors)
        known, asked = vectors[: len(train)], vectors[len(train) :]
        few = [_some_of_each(taught, options.seed + number) for number in range(SEEDS)]
        shots = [_predict(known[rows], taught[rows], asked) for rows in few]
        return {"gold": gold, "full": _predict(known, taught, asked), "shots": np.stack(shots, axis=1)}

    settings: dict[str, Any] = settings_of(
        options, *files, train=(len(train), len(found[0])), test=(len(test), len(found[1]))
    )
    settings |= {"instruction": instruction, "classes": len(names), "shots": SHOTS, "seeds": SEEDS}
    settings |= {"steps": STEPS, "seed": options.seed}
    return [Task(name=folder.name, kind=KIND, size=len(train) + len(test), settings=settings, run=run)]


def _refuse_one_class(file: Path, rows: Sequence[Row]) -> None:
    labels = {row.cells[0] for row in rows}
    if len(labels) < 2:
        raise InputError(
            f"{file}: {len(rows):,} rows, all of label {labels.pop()!r}; expected at least two labels. "
            "Add rows, or raise --limit."
        )


def _some_of_each(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return :data:`SHOTS` rows of each label, drawn."""
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    chosen = [shuffled[labels[shuffled] == label][:SHOTS] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def _predict(known: Matrix, labels: NDArray[np.int64], asked: Matrix) -> NDArray[np.int64]:
    """Return the labels of ``asked`` by a logistic regression learnt from ``known``."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # How many steps there are is part of what the figure means, and the same for every model.
        warnings.simplefilter("ignore", ConvergenceWarning)
        learnt = LogisticRegression(max_iter=STEPS).fit(known.astype(np.float64), labels)
    return np.asarray(learnt.predict(asked.astype(np.float64)), dtype=np.int64)
