"""``unmask mine``: pairs of query and positive → the same with hard negatives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmask.cli.common import DEFAULT_MODEL, FieldOption, ModelOption, load, made, option_model, quoted

if TYPE_CHECKING:
    from unmask.bulk.negatives import Mined, MiningSettings


def mine(  # noqa: PLR0917 - typer reads the parameters
    inputs: Annotated[
        list[str], typer.Argument(metavar="PAIRS...", help="Files of JSON lines with query and positive.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .jsonl.")],
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="File of texts to choose from; default: the positives of all pairs.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    field: FieldOption = None,
    instruction: Annotated[
        str | None,
        typer.Option("--instruction", "-i", help="Put before each query; default: the model's own; '' for none."),
    ] = None,
    negatives: Annotated[int, typer.Option("--negatives", help="How many for each row.")] = 1,
    top: Annotated[int, typer.Option("--top", help="How many ranks deep to look, a query's own not counted.")] = 100,
    skip_first: Annotated[int, typer.Option("--skip-first", help="Leave out so many of the first ranks.")] = 0,
    margin: Annotated[
        float, typer.Option("--margin", help="A negative scores at most this share of the positive's score.")
    ] = 0.95,
    standardise: Annotated[
        bool | None,
        typer.Option(
            "--standardise/--as-is", help="Standardise vectors before comparing; default: if they are all alike."
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the output if it exists.")] = False,
) -> None:
    """Mine hard negatives for training: texts near a query, yet clearly farther from it than its positive.

    Rows with too few of them are left out; in the rest, negative is one text, or a list of several. A run that
    was killed goes on where it was if it is started again.

    Examples:
        unmask mine pairs.jsonl -o mined.jsonl --instruction "Given a question, retrieve passages that answer it:"
        unmask mine pairs.jsonl --corpus texts.jsonl -o mined.jsonl --negatives 2 --top 50 --margin 0.9
    """
    from unmask.bulk.mining import check_output, mine_to_file
    from unmask.bulk.negatives import MiningSettings
    from unmask.bulk.pairs import read_corpus, read_pairs

    settings = MiningSettings(
        instruction=instruction,
        negatives=negatives,
        top=top,
        skip_first=skip_first,
        margin=margin,
        standardised=standardise,
    )
    check_output(output, replace=replace)
    pairs = read_pairs(inputs)
    texts = None if corpus is None else read_corpus(corpus, field=field)
    mined = mine_to_file(load(model), pairs, texts, output, settings, replace=replace, progress=True)
    made(
        f"Wrote {output}: {_summary(mined, settings)}",
        f"unmask train supervised {quoted(output)} -o run{option_model(model)}"
        + (f" --instruction {quoted(instruction)}" if instruction else ""),
    )


def _summary(mined: Mined, settings: MiningSettings) -> str:
    rows, written = len(mined.found), int(mined.found.sum())
    each = f"{settings.negatives} negative{'s' * (settings.negatives > 1)}"
    short = int((mined.others[~mined.found] < settings.negatives).sum())
    reasons = [
        f"{count:,} {why}"
        for count, why in (
            (rows - written - short, f"with too few that score at most {settings.margin:g} of the positive's"),
            (short, "with too few texts that are not the query's own"),
        )
        if count
    ]
    skipped = f" Skipped {rows - written:,} rows: {', '.join(reasons)}." if reasons else ""
    positive, negative = mined.positive_scores[mined.found].mean(), mined.scores[mined.found].mean()
    scale = ", standardised" if mined.standardised else ""
    return (
        f"{written:,} of {rows:,} rows, {each} each.{skipped} Mean cosine{scale}: {positive:.3f} with the positive, "
        f"{negative:.3f} with the negatives."
    )
