"""Packed attention: the one attention function that every family runs on.

Many texts lie one behind the other in a single row of tokens, without padding. The function is
registered with transformers under :data:`NAME`; the layout of the row travels as a keyword argument
of the model's forward. Each text attends to itself alone. Which kernel computes it is chosen by
:mod:`unmask.backbone.kernels`.

A compiled layer must not depend on how texts lie, or it would be compiled for each row anew. It gets
:data:`GIVEN` in place of a layout, and its attention is one operator that the compiler does not look
into; the layout itself is that of the surrounding :func:`given`.

Shapes: H query heads, K key/value heads, T tokens of the row, E head dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from unmask.backbone.kernels import KERNELS, choose, offers
from unmask.backbone.layout import Layout
from unmask.backbone.scoring import Scoring
from unmask.errors import UnsupportedModelError

NAME: Final = "unmask_packed"

#: Keyword arguments of attention that do not change its result here: the layout replaces the mask,
#: and nothing is cached.
_WITHOUT_EFFECT: Final = frozenset(
    {"position_ids", "use_cache", "is_causal", "output_attentions", "output_hidden_states", "return_dict"}
    | {"cache_position", "past_key_values", "position_embeddings", "output_router_logits", "layer_idx"}
)


class _Given(Enum):
    LAYOUT = "the layout of the surrounding block"


#: Stands for the layout of the surrounding :func:`given`.
GIVEN: Final = _Given.LAYOUT

_layout: ContextVar[Layout] = ContextVar("layout")
_used: ContextVar[set[str] | None] = ContextVar("used", default=None)


def register() -> None:
    """Make :data:`NAME` known to transformers; calling it again changes nothing."""
    AttentionInterface.register(NAME, packed_attention)


@contextmanager
def given(layout: Layout) -> Iterator[None]:
    """Let :data:`GIVEN` stand for ``layout`` within the block."""
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


@contextmanager
def kernels_used() -> Iterator[set[str]]:
    """Yield a set that gathers the names of the kernels that compute within the block."""
    names: set[str] = set()
    token = _used.set(names)
    try:
        yield names
    finally:
        _used.reset(token)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | Literal[_Given.LAYOUT] | None = None,
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
        query: ``[1, H, T, E]``.
        key: ``[1, K, T, E]``, K dividing H.
        value: ``[1, K, T, E]``.
        attention_mask: must be None; the layout says who sees whom.
        layout: where the texts lie, or :data:`GIVEN`.
        scaling: see :class:`~unmask.backbone.scoring.Scoring`, as for the next four.
        dropout: probability that an attention weight is dropped.
        sliding_window: how far a token sees.
        softcap: of the scores.
        s_aux: sinks.
        **others: arguments without effect here; any other one is refused.

    Returns:
        ``[1, T, H, E]``, and None in place of the attention weights.

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
    if isinstance(layout, _Given):
        out: Tensor = _attend_given(query, key, value, s_aux, scaling=scaling, window=sliding_window, softcap=softcap)
        return out, None
    scoring = Scoring(scale=scaling, window=sliding_window, softcap=softcap, sinks=s_aux, dropout=dropout)
    return attend(query[0], key[0], value[0], layout, scoring)[None], None


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring) -> Tensor:
    """Attend within each text of a packed row, on the kernel that suits its device.

    Args:
        query: ``[H, T, E]``.
        key: ``[K, T, E]``.
        value: ``[K, T, E]``.
        layout: where the texts lie.
        scoring: how scores become weights.

    Returns:
        ``[T, H, E]``.
    """
    kernel = choose(query, scoring, offers())
    names = _used.get()
    if names is not None:
        names.add(kernel)
    return KERNELS[kernel](query, key, value, layout, scoring)


@torch.library.custom_op("unmask::attend_given", mutates_args=())
def _attend_given(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor | None,
    *,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    scoring = Scoring(scale=scaling, window=window, softcap=softcap, sinks=sinks)
    return attend(query[0], key[0], value[0], _layout.get(), scoring)[None].contiguous()


@_attend_given.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor | None,
    *,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
