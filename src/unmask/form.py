"""Vectors → the form a caller wants. Pure functions on numpy arrays, for processes with and without torch.

Shapes: N vectors, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from unmask.errors import InputError

Output = Literal["float32", "float16", "int8", "binary"]

OUTPUTS: Final[tuple[Output, ...]] = get_args(Output)
#: Vectors shorter than this count as zero (torch.nn.functional.normalize).
_SHORTEST: Final = np.float32(1e-12)


def normalized(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return float32 vectors of length 1; zero vectors stay zero."""
    lengths_N1 = np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND))[:, None]
    return np.asarray(vectors_ND / np.maximum(lengths_N1, _SHORTEST), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Form:
    """The form in which a caller wants vectors.

    Attributes:
        normalize: scale vectors to length 1; zero vectors stay zero.
        dimensions: keep only the first so many components. What is cut is normalised again, as
            Matryoshka training expects (arXiv 2205.13147).
        output: number format.

            * ``float32``, ``float16``.
            * ``int8``: each vector times ``127 / max|v|`` of its own, rounded. The scale is a vector's
              own, so cosine needs neither it nor calibration data; dot products and distances between
              int8 vectors lose the vectors' lengths.
            * ``binary``: bit 1 where a component is above 0, packed into bytes, first dimension in the
              highest bit, the last byte filled with zeros; compared by Hamming distance.
    """

    normalize: bool = False
    dimensions: int | None = None
    output: Output = "float32"

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise InputError(f"output is {self.output!r}; expected one of {', '.join(OUTPUTS)}.")
        if self.dimensions is not None and self.dimensions < 1:
            raise InputError(f"dimensions is {self.dimensions}; expected at least 1.")

    def check(self, size: int) -> None:
        """Refuse what vectors of ``size`` components cannot have.

        Raises:
            InputError: ``dimensions`` is more than that.
        """
        if self.dimensions is not None and self.dimensions > size:
            raise InputError(f"dimensions is {self.dimensions}; this encoder's vectors have 1 to {size}.")

    def apply(self, vectors_ND: NDArray[np.float32]) -> NDArray[Any]:
        """Return float32 vectors ``[N, D]`` in this form: ``[N, dimensions]``, packed bits ``[N, ceil(… / 8)]`` uint8.

        Raises:
            InputError: ``dimensions`` is more than D.
        """
        self.check(vectors_ND.shape[1])
        vectors = vectors_ND[:, : self.dimensions]
        if self.normalize or self.dimensions is not None:
            vectors = normalized(vectors)
        match self.output:
            case "float32":
                return vectors
            case "float16":
                return vectors.astype(np.float16)
            case "int8":
                largest_N1 = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
                return np.rint(vectors * (127 / np.where(largest_N1 > 0, largest_N1, 1))).astype(np.int8)
            case "binary":
                return np.packbits(vectors > 0, axis=1)
