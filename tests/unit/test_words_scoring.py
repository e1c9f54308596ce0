"""Figures of tags and spans: by hand, by seqeval, and where they are undefined."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from seqeval.metrics import f1_score

from unmask.evaluation.bootstrap import intervals, take
from unmask.evaluation.words.scoring import span_counts, span_statistic, tag_counts, tag_statistic

GOLD = [["B-NP", "I-NP", "B-VP", "O"], ["O", "B-NP"]]
#: The NP one word short, the VP right; an NP too many that breaks the scheme, the NP right.
PREDICTED = [["B-NP", "O", "B-VP", "O"], ["I-PP", "B-NP"]]


def test_counts_by_hand() -> None:
    assert {name: counts.tolist() for name, counts in tag_counts(GOLD, PREDICTED).items()} == {
        "right": [3, 1],
        "words": [4, 2],
    }
    assert {name: counts.tolist() for name, counts in span_counts(GOLD, PREDICTED).items()} == {
        "found": [1, 1],
        "predicted": [2, 2],
        "gold": [2, 1],
    }


def test_figures_by_hand() -> None:
    samples = tag_counts(GOLD, PREDICTED) | span_counts(GOLD, PREDICTED)
    assert tag_statistic(samples) == {"accuracy": pytest.approx(4 / 6)}
    # Precision 2/4, recall 2/3.
    expected = 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3)
    assert span_statistic(samples) == {"f1": pytest.approx(expected), "accuracy": pytest.approx(4 / 6)}


def drawn(seed: int) -> list[list[str]]:
    generator = random.Random(seed)
    tags = ["O", "B-NP", "I-NP", "B-VP", "I-VP"]
    return [generator.choices(tags, k=1 + number % 9) for number in range(60)]


def test_f1_is_seqevals_of_all_sentences_and_of_resampled_ones() -> None:
    gold, predicted = drawn(1), drawn(2)
    samples = span_counts(gold, predicted) | tag_counts(gold, predicted)
    assert 0.1 < span_statistic(samples)["f1"] < 0.9
    for rows in (np.arange(60), np.random.default_rng(0).integers(0, 60, 60)):
        theirs = f1_score([gold[row] for row in rows], [predicted[row] for row in rows])
        assert span_statistic(take(samples, rows))["f1"] == pytest.approx(theirs)


def test_intervals_need_the_counts_alone() -> None:
    gold, predicted = drawn(1), drawn(2)
    found = intervals(span_statistic, span_counts(gold, predicted) | tag_counts(gold, predicted), resamples=50)
    for metric in found.values():
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low < metric.value < metric.high


def test_nothing_predicted_is_zero_and_no_span_at_all_is_undefined() -> None:
    nothing = [["O"] * 4, ["O"] * 2]
    assert span_statistic(span_counts(GOLD, nothing) | tag_counts(GOLD, nothing))["f1"] == 0
    assert math.isnan(span_statistic(span_counts(nothing, nothing) | tag_counts(nothing, nothing))["f1"])
    assert span_statistic(span_counts(nothing, GOLD) | tag_counts(nothing, GOLD))["f1"] == 0
