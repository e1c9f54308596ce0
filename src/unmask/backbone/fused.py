"""Fused layers: the same numbers in fewer passes over memory, for inference on a CPU.

A decoder layer of the common shape (RMSNorm, rotary attention, RMSNorm, gated MLP, two residuals) is
computed here with joint projections (q, k, v in one matrix product; gate and up in another), residuals
added inside the matrix product, and rotation as one complex product. Weights are shared with the
model's own layers, not copied.

Whether a model has that shape is looked up in its modules, and the result is compared with the model's
own forward before it is used: a model that merely looks alike keeps its own layers.

Shapes: T tokens of a packed row, D hidden size, H query heads, K key/value heads, E head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu
from transformers import PreTrainedModel

from unmask.backbone.attention import attend
from unmask.backbone.layout import Layout
from unmask.backbone.scoring import Scoring

_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_HEAD_NORMS = {"q_norm", "k_norm"}
_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}


@dataclass(frozen=True)
class _Norm:
    weight: Tensor
    eps: float

    def __call__(self, states: Tensor) -> Tensor:
        return rms_norm(states, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True)
class _Work:
    """Room for the two largest products, used again by each layer: fresh memory costs a page fault every 4 kB."""

    qkv: Tensor
    gate_up: Tensor


@dataclass(frozen=True)
class _Layer:
    """One decoder layer's weights, joined, and the numbers of its attention."""

    norm1: _Norm
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: _Norm | None
    k_norm: _Norm | None
    out: Tensor
    norm2: _Norm
    gate_up: Tensor
    down: Tensor
    heads: int
    kv_heads: int
    head_dim: int
    scoring: Scoring

    def __call__(self, hidden_TD: Tensor, rotation_TE: Tensor, layout: Layout, work: _Work) -> None:
        """Update ``hidden_TD`` in place."""
        tokens = len(hidden_TD)
        torch.mm(self.norm1(hidden_TD), self.qkv.t(), out=work.qkv)
        if self.qkv_bias is not None:
            work.qkv.add_(self.qkv_bias)
        qkv = work.qkv.view(tokens, -1, self.head_dim)
        rotated = self._rotate(qkv[:, : self.heads + self.kv_heads], rotation_TE)
        query, key = torch.split(rotated, [self.heads, self.kv_heads], dim=1)
        value = qkv[:, self.heads + self.kv_heads :]
        attended = attend(query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1), layout, self.scoring)
        hidden_TD.addmm_(attended.reshape(tokens, -1), self.out.t())
        gate, up = torch.mm(self.norm2(hidden_TD), self.gate_up.t(), out=work.gate_up).chunk(2, dim=-1)
        hidden_TD.addmm_(silu(gate, inplace=True).mul_(up), self.down.t())

    @property
    def sizes(self) -> tuple[int, int]:
        """Outputs of the two joined products."""
        return self.qkv.shape[0], self.gate_up.shape[0]

    def _rotate(self, states: Tensor, rotation_TE: Tensor) -> Tensor:
        """Rotate queries and keys; their components come out in another, common order.

        Component i and i + E/2 form a complex number. Scores are sums over components, so an order
        that queries and keys share does not change them.
        """
        if self.q_norm is not None and self.k_norm is not None:
            query, key = torch.split(states, [self.heads, self.kv_heads], dim=1)
            states = torch.cat([self.q_norm(query), self.k_norm(key)], dim=1)
        half = self.head_dim // 2
        pairs = torch.complex(states[..., :half].contiguous(), states[..., half:].contiguous())
        return torch.view_as_real(pairs.mul_(rotation_TE[:, None])).flatten(-2)


class FusedStack:
    """A model's layers, fused; called like :meth:`unmask.backbone.backbone.Backbone.hidden`."""

    def __init__(self, model: PreTrainedModel, layers: Sequence[_Layer], norm: _Norm) -> None:
        self._embed: Any = model.get_input_embeddings()
        self._rotary: Any = model.rotary_emb
        self._layers = layers
        self._norm = norm

    def __call__(self, ids_T: Tensor, layout: Layout) -> Tensor:
        """Return the last hidden states, ``[T, D]``."""
        hidden_TD: Tensor = self._embed(ids_T)
        cos, sin = self._rotary(hidden_TD[None], layout.positions()[None])
        half = cos.shape[-1] // 2
        rotation_TE = torch.complex(cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous())
        work = _Work(*(hidden_TD.new_empty(len(hidden_TD), size) for size in self._layers[0].sizes))
        for layer in self._layers:
            layer(hidden_TD, rotation_TE, layout, work)
        return self._norm(hidden_TD)


def fuse(model: PreTrainedModel) -> FusedStack | None:
    """Return the fused form of ``model``, or None if it is not of the common shape.

    The model's own weights become views of the joined ones. The caller compares the two results.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32:
        return None
    if not all(hasattr(model, name) for name in ("layers", "norm", "rotary_emb")):
        return None
    shapes = [_has_common_shape(layer, model.config) for layer in model.layers]
    if not shapes or not all(shapes) or _norm(model.norm) is None:
        return None
    layers = [_join(layer, model.config) for layer in model.layers]
    if any(layer.sizes != layers[0].sizes for layer in layers):
        return None
    return FusedStack(model, layers, _require_norm(model.norm))


def _names(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()}


def _has_common_shape(layer: Any, config: Any) -> bool:
    if _names(layer) != _LAYER or _names(layer.mlp) != _MLP:
        return False
    attention, mlp = layer.self_attn, layer.mlp
    extra = _names(attention) - _ATTENTION
    linears = [getattr(attention, name, None) for name in sorted(_ATTENTION)]
    linears += [getattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj")]
    unbiased = [*linears[-3:], attention.o_proj]
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    norms += [getattr(attention, name) for name in extra & _HEAD_NORMS]
    return (
        extra in (set(), _HEAD_NORMS)
        and all(type(module) is nn.Linear for module in linears)
        and all(module.bias is None for module in unbiased)
        and all(_norm(module) is not None for module in norms)
        and config.hidden_act in ("silu", "swish")
    )


def _norm(module: Any) -> _Norm | None:
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float) or [name for name, _ in module.named_parameters()] != ["weight"]:
        return None
    return _Norm(module.weight.detach(), eps)


def _require_norm(module: Any) -> _Norm:
    norm = _norm(module)
    assert norm is not None
    return norm


def _joined(linears: Sequence[nn.Linear]) -> Tensor:
    """Join weights ``[out, in]`` along their outputs; the modules keep views of the result."""
    joined = torch.cat([module.weight.detach() for module in linears])
    sizes = [module.out_features for module in linears]
    for module, part in zip(linears, torch.split(joined, sizes), strict=True):
        module.weight.data = part
    return joined


def _join(layer: Any, config: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    biased = attention.q_proj.bias is not None
    head_dim = attention.head_dim
    return _Layer(
        norm1=_require_norm(layer.input_layernorm),
        qkv=_joined(projections),
        qkv_bias=torch.cat([module.bias.detach() for module in projections]) if biased else None,
        q_norm=_norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
        k_norm=_norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
        out=attention.o_proj.weight.detach(),
        norm2=_require_norm(layer.post_attention_layernorm),
        gate_up=_joined([mlp.gate_proj, mlp.up_proj]),
        down=mlp.down_proj.weight.detach(),
        heads=attention.q_proj.out_features // head_dim,
        kv_heads=attention.k_proj.out_features // head_dim,
        head_dim=head_dim,
        scoring=Scoring(
            scale=attention.scaling,
            window=getattr(attention, "sliding_window", getattr(config, "sliding_window", None)),
        ),
    )
