"""What is lost when vectors are made smaller: fewer components, a byte or a bit for each."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask.encoder import Encoder
from unmask.errors import InputError
from unmask.evaluation.analysis.sample import SEED, Matrix, average, kept_neighbours, unit, vectors_of
from unmask.evaluation.bootstrap import intervals
from unmask.evaluation.outcome import Metric, Samples
from unmask.form import Form, Output

DIMENSIONS: Final = (32, 64, 128, 256, 512, 768, 1024, 2048)
OUTPUTS: Final[tuple[Output, ...]] = ("float32", "int8", "binary")
#: Scored pairs that are looked at; of more, so many are drawn.
PAIRS: Final = 500
#: Scored pairs above this share of the way from the lowest score to the highest count as meaning the same
#: (SimCSE, arXiv 2104.08821, section 2.3, takes STS-B's pairs above 4, on a scale from 0 to 5).
SAME: Final = 0.8


@dataclass(frozen=True, kw_only=True)
class ScoredPairs:
    """Pairs of sentences with people's scores of how alike they are.

    Attributes:
        name: of the file.
        gold: the scores, one a pair.
        left: first sentences.
        right: second sentences.
    """

    name: str
    gold: tuple[float, ...]
    left: tuple[str, ...]
    right: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.gold) == len(self.left) == len(self.right) or len(set(self.gold)) < 2:
            raise InputError(
                f"{self.name} has {len(self.gold)} scores, {len(self.left)} first and {len(self.right)} second "
                "sentences; expected as many of each, and different scores."
            )

    def drawn(self) -> ScoredPairs:
        """Return at most :data:`PAIRS` of them, the same on each run."""
        if len(self.gold) <= PAIRS:
            return self
        chosen = sorted(random.Random(SEED).sample(range(len(self.gold)), PAIRS))  # noqa: S311 - no secret
        return ScoredPairs(
            name=self.name,
            gold=tuple(self.gold[i] for i in chosen),
            left=tuple(self.left[i] for i in chosen),
            right=tuple(self.right[i] for i in chosen),
        )


@dataclass(frozen=True, kw_only=True)
class PairVectors:
    """Scored pairs, encoded: ``left`` and ``right`` are ``[n, D]``, ``gold`` is ``[n]``."""

    name: str
    gold: NDArray[np.float64]
    left: Matrix
    right: Matrix

    @property
    def same(self) -> NDArray[np.bool_]:
        """Which pairs count as meaning the same, ``[n]``."""
        least, most = self.gold.min(), self.gold.max()
        return np.asarray(self.gold > least + SAME * (most - least))


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Vectors in one form.

    Attributes:
        dimensions: components, the first ones.
        output: number format.
        bytes: of one vector.
        quality: rank correlation; see :class:`Forms`.
        neighbours: share of each text's ten nearest, by the full vectors, that stay among its ten nearest.
    """

    dimensions: int
    output: Output
    bytes: int
    quality: Metric
    neighbours: Metric


@dataclass(frozen=True, kw_only=True)
class Forms:
    """How much of the quality each form of the vectors keeps.

    Attributes:
        measure: what ``quality`` is: Spearman's correlation with people's scores if there were any, else with the
            cosines of the full vectors.
        pairs: over how many pairs of texts.
        texts: how many texts ``neighbours`` looks at.
        kept: each form.
    """

    measure: str
    pairs: int
    texts: int
    kept: tuple[Kept, ...]


def encode_pairs(encoder: Encoder, pairs: ScoredPairs) -> PairVectors:
    """Encode pairs, each distinct sentence once."""
    distinct = sorted({*pairs.left, *pairs.right})
    vectors = vectors_of(encoder, distinct)
    place = {text: number for number, text in enumerate(distinct)}
    left, right = (vectors[[place[text] for text in side]] for side in (pairs.left, pairs.right))
    return PairVectors(name=pairs.name, gold=np.asarray(pairs.gold, dtype=np.float64), left=left, right=right)


def forms(vectors_ND: Matrix, pairs: PairVectors | None = None) -> Forms:
    """Compare vectors in every form with the full ones.

    Args:
        vectors_ND: full vectors of different texts, as the model gives them.
        pairs: scored pairs, if there are any.
    """
    size = vectors_ND.shape[1]
    sizes = [*(each for each in DIMENSIONS if each < size), size]
    wanted = [(dimensions, output) for output in OUTPUTS for dimensions in sizes]
    full = _all_with_all(unit(vectors_ND))
    upper = np.triu_indices(len(full), k=1)
    # int8 and bits are compared as the numbers they stand for.
    small = [in_form(vectors_ND, *form) for form in wanted]
    similarities = [_all_with_all(units) for units, _ in small]
    if pairs is None:
        columns = [similarity[upper] for similarity in similarities]
        values = rank_correlations(full[upper], columns)
        qualities = [Metric(value=value) for value in values]
    else:
        columns = [_paired(pairs, *form) for form in wanted]
        qualities = _qualities(pairs.gold, columns)
    return Forms(
        measure="Spearman, cosine of full vectors" if pairs is None else f"Spearman, scores of {pairs.name}",
        pairs=len(upper[0]) if pairs is None else len(pairs.gold),
        texts=len(vectors_ND),
        kept=tuple(
            Kept(
                dimensions=dimensions,
                output=output,
                bytes=width,
                quality=quality,
                neighbours=average(kept_neighbours(full, similarity)),
            )
            for (dimensions, output), (_, width), quality, similarity in zip(
                wanted, small, qualities, similarities, strict=True
            )
        ),
    )


def in_form(vectors_ND: Matrix, dimensions: int, output: Output) -> tuple[NDArray[np.float64], int]:
    """Return vectors as ``encode(…, dimensions=, output=)`` gives them, as unit vectors, and bytes of one.

    A bit counts as 1 or -1: the cosine of such vectors is ``1 - 2 h / D`` for a Hamming distance of h.
    """
    made = Form(dimensions=dimensions, output=output).apply(vectors_ND)
    width = made.shape[1] * made.itemsize
    if output == "binary":
        bits = np.unpackbits(made.astype(np.uint8), axis=1, count=dimensions)
        return unit(bits.astype(np.float64) * 2 - 1), width
    return unit(made), width


def rank_correlations(wanted: NDArray[np.float64], columns: Sequence[NDArray[np.float64]]) -> list[float]:
    """Return Spearman's correlation of each column with ``wanted``; not a number where one is constant."""
    from scipy.stats import ConstantInputWarning, spearmanr

    with warnings.catch_warnings():
        # Said by the figure itself.
        warnings.simplefilter("ignore", ConstantInputWarning)
        warnings.filterwarnings("ignore", message="invalid value encountered in divide", category=RuntimeWarning)
        found = spearmanr(np.column_stack([wanted, *columns])).statistic
    # scipy gives a matrix; a single number for two columns, and where one of the first two is constant.
    return [float(value) for value in (found[0, 1:] if np.ndim(found) else [found] * len(columns))]


def _all_with_all(units_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(units_ND @ units_ND.T)


def _paired(pairs: PairVectors, dimensions: int, output: Output) -> NDArray[np.float64]:
    left, right = (in_form(side, dimensions, output)[0] for side in (pairs.left, pairs.right))
    return np.asarray((left * right).sum(axis=1))


def _qualities(gold: NDArray[np.float64], columns: Sequence[NDArray[np.float64]]) -> list[Metric]:
    """Return the correlation of each column with the scores, with its interval: the same resamples for all."""

    def statistic(samples: Samples) -> dict[str, float]:
        values = rank_correlations(samples["gold"], [samples[str(i)] for i in range(len(columns))])
        return {str(i): value for i, value in enumerate(values)}

    samples: dict[str, Any] = {str(i): column for i, column in enumerate(columns)} | {"gold": gold}
    with warnings.catch_warnings():
        # Vectors that are all alike have no correlation with anything, on any resample.
        warnings.filterwarnings("ignore", message="All-NaN", category=RuntimeWarning)
        found = intervals(statistic, samples, bounds=(-1.0, 1.0))
    return [found[str(i)] for i in range(len(columns))]
