"""Where training texts come from, and how they are read: as a stream, once.

| path | texts |
| --- | --- |
| ``*.txt`` | one a line |
| ``*.jsonl`` | one a line, in a field of its JSON object |
| a folder | those of all such files below it, in sorted order |
| ``owner/name``, ``hf:owner/name`` | one a row of that Hugging Face data set, streamed |
| ``stdlib`` | the docstrings of Python's own library: real text that every machine has (``./stdlib`` is a folder) |

Files may be compressed (.gz, .xz, .bz2, .zst). ``hf:FOLDER`` reads a folder of Parquet or other files that the
datasets library knows. Blank texts are skipped and counted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from unmask.corpora import stdlib_docstrings
from unmask.errors import InputError
from unmask.files.lines import split_name
from unmask.files.pairs import pair_in
from unmask.files.records import bytes_of, choose_field, json_type, string_in
from unmask.training.data.records import KINDS, Located, file_records, files_at, hub_records
from unmask.training.data.report import Report, Tally

__all__ = ["HUB", "STDLIB", "PairSource", "Report", "Source", "Tally", "read_pairs", "read_texts"]

#: Path of the docstrings of Python's own library.
STDLIB: Final = "stdlib"
#: Stands before the name of a Hugging Face data set.
HUB: Final = "hf:"
_HUB_NAME: Final = re.compile(r"[\w-]+|[\w-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file, a folder or a Hugging Face data set of texts.

    Attributes:
        path: the file or folder, or the data set's name.
        field: field of the text. None: the one called ``text``, or else the only one that holds a string.
        config: configuration of the Hugging Face data set; its default if None.
        split: split of the Hugging Face data set.
    """

    path: str
    field: str | None = None
    config: str | None = None
    split: str = "train"

    @property
    def name(self) -> str:
        """What reports call it: the file without its endings, the folder, or the data set."""
        if self.path == STDLIB or self.dataset is not None:
            return self.dataset or STDLIB
        path = Path(self.path).resolve()
        return path.name if path.is_dir() else split_name(path)[0]

    @property
    def dataset(self) -> str | None:
        """Name of the Hugging Face data set, None if this is something else."""
        if self.path == STDLIB:
            return None
        if self.path.startswith(HUB):
            return self.path.removeprefix(HUB)
        path = Path(self.path)
        is_name = _HUB_NAME.fullmatch(self.path) and split_name(path)[1] not in KINDS and not path.exists()
        return self.path if is_name else None

    def files(self) -> list[Path]:
        """Return the files to read, in order; none for a data set on the hub, nor for the docstrings.

        Raises:
            InputError: there are none, or the file is of another kind.
        """
        if self.path == STDLIB:
            return []
        if self.dataset is None:
            return files_at(Path(self.path))
        folder = Path(self.dataset)
        return sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []

    @property
    def version(self) -> str:
        """What tells one state of the source from another where no file does; '' otherwise."""
        if self.path != STDLIB:
            return ""
        return hashlib.sha256(repr(stdlib_docstrings(keep=True)).encode()).hexdigest()

    def records(self) -> Generator[Located, None, None]:
        """Yield the records and where they stand."""
        if self.path == STDLIB:
            return ((f"{STDLIB}, {entry.name}", entry.text) for entry in stdlib_docstrings(keep=True))
        if self.dataset is None:
            return file_records(self.files())
        return hub_records(self.dataset, self.config, self.split)


@dataclass(frozen=True, kw_only=True)
class PairSource(Source):
    """Queries and what answers them, with the instruction that the queries get.

    Attributes:
        instruction: stands before each query, and is not pooled.
        symmetric: both sides are of one kind (such as paraphrases), so that documents get the instruction, too.
    """

    instruction: str = ""
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.path == STDLIB:
            raise InputError(
                f"{STDLIB!r} is text without pairs; expected a file of JSON lines with query and positive. Use it for "
                "mntp or simcse."
            )
        if self.field is not None:
            raise InputError(
                f"{self.path}: got field={self.field!r}; pairs always have the fields query, positive and, if there "
                "are any, negative. Leave field out."
            )


def read_texts(source: Source, tally: Tally) -> Generator[str, None, None]:
    """Yield the texts that are not blank.

    Raises:
        InputError: the source cannot be read, has no such field, or has no text at all; names the file and line.
    """
    field: str | None = None
    for where, record in source.records():
        if isinstance(record, str):
            text = _whole(record, source, where)
        else:
            field = field or _choose(record, source.field, where)
            text = string_in(record, field, where)
        tally.read += 1
        if not text.strip():
            tally.skip("blank")
            continue
        tally.bytes += bytes_of(text, where)
        yield text
    _refuse_empty(source, tally)


def read_pairs(source: Source, tally: Tally) -> Generator[tuple[str, ...], None, None]:
    """Yield ``(query, positive, *negatives)``, from rows ``{"query", "positive"}`` with or without ``"negative"``.

    A query may also be called ``anchor``, as in data sets made for sentence-transformers.

    A row's ``negative`` is a string or a list of strings. All tuples are as long as the first: rows with fewer
    negatives are skipped, of rows with more the first negatives are taken, and both are counted.

    Raises:
        InputError: the source cannot be read, a row lacks a field, or there is no row; names the file and line.
    """
    length: int | None = None
    for where, record in source.records():
        if isinstance(record, str):
            if record.strip():
                raise InputError(f"{where}: a text without fields; expected pairs, in JSON lines. Give a .jsonl file.")
            continue
        pair = _pair(record, where)
        length = length or len(pair)
        tally.read += 1
        if len(pair) < length:
            tally.skip("with fewer negatives than the first")
        elif not all(text.strip() for text in pair[:length]):
            tally.skip("blank")
        else:
            tally.spare_negatives += len(pair) - length
            tally.bytes += sum(bytes_of(text, where) for text in pair[:length])
            yield pair[:length]
    _refuse_empty(source, tally)


def _pair(record: dict[str, Any], where: str) -> tuple[str, ...]:
    negative = record.get("negative")
    negatives = [] if negative is None else negative if isinstance(negative, list) else [negative]
    for text in negatives:
        if not isinstance(text, str):
            raise InputError(f"{where}: field 'negative' holds {json_type(text)}; expected a string or strings.")
    return *pair_in(record, where), *negatives


def _whole(record: str, source: Source, where: str) -> str:
    """Return a text that is a line of its own, unless a field of it was asked for."""
    if source.field is not None and record.strip():
        raise InputError(f"{where}: no fields, it is a text a line; got field={source.field!r}. Leave it out.")
    return record


def _choose(record: dict[str, Any], asked: str | None, where: str) -> str:
    """Return the field of the text."""
    textual = [name for name, value in record.items() if isinstance(value, str)]
    return choose_field(list(record), textual, asked=asked, where=where, option="field")


def _refuse_empty(source: Source, tally: Tally) -> None:
    if tally.read == 0:
        raise InputError(f"{source.path} is empty; expected at least one text. Give another source, or leave it out.")
