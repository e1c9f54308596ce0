"""What ``unmask eval`` does with each of its kinds of measurement."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from unmask.cli.common import DEFAULT_BASE, DEFAULT_MODEL, made, print_table, quoted
from unmask.encoder import Encoder
from unmask.errors import EvaluationError
from unmask.evaluation.analysis import COLUMNS, INSTRUCTION, ScoredPairs, analyse, rows, verdict, write
from unmask.evaluation.outcome import ANALYSIS_FOLDER, MTEB_FOLDER, Metric, Outcome, file_stem, write_model
from unmask.evaluation.ownership import take_over
from unmask.evaluation.running import Run, evaluate
from unmask.evaluation.store import VectorStore
from unmask.evaluation.subject import OwnEncoder, describe
from unmask.evaluation.suite import Suite, read_suite
from unmask.evaluation.tasks import Options


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where figures and vectors go.

    Attributes:
        output: folder of results, a folder a model in it.
        vectors: folder of vectors; None: in Unmask's cache folder.
        replace: whether the figures of another model of the same name may be removed.
    """

    output: Path
    vectors: Path | None
    replace: bool


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What an analysis is made on; None: what comes with Unmask, or nothing."""

    texts: list[str] | None
    pairs: ScoredPairs | None


def read(
    suite: Path, model: str, chosen: list[str], *, limit: int | None, seed: int, instructions: Path | None
) -> Suite:
    """Read the tasks of a folder, for a model that may have a query instruction of its own."""
    from unmask.checkpoint import inspect
    from unmask.evaluation.instructions import QUERY, read_instructions

    given = read_instructions(instructions) if instructions else {}
    query = inspect(model, progress=True).settings.query_instruction or QUERY
    options = Options(limit=limit, seed=seed, instructions=given, query=query)
    return read_suite(suite, options, chosen=chosen)


def sample(texts: Path | None, pairs: Path | None) -> Sample:
    """Read what an analysis is made on."""
    from unmask.bulk.files import open_texts
    from unmask.files.pairs import read_scored_pairs

    found = None if texts is None else [record.text for record in open_texts([texts])]
    if pairs is None:
        return Sample(texts=found, pairs=None)
    gold, left, right = zip(*read_scored_pairs(pairs), strict=True)
    return Sample(texts=found, pairs=ScoredPairs(name=pairs.stem, gold=gold, left=left, right=right))


def load(model: str, *, name: str | None, max_length: int | None, pooling: str | None, causal: bool) -> OwnEncoder:
    """Load what is measured."""
    encoder = Encoder.load(model, pooling=pooling, bidirectional=False if causal else None, progress=True)
    return OwnEncoder.of(encoder, name=name or Path(model).name, source=model, max_length=max_length)


def on_suite(subject: OwnEncoder, suite: Suite, place: Place, *, again: tuple[Path, str]) -> None:
    """Measure on a folder of tasks; ``again`` is the folder and the model, for the next command."""
    done = evaluate(
        subject, suite, place.output, replace_other=place.replace, vectors=place.vectors, say=_say, progress=True
    )
    if done.outcomes:
        _show(done.outcomes)
        made(
            f"Wrote {done.folder}: figures of {len(done.outcomes)} of {len(done.outcomes) + len(done.failed)} tasks, "
            f"{done.measured} of them measured now.",
            *_following(done, *again),
        )
    done.check()


def on_mteb(subject: OwnEncoder, names: str, place: Place, *, instructions: Path | None) -> None:
    """Measure on tasks of mteb; a run that fails in part keeps the rest."""
    from unmask.evaluation.mteb.reading import read_mteb, result_files
    from unmask.evaluation.mteb.running import run

    model = place.output / file_stem(subject.name)
    folder = model / MTEB_FOLDER
    earlier = take_over(model, subject, replace_other=place.replace)
    store = VectorStore(subject, folder=place.vectors, say=_say)
    failed = None
    try:
        run(
            subject.cut,
            names,
            folder,
            name=subject.name,
            instructions=instructions,
            store=store,
            say=_say,
            progress=True,
        )
    except EvaluationError as error:
        failed = error
    if result_files(folder):
        speed = store.tokens_per_second or (earlier.tokens_per_second if earlier else None)
        write_model(model, describe(subject, tokens_per_second=speed))
        outcomes = read_mteb(folder)
        _show(outcomes)
        made(
            f"Wrote {folder}: results of {len(outcomes)} tasks, in mteb's own form.",
            f"unmask eval compare {quoted(place.output)}/*",
        )
    if failed is not None:
        raise failed


def look_into(subject: OwnEncoder, given: Sample, place: Place, *, base: str | None) -> None:
    """Analyse an encoder, against its base as the checkpoint says, or as named.

    Raises:
        EvaluationError: a text's vector depends on what shares its forward pass.
    """
    instruction = subject.cut.settings.query_instruction or INSTRUCTION
    found = analyse(
        subject.cut,
        given.texts,
        name=subject.name,
        base=base,
        instruction=instruction,
        sts=given.pairs,
        progress=True,
    )
    folder = place.output / file_stem(subject.name) / ANALYSIS_FOLDER
    write(folder, found)
    print_table(COLUMNS, rows(found))
    if not found.passed:
        raise EvaluationError(f"{verdict(found)} See {folder}.")
    made(f"{verdict(found)}\nWrote {folder}: figures and plots.")


def _show(outcomes: dict[str, Outcome]) -> None:
    """Print the figures, the main one of a task first."""
    lines = [
        (outcome.task, metric, figure.value, _interval(figure), outcome.items or "")
        for outcome in outcomes.values()
        for metric, figure in sorted(outcome.metrics.items(), key=lambda item: item[0] != outcome.main)
    ]
    print_table(("task", "metric", "value", "95 % interval", "items"), lines)


def _following(done: Run, suite: Path, model: str) -> list[str]:
    """Return the next commands: it takes two models to compare."""
    folder = done.folder
    others = [each for each in folder.parent.iterdir() if (each / "model.json").is_file() and each != folder]
    another = DEFAULT_BASE if model != DEFAULT_BASE else DEFAULT_MODEL
    measure = f"unmask eval --suite {quoted(suite)} --output {quoted(folder.parent)} --model {another}"
    return [*([] if others else [measure]), f"unmask eval compare {quoted(folder.parent)}/*"]


def _interval(figure: Metric) -> str:
    return "" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"


def _say(line: str) -> None:
    typer.echo(line, err=True)
