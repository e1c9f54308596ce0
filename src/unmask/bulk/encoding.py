"""Texts of files → a file of vectors, in bounded memory."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.bulk.files import Record
from unmask.bulk.vectors import vector_file
from unmask.errors import InputError

#: How the encoder names a text by its index.
_INDEX: Final = re.compile(r"\b[Tt]ext (\d+)")


class Encodes(Protocol):
    """An :class:`unmask.Encoder`, or several of the same."""

    @property
    def encode_stream(self) -> Callable[..., Iterator[NDArray[np.generic]]]:
        """Return what turns an iterator of texts into vectors."""


def encode_to_file(
    encoder: Encodes,
    records: Iterator[Record],
    target: Path,
    *,
    replace: bool = False,
    with_text: bool = False,
    failed: Callable[[str], None] | None = None,
    **options: Any,
) -> tuple[int, int]:
    """Encode texts and write their vectors, whole or not at all.

    Args:
        encoder: the model.
        records: the texts.
        target: ``.npy``, ``.parquet`` or ``.jsonl``.
        replace: whether an existing file may be replaced.
        with_text: write the texts, too.
        failed: as for :func:`encode_records`.
        options: arguments of :meth:`unmask.Encoder.encode_stream`.

    Returns:
        Rows and columns written.

    Raises:
        InputError: a text cannot be encoded, naming its file and line; or ``target`` cannot be written.
    """
    batches = encode_records(encoder, records, failed=failed, **options)
    with closing(batches):
        first = next(batches, None)  # before anything is made on disk
        columns = 0 if first is None else first[0].shape[1]
        with vector_file(target, replace=replace, with_text=with_text) as file:
            for vectors, about in chain([] if first is None else [first], batches):
                file.write(vectors, about)
    return file.rows, columns


def encode_records(
    encoder: Encodes, records: Iterator[Record], *, failed: Callable[[str], None] | None = None, **options: Any
) -> Generator[tuple[NDArray[np.generic], list[Record]], None, None]:
    """Yield vectors ``[k, D]`` together with the records they were made from.

    Args:
        encoder: the model.
        records: the texts.
        failed: told of each text that has no vector but zeros, with its file and line; for encoders that go on then,
            such as :class:`unmask.engine.pool.EncoderPool`.
        options: arguments of ``encode_stream``.

    Raises:
        InputError: a text cannot be encoded; names its file and line.
    """
    waiting: deque[Record] = deque()
    done = 0

    def texts() -> Iterator[str]:
        for record in records:
            if not record.text.strip() and options.get("empty", "error") == "error":
                raise InputError(
                    f"{record.where}: the text is blank; expected some text. Remove it, or give --empty zero."
                )
            waiting.append(record)
            yield record.text

    if failed is not None:
        tell = failed
        options["failed"] = lambda failure: tell(f"{waiting[failure.index - done].where}: {failure.why}")
    try:
        for vectors in encoder.encode_stream(texts(), **options):
            yield vectors, [waiting.popleft() for _ in range(len(vectors))]
            done += len(vectors)
    except InputError as error:
        found = _INDEX.search(str(error))
        if found is None or not 0 <= int(found[1]) - done < len(waiting):
            raise
        where = waiting[int(found[1]) - done].where
        said = _INDEX.sub("this text", str(error), count=1).replace("pass truncate=True", "leave out --no-truncate")
        raise InputError(f"{where}: {said[0].lower()}{said[1:]}") from error
