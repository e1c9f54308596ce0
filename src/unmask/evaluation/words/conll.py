"""Files of sentences with tags for each word: CoNLL's columns, and CoNLL-U.

CoNLL: one word a line, columns separated by blanks, an empty line between sentences. The number of columns says which
they are: word and part of speech; CoNLL-2000 adds the chunk; CoNLL-2003 the named entity behind that. Where one tag
stands behind the word and all of them mark spans (``O``, ``B-PER``), it is the named entity. Lines that begin with
``-DOCSTART-`` are skipped. ``#`` is a word here, never a comment.

CoNLL-U (universaldependencies.org/format.html): ten columns separated by tabs, of which FORM and UPOS are read.
Comments, multiword ranges (``3-4``) and empty nodes (``5.1``) are skipped: the words are those that carry a tag.

Spans, that is chunks and entities, may be written in any of IOB1, IOB2 and IOBES; see :func:`column`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final

from unmask.errors import InputError
from unmask.files.lines import read_lines

POS: Final = "POS"
CHUNKS: Final = "chunks"
ENTITIES: Final = "NER"
#: Columns whose tags mark spans of words.
SPANS: Final = frozenset({CHUNKS, ENTITIES})
#: Columns behind the word, as far as a file has them.
COLUMNS: Final = (POS, CHUNKS, ENTITIES)

_DOCUMENT: Final = "-DOCSTART-"
_SPAN: Final = re.compile(r"O|[BIES]-\S+")
_CONLLU_COLUMNS: Final = 10
#: Characters of a malformed line that an error shows.
_SHOWN: Final = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """Words, each with a tag in each column.

    Attributes:
        place: file and line of the first word.
        words: without white space at their ends.
        tags: by column, one a word, as they stand in the file.
    """

    place: str
    words: tuple[str, ...]
    tags: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Row:
    place: str
    word: str
    tags: tuple[str, ...]


#: Where a line stands, and the line.
_Line = tuple[str, str]


def read_sentences(file: Path) -> list[Sentence]:
    """Read a file, CoNLL-U if its name ends in ``.conllu``, else CoNLL.

    Raises:
        InputError: it cannot be read, holds no sentence, or a row is malformed; names file and line.
    """
    parse: Callable[[Sequence[_Line]], list[_Row]] = _conllu if file.suffix == ".conllu" else _conll
    sentences: list[Sentence] = []
    for block in _blocks(read_lines(file)):
        rows = parse(block)
        if not rows:
            continue
        columns = len(sentences[0].tags) if sentences else len(rows[0].tags)
        _same_columns(rows, columns)
        tags = dict(zip(COLUMNS, zip(*(row.tags for row in rows), strict=True), strict=False))
        sentences.append(Sentence(place=rows[0].place, words=tuple(row.word for row in rows), tags=tags))
    if not sentences:
        raise InputError(
            f"{file} holds no sentence; expected one word a line with its tags, an empty line between sentences. "
            "Fill it, or remove it."
        )
    return _entities(sentences) if _marks_spans(sentences) else sentences


def _marks_spans(sentences: Sequence[Sentence]) -> bool:
    """Return whether the only column is one of spans: no part of speech looks like those, and some word is in one."""
    if list(sentences[0].tags) != [POS]:
        return False
    tags = {tag for sentence in sentences for tag in sentence.tags[POS]}
    return tags != {"O"} and all(map(_SPAN.fullmatch, tags))


def _entities(sentences: Sequence[Sentence]) -> list[Sentence]:
    return [replace(sentence, tags={ENTITIES: sentence.tags[POS]}) for sentence in sentences]


def column(sentences: Iterable[Sentence], name: str) -> list[tuple[str, ...]]:
    """Return a column's tags, sentence by sentence; those of spans in IOB2, whatever the file's scheme.

    So a probe learns the same tags from the same spans.
    """
    tags = [sentence.tags[name] for sentence in sentences]
    return [_iob2(each) for each in tags] if name in SPANS else tags


def spans_of(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return the spans of a sentence, ``(kind, first word, last word)``, by conlleval's rules, as seqeval has them.

    An ``I-`` with no span of its kind before it opens one: so predictions that break the scheme count, too.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    return set(get_entities(list(tags)))


def _iob2(tags: Sequence[str]) -> tuple[str, ...]:
    converted = ["O"] * len(tags)
    for kind, first, last in spans_of(tags):
        converted[first : last + 1] = [f"B-{kind}", *[f"I-{kind}"] * (last - first)]
    return tuple(converted)


def _blocks(lines: Iterable[_Line]) -> Iterator[list[_Line]]:
    """Yield the lines between empty ones."""
    for empty, block in groupby(lines, key=lambda line: not line[1].strip()):
        if not empty:
            yield list(block)


def _same_columns(rows: Sequence[_Row], columns: int) -> None:
    for row in rows:
        if len(row.tags) != columns:
            raise InputError(
                f"{row.place}: {len(row.tags) + 1} columns; expected {columns + 1}, as in the lines before. "
                "Give every word the same columns."
            )


def _conll(block: Sequence[_Line]) -> list[_Row]:
    rows = []
    for place, line in block:
        # Not at other white space, such as a no-break space: it may stand in a word.
        word, *tags = re.split(r"[ \t]+", line.strip(" \t"))
        if word == _DOCUMENT:
            continue
        if not 1 <= len(tags) <= len(COLUMNS):
            raise _malformed(place, line, f"2 to {len(COLUMNS) + 1} columns: word, part of speech, chunk, entity")
        for name, tag in zip(COLUMNS, tags, strict=False):
            if name in SPANS and not _SPAN.fullmatch(tag):
                raise _malformed(place, line, f"O, or B-, I-, E- or S- and a kind as the tag of {name}, as in B-NP")
        rows.append(_Row(place, _word(place, line, word), tuple(tags)))
    return rows


def _conllu(block: Sequence[_Line]) -> list[_Row]:
    rows: list[_Row] = []
    for place, line in block:
        if line.startswith("#"):
            continue
        cells = line.split("\t")
        if len(cells) != _CONLLU_COLUMNS:
            raise _malformed(place, line, f"the {_CONLLU_COLUMNS} columns of CoNLL-U, separated by tabs")
        if re.fullmatch(r"\d+[-.]\d+", cells[0]):
            continue
        if cells[0] != str(len(rows) + 1):
            raise _malformed(place, line, f"word {len(rows) + 1} of its sentence, or an empty line before the next")
        if cells[3] in ("", "_"):
            raise _malformed(place, line, "a part of speech in the fourth column, as in NOUN")
        rows.append(_Row(place, _word(place, line, cells[1]), (cells[3],)))
    return rows


def _word(place: str, line: str, word: str) -> str:
    if not word or word != word.strip():
        raise _malformed(place, line, "a word without white space at its ends")
    return word


def _malformed(place: str, line: str, expected: str) -> InputError:
    shown = line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
    return InputError(f"{place}: got {shown!r}; expected {expected}. Correct the line.")
