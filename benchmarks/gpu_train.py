"""Training on a GPU: our packed step and a padded one by turns, on the same rows of mixed lengths and the same weights.

The padded step is what the reference's does, written anew: LoRA by peft on the same linear layers, gradient
checkpointing, rows padded on the left to the longest of the batch, torch's attention; MNTP with the head at every
position; SimCSE with a forward pass for each view; autocast to bfloat16, the fastest that it offers. Both take
optimiser steps. Tokens are counted without padding.

Shapes: N rows, L tokens of the longest, D hidden size, V vocabulary.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gpu_shapes import padded_twin, random_model, twin
from gpu_texts import real_lengths
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from train_gpu import PackedStep, floor_of, peak_of, start_peak
from transformers import PreTrainedModel

from unmask.backbone.backbone import Backbone
from unmask.text import TokenizedText
from unmask.training.recipe import Mntp, SimCse, Stage

_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
#: What positions that are not predicted are labelled with.
_IGNORED = -100


def compare(
    fields: dict[str, Any],
    stages: Sequence[Stage],
    *,
    rounds: int,
    seed: int,
    device: torch.device,
    left: Callable[[], float],
) -> dict[str, Any]:
    """Let both sides take steps of each stage by turns, after one to warm up; fewer where time is short.

    Args:
        fields: of a Llama configuration.
        stages: whose batch and longest text are taken.
        rounds: timed steps a side.
        seed: of weights, rows and lengths.
        device: where.
        left: seconds that are left.
    """
    model = random_model(fields, device, seed=seed)
    return {stage.kind: _stage(model, fields, stage, rounds=rounds, seed=seed, left=left) for stage in stages}


def _stage(
    model: PreTrainedModel, fields: dict[str, Any], stage: Stage, *, rounds: int, seed: int, left: Callable[[], float]
) -> dict[str, Any]:
    device = model.device
    lengths = np.minimum(real_lengths(stage.batch, seed=seed), stage.max_length).tolist()
    drawn = np.random.default_rng(seed)
    rows = [drawn.integers(3, fields["vocab_size"], length).tolist() for length in lengths]
    backbone = Backbone(twin(model))
    padded, packed = PaddedStep(padded_twin(model), stage, seed=seed), PackedStep(stage, backbone, seed=seed)
    texts = [(TokenizedText(ids=row, start=0),) for row in rows]
    sides: dict[str, Callable[[int], float]] = {
        "unmask": lambda number: packed(texts, number).loss,
        "padded": lambda number: padded(rows),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peak: dict[str, int] = {}
    losses: dict[str, float] = {}
    for number in range(rounds + 1):
        if number > 1 and left() < sum(times[-1] for times in seconds.values()):
            break
        for name, step in sides.items():
            start_peak(device)
            begun = time.perf_counter()
            loss = step(number)
            if number:
                seconds[name].append(time.perf_counter() - begun)
            peak[name] = peak_of(device)
            losses.setdefault(name, loss)
    seen = lengths * (2 if isinstance(stage, SimCse) else 1)
    counted = floor_of(backbone, fields, stage, seen, repeats=max(rounds, 1))
    packed.close()
    return {
        "rows": len(rows),
        "tokens": sum(seen),
        "padded_tokens": max(lengths) * len(seen),
        "seconds": seconds,
        "share": {
            name: counted["operations"] / statistics.median(times) / counted["products_per_second"]
            for name, times in seconds.items()
        },
        "peak": peak,
        "first_loss": losses,
        **counted,
    }


class PaddedStep:
    """The padded step of a stage.

    Args:
        model: changed in place.
        stage: its settings.
        seed: of masks and dropout.
    """

    def __init__(self, model: PreTrainedModel, stage: Stage, *, seed: int) -> None:
        torch.manual_seed(seed)
        self._stage, self._device = stage, model.device
        self._embedding: Tensor = model.get_input_embeddings().weight
        for module in model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = stage.attention_dropout
        # The method has another name since transformers 5.20.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        lora = stage.lora
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(_TARGETS)
        )
        self._model = get_peft_model(model, config)
        self._model.train()
        self._parameters = [one for one in self._model.parameters() if one.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=stage.learning_rate)

    def __call__(self, rows: Sequence[Sequence[int]]) -> float:
        """Take a step, and return the loss when the device has done it."""
        ids_NL, mask_NL = self._padded(rows)
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            loss = (self._mntp if isinstance(self._stage, Mntp) else self._simcse)(ids_NL, mask_NL)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._parameters, self._stage.clip or float("inf"))
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return float(loss.detach())

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, rows))
        ids, mask = np.zeros((len(rows), longest), dtype=np.int64), np.zeros((len(rows), longest), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, longest - len(row) :] = row
            mask[number, longest - len(row) :] = 1
        return torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device)

    def _states(self, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        states_NLD: Tensor = self._model(input_ids=ids_NL, attention_mask=mask_NL, use_cache=False).last_hidden_state
        return states_NLD

    def _mntp(self, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        """Predict each masked token from the state of the one before it; the head works at every position."""
        assert isinstance(self._stage, Mntp)
        masked = (torch.rand(ids_NL.shape, device=self._device) < self._stage.mask_rate) & mask_NL.bool()
        states_NLD = self._states(ids_NL.masked_fill(masked, 0), mask_NL)
        logits_NLV = states_NLD[:, :-1] @ self._embedding.t()
        labels = ids_NL.masked_fill(~masked, _IGNORED)[:, 1:]
        return cross_entropy(logits_NLV.float().flatten(0, 1), labels.flatten(), ignore_index=_IGNORED)

    def _simcse(self, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        """Tell the second view of each row from those of the others."""
        assert isinstance(self._stage, SimCse)
        first, second = (normalize(self._mean(ids_NL, mask_NL), dim=-1) for _ in range(2))
        scores = first @ second.t() / self._stage.temperature
        return cross_entropy(scores, torch.arange(len(scores), device=self._device))

    def _mean(self, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        states_NLD, weight = self._states(ids_NL, mask_NL), mask_NL[..., None]
        return (states_NLD * weight).sum(dim=1).float() / weight.sum(dim=1)
