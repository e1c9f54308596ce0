"""mteb's result files → outcomes, for reports that stand models side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from unmask.errors import InputError
from unmask.evaluation.outcome import Metric, Outcome

#: The kind of mteb's outcomes.
KIND: Final = "mteb"
#: mteb's name for the metric that stands for a task.
MAIN: Final = "main_score"

_META: Final = "model_meta.json"


def read_mteb(folder: Path) -> dict[str, Outcome]:
    """Read the main scores of one model from mteb's results; they have no intervals.

    Args:
        folder: as given to :func:`unmask.evaluation.mteb.running.run`, or mteb's ``--output-folder``.

    Returns:
        Outcomes by task, in the order of the names. Of several revisions of the model, the latest is read.

    Raises:
        InputError: there are no results, those of several models, or damaged ones.
    """
    files = result_files(folder)
    if not files:
        raise InputError(
            f"{folder} holds no results of mteb; expected results/MODEL/REVISION/TASK.json. Run the tasks first."
        )
    models = sorted({file.parents[1].name for file in files})
    if len(models) > 1:
        raise InputError(f"{folder} holds results of {', '.join(models)}; expected one model's. Use a folder for each.")
    latest = max(files, key=lambda file: file.stat().st_mtime_ns).parent
    return {file.stem: read_result(file) for file in sorted(files) if file.parent == latest}


def result_files(folder: Path) -> list[Path]:
    """Return every result of mteb in a folder as :func:`read_mteb` takes it; none if there is no such folder."""
    return [file for file in folder.glob("results/*/*/*.json") if file.name != _META]


def read_result(file: Path) -> Outcome:
    """Read a task's result; its score is the mean over splits and subsets, as mteb's own.

    Raises:
        InputError: the file is none of mteb's, or damaged.
    """
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        scores = [float(subset[MAIN]) for split in data["scores"].values() for subset in split]
        if not scores or not np.isfinite(scores).all():
            raise ValueError("its score is undefined, as with scores or labels that are all alike")
        return Outcome(
            task=data["task_name"],
            kind=KIND,
            main=MAIN,
            metrics={MAIN: Metric(value=float(np.mean(scores)))},
            items=0,
            settings={
                "mteb": data["mteb_version"],
                "dataset_revision": data["dataset_revision"],
                "splits": sorted(data["scores"]),
                "revision": file.parent.name,
            },
            seconds=float(data["evaluation_time"] or 0),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} is no result of mteb, or damaged: {error}. Remove it and run the task again."
        ) from error
