"""``unmask eval``: how good an encoder is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from unmask.cli.common import DEFAULT_MODEL, MaxLengthOption, ModelOption, made, quoted
from unmask.errors import InputError

#: Options by the kinds of measurement that heed them; the others concern them all.
_BELONGS: Final[dict[str, tuple[str, ...]]] = {
    "tasks": ("suite",),
    "limit": ("suite",),
    "seed": ("suite",),
    "instructions": ("suite", "mteb"),
    "vectors": ("suite", "mteb"),
    "replace": ("suite", "mteb"),
    "texts": ("analysis",),
    "pairs": ("analysis",),
    "base": ("analysis",),
}
#: How an option is called, where that is not its parameter's name.
_FLAGS: Final = {"pairs": "sts"}


def evaluate(  # noqa: PLR0917 - typer reads the parameters
    context: typer.Context,
    suite: Annotated[
        Path | None, typer.Option("--suite", help="Folder of tasks; --init shows what it looks like.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results, a folder a model in it.")] = Path(
        "evaluation"
    ),
    name: Annotated[
        str | None, typer.Option("--name", help="How tables call the model; default: its own name.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option("--tasks", metavar="A,B", help="Only these tasks; default: all of the suite.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many items a task, drawn with the seed.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything drawn.")] = 0,
    max_length: MaxLengthOption = None,
    instructions: Annotated[
        Path | None, typer.Option("--instructions", help='JSON, {"task": "instruction"}: what goes before queries.')
    ] = None,
    pooling: Annotated[
        str | None, typer.Option("--pooling", help="mean, weighted_mean, last or first; default: as the model says.")
    ] = None,
    causal: Annotated[bool, typer.Option("--causal", help="Leave the model causal, as a baseline.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove the figures of another model of this name.")
    ] = False,
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", help="Folder in which vectors are kept, to be used again; default: Unmask's cache."),
    ] = None,
    mteb: Annotated[
        str | None, typer.Option("--mteb", metavar="NAMES", help="Tasks of mteb, or a benchmark: 'STS12,SciFact'.")
    ] = None,
    analysis: Annotated[
        bool, typer.Option("--analysis", help="Does it look both ways, and what changed from its base?")
    ] = False,
    texts: Annotated[
        Path | None, typer.Option("--texts", help="File of texts for the analysis; default: Python's docstrings.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option("--sts", help="File of scored pairs for the analysis: score<TAB>text<TAB>text.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="The model's base, for the analysis; default: as its checkpoint says."),
    ] = None,
    init: Annotated[
        Path | None, typer.Option("--init", metavar="FOLDER", help="Write an example suite there, and stop.")
    ] = None,
) -> None:
    """Measure an encoder: on a folder of tasks, on mteb, or by looking into it; then set several side by side.

    Tasks of a folder are similarity, retrieval, classification, clustering, pairs and words; each figure comes with its
    95 % interval. Vectors are kept: a run that was stopped goes on where it was, and a task that is done is not done
    again.

    Examples:
        unmask eval --init suite
        unmask eval --suite suite
        unmask eval --suite suite --tasks animals,kitchen --limit 100 --max-length 64
        unmask eval --suite suite --causal --pooling last --name causal
        unmask eval --mteb STS12,SciFact
        unmask eval --analysis --sts pairs.tsv
    """
    if context.invoked_subcommand is not None:
        return
    if init is not None:
        _init(init)
        return
    if suite is None and mteb is None and not analysis:
        raise InputError(
            "Nothing to measure on: give a folder of tasks with --suite, or make one with --init FOLDER; "
            "or give --mteb or --analysis."
        )
    _refuse_idle(context, suite=suite is not None, mteb=mteb is not None, analysis=analysis)
    from unmask.cli import evaluating

    chosen = [task.strip() for task in (tasks or "").split(",") if task.strip()]
    # Data is read before the model is loaded, which takes longer.
    read = None
    if suite is not None:
        read = evaluating.read(suite, model, chosen, limit=limit, seed=seed, instructions=instructions)
    sample = evaluating.sample(texts, pairs) if analysis else None
    place = evaluating.Place(output=output, vectors=vectors, replace=replace)
    subject = evaluating.load(model, name=name, max_length=max_length, pooling=pooling, causal=causal)
    if sample is not None:
        evaluating.look_into(subject, sample, place, base=base)
    if suite is not None and read is not None:
        evaluating.on_suite(subject, read, place, again=(suite, model))
    if mteb is not None:
        evaluating.on_mteb(subject, mteb, place, instructions=instructions)


def _refuse_idle(context: typer.Context, **measured: bool) -> None:
    """Refuse options that nothing would heed: a figure would be taken for what it is not."""
    for parameter, kinds in _BELONGS.items():
        source = context.get_parameter_source(parameter)
        if source is not None and source.name == "COMMANDLINE" and not any(measured[kind] for kind in kinds):
            option = _FLAGS.get(parameter, parameter)
            raise InputError(
                f"--{option} says nothing to what is measured here; expected it with --{' or --'.join(kinds)}. "
                "Leave it out."
            )


def _init(folder: Path) -> None:
    from unmask.evaluation.example import write_example

    write_example(folder)
    made(
        f"Wrote {folder}: a suite of small tasks of every kind. Its README.md says how to put in your own.",
        f"unmask eval --suite {quoted(folder)}",
    )
