"""``unmask eval compare``: models side by side, in a table, as Markdown, as JSON, or as a page with plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmask.cli.common import JsonOption, made, print_json, print_table, quoted, require

if TYPE_CHECKING:
    from unmask.evaluation.compare.comparing import Comparison


def compare(  # noqa: PLR0917 - typer reads the parameters
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Results of two or more models, as unmask eval wrote them."),
    ],
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Name of the model the others are tested against; default: the first."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Page to write, one .html file with table and plots.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of a table.")] = False,
    json: JsonOption = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the page if it exists.")] = False,
) -> None:
    """Set models side by side: scores, tested differences from a baseline, speed, and published figures.

    Examples:
        unmask eval compare results/smollm2-135m-unsup results/smollm2-135m
        unmask eval compare results/* --baseline smollm2-135m -o report.html
        unmask eval compare results/* --markdown > table.md
    """
    require(
        len(folders) > 1, f"{len(folders)} folder was given; expected two or more to compare. Name another model's."
    )
    require(not (markdown and json), "Both --markdown and --json were given; expected one of them. Leave one out.")
    _check(output, replace=replace)
    from unmask.evaluation.compare.comparing import compare as side_by_side
    from unmask.evaluation.compare.page import write_page
    from unmask.evaluation.compare.reading import read_entrants
    from unmask.evaluation.compare.table import as_data
    from unmask.evaluation.compare.table import markdown as as_markdown

    comparison = side_by_side(read_entrants(folders), baseline=baseline, progress=True)
    if output is not None:
        write_page(comparison, output, replace=replace)
    if json:
        print_json(as_data(comparison))
    elif markdown:
        typer.echo(as_markdown(comparison), nl=False)
    else:
        _print(comparison)
    if output is not None:
        made(f"Wrote {output}: {len(comparison.rows)} models, {len(comparison.columns)} tasks. Open it in a browser.")
    else:
        made(
            f"Compared {len(comparison.rows)} models on {len(comparison.columns)} tasks.",
            f"unmask eval compare {' '.join(map(quoted, folders))} -o report.html",
        )


def _check(output: Path | None, *, replace: bool) -> None:
    """Refuse a page that could not be written, before minutes of tests."""
    if output is None:
        return
    require(
        output.suffix.lower() in {".html", ".htm"},
        f"{output} has the ending {output.suffix or 'none'}; expected .html. Name the page so.",
    )
    require(
        replace or not output.exists(),
        f"{output} exists already; expected a new file. Choose another, or pass --replace.",
    )


def _print(comparison: Comparison) -> None:
    from unmask.evaluation.compare.table import differences, explanation, published, scores, upright

    shown = scores(comparison, best="*{}")
    print_table(shown.header, shown.rows, title="* is the best of those measured here")
    tested = differences(comparison)
    if tested:
        print_table(tested.header, tested.rows, title=tested.title)
    for sentence in explanation(comparison, best="starred"):
        typer.echo(sentence)
    for sheet in map(upright, published()):
        print_table(sheet.header, sheet.rows, title=sheet.title)
