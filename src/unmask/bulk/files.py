"""Texts from files, one record at a time: .txt, .jsonl, .csv, .tsv, .parquet and standard input.

Text files may be compressed (:data:`unmask.files.lines.COMPRESSIONS`) and are read as UTF-8. Memory stays bounded
whatever the size of a file. Every error names the file and the line, or the row, counted from 1.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from unmask.errors import InputError
from unmask.files.lines import COMPRESSIONS, LONGEST_LINE, decode_lines, open_file, split_name
from unmask.files.records import as_object, choose_field, json_type, parse_json

_BATCH_ROWS: Final = 1024


@dataclass(frozen=True, slots=True)
class Record:
    """A text, where it stands, and its id if one was asked for."""

    text: str
    where: str
    id: str | int | None = None


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields to read: the text's (None: found out), and the id's (None: there is none)."""

    text: str | None = None
    id: str | None = None


def open_texts(
    sources: Iterable[str | Path], *, field: str | None = None, id_field: str | None = None
) -> Iterator[Record]:
    """Return the texts of several files, one after the other.

    Names and the first record are checked before this returns; the rest is read as it is asked for.

    Args:
        sources: paths; ``-`` is standard input, which is read as JSON lines if its first line is a JSON
            object, else as a text a line.
        field: field of the text. None: the field called ``text``, or else the only one of strings.
        id_field: a field to carry along, of strings or integers.

    Raises:
        InputError: a file is missing, of another kind, damaged, or has no such field; there are no texts.
    """
    names = [str(source) for source in sources]
    for name in names:
        if name != "-":
            kind_of(Path(name))
    if names.count("-") > 1:
        raise InputError("'-' is given twice; standard input can be read only once.")
    fields = Fields(field, id_field)
    records = itertools.chain.from_iterable(_read(name, fields) for name in names)
    first = next(records, None)
    if first is None:
        raise InputError(f"{', '.join(_shown(name) for name in names)}: no text in it; expected at least one.")
    return itertools.chain([first], records)


def kind_of(path: Path) -> str:
    """Return the format of a file, as its name ends without the compression: such as ``.jsonl``.

    Raises:
        InputError: there is no such file, or it is of another kind.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a file of texts.")
    if path.is_dir():
        raise InputError(
            f"{path} is a folder; expected a file of texts. Name the files in it, for example {path}/*.txt."
        )
    kind = split_name(path)[1]
    if kind == ".parquet" and path.suffix.lower() in COMPRESSIONS:
        raise InputError(f"{path} is a compressed .parquet; expected it as it is: Parquet compresses inside.")
    if kind not in (*_LINE_FORMATS, ".parquet"):
        raise InputError(
            f"{path} ends in {kind or 'nothing'!r}; expected {', '.join(_LINE_FORMATS)} (also with "
            f"{', '.join(COMPRESSIONS)}) or .parquet. Rename it, or pipe it in and give - as its name."
        )
    return kind


def _read(name: str, fields: Fields) -> Iterator[Record]:
    if name == "-":
        yield from _read_standard_input(fields)
        return
    path = Path(name)
    kind = kind_of(path)
    if kind == ".parquet":
        yield from _read_parquet(path, fields)
        return
    with open_file(path) as stream:
        yield from _LINE_FORMATS[kind](decode_lines(stream, name), name, fields)


def _read_standard_input(fields: Fields) -> Iterator[Record]:
    name = _shown("-")
    lines = decode_lines(sys.stdin.buffer, name)
    first = next(lines, None)
    if first is None:
        return
    read = _read_jsonl if fields.text or fields.id or _is_object(first) else _read_text
    yield from read(itertools.chain([first], lines), name, fields)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _shown(name: str) -> str:
    return "standard input" if name == "-" else name


# --- the formats -----------------------------------------------------------------------------------


def _read_text(lines: Iterator[str], name: str, fields: Fields) -> Iterator[Record]:
    if fields.text or fields.id:
        raise InputError(
            f"{name} has no fields, it is a text a line; got --field or --id-field. Leave them out, or give .jsonl, "
            ".csv or .parquet."
        )
    for number, line in enumerate(lines, start=1):
        yield Record(line.rstrip("\r\n"), f"{name}, line {number}")


def _read_jsonl(lines: Iterator[str], name: str, fields: Fields) -> Iterator[Record]:
    chosen: str | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        data = parse_json(line, where)
        if isinstance(data, str) and not fields.text and not fields.id:
            yield Record(data, where)
            continue
        data = as_object(data, where)
        if chosen is None:
            chosen = _choose(list(data), [key for key, value in data.items() if isinstance(value, str)], fields, where)
        yield _record(data.get(chosen), data.get(fields.id) if fields.id else None, where, chosen, fields)


def _read_csv(lines: Iterator[str], name: str, fields: Fields, *, delimiter: str = ",") -> Iterator[Record]:
    # The limit belongs to the whole process; raised, never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    text_at = id_at = -1
    while True:
        where = f"{name}, line {rows.line_num + 1}"
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise InputError(f"{where}: not CSV ({error}); expected values as RFC 4180 has them.") from error
        if row is None:
            return
        if not row:
            continue
        if not header:
            header = row
            continue
        if len(row) != len(header):
            raise InputError(f"{where}: {len(row)} values; expected {len(header)}, as the first line names fields.")
        if text_at < 0:
            textual = [key for key, value in zip(header, row, strict=True) if not _is_number(value)]
            text_at = header.index(_choose(header, textual, fields, name))
            id_at = header.index(fields.id) if fields.id else -1
        yield Record(row[text_at], where, row[id_at] if fields.id else None)


def _read_tsv(lines: Iterator[str], name: str, fields: Fields) -> Iterator[Record]:
    return _read_csv(lines, name, fields, delimiter="\t")


_LINE_FORMATS: Final[dict[str, Callable[[Iterator[str], str, Fields], Iterator[Record]]]] = {
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
}


def _read_parquet(path: Path, fields: Fields) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            textual = [column.name for column in schema if _is_text(column.type)]
            chosen = _choose(schema.names, textual, fields, str(path))
            if chosen not in textual:
                raise InputError(f"{path}: field {chosen!r} is {schema.field(chosen).type}; expected strings.")
            number = 0
            columns = list(dict.fromkeys([chosen, fields.id or chosen]))
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                ids = batch.column(fields.id).to_pylist() if fields.id else itertools.repeat(None)
                for text, identity in zip(batch.column(chosen).to_pylist(), ids, strict=False):
                    number += 1
                    yield _record(text, identity, f"{path}, row {number}", chosen, fields)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}. Write it again.") from error


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


# --- fields ----------------------------------------------------------------------------------------


def _choose(names: Sequence[str], textual: Sequence[str], fields: Fields, where: str) -> str:
    """Return the field of the text."""
    if fields.id is not None and fields.id not in names:
        listed = ", ".join(names) or "none"
        raise InputError(f"{where}: no field {fields.id!r}; expected one of: {listed}. Name it with --id-field.")
    return choose_field(names, textual, asked=fields.text, other=fields.id, where=where, option="--field")


def _record(text: object, identity: object, where: str, field: str, fields: Fields) -> Record:
    if not isinstance(text, str):
        raise InputError(f"{where}: field {field!r} is {json_type(text)}; expected a string.")
    if fields.id is None:
        return Record(text, where)
    if not isinstance(identity, str | int) or isinstance(identity, bool):
        raise InputError(f"{where}: field {fields.id!r} is {json_type(identity)}; expected a string or an integer.")
    return Record(text, where, identity)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
