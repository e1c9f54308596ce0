"""The backbone: an inner model of transformers on packed attention, proved when it is made."""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from unmask.backbone import attention, float8
from unmask.backbone.bidirectional import SAME, Proof, decoder_layers, prove, set_direction
from unmask.backbone.compiled import CompiledLayers, compiled_layers
from unmask.backbone.families import FAMILIES, Family, family_of
from unmask.backbone.fused import FusedStack, fuse
from unmask.backbone.layout import Layout
from unmask.errors import UnsupportedModelError

#: Texts of the first tokens of the vocabulary, special ones among them: where massive activations arise if they do.
_MANY: Final = (128,) * 4


class Backbone:
    """A decoder that reads packed rows of texts, both ways unless told otherwise.

    Attributes:
        model: the inner model of transformers, in evaluation mode.
        bidirectional: whether it sees both ways.
        family: the row of its model type, or None.
        proof: what the proofs measured when it was made.
        adapter: peft's wrapper around the last adapter, if that was kept apart.
        float8: of how many layers, the last ones, linear layers compute in eight bits; see :meth:`to_float8`.
    """

    def __init__(self, model: PreTrainedModel, *, bidirectional: bool = True, adapter: PeftModel | None = None) -> None:
        attention.register()
        self.model = model.eval()
        self.adapter = adapter
        self.bidirectional = bidirectional
        self.family: Family | None = family_of(model.config.model_type)
        set_direction(model.config, bidirectional=bidirectional)
        model.set_attn_implementation(attention.NAME)
        self.proof: Proof = self._prove()
        self.float8 = 0
        self._fast: FusedStack | CompiledLayers | None = None
        # At the first inference: training, saving and converting never come to it.
        self._to_quicken = True

    def _prove(self) -> Proof:
        if self.family:
            return prove(self.model, bidirectional=self.bidirectional)
        try:
            return prove(self.model, bidirectional=self.bidirectional, exact_attention="eager")
        except (
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            AttributeError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise UnsupportedModelError(
                f"Models of type {self.config.model_type!r} are not known to Unmask, and this one cannot be run on "
                f"packed attention: {str(error).splitlines()[0]}. Choose a base of a known family: "
                f"{', '.join(FAMILIES)}."
            ) from error

    def to_float8(self) -> None:
        """Round weights of linear layers to eight bits, for good: this is for encoding alone.

        Those of the layers up to the last that makes massive activations are kept; see :func:`float8.rises`.

        Raises:
            UnsupportedModelError: it has none that could be rounded.
        """
        names = (self.family or Family()).lora_targets
        layers = list(decoder_layers(self.model, self.config.num_hidden_layers))
        kept = float8.rises(layers, self._pass_over_many_tokens)
        float8.convert(layers[kept:], names)
        self.float8 = len(layers) - kept

    def _pass_over_many_tokens(self) -> None:
        ids_T = torch.arange(sum(_MANY), device=self.device) % self.config.vocab_size
        self.own_hidden(ids_T, Layout(_MANY, causal=not self.bidirectional))

    def _fast_form(self) -> FusedStack | CompiledLayers | None:
        """Return a faster form of the model if it has one that gives the same states; made when first asked for."""
        if self._to_quicken:
            # Joined in inference mode, weights that were made outside of it could no longer be trained. Compiling joins
            # none, and what is compiled outside of inference mode would be compiled once more within.
            within = self.device.type == "cuda" or any(weight.is_inference() for weight in self.model.parameters())
            with torch.inference_mode(mode=within), torch.no_grad():
                self._fast = self._quicken()
            self._to_quicken = False
        return self._fast

    def _quicken(self) -> FusedStack | CompiledLayers | None:
        fast = compiled_layers(self.model) if self.device.type == "cuda" else fuse(self.model)
        if fast is None:
            return None
        ids = (torch.arange(3, 53) * 97 % self.config.vocab_size).to(self.device)
        layout = Layout((1, 7, 7, 35), causal=not self.bidirectional)
        expected = self.own_hidden(ids, layout)
        difference = float((fast(ids, layout) - expected).abs().max() / expected.abs().max())
        return fast if difference < SAME[float8.FORMAT if self.float8 else self.dtype] else None

    def use_own_layers(self) -> None:
        """Give up the faster form for good: fused layers have the base's weights and would pass by an adapter."""
        self._fast, self._to_quicken = None, False

    @property
    def form(self) -> Literal["fused", "compiled", "own"]:
        """How inference runs: on joined projections, on compiled layers, or on the model's own layers."""
        fast = self._fast_form()
        if fast is None:
            return "own"
        return "compiled" if isinstance(fast, CompiledLayers) else "fused"

    @property
    def config(self) -> PreTrainedConfig:
        """The model's configuration, whose ``is_causal`` says what the model is."""
        config: PreTrainedConfig = self.model.config
        return config

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Number format in which the model computes."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def hidden(self, ids_T: Tensor, layout: Layout) -> Tensor:
        """Return the last hidden states of a packed row, ``[T, D]``.

        Args:
            ids_T: token ids of all texts, one behind the other, ``[T]`` int64 on the model's device.
            layout: where the texts lie; its direction must be the backbone's.
        """
        if not torch.is_grad_enabled() and (fast := self._fast_form()) is not None:
            return fast(ids_T, layout)
        return self.own_hidden(ids_T, layout)

    def hidden_of(self, embedded_TD: Tensor, layout: Layout) -> Tensor:
        """Return the last hidden states of a packed row of token embeddings, ``[T, D]``."""
        return self._run(layout, inputs_embeds=embedded_TD[None])

    def own_hidden(self, ids_T: Tensor, layout: Layout) -> Tensor:
        """Return what :meth:`hidden` does, by the model's own layers."""
        return self._run(layout, input_ids=ids_T[None])

    def _run(self, layout: Layout, **row: Tensor) -> Tensor:
        positions = layout.on(self.device).positions
        out = self.model(**row, position_ids=positions[None], layout=layout, use_cache=False)
        states: Tensor = out.last_hidden_state[0]
        return states

    def __getstate__(self) -> dict[str, Any]:
        """Return all attributes but the faster form, which shares the model's weights."""
        return {**self.__dict__, "_to_quicken": self._to_quicken or self._fast is not None, "_fast": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore attributes in a process that may not have registered the attention function."""
        attention.register()
        self.__dict__.update(state)
