"""How far each layer's states are from those of the causal base, token by token.

LLM2Vec (arXiv 2404.05961, section 5.2, Figure 5) compares a model's states with causal attention and, weights
unchanged, with bidirectional attention: cosine of the same token's states, by layer and position. Here the encoder,
after its training, is compared with the causal base as well, and figures are means over several texts.

Shapes: L layers (0 are the embeddings), T tokens of a row, P positions, S tokens drawn, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from unmask.backbone.backbone import Backbone
from unmask.backbone.bidirectional import decoder_layers, run, set_direction
from unmask.errors import InputError
from unmask.evaluation.analysis.sample import SEED, Sample

#: How many texts, the longest of the sample, and how many tokens of each.
TEXTS: Final = 24
POSITIONS: Final = 64
#: Tokens of one forward pass: the states of every layer are kept at once.
_ROW: Final = 512
#: Tokens drawn, whose cosines with one another make a layer's anisotropy.
_DRAWN: Final = 256


@dataclass(frozen=True, kw_only=True)
class Movement:
    """Cosine of the same token's states in a model and in its causal base; 1 is "as it was".

    Attributes:
        layers: mean over all tokens, by layer; layer 0 are the embeddings, the last one is what is pooled.
        positions: mean over texts, by layer and position.
    """

    layers: tuple[float, ...]
    positions: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What happened to the base's states, layer by layer.

    Attributes:
        base: what the encoder is compared with.
        texts: how many texts.
        tokens: how many tokens they have together.
        counts: how many texts reach each position.
        base_both_ways: the base with bidirectional attention, weights unchanged.
        encoder: this encoder.
        anisotropy: mean cosine of tokens of different texts, by layer, of each of the three models
            (K. Ethayarajh, EMNLP 2019, section 3.3).
    """

    base: str
    texts: int
    tokens: int
    counts: tuple[int, ...]
    base_both_ways: Movement
    encoder: Movement
    anisotropy: dict[str, tuple[float, ...]]


def layer_states(backbone: Backbone, ids: Sequence[Sequence[int]]) -> Tensor:
    """Return the states of every layer for a packed row of texts, ``[L + 1, T, D]`` float32.

    Row 0 are the embeddings, row i the output of layer i; the last row is taken behind the final norm, as
    transformers' ``output_hidden_states`` does. The model's own layers run, never the fused ones.
    """
    # Two backbones may share one model.
    set_direction(backbone.model.config, bidirectional=backbone.bidirectional)
    layers = decoder_layers(backbone.model, backbone.config.num_hidden_layers)
    with torch.inference_mode(), _kept(layers) as states:
        last = run(backbone.model, ids, causal=not backbone.bidirectional)
        return torch.stack([*states[:-1], last]).float()


@contextmanager
def _kept(layers: nn.ModuleList) -> Iterator[list[Tensor]]:
    """Keep a copy of the first layer's input and of each layer's output, ``[T, D]``, while the block runs."""
    states: list[Tensor] = []

    def keep_input(layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        states.append((arguments[0] if arguments else keywords["hidden_states"])[0].clone())

    def keep_output(layer: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        states.append((output[0] if isinstance(output, tuple) else output)[0].clone())

    hooks = [layers[0].register_forward_pre_hook(keep_input, with_kwargs=True)]
    hooks += [layer.register_forward_hook(keep_output) for layer in layers]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def movement(encoder: Backbone, base: Backbone, sample: Sample, *, name: str) -> Layers:
    """Compare an encoder's states, and the base's with bidirectional attention, with those of the causal base.

    Args:
        encoder: the encoder's backbone.
        base: its base, causal.
        sample: texts; the longest :data:`TEXTS` of them count, to :data:`POSITIONS` tokens.
        name: of the base.

    Raises:
        InputError: base and encoder do not have the same layers.
    """
    check_same_shape(encoder, base, name)
    models = {"base, causal": base, "base, both ways": Backbone(base.model), "this encoder": encoder}
    ids = [sample.tokenized[i].ids[:POSITIONS] for i in sample.longest(TEXTS)]
    tokens = sum(map(len, ids))
    drawn = np.sort(np.random.default_rng(SEED).permutation(tokens)[:_DRAWN])
    found = [_compare(list(models.values()), row, at, drawn) for at, row in _rows(ids)]
    cosines = torch.cat([part for part, _ in found], dim=-1).numpy()  # [2, L + 1, tokens]
    states = torch.cat([part for _, part in found], dim=2)  # [3, L + 1, S, D]
    text = np.repeat(np.arange(len(ids)), [len(each) for each in ids])[drawn]
    position = np.concatenate([np.arange(len(each)) for each in ids])
    both_ways, trained = (_movement(each, position) for each in cosines)
    return Layers(
        base=name,
        texts=len(ids),
        tokens=tokens,
        counts=tuple(np.bincount(position).tolist()),
        base_both_ways=both_ways,
        encoder=trained,
        anisotropy={
            model: tuple(_mean_cosine(layer, text) for layer in layers)
            for model, layers in zip(models, states, strict=True)
        },
    )


def check_same_shape(encoder: Backbone, base: Backbone, name: str) -> None:
    """Raise :class:`InputError` unless both have as many layers, of the same size, over the same vocabulary."""
    names = ("num_hidden_layers", "hidden_size", "vocab_size")
    wanted, got = ({key: getattr(each.config, key) for key in names} for each in (encoder, base))
    if wanted != got:
        raise InputError(
            f"base {name} has {_shape(got)}; expected {_shape(wanted)}, as the encoder. Give the base it was "
            "trained from."
        )


def _shape(sizes: dict[str, int]) -> str:
    return f"{sizes['num_hidden_layers']} layers of {sizes['hidden_size']} over {sizes['vocab_size']} tokens"


def _rows(ids: list[list[int]]) -> Iterator[tuple[int, list[list[int]]]]:
    """Yield texts for one forward pass after the other, each with the number of tokens before it."""
    lengths = [0, *map(len, ids)]
    ends = np.cumsum(lengths)
    cuts = [0, *(i for i in range(1, len(ids)) if ends[i] // _ROW != ends[i + 1] // _ROW), len(ids)]
    yield from ((int(ends[first]), ids[first:last]) for first, last in pairwise(cuts) if first < last)


def _compare(
    models: Sequence[Backbone], ids: list[list[int]], at: int, drawn: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Return cosines with the first model, ``[models - 1, L + 1, T]``, and the drawn tokens' unit states."""
    first, *others = (layer_states(model, ids) for model in models)
    here = torch.from_numpy(drawn[(drawn >= at) & (drawn < at + first.shape[1])] - at).to(first.device)
    moved = torch.stack([cosine_similarity(states, first, dim=-1) for states in others])
    states = torch.stack([normalize(states[:, here], dim=-1) for states in (first, *others)])
    return moved.cpu(), states.cpu()


def _movement(cosine_LT: NDArray[np.float32], position_T: NDArray[np.int64]) -> Movement:
    counts = np.bincount(position_T)
    by_position = [np.bincount(position_T, weights=row) / counts for row in cosine_LT]
    return Movement(
        layers=tuple(float(row.mean(dtype=np.float64)) for row in cosine_LT),
        positions=tuple(tuple(row.tolist()) for row in by_position),
    )


def _mean_cosine(states_SD: Tensor, text_S: NDArray[np.int64]) -> float:
    """Return the mean cosine of unit states that belong to different texts."""
    different = text_S[:, None] != text_S[None, :]
    return float((states_SD @ states_SD.T).numpy()[different].mean(dtype=np.float64))
