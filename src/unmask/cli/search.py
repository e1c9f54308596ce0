"""``unmask search``: the texts of a corpus nearest to a query."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from unmask.cli.common import (
    DEFAULT_MODEL,
    FieldOption,
    JsonOption,
    MaxLengthOption,
    ModelOption,
    load,
    made,
    one_line,
    option_model,
    print_json,
    print_table,
    quoted,
    require,
)

#: Name of the corpus that every machine has.
STDLIB: Final = "stdlib"


def search(  # noqa: PLR0917 - typer reads the parameters
    corpus: Annotated[str, typer.Argument(help="File of texts, or 'stdlib': the docstrings of Python's own library.")],
    queries: Annotated[
        list[str] | None, typer.Argument(metavar="[QUERY]...", help="What to look for; without it, you are asked.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    field: FieldOption = None,
    instruction: Annotated[
        str | None, typer.Option("--instruction", "-i", help="Put before each query; '' for none.")
    ] = None,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many texts to show.")] = 5,
    standardise: Annotated[
        bool | None,
        typer.Option(
            "--standardise/--as-is", help="Standardise vectors before comparing; default: if they are all alike."
        ),
    ] = None,
    max_length: MaxLengthOption = None,
    json: JsonOption = False,
) -> None:
    """Search a corpus by meaning. Its vectors are kept: the next search in it is quick.

    Examples:
        unmask search texts.txt "something about animals"
        unmask search reviews.csv --field review "a bad experience" "fast delivery" --top 2
        unmask search texts.jsonl "weather" --json
    """
    interactive = not queries and sys.stdin.isatty()
    require(
        bool(queries) or interactive, "No query was given; expected one on the command line, or a terminal to ask on."
    )
    require(all(query.strip() for query in queries or ()), "A query is blank; expected some text.")
    from unmask.bulk.search import TextSearch

    names, texts = _read(corpus, field)
    finder = TextSearch(
        load(model, max_length=max_length), texts, instruction=instruction, standardised=standardise, progress=True
    )
    answers = []
    for query in queries or _asked():
        hits = finder.find(query, top)
        if json:
            found = [{"score": round(score, 6), "where": names[at], "text": texts[at]} for score, at in hits]
            answers.append({"query": query, "hits": found})
            continue
        print_table(("score", "where", "text"), [(s, names[at], one_line(texts[at])) for s, at in hits], title=query)
    if json:
        print_json(answers)
        return
    note = ", standardised, for they were all alike" if finder.index.standardised else ""
    made(
        f"Searched {len(texts):,} texts, whose vectors are kept{note}.",
        f"unmask search {quoted(corpus)}{option_model(model)}",
        f"unmask encode {'texts.txt' if corpus == STDLIB else quoted(corpus)} -o vectors.npy{option_model(model)}",
    )


def _read(corpus: str, field: str | None) -> tuple[list[str], list[str]]:
    """Return where the texts of a corpus stand, and the texts."""
    if corpus == STDLIB:
        from unmask.corpora import demo_entries

        entries = demo_entries()
        return [entry.name for entry in entries], [entry.document for entry in entries]
    from unmask.bulk.files import open_texts

    records = list(open_texts([corpus], field=field))
    return [record.where.rpartition(", ")[2] for record in records], [record.text for record in records]


def _asked() -> Iterator[str]:
    """Yield what the user types, until an empty line."""
    while True:
        try:
            query = input("Search for (empty line ends): ").strip()
        except EOFError:
            return
        if not query:
            return
        yield query
