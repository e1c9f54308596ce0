"""How vectors fill the space they lie in: anisotropy, uniformity, alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask.evaluation.analysis.sample import unit

#: The constants with which T. Wang and P. Isola report both figures (arXiv 2005.10242, section 4).
UNIFORMITY_T: Final = 2
ALIGNMENT_ALPHA: Final = 2

Vectors = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How the vectors of a sample lie.

    Attributes:
        texts: how many vectors; each pair of them counts.
        anisotropy: mean cosine of two texts; 0 if the vectors point everywhere alike, 1 if all point one way.
        uniformity: the lower, the more evenly the vectors lie on the sphere; 0 if all are the same.
        alignment: mean squared distance of texts that mean the same; the lower the closer. None without such pairs.
        positives: how many such pairs.
        positives_from: where they come from, or why there are none.
    """

    texts: int
    anisotropy: float
    uniformity: float
    alignment: float | None
    positives: int
    positives_from: str


def anisotropy(vectors_ND: Vectors) -> float:
    """Return the mean cosine of two different vectors (K. Ethayarajh, EMNLP 2019, section 3.3), over all pairs."""
    units = unit(vectors_ND)
    count = len(units)
    total = float((units.sum(axis=0) ** 2).sum() - (units**2).sum())
    return total / (count * (count - 1))


def uniformity(vectors_ND: Vectors) -> float:
    """Return ``log E exp(-t |x - y|²)`` over all pairs of different unit vectors, t = 2.

    T. Wang, P. Isola, ICML 2020, arXiv 2005.10242, section 4.1.2.
    """
    from scipy.spatial.distance import pdist

    return float(np.log(np.exp(-UNIFORMITY_T * pdist(unit(vectors_ND), "sqeuclidean")).mean()))


def alignment(left_ND: Vectors, right_ND: Vectors) -> float:
    """Return ``E |x - y|^α`` over positive pairs of unit vectors, α = 2 (Wang and Isola, section 4.1.1)."""
    distances = np.linalg.norm(unit(left_ND) - unit(right_ND), axis=-1)
    return float((distances**ALIGNMENT_ALPHA).mean())


def geometry(vectors_ND: Vectors, positives: Sequence[Vectors], positives_from: str) -> Geometry:
    """Measure all three.

    Args:
        vectors_ND: vectors of different texts.
        positives: vectors of the left and of the right sides of pairs that mean the same; empty if there are none.
        positives_from: where the pairs come from, or why there are none.
    """
    return Geometry(
        texts=len(vectors_ND),
        anisotropy=anisotropy(vectors_ND),
        uniformity=uniformity(vectors_ND),
        alignment=alignment(*positives) if positives else None,
        positives=len(positives[0]) if positives else 0,
        positives_from=positives_from,
    )
