"""Texts of files → a file of vectors, in bounded memory."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask.bulk.files import Record
from unmask.bulk.vectors import vector_file
from unmask.errors import InputError

if TYPE_CHECKING:
    from unmask.encoder import Encoder

#: How the encoder names a text by its index.
_INDEX: Final = re.compile(r"\b[Tt]ext (\d+)")


def encode_to_file(
    encoder: Encoder,
    records: Iterator[Record],
    target: Path,
    *,
    replace: bool = False,
    with_text: bool = False,
    **options: Any,
) -> tuple[int, int]:
    """Encode texts and write their vectors, whole or not at all.

    Args:
        encoder: the model.
        records: the texts.
        target: ``.npy``, ``.parquet`` or ``.jsonl``.
        replace: whether an existing file may be replaced.
        with_text: write the texts, too.
        options: arguments of :meth:`unmask.Encoder.encode_stream`.

    Returns:
        Rows and columns written.

    Raises:
        InputError: a text cannot be encoded, naming its file and line; or ``target`` cannot be written.
    """
    batches = encode_records(encoder, records, **options)
    with closing(batches):
        first = next(batches, None)  # before anything is made on disk
        columns = 0 if first is None else first[0].shape[1]
        with vector_file(target, replace=replace, with_text=with_text) as file:
            for vectors, about in chain([] if first is None else [first], batches):
                file.write(vectors, about)
    return file.rows, columns


def encode_records(
    encoder: Encoder, records: Iterator[Record], **options: Any
) -> Generator[tuple[NDArray[np.generic], list[Record]], None, None]:
    """Yield vectors ``[k, D]`` together with the records they were made from.

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
