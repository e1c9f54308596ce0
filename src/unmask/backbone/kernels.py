"""What computes packed attention: five kernels with one signature, and the rule that chooses among them.

``runs`` is torch's own attention, once for each run of equal lengths: right everywhere, and the fastest on a CPU,
where a call costs little. On a GPU a row of texts of many lengths would be hundreds of small calls a layer; there one
call does the whole row (``varlen``, ``flash``, ``flex``), or one for each of a few lengths to pad to (``padded``).

Shapes: H query heads, K key/value heads, T tokens of the row, E head dimension, N texts of a run, L their length.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unmask.backbone import flex
from unmask.backbone.dropout import dropped
from unmask.backbone.layout import Layout
from unmask.backbone.scoring import Scoring
from unmask.transfers import to_device

#: ``(query [H, T, E], key [K, T, E], value [K, T, E], layout, scoring) → [T, H, E]``
Kernel = Callable[[Tensor, Tensor, Tensor, Layout, Scoring], Tensor]

#: Largest head dimension of the flash kernels, which must be a multiple of 8 besides.
_FLASH_HEAD: Final = 256
#: Lengths that ``padded`` pads to are multiples of this.
_STEP: Final = 32


@dataclass(frozen=True)
class Offers:
    """Which kernels the installed packages offer on a GPU.

    Attributes:
        varlen: ``torch.nn.attention.varlen`` with windows (torch 2.11).
        flash: the package ``flash-attn``.
        grouped: whether the first takes fewer heads of keys than of queries (torch 2.12).
    """

    varlen: bool
    flash: bool
    grouped: bool = True


@cache
def offers() -> Offers:
    """Return what is installed."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        taken: set[str] = set()
    else:
        taken = set(inspect.signature(varlen_attn).parameters)
    return Offers(
        varlen={"scale", "window_size"} <= taken,
        flash=find_spec("flash_attn") is not None,
        grouped="enable_gqa" in taken,
    )


def choose(query: Tensor, scoring: Scoring, offered: Offers) -> str:
    """Return the name of the kernel for a query ``[H, T, E]``: the first of the rules that fits.

    Flash kernels compute in half precision only and know no sinks; torch's know no dropout and no soft-capping either.
    FlexAttention refuses dropout.
    """
    if query.device.type != "cuda":
        return "runs"
    half = query.dtype in (torch.bfloat16, torch.float16)
    flash = half and scoring.sinks is None and query.shape[-1] <= _FLASH_HEAD and query.shape[-1] % 8 == 0
    plain = scoring.softcap is None and scoring.sinks is None
    if flash and offered.flash:
        return "flash"
    if flash and offered.varlen and plain and not scoring.dropout:
        return "varlen"
    if scoring.dropout:
        return "padded" if plain else "runs"
    return "flex" if half else "runs"


def runs(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring) -> Tensor:
    """Attend once for each run of texts of one length."""
    # On a CPU torch's function drops no faster than we do, and draws from one generator for all threads.
    plain = scoring.softcap is None and scoring.sinks is None
    plain = plain and not (scoring.dropout and query.device.type == "cpu")
    parts = []
    for (_, count, length), states in zip(layout.runs, _by_run(layout, query, key, value), strict=True):
        q, k, v = (_texts(state, count, length) for state in states)
        allowed = _allowed(length, layout.causal, scoring.window, query.device)
        if plain:
            causal = layout.causal and allowed is None
            out = scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=allowed,
                dropout_p=scoring.dropout,
                is_causal=causal,
                scale=scoring.scale,
                enable_gqa=True,
            )
        else:
            if layout.causal and allowed is None:
                allowed = _distances(length, query.device) >= 0
            out = _explicit_attention(q, k, v, allowed, scoring)
        parts.append(out.transpose(1, 2).reshape(count * length, out.shape[1], out.shape[3]))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def padded(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring) -> Tensor:
    """Attend once for each of a few lengths, to which texts are padded for attention alone."""
    device = query.device
    groups, back_T = layout.once(("padded", device), lambda: _padded_texts(layout, device))
    parts = []
    for group in groups:
        count, length = group.real.shape
        q, k, v = (_texts(state.index_select(1, group.source), count, length) for state in (query, key, value))
        # With a mask, torch's fused kernels know no grouped heads.
        k, v = (state.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for state in (k, v))
        seen = group.real[:, None, None, :]
        allowed = _allowed(length, layout.causal, scoring.window, device)
        if allowed is None and layout.causal:
            allowed = _distances(length, device) >= 0
        if allowed is not None:
            # A place that is not real sees all: of nothing, no kernel makes a weight.
            seen = seen & allowed | ~group.real[:, None, :, None]
        out = scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=scoring.dropout, scale=scoring.scale)
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts).index_select(0, back_T)


@dataclass(frozen=True)
class _Group:
    """Texts that are padded to one length L.

    Attributes:
        source: where in the row the tokens lie, ``[N * L]``; one that is not real stands for its text's first.
        real: which places hold a token of the text, ``[N, L]`` bool.
    """

    source: Tensor
    real: Tensor


def _padded_texts(layout: Layout, device: torch.device) -> tuple[list[_Group], Tensor]:
    """Return a group for each length padded to, and where among all their places each token of the row is, ``[T]``."""
    lengths = np.asarray(layout.lengths)
    begins = np.cumsum(lengths) - lengths
    rooms = _STEP * 2 ** np.ceil(np.log2(-(-lengths // _STEP))).astype(np.int64)
    groups = []
    back = np.empty(lengths.sum(), dtype=np.int64)
    places = 0
    for room in np.unique(rooms):
        chosen = rooms == room
        offset = np.arange(room)
        real = offset < lengths[chosen][:, None]
        source = begins[chosen][:, None] + np.where(real, offset, 0)
        back[source[real]] = places + np.flatnonzero(real)
        places += real.size
        groups.append(_Group(*(to_device(torch.from_numpy(array), device) for array in (source.ravel(), real))))
    return groups, to_device(torch.from_numpy(back), device)


def varlen(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring) -> Tensor:
    """Attend once for the whole row, with torch's variable-length attention."""
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest = layout.on(query.device).bounds, layout.longest
    q, k, v = (state.transpose(0, 1).contiguous() for state in (query, key, value))
    window = scoring.flash_window(causal=layout.causal)
    options: dict[str, Any] = {}
    if q.shape[1] != k.shape[1]:
        if offers().grouped:
            options = {"enable_gqa": True}
        else:
            k, v = (state.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for state in (k, v))
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scoring.scale, window_size=window, **options)
    return cast("Tensor", out)


def flash(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring) -> Tensor:
    """Attend once for the whole row, with the package flash-attn."""
    from flash_attn import flash_attn_varlen_func

    bounds, longest = layout.on(query.device).bounds, layout.longest
    q, k, v = (state.transpose(0, 1).contiguous() for state in (query, key, value))
    out: Tensor = flash_attn_varlen_func(
        q,
        k,
        v,
        bounds,
        bounds,
        longest,
        longest,
        dropout_p=scoring.dropout,
        softmax_scale=scoring.scale,
        causal=layout.causal,
        window_size=scoring.flash_window(causal=layout.causal),
        softcap=scoring.softcap or 0.0,
    )
    return out


KERNELS: Final[Mapping[str, Kernel]] = MappingProxyType(
    {"runs": runs, "padded": padded, "varlen": varlen, "flash": flash, "flex": flex.attend}
)


def _by_run(layout: Layout, *rows: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Cut each of several ``[H, T, E]`` into its runs, without copying.

    In one cut: backwards, each slice of its own would cost a tensor of the whole row, and a sum with it.
    """
    sizes = [count * length for _, count, length in layout.runs]
    return zip(*(torch.split(row, sizes, dim=1) for row in rows), strict=True)


def _texts(run_HTE: Tensor, count: int, length: int) -> Tensor:
    """Return the texts of a run, ``[N, H, L, E]``, without copying."""
    heads, _, dimension = run_HTE.shape
    return run_HTE.view(heads, count, length, dimension).transpose(0, 1)


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


def _explicit_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, scoring: Scoring) -> Tensor:
    """Attend with capped scores, sinks or dropout of our own, which no fused kernel offers; softmax in float32."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scoring.scale is None else scoring.scale)
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    if scoring.sinks is not None:
        extra = scoring.sinks.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
        scores = torch.cat([scores, extra.to(scores.dtype)], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    if scoring.sinks is not None:
        weights = weights[..., :-1]
    return dropped(weights, scoring.dropout) @ v
