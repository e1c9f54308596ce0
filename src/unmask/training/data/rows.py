"""Rows of tokenised texts on disk, memory-mapped: any row is there at once, and none is loaded before.

A folder holds flat arrays in the machine's byte order, and ``about.json`` with their sizes and the report:

    ids.bin      token ids of all texts, uint16 or uint32  [tokens]
    offsets.bin  where each text's ids begin, int64        [texts + 1]
    starts.bin   first pooled token of each text, int32    [texts]
    firsts.bin   where each row's texts begin, int64       [rows + 1]
    groups.bin   index of each row's source, int64         [rows]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from unmask.text import TokenizedText
from unmask.training.data.report import Report

Row = tuple[TokenizedText, ...]
_ABOUT: Final = "about.json"


class Rows:
    """Rows that were written with :class:`RowWriter`; each is a tuple of texts.

    Args:
        folder: where they are.

    Attributes:
        groups: index of each row's source in ``report.sources``, int64 ``[rows]``.
        report: what the rows were made of.
        tokens: tokens of all rows.

    Raises:
        OSError, ValueError, KeyError, TypeError: ``folder`` holds no whole store.
    """

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        rows, texts = about["rows"], about["texts"]
        self.tokens: int = about["tokens"]
        self.report = Report.from_dict(about["report"])
        self._ids = _map(folder / "ids.bin", about["dtype"], self.tokens)
        self._offsets = _map(folder / "offsets.bin", np.int64, texts + 1)
        self._starts = _map(folder / "starts.bin", np.int32, texts)
        self._firsts = _map(folder / "firsts.bin", np.int64, rows + 1)
        self.groups: NDArray[np.int64] = _map(folder / "groups.bin", np.int64, rows)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Row:
        """Return row ``index``; a negative one counts from the end."""
        row = range(len(self))[index]
        return tuple(self._text(text) for text in range(self._firsts[row], self._firsts[row + 1]))

    @property
    def column_tokens(self) -> float:
        """Mean number of tokens in a row, its texts taken together."""
        return self.tokens / len(self)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the token ids on disk."""
        return self._ids.dtype

    def _text(self, text: int) -> TokenizedText:
        ids = self._ids[self._offsets[text] : self._offsets[text + 1]]
        return TokenizedText(ids=ids.tolist(), start=int(self._starts[text]))


class RowWriter:
    """Writes rows into an empty folder, as they come; :meth:`finish` makes them a store."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        """Open the files.

        Args:
            folder: where to write.
            vocabulary: number above all token ids; below 65,536 an id takes two bytes, else four.
        """
        self.rows = self.texts = self.tokens = 0
        self._folder = folder
        self._dtype = np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
        self._stack = ExitStack()
        names = ("ids", "offsets", "starts", "firsts", "groups")
        self._files = {name: self._stack.enter_context((folder / f"{name}.bin").open("wb")) for name in names}
        self._write("offsets", [0], np.int64)
        self._write("firsts", [0], np.int64)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._stack.close()

    def add(self, group: int, rows: Sequence[Row]) -> None:
        """Write rows of the source with index ``group``."""
        texts = list(chain.from_iterable(rows))
        sizes = [len(text.ids) for text in texts]
        self._write("ids", list(chain.from_iterable(text.ids for text in texts)), self._dtype)
        self._write("offsets", self.tokens + np.cumsum(sizes, dtype=np.int64), np.int64)
        self._write("starts", [text.start for text in texts], np.int32)
        self._write("firsts", self.texts + np.cumsum([len(row) for row in rows], dtype=np.int64), np.int64)
        self._write("groups", [group] * len(rows), np.int64)
        self.rows, self.texts, self.tokens = self.rows + len(rows), self.texts + len(texts), self.tokens + sum(sizes)

    def finish(self, report: Report) -> None:
        """Write what is needed to open the store."""
        about = {"rows": self.rows, "texts": self.texts, "tokens": self.tokens, "dtype": self._dtype.name}
        content = json.dumps(about | {"report": report.as_dict()}, indent=1)
        (self._folder / _ABOUT).write_text(content, encoding="utf-8")

    def _write(self, name: str, values: Any, dtype: Any) -> None:
        self._files[name].write(np.asarray(values, dtype=dtype).tobytes())


def _map(file: Path, dtype: Any, count: int) -> NDArray[Any]:
    """Return the array in ``file``; numpy refuses a file that is too short for it."""
    return np.memmap(file, dtype=dtype, mode="r", shape=(count,)).view(np.ndarray)
