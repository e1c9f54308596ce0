"""Hidden states → vectors. Pure functions.

Shapes: T tokens of a packed row, N texts, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from unmask.errors import InputError

Pooling = Literal["mean", "weighted_mean", "last", "first"]

POOLINGS: Final[tuple[Pooling, ...]] = get_args(Pooling)


def pool(hidden_TD: Tensor, *, lengths: Tensor, starts: Tensor, mode: Pooling) -> Tensor:
    """Pool each text of a packed row into one vector.

    Args:
        hidden_TD: hidden states of N texts, one behind the other.
        lengths: tokens of each text, ``[N]`` int64.
        starts: first pooled token of each text, ``[N]`` int64, below its length.
        mode: ``mean`` over the pooled span; ``weighted_mean`` with weights 1, 2, 3 … over the span
            (SGPT, arXiv 2202.08904, section 3.1); ``last`` and ``first`` token of the text (the
            first one is the BOS where there is one).

    Returns:
        ``[N, D]`` float32.
    """
    ends = lengths.cumsum(0)
    if mode == "last":
        return hidden_TD[ends - 1].float()
    begins = ends - lengths
    if mode == "first":
        return hidden_TD[begins].float()
    text_T = torch.repeat_interleave(
        torch.arange(len(lengths), device=lengths.device), lengths, output_size=len(hidden_TD)
    )
    rank_T = torch.arange(len(hidden_TD), device=lengths.device) - (begins + starts)[text_T] + 1
    weight_T = rank_T.clamp_min(0).float()
    count = (lengths - starts).float()
    if mode == "mean":
        weight_T, total = weight_T.clamp_max(1), count
    else:
        total = count * (count + 1) / 2
    weighted_TD = hidden_TD.float() * (weight_T / total[text_T])[:, None]
    return torch.zeros(len(lengths), hidden_TD.shape[1], device=hidden_TD.device).index_add_(0, text_T, weighted_TD)


def pool_words(states_TD: Tensor, spans: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]]) -> Tensor:
    """Average the states of the tokens that overlap each word.

    Args:
        states_TD: states of T tokens.
        spans: each token's ``(start, end)`` in characters of the text.
        words: each word's ``(start, end)`` in the same text, in order.

    Returns:
        ``[len(words), D]`` float32.

    Raises:
        InputError: a word has no token, for instance because the text was cut before it.
    """
    token = np.asarray(spans).reshape(-1, 2)
    rows = []
    for number, (start, end) in enumerate(words):
        covering = np.flatnonzero((token[:, 0] < end) & (token[:, 1] > start))
        if not len(covering):
            raise InputError(f"Word {number} has no token: the text is longer than max_length. Shorten or split it.")
        rows.append(states_TD[torch.from_numpy(covering)].float().mean(dim=0))
    return torch.stack(rows) if rows else states_TD.new_zeros(0, states_TD.shape[1]).float()
