"""Tags, predicted and true → counts of each sentence, and from these the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.evaluation.outcome import Samples
from unmask.evaluation.words.conll import spans_of

#: Tags of sentences.
Tags = Sequence[Sequence[str]]


def tag_counts(gold: Tags, predicted: Tags) -> dict[str, NDArray[Any]]:
    """Return of each sentence how many ``words`` it has, and how many of them are tagged ``right``."""
    right = [sum(map(str.__eq__, *pair)) for pair in zip(gold, predicted, strict=True)]
    return {"right": np.array(right), "words": np.array([len(each) for each in gold])}


def span_counts(gold: Tags, predicted: Tags) -> dict[str, NDArray[Any]]:
    """Return of each sentence how many spans are ``gold``, how many ``predicted``, and how many of these ``found``.

    A span is found if its kind, its first and its last word are right.
    """
    from seqeval.metrics import f1_score

    pairs = [(spans_of(true), spans_of(guessed)) for true, guessed in zip(gold, predicted, strict=True)]
    counts = {
        "found": np.array([len(true & guessed) for true, guessed in pairs]),
        "predicted": np.array([len(guessed) for _, guessed in pairs]),
        "gold": np.array([len(true) for true, _ in pairs]),
    }
    if counts["gold"].any():  # seqeval warns where F1 is undefined
        theirs = f1_score([list(each) for each in gold], [list(each) for each in predicted], zero_division=0)
        assert math.isclose(_f1(counts), theirs, abs_tol=1e-12), f"{_f1(counts)} is not seqeval's {theirs}"
    return counts


def tag_statistic(samples: Samples) -> dict[str, float]:
    """Return the share of words that are tagged right."""
    return {"accuracy": float(samples["right"].sum() / samples["words"].sum())}


def span_statistic(samples: Samples) -> dict[str, float]:
    """Return F1 of spans, micro-averaged over their kinds, and the share of words that are tagged right.

    F1 is NaN where there is no span, neither gold nor predicted.
    """
    return {"f1": _f1(samples), **tag_statistic(samples)}


def _f1(samples: Samples) -> float:
    """Return 2 · found / (predicted + gold): the harmonic mean of found / predicted and found / gold."""
    total = int(samples["predicted"].sum() + samples["gold"].sum())
    return 2 * float(samples["found"].sum()) / total if total else math.nan
