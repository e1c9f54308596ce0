"""A backbone in training: LoRA on it, dropout in its attention, packed rows in, states or vectors out.

Shapes: T tokens of a packed row, N texts, D hidden size, M positions read, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unmask.backbone.backbone import Backbone
from unmask.backbone.head import read_head
from unmask.backbone.layout import Layout
from unmask.errors import InputError
from unmask.pipeline import packed
from unmask.pooling import Pooling, pool
from unmask.text import TokenizedText
from unmask.training.lora import Lora, attach, find_targets

#: Where an LM head's logits are changed after the product: attribute of the configuration → how.
_LOGITS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "final_logit_softcapping": lambda logits, cap: torch.tanh(logits / cap) * cap,  # Gemma 2
    "logits_scaling": lambda logits, scale: logits / scale,  # Granite
    "logit_scale": lambda logits, scale: logits * scale,  # Cohere
}


class Trainee(nn.Module):
    """What is trained: a backbone whose LoRA alone has gradients.

    Args:
        backbone: changed in place: LoRA on its linear layers, its fused layers given up.
        lora: the adapter to train.
        attention_dropout: share of attention weights dropped in training.
        checkpointing: compute each layer again in backward instead of keeping its states.
        new_mask: learn a vector for one token more than the vocabulary has: the mask of MNTP.

    Attributes:
        trainable: number of trained parameters.
        checkpointing: whether layers are computed again in backward.
    """

    def __init__(
        self,
        backbone: Backbone,
        lora: Lora,
        *,
        attention_dropout: float = 0.0,
        checkpointing: bool = False,
        new_mask: bool = False,
    ) -> None:
        super().__init__()
        targets, dropping = _targets(backbone, lora), _dropping(backbone.model, attention_dropout)
        backbone.use_own_layers()
        self.backbone = backbone
        self.model = backbone.model
        self.trainable = attach(self.model, lora, targets)
        self.mask_vector: nn.Parameter | None = None
        if new_mask:
            self.mask_vector = nn.Parameter(self._mean_token())
            self.trainable += self.mask_vector.numel()
        for layer in dropping:
            layer.attention_dropout = attention_dropout
        self.checkpointing = checkpointing
        if checkpointing:
            _checkpoint(self.model)

    @property
    def _embedding(self) -> nn.Embedding:
        return cast("nn.Embedding", self.model.get_input_embeddings())

    @torch.no_grad()
    def _mean_token(self) -> Tensor:
        """Return the mean of what the tokens are embedded as, ``[D]`` float32; some families scale their weights."""
        every = torch.arange(self._embedding.num_embeddings, device=self._embedding.weight.device)
        embedded: Tensor = self._embedding(every)
        return embedded.mean(dim=0, dtype=torch.float32)

    @property
    def parameters_trained(self) -> list[nn.Parameter]:
        """The parameters that have gradients, in a fixed order."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, ids_T: Tensor, lengths: Sequence[int], pick: Callable[[Tensor], Tensor]) -> Tensor:
        """Run a packed row and return what ``pick`` takes from its states ``[T, D]``.

        Everything passes through this one call, so that wrappers for several devices see it.
        """
        layout = Layout(tuple(lengths), causal=not self.backbone.bidirectional)
        if self.mask_vector is None:
            return pick(self.backbone.hidden(ids_T, layout))
        is_mask = ids_T == self._embedding.num_embeddings
        embedded = self._embedding(ids_T.masked_fill(is_mask, 0))
        embedded = torch.where(is_mask[:, None], self.mask_vector.to(embedded.dtype), embedded)
        return pick(self.backbone.hidden_of(embedded, layout))

    def head(self, source: Path) -> Callable[[Tensor], Tensor]:
        """Return the LM head of the base in ``source``: states ``[m, D]`` → logits ``[m, V]``."""
        weight, bias = read_head(self.backbone, source)
        changes = [
            (change, float(value))
            for name, change in _LOGITS.items()
            if (value := getattr(self.backbone.config, name, None)) is not None
        ]

        def logits_of(states: Tensor) -> Tensor:
            logits = linear(states, weight, bias)
            for change, value in changes:
                logits = change(logits, value)
            return logits

        return logits_of


def embed(model: Callable[..., Tensor], texts: Sequence[TokenizedText], mode: Pooling, device: torch.device) -> Tensor:
    """Return one vector a text, ``[N, D]`` float32, in the order given.

    Texts of equal length lie next to each other in the row, so that attention runs over few groups.
    """
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index].ids))
    ids_T, lengths = packed([texts[index] for index in order], device)
    starts = torch.tensor([texts[index].start for index in order], device=device)
    sizes = torch.tensor(lengths, device=device)
    vectors = model(ids_T, lengths, lambda hidden_TD: pool(hidden_TD, lengths=sizes, starts=starts, mode=mode))
    return vectors[torch.tensor(np.argsort(order), device=device)]


def _checkpoint(model: Any) -> None:
    """Let each layer be computed again in backward; the method has another name since transformers 5.20."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def check_trainable(backbone: Backbone, lora: Lora, *, attention_dropout: float) -> None:
    """Refuse what :class:`Trainee` would refuse; nothing is changed.

    Raises:
        InputError: the model has no layers to put the adapter on, or no attention that drops.
    """
    find_targets(backbone.model, _targets(backbone, lora))
    _dropping(backbone.model, attention_dropout)


def _targets(backbone: Backbone, lora: Lora) -> tuple[str, ...]:
    if backbone.float8:
        raise InputError("A model in fp8 has no weights to train on. Load it in 'bfloat16'.")
    targets = lora.targets or (backbone.family.lora_targets if backbone.family else None)
    if targets is None:
        raise InputError(
            f"Models of type {backbone.config.model_type!r} are not known to Unmask; name the linear layers to "
            "train in lora.targets."
        )
    return targets


def _dropping(model: Any, rate: float) -> list[Any]:
    """Return the modules whose dropout of attention weights transformers hands to the attention function in training.

    Raises:
        InputError: some layers have none, though ``rate`` asks for it.
    """
    layers = [module for module in model.modules() if hasattr(module, "attention_dropout")]
    if rate and len(layers) < model.config.num_hidden_layers:
        raise InputError(
            f"{type(model).__name__} has dropout in the attention of {len(layers)} of its "
            f"{model.config.num_hidden_layers} layers; expected all. Set attention_dropout to 0 and use lora.dropout."
        )
    return layers
