"""A collection in BEIR's layout: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels.tsv``.

The corpus is streamed: nothing of it stays in memory but its ids.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unmask.errors import InputError
from unmask.evaluation.kinds.tables import malformed, read_table
from unmask.files.lines import read_lines
from unmask.files.records import as_object, bytes_of, parse_json, string_in

_COLUMNS: Final = ("query-id", "corpus-id", "score")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Queries, judgements, and where the documents are.

    Attributes:
        corpus: file of the documents.
        queries: text by id, only those with a relevant document.
        qrels: for each of these queries, grades of documents by id.
        documents: ids, in the order of the file.
        files: all that was read.
    """

    corpus: Path
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    documents: list[str]
    files: tuple[Path, ...]


def read_collection(folder: Path) -> Collection:
    """Read all of a collection but its documents' texts.

    Raises:
        InputError: a file is missing or malformed, an id stands twice, a judgement points nowhere, or no query has
            a relevant document.
    """
    corpus, queries = folder / "corpus.jsonl", folder / "queries.jsonl"
    judgements = folder / "qrels.tsv"
    if not judgements.exists() and (folder / "qrels/test.tsv").exists():
        judgements = folder / "qrels/test.tsv"  # where BEIR itself has them
    documents = {identifier: "" for _, identifier, _ in _distinct(corpus)}
    asked = {identifier: (where, text) for where, identifier, text in _distinct(queries)}
    qrels = _judgements(judgements, {"queries.jsonl": asked, "corpus.jsonl": documents})
    useful = {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}
    if not useful:
        raise InputError(f"{judgements}: no query has a relevant document; expected scores above 0. Correct the file.")
    for query in useful:
        where, text = asked[query]
        if not text:
            raise InputError(f"{where}: the query is blank; expected some text. Remove it and its judgements.")
    return Collection(
        corpus=corpus,
        queries={query: text for query, (_, text) in asked.items() if query in useful},
        qrels=useful,
        documents=list(documents),
        files=(corpus, queries, judgements),
    )


def documents(corpus: Path, wanted: frozenset[str] | None = None) -> Iterator[tuple[str, str]]:
    """Yield id and text of each document, title first; only those ``wanted``, None for all."""
    for _, identifier, text in _entries(corpus):
        if wanted is None or identifier in wanted:
            yield identifier, text


def _entries(file: Path) -> Iterator[tuple[str, str, str]]:
    """Yield where each entry stands, its id and its text."""
    empty = True
    for where, line in read_lines(file):
        if not line.strip():
            continue
        entry = as_object(parse_json(line, where), where)
        identifier, text = string_in(entry, "_id", where), string_in(entry, "text", where)
        title = string_in(entry, "title", where) if "title" in entry else ""
        for part in (identifier, title, text):
            bytes_of(part, where)
        if not identifier:
            raise InputError(f"{where}: the field '_id' is empty; expected an id. Repair or remove the row.")
        empty = False
        yield where, identifier, f"{title} {text}".strip()
    if empty:
        raise InputError(
            f"{file} holds nothing; expected an object with _id and text a line. Fill it, or remove the folder."
        )


def _distinct(file: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the entries of ``file`` and refuse an id that stands there twice."""
    known: set[str] = set()
    for where, identifier, text in _entries(file):
        if identifier in known:
            raise InputError(f"{where}: the id {identifier!r} stands there a second time; expected it once. Remove it.")
        known.add(identifier)
        yield where, identifier, text


def _judgements(file: Path, known: Mapping[str, Container[str]]) -> dict[str, dict[str, int]]:
    """Return grades by query and document.

    Args:
        file: of the judgements; a first line that begins with ``query-id`` is a heading.
        known: by file, the ids that the first and the second cell of a row must be among.
    """
    qrels: dict[str, dict[str, int]] = {}
    for row in read_table(file, _COLUMNS, heading=lambda cell: cell == _COLUMNS[0]):
        for identifier, (name, identifiers) in zip(row.cells, known.items(), strict=False):
            if identifier not in identifiers:
                raise InputError(
                    f"{row.where}: the judgement points nowhere, {name} has no {identifier!r}; expected an id of its. "
                    "Correct the line."
                )
        query, document, grade = row.cells
        try:
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError as error:
            raise malformed(row, "<TAB>".join(_COLUMNS) + ", the score a whole number") from error
    return qrels
