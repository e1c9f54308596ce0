"""Vectors → the rows of a response, in the form that a caller wants.

Shapes: N texts, D dimensions.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from unmask.form import Form, Output

#: Numbers that are written at once; more are written in a thread, for it takes long.
_AT_ONCE: Final = 65_536
#: The API's names of number formats → the library's.
TYPES: Final[dict[str, Output]] = {"float": "float32", "int8": "int8", "binary": "binary"}


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

    @property
    def form(self) -> Form:
        """The library's name for it."""
        return Form(normalize=self.normalize, dimensions=self.dimensions, output=TYPES[self.type])

    def check(self, dimension: int | None) -> None:
        """Refuse what vectors of ``dimension`` components cannot have; None if it is not known.

        Raises:
            InputError: more dimensions than there are.
        """
        if dimension is not None:
            self.form.check(dimension)

    async def rows(self, vectors_ND: NDArray[np.float32]) -> bytes:
        """Return the JSON array of a response's ``data``.

        Raises:
            InputError: more dimensions are wanted than there are.
        """
        self.check(vectors_ND.shape[1])
        write = self._write
        return write(vectors_ND) if vectors_ND.size <= _AT_ONCE else await asyncio.to_thread(write, vectors_ND)

    def _write(self, vectors_ND: NDArray[np.float32]) -> bytes:
        formed = self.form.apply(vectors_ND)
        little = formed.astype(formed.dtype.newbyteorder("<"), copy=False)
        values: Iterable[Any] = (base64.b64encode(row.tobytes()).decode() for row in little) if self.base64 else formed
        # Row by row: a thread that writes them all in one call would keep the event loop from running meanwhile.
        rows = (
            orjson.dumps({"object": "embedding", "index": index, "embedding": value}, option=orjson.OPT_SERIALIZE_NUMPY)
            for index, value in enumerate(values)
        )
        return b"[" + b",".join(rows) + b"]"
