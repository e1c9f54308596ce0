"""Anisotropy, uniformity, alignment and neighbours, in numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from unmask.evaluation.analysis.effects import length_effect
from unmask.evaluation.analysis.geometry import alignment, anisotropy, geometry, uniformity
from unmask.evaluation.analysis.sample import Sample, average, cosines, kept_neighbours, unit
from unmask.text import TokenizedText

Vectors = NDArray[np.float32]


def rows(*vectors: tuple[float, ...]) -> Vectors:
    return np.array(vectors, dtype=np.float32)


def test_orthogonal_vectors_have_no_anisotropy() -> None:
    assert anisotropy(np.diag([1.0, 2.0, 30.0, 0.1])) == pytest.approx(0, abs=1e-12)


def test_vectors_that_point_one_way_have_all() -> None:
    assert anisotropy(rows((1, 2, 3), (2, 4, 6), (0.1, 0.2, 0.3))) == pytest.approx(1)


def test_anisotropy_by_hand() -> None:
    # Cosines of the three pairs: 0, 1/√2, 1/√2.
    assert anisotropy(rows((1, 0), (0, 5), (2, 2))) == pytest.approx(math.sqrt(2) / 3)


def test_uniformity_by_hand() -> None:
    # Squared distances on the circle: opposite 4, a right angle 2.
    square = rows((1, 0), (0, 3), (-2, 0), (0, -1))
    expected = math.log((2 * math.exp(-2 * 4) + 4 * math.exp(-2 * 2)) / 6)
    assert uniformity(square) == pytest.approx(expected)
    assert uniformity(rows((1, 1), (1, 1), (4, 4))) == pytest.approx(0)


def test_alignment_by_hand() -> None:
    # A pair at a right angle is √2 apart, one that is the same but for its length is not apart.
    assert alignment(rows((1, 0), (0, 2)), rows((0, 7), (0, 1))) == pytest.approx((2 + 0) / 2)


def test_alignment_is_left_out_without_pairs() -> None:
    found = geometry(np.eye(3), [], "none given")
    assert (found.alignment, found.positives, found.positives_from) == (None, 0, "none given")
    assert found.texts == 3
    assert found.anisotropy == pytest.approx(0)


def test_pairs_are_counted() -> None:
    found = geometry(np.eye(3), [np.eye(3)[:2], np.eye(3)[1:]], "given pairs")
    assert found.alignment == pytest.approx(2)
    assert found.positives == 2


def test_cosines_of_rows_and_zero_vectors() -> None:
    assert cosines(rows((3, 0), (1, 1), (0, 0)), rows((-1, 0), (1, 0), (1, 0))) == pytest.approx(
        [-1, math.sqrt(0.5), 0]
    )
    assert np.linalg.norm(unit(rows((3, 4), (0, 0))), axis=1) == pytest.approx([1, 0])


def test_neighbours_that_stay() -> None:
    # On a line, the ten nearest of point 0 are 1 to 10; turned around for one text only, 11 to 20.
    places = np.arange(21.0)
    before = -np.abs(places[:, None] - places[None, :])
    after = before.copy()
    after[0] = -before[0]
    stayed = kept_neighbours(before, after)
    assert stayed[0] == 0
    assert (stayed[1:] == 1).all()


def test_a_text_is_no_neighbour_of_its_own() -> None:
    similarity = np.eye(11) * 5
    # Ten others for ten places: whatever their order, they all stay.
    assert (kept_neighbours(similarity, similarity[::-1].copy()) == 1).all()


def sample_of(*lengths: int) -> Sample:
    texts = tuple(TokenizedText(ids=[0] * length, start=0) for length in lengths)
    return Sample(source="given", given=len(texts), texts=("",) * len(texts), tokenized=texts)


def test_buckets_end_where_they_say() -> None:
    found = length_effect(sample_of(8, 9, 16, 1, 256, 257, 512), np.eye(7, dtype=np.float32))
    assert [(bucket.least, bucket.most, bucket.texts) for bucket in found] == [
        (1, 8, 2),
        (9, 16, 2),
        (129, 256, 1),
        (257, None, 2),
    ]


def test_texts_are_chosen_by_length() -> None:
    sample = sample_of(30, 50, 40, 50)
    assert sample.longest(3) == [1, 3, 2]
    assert sample.longest(9, above=40) == [1, 3]
    assert sample.within(80) == [0, 1]
    assert sample.within(119) == [0, 1]
    assert sample.within(120) == [0, 1, 2]
    assert sample.within(1) == [0, 1]


def test_average_has_an_interval() -> None:
    metric = average(np.array([0.0, 1.0] * 50))
    assert metric.value == 0.5
    assert metric.low is not None
    assert metric.high is not None
    assert 0.38 < metric.low < 0.45
    assert 0.55 < metric.high < 0.62
