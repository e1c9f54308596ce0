"""The linear probe: learns what can be read off linearly, and nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.evaluation.words.probe import predict

CLASSES = ("ADJ", "NOUN", "VERB")


def states(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 12)).astype(np.float32)


def linear(known: NDArray[np.float32]) -> list[str]:
    """Tags that a linear layer can tell: the largest of three components."""
    return [CLASSES[number] for number in known[:, :3].argmax(axis=1)]


def share(tags: list[str], predicted: NDArray[np.str_]) -> float:
    return float((np.array(tags) == predicted).mean())


def test_learns_what_is_linear() -> None:
    train, test = states(900, 1), states(600, 2)
    assert share(linear(test), predict(train, linear(train), test)) > 0.93


def test_does_not_learn_what_is_random() -> None:
    train, test = states(900, 1), states(600, 2)
    elsewhere = linear(states(900, 3))
    assert 0.25 < share(linear(test), predict(train, elsewhere, test)) < 0.42


def test_scale_and_offset_of_components_do_not_matter() -> None:
    train, test = states(300, 1), states(200, 2)
    scale, offset = np.logspace(-3, 3, 12, dtype=np.float32), np.arange(12, dtype=np.float32)
    plain = predict(train, linear(train), test)
    moved = predict(train * scale + offset, linear(train), test * scale + offset)
    assert (plain == moved).mean() > 0.99


def test_is_the_same_each_time_and_leaves_the_states_alone() -> None:
    train, test = states(300, 1), states(200, 2)
    first = predict(train, linear(train), test)
    assert (train == states(300, 1)).all()
    assert (test == states(200, 2)).all()
    assert (first == predict(train, linear(train), test)).all()
