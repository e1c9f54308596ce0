"""Tasks of mteb run with an encoder; results in mteb's own layout, so that they go to its leaderboard as they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from unmask.encoder import Encoder
from unmask.errors import EvaluationError, InputError, UnmaskError
from unmask.evaluation.instructions import read_instructions
from unmask.evaluation.mteb.adapter import MtebEncoder, adapt
from unmask.evaluation.mteb.extra import require_mteb
from unmask.evaluation.mteb.instructions import Instructions
from unmask.evaluation.mteb.names import find_tasks, of_tasks, split_names
from unmask.evaluation.mteb.reading import read_result
from unmask.evaluation.mteb.sizes import TaskBar, texts_of
from unmask.evaluation.outcome import Outcome
from unmask.evaluation.store import VectorStore

#: Loggers whose lines would stand across the bar: what goes wrong is told once, by us.
_LOGGERS: Final = ("mteb", "huggingface_hub", "datasets")


def run(
    encoder: Encoder,
    tasks: str | Sequence[str],
    folder: Path,
    *,
    name: str,
    instructions: Path | None = None,
    store: VectorStore | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: bool = False,
) -> dict[str, Outcome]:
    """Run tasks of mteb, those whose results are in ``folder`` already excepted.

    A task that fails does not end the run: the others go on, and what failed is told at the end. Started again, a run
    goes on at the split and language where it was; with a store, at the text.

    Args:
        encoder: the model.
        tasks: names of tasks or benchmarks, a list or with commas between them: ``STS12,SciFact``, ``MTEB(eng, v2)``.
        folder: where results go: ``results/MODEL/REVISION/TASK.json``, and ``model_meta.json`` beside them.
        name: what the leaderboard calls the model, ``organisation/name``; a name alone gets ``unmask/``.
        instructions: a JSON file ``{task: instruction}``; tasks that it does not name get mteb's own.
        store: keeps vectors of ``encoder`` from task to task and run to run; None: those of a task, while it lasts.
        say: takes a line for the user: what failed, when it failed.
        progress: show the task, texts a second and the time left, as far as mteb says how many texts its tasks have.

    Returns:
        The outcome of each task, without intervals.

    Raises:
        InputError: no task exists by any of the names, mteb is not installed, the instructions cannot be read, or the
            folder cannot be made.
        EvaluationError: some tasks failed or do not exist; the others are done and their results written.
    """
    require_mteb()
    own = read_instructions(instructions) if instructions else {}
    found = find_tasks(split_names(tasks))
    if not found.tasks:
        raise InputError(" ".join(f"{name!r} is {about}" for name, about in found.unknown.items()))
    for unknown, about in found.unknown.items():
        say(f"{unknown}: {about}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; expected a folder for results. Choose another.") from error
    used = Instructions(own=of_tasks(own))
    with _quiet(), TaskBar("MTEB", unit="texts", extra_unit="tokens" if store else None, enabled=progress) as bar:
        if store:
            store.bar = bar
        model = adapt(encoder, name=name, instructions=used, encoded=bar.advance, store=store)
        outcomes, failed = _each(model, found.tasks, folder, bar, say)
    failed |= found.unknown
    if failed:
        listed = "; ".join(f"{task}: {line.rstrip('.')}" for task, line in failed.items())
        raise EvaluationError(
            f"{len(failed)} of {len(failed) + len(outcomes)} tasks of mteb failed. {listed}. "
            f"What is done lies in {folder} and is not repeated when you run the same again."
        )
    return outcomes


def _each(
    model: MtebEncoder, tasks: Sequence[Any], folder: Path, bar: TaskBar, say: Callable[[str], None]
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Return the outcomes of ``tasks``, and what went wrong with the others on a line each."""
    from mteb.cache import ResultCache

    cache = ResultCache(folder)
    outcomes: dict[str, Outcome] = {}
    failed: dict[str, str] = {}
    sizes = [0 if _usable(_file_of(task, model, cache)) else texts_of(task) for task in tasks]
    for number, task in enumerate(tasks):
        name = task.metadata.name
        note = f"{name}, {number + 1} of {len(tasks)} tasks"
        bar.begin(sizes[number:], f"{note}, {len(failed)} failed" if failed else note)
        try:
            outcomes[name] = _evaluate(model, task, cache)
        except Exception as error:  # noqa: BLE001 - data sets, their loaders and the network may raise anything
            failed[name] = _one_line(error)
            say(f"{name}: {failed[name]}")
            if task.data_loaded:
                task.unload_data()
    return outcomes, failed


def _file_of(task: Any, model: MtebEncoder, cache: Any) -> Path:
    return Path(cache.get_task_result_path(task.metadata.name, model.mteb_model_meta))


def _evaluate(model: MtebEncoder, task: Any, cache: Any) -> Outcome:
    import mteb

    file = _file_of(task, model, cache)
    # What mteb would track of the machine's power depends on what else is installed.
    result = mteb.evaluate(model, task, cache=cache, co2_tracker=False, show_progress_bar=False)
    for problem in result.exceptions or ():
        raise EvaluationError(problem.exception)
    outcome = _usable(file)
    if outcome is None:
        raise EvaluationError("its score is undefined: its labels or scores, or the vectors, are all alike.")
    return outcome


def _usable(file: Path) -> Outcome | None:
    """Return a result, None if there is none; one without a score, or half written by a killed run, is removed."""
    if not file.exists():
        return None
    try:
        return read_result(file)
    except InputError:
        file.unlink()  # mteb would take the one for done, and stumble over the other
        return None


def _one_line(error: Exception) -> str:
    """Return what went wrong on one line, with the kind of error if it is not ours."""
    text = " ".join(str(error).split())
    short = text if len(text) <= 300 else text[:299].rstrip() + "…"
    return short if isinstance(error, UnmaskError) else f"{type(error).__name__}: {short}".removesuffix(": ")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the bars and log lines that would stand across ours."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels, were_off = [logger.level for logger in loggers], are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not were_off:
            enable_progress_bars()
