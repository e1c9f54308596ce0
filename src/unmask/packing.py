"""Which texts share a forward pass: packs under a token budget, without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
