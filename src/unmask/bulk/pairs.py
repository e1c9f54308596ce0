"""Pairs of a query and a text that answers it: read from files, and what is distinct among them.

Two texts that differ in nothing but case and white space are the same text.

Shapes: N documents of the corpus, Q queries, R rows.
"""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from unmask.bulk.files import kind_of, open_texts
from unmask.errors import InputError
from unmask.files.lines import read_lines
from unmask.files.pairs import pair_in
from unmask.files.records import as_object, bytes_of, parse_json


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a text that answers it; ``row`` is all that the file says of them, other fields included."""

    query: str
    positive: str
    row: dict[str, Any]


def read_pairs(sources: Iterable[str | Path]) -> list[Pair]:
    """Return the pairs of files of JSON lines, objects with ``query`` (or ``anchor``) and ``positive``, in their order.

    Raises:
        InputError: a file is missing, damaged or of another kind, there is nothing in it, or an object lacks a
            field; names the file and the line.
    """
    pairs: list[Pair] = []
    for name in map(str, sources):
        path = Path(name)
        if kind_of(path) not in (".jsonl", ".ndjson"):
            raise InputError(f"{name} is not a file of JSON lines; expected .jsonl, with query and positive a line.")
        before = len(pairs)
        pairs += [_pair(line, where) for where, line in read_lines(path) if line.strip()]
        if len(pairs) == before:
            raise InputError(f"{name}: no row in it; expected at least one, with query and positive.")
    return pairs


def read_corpus(source: str | Path, *, field: str | None = None) -> list[str]:
    """Return the texts of a file as :func:`unmask.bulk.files.open_texts` reads them, blank ones left out."""
    records = [record for record in open_texts([source], field=field) if record.text.strip()]
    for record in records:
        bytes_of(record.text, record.where)
    return [record.text for record in records]


@dataclass(frozen=True, kw_only=True)
class Distinct:
    """Distinct texts of rows and a corpus, and which of them each row is made of.

    Attributes:
        queries: ``[Q]``.
        documents: the distinct texts of the corpus, N, and after them the positives that are not in it.
        distinct: ``[N]``, where each stands in the corpus as it was given.
        own: ``[Q]``, which of the N are no negatives of a query.
        query_of: ``[R]``, positions in ``queries``.
        positive_of: ``[R]``, positions in ``documents``.
    """

    queries: list[str]
    documents: list[str]
    distinct: NDArray[np.int64]
    own: list[set[int]]
    query_of: NDArray[np.int64]
    positive_of: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Sequence[Pair], corpus: Sequence[str]) -> Self:
        """Plan for rows and the corpus as it was given."""
        queries, documents = _Numbers(), _Numbers()
        in_corpus = np.array([documents.of(text) for text in corpus], dtype=np.int64)
        _, distinct = np.unique(in_corpus, return_index=True)
        query_of = np.array([queries.of(pair.query) for pair in pairs], dtype=np.int64)
        positive_of = np.array([documents.of(pair.positive) for pair in pairs], dtype=np.int64)
        own = [{documents.of(query, new=False)} for query in queries.texts]
        for query, positive in zip(query_of.tolist(), positive_of.tolist(), strict=True):
            own[query].add(positive)
        return cls(
            queries=queries.texts,
            documents=documents.texts,
            distinct=distinct,
            own=[{at for at in mine if 0 <= at < len(distinct)} for mine in own],
            query_of=query_of,
            positive_of=positive_of,
        )

    def rows(self, start: int, end: int) -> NDArray[np.int64]:
        """Return the rows of queries ``start`` to ``end``."""
        return np.flatnonzero((self.query_of >= start) & (self.query_of < end))

    def fingerprint(self, *others: Any) -> str:
        """Return what tells this work from any other."""
        digest = hashlib.sha256(repr((others, len(self.queries), len(self.distinct))).encode())
        digest.update(self.query_of.tobytes() + self.positive_of.tobytes())
        for text in itertools.chain(self.queries, self.documents):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()[:32]


class _Numbers:
    """Numbers texts as they come, those that are the same alike; ``texts`` has the first of each."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._known: dict[str, int] = {}

    def of(self, text: str, *, new: bool = True) -> int:
        """Return the number of a text, -1 for one that has none where there are to be no ``new`` ones."""
        key = " ".join(unicodedata.normalize("NFC", text).casefold().split())
        if key not in self._known and new:
            self._known[key] = len(self.texts)
            self.texts.append(text)
        return self._known.get(key, -1)


def _pair(line: str, where: str) -> Pair:
    row = as_object(parse_json(line, where), where)
    query, positive = pair_in(row, where)
    for name, text in (("query", query), ("positive", positive)):
        if not text.strip():
            raise InputError(f"{where}: the {name} is blank; expected some text. Remove the line.")
        bytes_of(text, where)
    return Pair(query, positive, row)
