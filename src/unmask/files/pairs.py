"""Pairs of texts: a query and what answers it, and two sentences that people scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from unmask.errors import InputError
from unmask.files.lines import read_lines
from unmask.files.records import string_in

#: What the field of the query may be called; ``anchor`` in data sets made for sentence-transformers.
_QUERY: Final = ("query", "anchor")


def pair_in(record: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Return the query of a record, its field ``query`` or else ``anchor``, and its ``positive``.

    Raises:
        InputError: a field is missing, or holds no string; says ``where`` the record stands.
    """
    query = next((name for name in _QUERY if name in record), _QUERY[0])
    return string_in(record, query, where), string_in(record, "positive", where)


def read_scored_pairs(path: Path) -> list[tuple[float, str, str]]:
    """Read lines ``score <TAB> sentence <TAB> sentence``; a first line without a number is a heading.

    Raises:
        InputError: the file cannot be read, a line is not as above, or there are not two pairs of different
            scores; names the file and the line.
    """
    lines = list(read_lines(path))
    while lines and not lines[-1][1]:
        lines.pop()
    rows: list[tuple[float, str, str]] = []
    for number, (where, line) in enumerate(lines):
        cells = line.split("\t")
        score = _number(cells[0])
        if number == 0 and score is None:
            continue
        if len(cells) != 3 or score is None or not math.isfinite(score) or not all(map(str.strip, cells[1:])):
            raise InputError(f"{where}: got {line[:60]!r}; expected 'score<TAB>sentence<TAB>sentence'.")
        rows.append((score, cells[1], cells[2]))
    if len({score for score, _, _ in rows}) < 2:
        raise InputError(f"{path} holds {len(rows)} pairs; expected at least two, of different scores.")
    return rows


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
