"""Vectors → the rows of a response, in the form that a caller wants.

The formulas are those of :class:`unmask.pooling.Form`, here without torch, which the server's process never loads.
Shapes: N texts, D dimensions.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from unmask.errors import InputError

#: Numbers that are written at once; more are written in a thread, for it takes long.
_AT_ONCE: Final = 65_536
#: Vectors shorter than this count as zero (torch.nn.functional.normalize).
_SHORTEST: Final = np.float32(1e-12)


def normalized(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors of length 1; zero vectors stay zero."""
    lengths_N1 = np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND))[:, None]
    return np.asarray(vectors_ND / np.maximum(lengths_N1, _SHORTEST), dtype=np.float32)


def _as_int8(vectors_ND: NDArray[np.float32]) -> NDArray[np.int8]:
    largest_N1 = np.abs(vectors_ND).max(axis=-1, keepdims=True, initial=0)
    return np.rint(vectors_ND * (127 / np.where(largest_N1 > 0, largest_N1, 1))).astype(np.int8)


#: The API's names of number formats → what makes them of float32.
TYPES: Final[dict[str, Callable[[NDArray[np.float32]], NDArray[np.generic]]]] = {
    "float": lambda vectors_ND: vectors_ND,
    "int8": _as_int8,
    "binary": lambda vectors_ND: np.packbits(vectors_ND > 0, axis=-1),
}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The form in which a caller wants vectors.

    Attributes:
        normalize: of length 1.
        dimensions: only the first so many, which are normalised again; None for all.
        type: one of :data:`TYPES`.
        base64: whether their bytes are wanted instead of numbers, little-endian.
    """

    normalize: bool
    dimensions: int | None
    type: str
    base64: bool

    def check(self, dimension: int | None) -> None:
        """Refuse what vectors of ``dimension`` components cannot have; None if it is not known.

        Raises:
            InputError: more dimensions than there are.
        """
        if dimension is not None and self.dimensions is not None and self.dimensions > dimension:
            raise InputError(f"dimensions is {self.dimensions}; this model's vectors have 1 to {dimension}.")

    async def rows(self, vectors_ND: NDArray[np.float32]) -> bytes:
        """Return the JSON array of a response's ``data``.

        Raises:
            InputError: more dimensions are wanted than there are.
        """
        self.check(vectors_ND.shape[1])
        write = self._write
        return write(vectors_ND) if vectors_ND.size <= _AT_ONCE else await asyncio.to_thread(write, vectors_ND)

    def form(self, vectors_ND: NDArray[np.float32]) -> NDArray[np.generic]:
        """Return vectors in the numbers that are wanted, ``[N, dimensions]``; packed bits are ``[N, bytes]``."""
        cut_ND = vectors_ND[:, : self.dimensions]
        return TYPES[self.type](normalized(cut_ND) if self.normalize or self.dimensions is not None else cut_ND)

    def _write(self, vectors_ND: NDArray[np.float32]) -> bytes:
        formed = self.form(vectors_ND)
        little = formed.astype(formed.dtype.newbyteorder("<"), copy=False)
        values: Iterable[Any] = (base64.b64encode(row.tobytes()).decode() for row in little) if self.base64 else formed
        # Row by row: a thread that writes them all in one call would keep the event loop from running meanwhile.
        rows = (
            orjson.dumps({"object": "embedding", "index": index, "embedding": value}, option=orjson.OPT_SERIALIZE_NUMPY)
            for index, value in enumerate(values)
        )
        return b"[" + b",".join(rows) + b"]"
