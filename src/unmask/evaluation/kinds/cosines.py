"""Vectors as tasks compare them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask.errors import InputError
from unmask.evaluation.tasks import Matrix

#: Scores that differ by less are the same but for rounding.
ROUNDING: Final = 1e-6


def unit(vectors: Matrix) -> Matrix:
    """Return vectors scaled to length 1, ``[n, D]``; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def cosines(left: Matrix, right: Matrix) -> NDArray[np.float64]:
    """Return the cosine of each row of ``left`` with the same row of ``right``, ``[n]``.

    Raises:
        InputError: they are all the same, so that they order nothing.
    """
    found = np.einsum("nd,nd->n", unit(left), unit(right), dtype=np.float64)
    if np.ptp(found) < ROUNDING:
        raise InputError(
            f"The model gives each of the {len(found):,} pairs the same cosine, {found[0]:.4f}: the figures are "
            "undefined. Check the model: it does not tell texts apart."
        )
    return np.asarray(found)


def refuse_constant(vectors: Matrix) -> None:
    """Raise :class:`InputError` if all vectors are the same: whatever is made of them says nothing."""
    if np.ptp(unit(vectors), axis=0).max(initial=0) < ROUNDING:
        raise InputError(
            f"The model gives each of the {len(vectors):,} texts the same vector: the figures are undefined. "
            "Check the model: it does not tell texts apart."
        )
