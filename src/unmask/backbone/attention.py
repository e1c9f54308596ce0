"""Packed attention: the one attention function that every family runs on.

Many texts lie one behind the other in a single row of tokens, without padding. The function is
registered with transformers under :data:`NAME`; the layout of the row travels as a keyword argument
of the model's forward. Each text attends to itself alone; texts of equal length next to each other
run together.

Shapes: B = 1 row, H query heads, K key/value heads, T tokens of the row, D head dimension,
N texts in a run, L their common length.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from unmask.backbone.dropout import dropped
from unmask.errors import UnsupportedModelError

NAME: Final = "unmask_packed"

#: Keyword arguments of attention that do not change its result here: the layout replaces the mask,
#: and nothing is cached.
_WITHOUT_EFFECT: Final = frozenset(
    {"position_ids", "use_cache", "is_causal", "output_attentions", "output_hidden_states", "return_dict"}
    | {"cache_position", "past_key_values", "position_embeddings", "output_router_logits", "layer_idx"}
)


@dataclass(frozen=True)
class Layout:
    """How texts lie in a packed row: their lengths in order, and whether attention is causal."""

    lengths: tuple[int, ...]
    causal: bool = False
    runs: tuple[tuple[int, int, int], ...] = field(init=False, repr=False)
    """``(first token, number of texts, their length)`` of each run of equal lengths."""

    def __post_init__(self) -> None:
        runs, begin = [], 0
        for length, group in groupby(self.lengths):
            count = len(list(group))
            runs.append((begin, count, length))
            begin += count * length
        object.__setattr__(self, "runs", tuple(runs))

    def positions(self) -> Tensor:
        """Return each token's position in its own text, ``[T]`` int64."""
        return torch.cat([torch.arange(length).repeat(count) for _, count, length in self.runs])


def register() -> None:
    """Make :data:`NAME` known to transformers; calling it again changes nothing."""
    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within each text of a packed row.

    Args:
        module: the calling attention module; unused.
        query: ``[1, H, T, D]``.
        key: ``[1, K, T, D]``, K dividing H.
        value: ``[1, K, T, D]``.
        attention_mask: must be None; the layout says who sees whom.
        layout: where the texts lie.
        scaling: factor of the scores, ``D ** -0.5`` if None.
        dropout: probability that an attention weight is dropped.
        sliding_window: W. Causal: a token sees itself and the W - 1 before it. Bidirectional: all with
            |i - j| ≤ W (transformers' ``sliding_window_bidirectional_overlay``).
        softcap: scores become ``softcap * tanh(scores / softcap)`` (Gemma 2).
        s_aux: one learned sink logit a head, ``[H]`` (GPT-OSS).
        **others: arguments without effect here; any other one is refused.

    Returns:
        ``[1, T, H, D]``, and None in place of the attention weights.

    Raises:
        UnsupportedModelError: no layout, a mask, or an argument that this function would ignore.
    """
    if layout is None or attention_mask is not None:
        raise UnsupportedModelError(
            "This model does not hand the layout of the packed row down to its attention, or adds a mask of its own. "
            "Unmask cannot run it without padding; choose a base of a known family."
        )
    ignored = sorted(name for name, given in others.items() if given is not None and name not in _WITHOUT_EFFECT)
    if ignored:
        raise UnsupportedModelError(
            f"This model passes {ignored} to its attention, which packed attention does not implement."
        )
    # On a CPU torch's function drops no faster than we do, and draws from one generator for all threads.
    plain = softcap is None and s_aux is None and not (dropout and query.device.type == "cpu")
    parts = []
    for (_, count, length), states in zip(layout.runs, _by_run(layout, query, key, value), strict=True):
        q, k, v = (_texts(state, count, length) for state in states)
        allowed = _allowed(length, layout.causal, sliding_window, query.device)
        if plain:
            causal = layout.causal and allowed is None
            out = scaled_dot_product_attention(
                q, k, v, attn_mask=allowed, dropout_p=dropout, is_causal=causal, scale=scaling, enable_gqa=True
            )
        else:
            if layout.causal and allowed is None:
                allowed = _distances(length, query.device) >= 0
            out = _explicit_attention(
                q, k, v, allowed=allowed, scaling=scaling, dropout=dropout, softcap=softcap, sinks=s_aux
            )
        parts.append(out.transpose(1, 2).reshape(count * length, out.shape[1], out.shape[3]))
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).unsqueeze(0), None


def _by_run(layout: Layout, *rows: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Cut each of several ``[1, H, T, D]`` into its runs, without copying.

    In one cut: backwards, each slice of its own would cost a tensor of the whole row, and a sum with it.
    """
    sizes = [count * length for _, count, length in layout.runs]
    return zip(*(torch.split(row[0], sizes, dim=1) for row in rows), strict=True)


def _texts(run_HTD: Tensor, count: int, length: int) -> Tensor:
    """Return the texts of a run, ``[N, H, L, D]``, without copying."""
    heads, _, dimension = run_HTD.shape
    return run_HTD.view(heads, count, length, dimension).transpose(0, 1)


def _distances(length: int, device: torch.device) -> Tensor:
    """Return i - j for query i and key j, ``[L, L]``."""
    positions = torch.arange(length, device=device)
    return positions[:, None] - positions[None, :]


def _allowed(length: int, causal: bool, window: int | None, device: torch.device) -> Tensor | None:
    """Return which keys each query sees, ``[L, L]`` bool, or None if the plain rule says it all."""
    if window is None or length <= (window if causal else window + 1):
        return None
    distance = _distances(length, device)
    return (distance >= 0) & (distance < window) if causal else distance.abs() <= window


def _explicit_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    allowed: Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attend with capped scores, sinks or dropout of our own, which no fused kernel offers; softmax in float32."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    if sinks is not None:
        extra = sinks.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
        scores = torch.cat([scores, extra.to(scores.dtype)], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    if sinks is not None:
        weights = weights[..., :-1]
    return dropped(weights, dropout) @ v
