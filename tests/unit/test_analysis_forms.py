"""Smaller vectors: what a form is, and the quality it keeps, by a second computation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unmask.errors import InputError
from unmask.evaluation.analysis.forms import (
    PAIRS,
    Forms,
    PairVectors,
    ScoredPairs,
    forms,
    in_form,
    rank_correlations,
)

VECTORS = np.random.default_rng(3).standard_normal((30, 80)).astype(np.float32) * 7


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 of values without ties."""
    return np.argsort(np.argsort(values))


def kept(found: Forms, dimensions: int, output: str) -> float:
    (form,) = (each for each in found.kept if (each.dimensions, each.output) == (dimensions, output))
    return form.quality.value


def test_fewer_components_are_the_first_ones() -> None:
    units, width = in_form(VECTORS, 32, "float32")
    expected = VECTORS[:, :32] / np.linalg.norm(VECTORS[:, :32], axis=1, keepdims=True)
    assert units == pytest.approx(expected, abs=1e-6)
    assert width == 32 * 4


def test_bytes_stay_near() -> None:
    units, width = in_form(VECTORS, 80, "int8")
    full, _ = in_form(VECTORS, 80, "float32")
    assert width == 80
    assert 0 < np.abs(units - full).max() < 1e-2


def test_bits_are_compared_by_hamming_distance() -> None:
    units, width = in_form(VECTORS, 20, "binary")
    differing = ((VECTORS[:, None, :20] > 0) != (VECTORS[None, :, :20] > 0)).sum(axis=-1)
    assert units @ units.T == pytest.approx(1 - 2 * differing / 20)
    assert width == math.ceil(20 / 8)


def test_quality_without_scores_is_the_order_of_the_full_vectors_cosines() -> None:
    found = forms(VECTORS)
    assert (found.measure, found.pairs, found.texts) == ("Spearman, cosine of full vectors", 30 * 29 // 2, 30)
    assert [(each.dimensions, each.output) for each in found.kept] == [
        (dimensions, output) for output in ("float32", "int8", "binary") for dimensions in (32, 64, 80)
    ]
    upper = np.triu_indices(30, 1)
    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    cut = VECTORS[:, :32] / np.linalg.norm(VECTORS[:, :32], axis=1, keepdims=True)
    # Spearman's is Pearson's of the ranks.
    expected = np.corrcoef(ranks((units @ units.T)[upper]), ranks((cut @ cut.T)[upper]))[0, 1]
    assert kept(found, 32, "float32") == pytest.approx(expected, abs=1e-4)
    assert kept(found, 80, "float32") == pytest.approx(1, abs=1e-6)
    assert 0.9 < kept(found, 80, "int8") < 1
    assert kept(found, 32, "binary") < kept(found, 80, "binary") < kept(found, 80, "int8")
    assert all(each.quality.low is None for each in found.kept)


def test_neighbours_of_the_full_vectors_all_stay() -> None:
    shares = {(each.dimensions, each.output): each.neighbours.value for each in forms(VECTORS).kept}
    assert shares[80, "float32"] == 1
    assert shares[32, "float32"] < shares[64, "float32"] < 1


def test_quality_with_scores_is_that_of_the_pairs() -> None:
    left, right = VECTORS[:15, :40], VECTORS[15:, :40]
    cosine = (left[:, :32] * right[:, :32]).sum(axis=1)
    cosine /= np.linalg.norm(left[:, :32], axis=1) * np.linalg.norm(right[:, :32], axis=1)
    found = forms(
        VECTORS[:, :40], PairVectors(name="dev", gold=np.exp(cosine.astype(np.float64)), left=left, right=right)
    )
    assert (found.measure, found.pairs) == ("Spearman, scores of dev", 15)
    first = found.kept[0]
    assert first.quality.value == pytest.approx(1)
    assert [first.quality.low, first.quality.high] == pytest.approx([1, 1])
    whole = found.kept[1].quality
    assert whole.low is not None
    assert whole.high is not None
    assert whole.low < whole.value < whole.high < 1


def test_vectors_that_are_all_alike_have_no_quality() -> None:
    alike = np.ones((12, 20), dtype=np.float32)
    pairs = PairVectors(name="dev", gold=np.arange(6.0), left=alike[:6], right=alike[6:])
    for found in (forms(alike), forms(alike, pairs)):
        assert np.isnan(found.kept[-1].quality.value)


def test_correlations_are_of_ranks() -> None:
    wanted = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlations(wanted, [wanted**9, -wanted]) == pytest.approx([1, -1])


def test_pairs_that_mean_the_same_are_those_near_the_top_of_the_scale() -> None:
    gold = np.array([0.0, 4.0, 4.1, 5.0])
    assert PairVectors(name="", gold=gold, left=VECTORS[:4], right=VECTORS[:4]).same.tolist() == [
        False,
        False,
        True,
        True,
    ]
    assert PairVectors(name="", gold=gold - 5, left=VECTORS[:4], right=VECTORS[:4]).same.sum() == 2


def test_many_pairs_are_drawn_from_the_same_each_time() -> None:
    count = PAIRS + 50
    texts = tuple(map(str, range(count)))
    pairs = ScoredPairs(name="dev", gold=tuple(map(float, range(count))), left=texts, right=texts)
    drawn = pairs.drawn()
    assert len(drawn.gold) == len(set(drawn.left)) == PAIRS
    assert drawn == pairs.drawn()
    assert all(
        left == right == f"{gold:.0f}" for gold, left, right in zip(drawn.gold, drawn.left, drawn.right, strict=True)
    )


@pytest.mark.parametrize(("gold", "left"), [((1.0, 2.0), ("a",)), ((1.0, 1.0), ("a", "b")), ((), ())])
def test_pairs_that_cannot_be_correlated(gold: tuple[float, ...], left: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"dev has \d scores, \d first and \d second sentences; expected"):
        ScoredPairs(name="dev", gold=gold, left=left, right=("x",) * len(gold))
