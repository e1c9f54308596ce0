"""What a model reached on a task, and the folder in which it lies.

A folder of results is one model's:

    smollm2-135m-unsup/
      model.json        what was measured: source, dimension, speed, versions, hardware
      STS-B.json        figures of a task, with their intervals; appears whole, when the task is done
      STS-B.npz         one row an item: from these the intervals come, and the tests between two models
      mteb/             results of mteb, in its own form
      analysis/         what was seen inside the model

Nothing else is needed to compare models later, neither texts nor weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from unmask.errors import InputError
from unmask.hub.cache import atomic_file

#: Arrays with one row an item (a pair, a query, a text, a sentence).
Samples = Mapping[str, NDArray[Any]]

MODEL_FILE: Final = "model.json"
#: Folders in a model's folder.
MTEB_FOLDER: Final = "mteb"
ANALYSIS_FOLDER: Final = "analysis"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure, and where the truth lies in 95 of 100 cases.

    Attributes:
        value: on all items.
        low: lower end of the interval; None where there is none (published figures, mteb's).
        high: upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A model's figures on a task.

    Attributes:
        task: name of the task.
        kind: what kind of task it is; a name in ``kinds.KINDS``, or ``mteb``.
        main: the metric that stands for the task in a table.
        metrics: every metric by its name.
        items: how many items were resampled for the intervals.
        settings: everything else that the figures depend on: lengths, limits, seeds, instruction, the data's hash.
        seconds: how long it took, encoding included; vectors that were kept cost nothing.
        samples: what the figures were computed from, one row an item; empty if they are not known.
    """

    task: str
    kind: str
    main: str
    metrics: dict[str, Metric]
    items: int
    settings: dict[str, Any]
    seconds: float
    samples: Samples = field(default_factory=dict, repr=False, compare=False)

    @property
    def score(self) -> Metric:
        """The main metric."""
        return self.metrics[self.main]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured, and on what.

    Attributes:
        name: how tables call the model.
        source: what it was loaded from.
        identity: changes when its vectors may.
        dimension: components of a vector.
        max_length: most tokens of a text.
        parameters: of the backbone.
        tokens_per_second: while encoding, all tasks together; None if every vector was kept already.
        hardware: processor, threads or GPU.
        versions: of the libraries that matter, by name.
        date: of the last task, ISO 8601.
    """

    name: str
    source: str
    identity: str
    dimension: int
    max_length: int
    parameters: int
    tokens_per_second: float | None
    hardware: str
    versions: dict[str, str]
    date: str


@dataclass(frozen=True, kw_only=True)
class Results:
    """A model's outcomes.

    Attributes:
        model: what was measured.
        outcomes: by task, in the order of their names.
    """

    model: Measured
    outcomes: dict[str, Outcome]


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write a task's files; the samples first, so that figures never stand without them."""
    stem = file_stem(outcome.task)
    with atomic_file(folder / f"{stem}.npz", replace=True) as draft, draft.open("wb") as stream:
        arrays: dict[str, Any] = dict(outcome.samples)
        np.savez_compressed(stream, **arrays)
    about = asdict(replace(outcome, samples={}))
    del about["samples"]
    _write_json(folder / f"{stem}.json", about)


def write_model(folder: Path, model: Measured) -> None:
    """Write what was measured."""
    _write_json(folder / MODEL_FILE, asdict(model))


def read_outcome(folder: Path, task: str) -> Outcome | None:
    """Return the outcome of ``task``, None if it has not been measured.

    Raises:
        InputError: its files are there, but damaged.
    """
    file = folder / f"{file_stem(task)}.json"
    return _read_outcome(file) if file.exists() else None


def read_model(folder: Path) -> Measured | None:
    """Return what was measured in ``folder``, None if nothing was.

    Raises:
        InputError: its file is there, but damaged.
    """
    file = folder / MODEL_FILE
    return _checked(file, lambda data: Measured(**data)) if file.exists() else None


def read_results(folder: Path, *, may_be_empty: bool = False) -> Results:
    """Read a folder of results.

    Args:
        folder: of a model.
        may_be_empty: whether it may hold no outcome, as that of a model that was measured by mteb alone.

    Raises:
        InputError: it is none, it holds no outcome, or a file in it is damaged.
    """
    model = read_model(folder)
    if model is None:
        raise InputError(
            f"{folder} holds no {MODEL_FILE}; expected a folder written by: unmask eval. Name a model's folder in it."
        )
    # A run that was killed leaves a hidden draft.
    files = sorted(each for each in folder.glob("*.json") if each.name != MODEL_FILE and each.name[0] != ".")
    outcomes = {outcome.task: outcome for outcome in map(_read_outcome, files)}
    if not (outcomes or may_be_empty):
        raise InputError(f"{folder} holds no task's figures yet. Run the evaluation to its first task's end.")
    return Results(model=model, outcomes=outcomes)


def file_stem(task: str) -> str:
    """Return the name of a task's files without ending: the task's, but for what no file may be called."""
    stem = "".join(char if char.isalnum() or char in "-_.() +" else "_" for char in task)
    return f"_{stem}" if stem.startswith(".") or f"{stem}.json" == MODEL_FILE else stem


def _read_outcome(file: Path) -> Outcome:
    def make(data: dict[str, Any]) -> Outcome:
        metrics = {name: Metric(**metric) for name, metric in data.pop("metrics").items()}
        with file.with_suffix(".npz").open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            samples = {name: arrays[name] for name in arrays.files}
        outcome = Outcome(metrics=metrics, samples=samples, **data)
        outcome.score  # noqa: B018 - the main metric must be there
        return outcome

    return _checked(file, make)


def _checked(file: Path, make: Callable[[dict[str, Any]], T]) -> T:
    try:
        return make(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile) as error:
        raise InputError(f"{file} is damaged: {error}. Remove it and run the evaluation again.") from error


def _write_json(file: Path, data: dict[str, Any]) -> None:
    with atomic_file(file, replace=True) as draft:
        draft.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
