"""Packed attention by torch's FlexAttention: soft-capping and sinks in one call for the whole row.

A block mask names, for each block of queries, the blocks of keys that hold something for it: those of its texts,
within the window. It is made from the lengths alone, since to ask about each pair of tokens would cost more than
attention itself.

Shapes: T tokens of the row, H query heads, K key/value heads, E head dimension, Q blocks of queries or keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from unmask.backbone.layout import Layout
from unmask.backbone.scoring import Scoring
from unmask.transfers import to_device

#: Tokens of a block; the kernels want a power of two.
BLOCK: Final = 128

Mod = Callable[..., Tensor]


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring) -> Tensor:
    """Attend once for the whole row; see :mod:`unmask.backbone.kernels`."""
    sums = scoring.sinks is not None
    found = compiled()(
        query[None],
        key[None],
        value[None],
        score_mod=None if scoring.softcap is None else _capped(scoring.softcap),
        block_mask=block_mask(layout, scoring.window, query.device),
        scale=scoring.scale,
        enable_gqa=query.shape[0] != key.shape[0],
        return_aux=AuxRequest(lse=True) if sums else None,
    )
    out_HTE, lse = (found[0][0], found[1].lse[0]) if sums else (found[0], None)
    if scoring.sinks is not None and lse is not None:
        # A sink adds exp(sink) to the sum under every weight: exp(lse) / (exp(lse) + exp(sink)) of each remains.
        kept = torch.sigmoid(lse - scoring.sinks.float()[:, None])
        out_HTE = out_HTE * kept[..., None].to(out_HTE.dtype)
    attended: Tensor = out_HTE.transpose(0, 1)
    return attended


@cache
def compiled() -> Any:
    """Return FlexAttention, compiled: uncompiled it holds all scores at once."""
    return torch.compile(flex_attention)


def block_mask(layout: Layout, window: int | None, device: torch.device) -> BlockMask:
    """Return who sees whom in a row, for FlexAttention; the same object for all layers that ask the same."""
    return layout.once(("blocks", window, device), lambda: _block_mask(layout, window, device))


def _block_mask(layout: Layout, window: int | None, device: torch.device) -> BlockMask:
    first, last = key_blocks(layout, window)
    count = len(first)
    # The blocks that a row names come first; what follows them is not read.
    indices = (first[:, None] + np.arange(count)) % count
    rows = np.stack([last - first + 1, *indices.T], axis=1).astype(np.int32)
    numbers = to_device(torch.from_numpy(rows), device)
    tokens = sum(layout.lengths)
    return BlockMask.from_kv_blocks(
        numbers[None, None, :, 0].contiguous(),
        numbers[None, None, :, 1:].contiguous(),
        BLOCK_SIZE=BLOCK,
        mask_mod=_seen(layout.on(device).texts, layout.causal, window),
        seq_lengths=(tokens, tokens),
    )


def key_blocks(layout: Layout, window: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last block of keys that each block of queries sees something of, ``[Q]`` each."""
    ends = np.cumsum(layout.lengths)
    begins = ends - np.asarray(layout.lengths)
    first_query = np.arange(0, ends[-1], BLOCK)
    last_query = np.minimum(first_query + BLOCK, ends[-1]) - 1
    first = begins[np.searchsorted(ends, first_query, side="right")]
    last = ends[np.searchsorted(ends, last_query, side="right")] - 1
    if layout.causal:
        last = last_query
    if window is not None:
        first = np.maximum(first, first_query - (window - 1 if layout.causal else window))
        last = np.minimum(last, last_query + window)
    return first // BLOCK, last // BLOCK


def _seen(text_T: Tensor, causal: bool, window: int | None) -> Mod:
    """Return the rule which keys a query sees."""

    def same_text(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return text_T[i] == text_T[j]

    def causal_text(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (text_T[i] == text_T[j]) & (j <= i)

    if window is None:
        return causal_text if causal else same_text
    before, after = (window - 1, 0) if causal else (window, window)

    def within(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (text_T[i] == text_T[j]) & (j <= i + after) & (i <= j + before)

    return within


def _capped(softcap: float) -> Mod:
    def cap(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap
