"""The switch that removes the causal mask, and the proof that it worked.

transformers reads ``config.is_causal``; setting it is all that a model needs. Whether it was enough is
never assumed. The proofs look at hidden states only, so they hold for any architecture:

* *both ways*: each decoder layer alone, fed the same input but for the last position, gives another
  output at the first. (Looking at the whole model would not do: one layer that sees both ways hides
  another that does not.)
* *alone*: in a packed row, changing one text leaves its neighbours as they were.
* *exact*: packed hidden states equal those of transformers' own padded attention. Done for families
  without a row in the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from unmask.backbone.attention import NAME
from unmask.backbone.layout import Layout
from unmask.errors import NotBidirectionalError, UnsupportedModelError

#: A layer that sees both ways moves the first position by far more than this share of its size;
#: one that does not moves it by nothing at all.
_MOVED = 1e-6
#: Largest relative difference between two computations of the same, by number format.
SAME: Final = {
    torch.float32: 1e-4,
    torch.float64: 1e-8,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
    torch.float8_e4m3fn: 2e-1,
}


@dataclass(frozen=True)
class Proof:
    """What the proofs measured.

    Attributes:
        layers: how far the first position moved in each layer when only the last position of its
            input changed, relative to the size of the state.
        first_token: the same for the whole model.
        leak: how far a text's states moved when its neighbour in the row changed.
        exact: largest difference from transformers' own attention, relative; None where the family's
            row already vouches for it.
    """

    layers: tuple[float, ...]
    first_token: float
    leak: float
    exact: float | None


def set_direction(config: PreTrainedConfig, *, bidirectional: bool) -> None:
    """Make models of ``config`` attend both ways, or causally."""
    config.is_causal = not bidirectional


@torch.inference_mode()
def prove(model: PreTrainedModel, *, bidirectional: bool, exact_attention: str | None = None) -> Proof:
    """Prove that ``model`` attends as it should.

    Args:
        model: an inner model (no LM head) that runs on packed attention.
        bidirectional: whether every layer must see both ways, or must not.
        exact_attention: compare with this attention function of transformers, too.

    Raises:
        NotBidirectionalError: some layer does not attend as it should, or texts of a row mix.
        UnsupportedModelError: packed attention does not give what the model's own attention gives.
    """
    causal = not bidirectional
    texts = _tokens(model, 3, 1, 2)
    with _recorded(decoder_layers(model, model.config.num_hidden_layers)) as calls:
        before = run(model, texts, causal=causal)
    layers = tuple(call.movement() for call in calls)
    for number, moved in enumerate(layers):
        if (moved > _MOVED) != bidirectional:
            raise NotBidirectionalError(_not_as_wanted(model, f"layer {number} of {len(layers)}", bidirectional))
    last_changed = run(model, [*texts[:2], _change(texts[2], model)], causal=causal)
    first = _movement(before[4], last_changed[4])
    if (first > _MOVED) != bidirectional:
        raise NotBidirectionalError(_not_as_wanted(model, "the whole model", bidirectional))
    middle_changed = run(model, [texts[0], _change(texts[1], model), texts[2]], causal=causal)
    others = [0, 1, 2, 4, 5]
    leak = max(_movement(before[:4], last_changed[:4]), _movement(before[others], middle_changed[others]))
    same = SAME[model.dtype]
    if leak > same:
        raise NotBidirectionalError(
            f"In a packed row, texts of this {model.config.model_type!r} model see each other "
            f"(their states move by {leak:.1e}). It cannot be run without padding."
        )
    exact = None if exact_attention is None else _difference(model, exact_attention, bidirectional)
    if exact is not None and not exact <= same:
        raise UnsupportedModelError(
            f"Packed attention does not reproduce this {model.config.model_type!r} model: its states differ from "
            f"transformers' {exact_attention!r} attention by {exact:.1e} (relative; at most {same:.0e} expected)."
        )
    return Proof(layers, first, leak, exact)


def _not_as_wanted(model: PreTrainedModel, what: str, bidirectional: bool) -> str:
    kind = model.config.model_type
    if bidirectional:
        return (
            f"{what.capitalize()} of this {kind!r} model stays causal: changing the last token does not move the "
            "first token's state. It cannot be a bidirectional encoder; choose a base of another family."
        )
    return f"{what.capitalize()} of this {kind!r} model is not causal: the first token's state sees the last token."


def decoder_layers(model: nn.Module, count: int) -> nn.ModuleList:
    """Return the list of decoder layers of ``model``, wherever its class keeps it.

    Raises:
        UnsupportedModelError: there is no list of ``count`` modules.
    """
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise UnsupportedModelError(f"{type(model).__name__} has no list of {count} decoder layers to examine.")


def run(model: PreTrainedModel, ids: Sequence[Sequence[int]], *, causal: bool) -> Tensor:
    """Return the packed hidden states of texts given as token ids, ``[T, D]``."""
    layout = Layout(tuple(len(text) for text in ids), causal=causal)
    flat = torch.tensor([token for text in ids for token in text], device=model.device)
    positions = layout.positions().to(model.device)
    out = model(input_ids=flat[None], position_ids=positions[None], layout=layout, use_cache=False)
    states: Tensor = out.last_hidden_state[0]
    return states


def _tokens(model: PreTrainedModel, *lengths: int, seed: int = 0) -> list[list[int]]:
    """Return one list of token ids a length, spread over the vocabulary and the same on every call."""
    size = model.config.vocab_size
    return [
        [(7919 * (i + 1) + 104729 * (n + 1) + 31 * seed) % size for i in range(length)]
        for n, length in enumerate(lengths)
    ]


def _change(ids: list[int], model: PreTrainedModel, position: int = -1) -> list[int]:
    changed = list(ids)
    changed[position] = (changed[position] + model.config.vocab_size // 2) % model.config.vocab_size
    return changed


def _movement(before: Tensor, after: Tensor) -> float:
    scale = before.float().abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return float((after.float() - before.float()).abs().max() / scale)


@dataclass(frozen=True)
class _LayerCall:
    """One decoder layer, and what it was called with in a forward pass."""

    layer: nn.Module
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def movement(self) -> float:
        """Return how far the last text's first position moves when its last position's input changes."""
        states = self.arguments[0] if self.arguments else self.keywords["hidden_states"]
        changed = states.clone()
        changed[:, -1] = -states[:, -1].roll(1, dims=-1)
        return _movement(self._first_position(states), self._first_position(changed))

    def _first_position(self, states: Tensor) -> Tensor:
        if self.arguments:
            out = self.layer(states, *self.arguments[1:], **self.keywords)
        else:
            out = self.layer(**{**self.keywords, "hidden_states": states})
        first: Tensor = (out[0] if isinstance(out, tuple) else out)[:, -2]
        return first


@contextmanager
def _recorded(layers: nn.ModuleList) -> Iterator[list[_LayerCall]]:
    """Record how each layer is called while the block runs."""
    calls: list[_LayerCall] = []

    def record(layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        calls.append(_LayerCall(layer, arguments, keywords))

    hooks = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in layers]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _difference(model: PreTrainedModel, exact_attention: str, bidirectional: bool) -> float:
    window = getattr(model.config, "sliding_window", None)
    beyond = window + 7 if window and window <= 1024 else 33
    texts = _tokens(model, 1, 2, 9, 9, beyond)
    packed = run(model, texts, causal=not bidirectional)
    padded = padded_states(model, texts, exact_attention)
    return _movement(padded, packed)


def padded_states(model: PreTrainedModel, ids: Sequence[Sequence[int]], attention: str) -> Tensor:
    """Return the hidden states by transformers' own attention on a right-padded batch, ``[T, D]`` without padding."""
    longest = max(len(text) for text in ids)
    batch = torch.zeros(len(ids), longest, dtype=torch.long, device=model.device)
    mask = torch.zeros_like(batch)
    for row, text in enumerate(ids):
        batch[row, : len(text)] = torch.tensor(text, device=model.device)
        mask[row, : len(text)] = 1
    with _attention(model, attention):
        out = model(input_ids=batch, attention_mask=mask, use_cache=False)
    states: Tensor = out.last_hidden_state[mask.bool()]
    return states


@contextmanager
def _attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(NAME)
