"""Which texts share a forward pass: packs under a token budget, without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np


def plan(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Split texts into packs of at most ``budget`` tokens, longest first.

    Sorting by length brings equal lengths together, so that attention runs over few groups; starting
    with the longest shows at once what memory the work takes.

    Args:
        lengths: tokens of each text, all at least 1.
        budget: most tokens in a pack; a single longer text forms a pack of its own.

    Yields:
        Lists of indices into ``lengths``; together they name each text once.
    """
    pack: list[int] = []
    tokens = 0
    for index in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist():
        if pack and tokens + lengths[index] > budget:
            yield pack
            pack, tokens = [], 0
        pack.append(index)
        tokens += lengths[index]
    if pack:
        yield pack


def parts(lengths: Sequence[int], count: int) -> list[range]:
    """Cut a row of texts into at most ``count`` stretches of about as many tokens each, in order, none of them empty.

    Args:
        lengths: tokens of each text, all at least 1.
        count: how many stretches, at least 1.

    Returns:
        Ranges of indices into ``lengths``; together they are all of them.
    """
    ends = np.cumsum(lengths)
    goals = ends[-1] * np.arange(1, count) / count
    # Each cut lies where the tokens before it come closest to its goal.
    cuts = np.searchsorted(ends - np.asarray(lengths) / 2, goals)
    edges = np.unique([0, *cuts.tolist(), len(lengths)]).tolist()
    return [range(begin, end) for begin, end in pairwise(edges)]
