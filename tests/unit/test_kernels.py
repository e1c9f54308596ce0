"""Kernels of packed attention: chosen by rule, and equal to one another."""

from __future__ import annotations

import inspect
import sys
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import varlen as torch_varlen
from torch.nn.attention.flex_attention import flex_attention

from unmask.backbone import flex, kernels
from unmask.backbone.kernels import KERNELS, Offers, choose, offers
from unmask.backbone.layout import Layout
from unmask.backbone.scoring import Scoring

HEADS, KV_HEADS, SIZE = 4, 2, 16
BOTH, TORCH, NONE = Offers(varlen=True, flash=True), Offers(varlen=True, flash=False), Offers(varlen=False, flash=False)
SINKS = torch.linspace(-1, 1, HEADS)
LENGTHS = [(5,), (1, 2, 5, 5, 8, 9, 40, 1), (200, 3, 3, 150, 130), (64,) * 4, (1,) * 140]


def states(tokens: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(n, tokens, SIZE, generator=generator) for n in (HEADS, KV_HEADS, KV_HEADS))
    return query, key, value


def densely(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scoring: Scoring) -> Tensor:
    """Attend by the book, with all scores of the row at once: ``[T, H, E]``."""
    key, value = (state.repeat_interleave(HEADS // KV_HEADS, dim=0) for state in (key, value))
    scores = query @ key.transpose(1, 2) * (SIZE**-0.5 if scoring.scale is None else scoring.scale)
    if scoring.softcap:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    grown = scores.masked_fill(~allowed, float("-inf")).exp()
    total = grown.sum(-1, keepdim=True)
    if scoring.sinks is not None:
        total = total + scoring.sinks.exp()[:, None, None]
    return (grown / total @ value).transpose(0, 1)


def seen(layout: Layout, window: int | None) -> Tensor:
    """Return who sees whom, pair by pair, ``[T, T]``."""
    text = np.repeat(np.arange(len(layout.lengths)), layout.lengths)
    place = np.concatenate([np.arange(length) for length in layout.lengths])
    distance = place[:, None] - place[None, :]
    allowed = text[:, None] == text[None, :]
    if layout.causal:
        allowed &= distance >= 0
        if window is not None:
            allowed &= distance < window
    elif window is not None:
        allowed &= abs(distance) <= window
    return torch.from_numpy(allowed)


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS[:4])
@pytest.mark.parametrize("name", ["runs", "padded"])
def test_a_kernel_attends_by_the_book(name: str, lengths: tuple[int, ...], causal: bool, window: int | None) -> None:
    layout, scoring = Layout(lengths, causal=causal), Scoring(window=window, scale=0.3)
    query, key, value = states(sum(lengths))
    expected = densely(query, key, value, seen(layout, window), scoring)
    assert (KERNELS[name](query, key, value, layout, scoring) - expected).abs().max() < 1e-5


def test_padding_reaches_no_gradient() -> None:
    layout = Layout((5, 33, 2))
    found = []
    for name in ("runs", "padded"):
        parts = query, key, value = tuple(state.requires_grad_() for state in states(40))
        (KERNELS[name](query, key, value, layout, Scoring()) ** 2).sum().backward()  # type: ignore[no-untyped-call]
        found.append([part.grad for part in parts])
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert torch.isfinite(other).all()
        assert (one - other).abs().max() < 1e-5


def test_texts_are_padded_to_a_few_lengths() -> None:
    groups, back = kernels._padded_texts(Layout(tuple(range(1, 129))), torch.device("cpu"))
    assert [tuple(group.real.shape) for group in groups] == [(32, 32), (32, 64), (64, 128)]
    assert torch.equal(torch.cat([group.source for group in groups])[back], torch.arange(128 * 129 // 2))


# --- flash kernels, whose arguments alone can be seen without a GPU ----------------------------------


def by_bounds(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, window: tuple[int, int], scale: float | None, softcap: float
) -> Tensor:
    """Attend as flash kernels document it: texts by their bounds, ``window`` tokens to the left and right."""
    ends = bounds.tolist()
    texts = torch.searchsorted(bounds[1:], torch.arange(len(q)), right=True)
    place = torch.arange(len(q)) - bounds[texts]
    distance = place[:, None] - place[None, :]
    left, right = (9999 if side == -1 else side for side in window)
    allowed = (texts[:, None] == texts[None, :]) & (distance <= left) & (-distance <= right)
    assert (ends[0], ends[-1]) == (0, len(q))
    return densely(
        q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), allowed, Scoring(scale=scale, softcap=softcap or None)
    )


def varlen_double(q: Tensor, k: Tensor, v: Tensor, *bounds: Any, enable_gqa: bool = False, **others: Any) -> Tensor:
    first, second, longest, other = bounds
    assert first is second
    assert first.dtype == torch.int32
    assert enable_gqa == (k.shape[1] != q.shape[1])
    if not enable_gqa:
        k, v = k[:, :: HEADS // KV_HEADS], v[:, :: HEADS // KV_HEADS]
    assert longest == other == int(first.diff().max())
    return by_bounds(q, k, v, first, others.pop("window_size"), others.pop("scale"), 0.0)


def flash_double(q: Tensor, k: Tensor, v: Tensor, *bounds: Any, causal: bool, **others: Any) -> Tensor:
    assert others.pop("dropout_p") == 0
    left, right = others["window_size"]
    assert right == 0 if causal else left == right
    return by_bounds(q, k, v, bounds[0], (left, right), others["softmax_scale"], others["softcap"])


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["varlen", "flash"])
def test_a_flash_kernel_is_asked_for_the_same(
    name: str, causal: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_varlen, "varlen_attn", varlen_double)
    monkeypatch.setattr(kernels, "offers", lambda: BOTH)
    package = ModuleType("flash_attn")
    package.flash_attn_varlen_func = flash_double  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    layout = Layout((5, 5, 40, 1, 9), causal=causal)
    scoring = Scoring(window=window, scale=0.2, softcap=20.0 if name == "flash" else None)
    query, key, value = states(60)
    expected = kernels.runs(query, key, value, layout, scoring)
    assert (KERNELS[name](query, key, value, layout, scoring) - expected).abs().max() < 1e-5


def test_heads_are_repeated_for_a_torch_that_knows_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_varlen, "varlen_attn", varlen_double)
    monkeypatch.setattr(kernels, "offers", lambda: Offers(varlen=True, flash=False, grouped=False))
    layout, (query, key, value) = Layout((5, 9)), states(14)
    expected = kernels.runs(query, key, value, layout, Scoring())
    assert (kernels.varlen(query, key, value, layout, Scoring()) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        (("scale", "window_size", "enable_gqa"), (True, True)),
        (("scale", "window_size"), (True, False)),
        (("is_causal",), (False, False)),
    ],
)
def test_what_the_installed_torch_takes_is_looked_up(
    taken: tuple[str, ...], expected: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def signature(_: object) -> Any:
        return inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in taken])

    monkeypatch.setattr("unmask.backbone.kernels.inspect.signature", signature)
    found = offers.__wrapped__()
    assert (found.varlen, found.grouped) == expected


# --- FlexAttention -----------------------------------------------------------------------------------


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def attend(*arguments: Any, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
            return flex_attention(*arguments, **options)

    monkeypatch.setattr(flex, "compiled", lambda: attend)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("scoring", [Scoring(), Scoring(softcap=5.0), Scoring(sinks=SINKS), Scoring(window=8, scale=1)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_flex_attends_as_runs_do(lengths: tuple[int, ...], causal: bool, scoring: Scoring) -> None:
    layout = Layout(lengths, causal=causal)
    query, key, value = states(sum(lengths))
    expected = kernels.runs(query, key, value, layout, scoring)
    assert (KERNELS["flex"](query, key, value, layout, scoring) - expected).abs().max() < 1e-5


@pytest.mark.slow
def test_flex_gives_the_same_when_it_is_compiled() -> None:
    # On a CPU torch compiles it without the sums that sinks need.
    layout, scoring = Layout(LENGTHS[2]), Scoring(softcap=5.0, window=8)
    query, key, value = states(sum(LENGTHS[2]))
    with torch.inference_mode():
        found = flex.attend(query, key, value, layout, scoring)
    assert (found - kernels.runs(query, key, value, layout, scoring)).abs().max() < 1e-5


@pytest.mark.parametrize("window", [None, 8, 128, 200])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [*LENGTHS, (513, 2, 300, 129)])
def test_a_block_mask_names_the_blocks_that_hold_something_and_no_more(
    lengths: tuple[int, ...], causal: bool, window: int | None
) -> None:
    layout = Layout(lengths, causal=causal)
    allowed = seen(layout, window).numpy()
    first, last = flex.key_blocks(layout, window)
    for number in range(len(first)):
        rows = allowed[number * flex.BLOCK : (number + 1) * flex.BLOCK]
        needed = np.unique(np.flatnonzero(rows.any(axis=0)) // flex.BLOCK)
        assert first[number] <= needed.min()
        assert needed.max() <= last[number]
        # A window may begin in a text before that of the block's first query, which it does not see.
        assert last[number] - first[number] <= needed.max() - needed.min() + 1


def test_layers_share_a_block_mask() -> None:
    layout, cpu = Layout((5, 9)), torch.device("cpu")
    assert flex.block_mask(layout, None, cpu) is flex.block_mask(layout, None, cpu)
    assert flex.block_mask(layout, 8, cpu) is not flex.block_mask(layout, None, cpu)


# --- the rule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "dtype", "size", "scoring", "offered", "expected"),
    [
        ("cpu", torch.float32, 64, Scoring(), BOTH, "runs"),
        ("cpu", torch.bfloat16, 64, Scoring(softcap=5.0), BOTH, "runs"),
        ("mps", torch.float16, 64, Scoring(), BOTH, "runs"),
        ("cuda", torch.bfloat16, 128, Scoring(), TORCH, "varlen"),
        ("cuda", torch.float16, 128, Scoring(window=8), TORCH, "varlen"),
        ("cuda", torch.bfloat16, 128, Scoring(), BOTH, "flash"),
        ("cuda", torch.bfloat16, 128, Scoring(softcap=5.0), BOTH, "flash"),
        ("cuda", torch.bfloat16, 128, Scoring(softcap=5.0), TORCH, "flex"),
        ("cuda", torch.bfloat16, 64, Scoring(sinks=SINKS), BOTH, "flex"),
        ("cuda", torch.bfloat16, 128, Scoring(), NONE, "flex"),
        ("cuda", torch.bfloat16, 512, Scoring(), BOTH, "flex"),
        ("cuda", torch.bfloat16, 68, Scoring(), BOTH, "flex"),
        ("cuda", torch.float32, 128, Scoring(), BOTH, "runs"),
        ("cuda", torch.bfloat16, 128, Scoring(dropout=0.3), TORCH, "padded"),
        ("cuda", torch.float32, 128, Scoring(dropout=0.3), TORCH, "padded"),
        ("cuda", torch.bfloat16, 128, Scoring(dropout=0.3), BOTH, "flash"),
        ("cuda", torch.bfloat16, 128, Scoring(dropout=0.3, softcap=5.0), TORCH, "runs"),
    ],
)
def test_the_kernel_is_the_first_that_can(
    device: str, dtype: torch.dtype, size: int, scoring: Scoring, offered: Offers, expected: str
) -> None:
    class Query:
        def __init__(self) -> None:
            self.device, self.dtype, self.shape = torch.device(device), dtype, (HEADS, 10, size)

    assert choose(Query(), scoring, offered) == expected  # type: ignore[arg-type]
