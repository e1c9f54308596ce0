"""Vectors to files, batch by batch, in constant memory: .npy, .parquet, .jsonl.

A file appears whole or not at all, and its number of rows need not be known beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.bulk.files import Record
from unmask.errors import InputError
from unmask.hub.cache import atomic_file

#: Room for the header of a .npy file, a multiple of 64 as the format asks; the shape comes in at the end.
_HEADER_BYTES: Final = 128


class VectorFile(Protocol):
    """A file that takes vectors.

    Attributes:
        rows: vectors written so far.
    """

    rows: int

    def write(self, vectors: NDArray[np.generic], records: Sequence[Record] = ()) -> None:
        """Append ``vectors`` ``[k, D]`` and, where the format has room for them, what they were made from."""


@contextmanager
def vector_file(target: Path, *, replace: bool = False, with_text: bool = False) -> Iterator[VectorFile]:
    """Yield a file to write vectors to; it appears at ``target`` when the block has succeeded.

    ``.npy``: a matrix ``[n, D]``. ``.parquet``: a column ``vector`` of fixed-size lists. ``.jsonl``: an
    object with ``vector`` a line. The last two also have ``id`` where the records have one, and ``text`` if asked.

    Args:
        target: where to; its ending says in which format.
        replace: whether an existing file may be replaced.
        with_text: write the texts, too.

    Raises:
        InputError: as :func:`check_target`, or no vectors were written.
    """
    check_target(target, replace=replace, with_text=with_text)
    with atomic_file(target, replace=replace) as draft, draft.open("wb") as stream:
        writer = _WRITERS[target.suffix.lower()](stream, with_text=with_text)
        try:
            yield writer
            if writer.rows == 0:
                raise InputError(f"No vectors for {target}; expected at least one.")
        finally:
            writer.close()


def check_target(target: Path, *, replace: bool = False, with_text: bool = False) -> None:
    """Check, before any work is done, that vectors can be written to ``target``; nothing is made.

    Raises:
        InputError: another format, something is there already, or .npy is to hold texts.
    """
    kind = target.suffix.lower()
    if kind not in _WRITERS:
        raise InputError(
            f"{target} ends in {kind or 'nothing'!r}; expected {', '.join(_WRITERS)} as the output's ending."
        )
    if target.is_dir():
        raise InputError(f"{target} is a folder; expected a file to write. Name a file in it.")
    if target.exists() and not replace:
        raise InputError(f"{target} exists already; expected a new file. Choose another name, or give --replace.")
    if with_text and kind == ".npy":
        raise InputError(f"{target} is to hold texts or ids, and .npy holds only vectors. Choose .parquet or .jsonl.")


class _NpyFile:
    """NumPy's own format, version 1.0: the header is written last, when the number of rows is known."""

    def __init__(self, stream: IO[bytes], *, with_text: bool) -> None:
        self.rows = 0
        self._stream = stream
        self._shape: tuple[int, ...] = ()
        self._descr: Any = ""
        stream.write(bytes(_HEADER_BYTES))

    def write(self, vectors: NDArray[np.generic], records: Sequence[Record] = ()) -> None:
        """Append vectors; records have no place here."""
        little = vectors.astype(vectors.dtype.newbyteorder("<"), copy=False)
        self._shape, self._descr = vectors.shape[1:], np.lib.format.dtype_to_descr(little.dtype)
        self._stream.write(np.ascontiguousarray(little).data)
        self.rows += len(vectors)

    def close(self) -> None:
        """Write the header."""
        header = repr({"descr": self._descr, "fortran_order": False, "shape": (self.rows, *self._shape)})
        magic = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
        self._stream.seek(0)
        self._stream.write(magic + header.encode("ascii").ljust(_HEADER_BYTES - 11) + b"\n")


class _ParquetFile:
    """A row group a batch."""

    def __init__(self, stream: IO[bytes], *, with_text: bool) -> None:
        self.rows = 0
        self._stream = stream
        self._with_text = with_text
        self._writer: Any = None

    def write(self, vectors: NDArray[np.generic], records: Sequence[Record] = ()) -> None:
        """Append vectors, with ids and texts."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        columns: dict[str, Any] = {}
        if records and records[0].id is not None:
            columns["id"] = pa.array([_same_type(record, records[0]) for record in records])
        if self._with_text:
            columns["text"] = pa.array([record.text for record in records], type=pa.string())
        columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        table = pa.table(columns)
        if self._writer is None:
            # Float vectors hardly compress, and a dictionary of their values is a waste.
            packed = {name: "zstd" for name in columns if name != "vector"} | {"vector.list.element": "none"}
            self._writer = pq.ParquetWriter(self._stream, table.schema, use_dictionary=False, compression=packed)
        if table.schema != self._writer.schema:
            raise InputError(
                f"{records[0].where}: its id is of another type than those before; expected one type for all."
            )
        self._writer.write_table(table)
        self.rows += len(vectors)

    def close(self) -> None:
        """Write the footer."""
        if self._writer is not None:
            self._writer.close()


class _JsonlFile:
    """An object a line; numbers in the shortest form that reads back the same."""

    def __init__(self, stream: IO[bytes], *, with_text: bool) -> None:
        self.rows = 0
        self._stream = stream
        self._with_text = with_text

    def write(self, vectors: NDArray[np.generic], records: Sequence[Record] = ()) -> None:
        """Append vectors, with ids and texts."""
        for row, vector in enumerate(vectors):
            about: dict[str, Any] = {}
            if records and records[row].id is not None:
                about["id"] = records[row].id
            if self._with_text:
                about["text"] = records[row].text
            lead = json.dumps(about, ensure_ascii=False)[:-1] + (", " if about else "")
            # Not vector.astype(str): that loses a Ctrl-C, one time in three, inside numpy's loop.
            numbers = ", ".join(map(str, vector))
            self._stream.write(f'{lead}"vector": [{numbers}]}}\n'.encode())
        self.rows += len(vectors)

    def close(self) -> None:
        """Nothing is left to write."""


_Writer = _NpyFile | _ParquetFile | _JsonlFile
_WRITERS: Final[dict[str, type[_Writer]]] = {".npy": _NpyFile, ".parquet": _ParquetFile, ".jsonl": _JsonlFile}


def _same_type(record: Record, first: Record) -> str | int | None:
    if type(record.id) is not type(first.id):
        raise InputError(
            f"{record.where}: its id is {record.id!r}; expected a {type(first.id).__name__}, as the ids before are."
        )
    return record.id
