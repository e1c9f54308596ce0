"""Compiled layers: each kind of decoder layer becomes a few fused kernels, for inference on a GPU.

torch's compiler fuses norms, rotation, gate and residuals of transformers' own layers, of whatever family. One layer
is compiled, and all of its kind share the result. What is compiled depends on the number of tokens alone: how texts
lie reaches attention past the compiler (:data:`unmask.backbone.attention.GIVEN`), and rows are padded to a few sizes.
The padding is texts like any other, whose states nobody reads.

Shapes: T tokens of a row, P tokens it is padded to, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from unmask.backbone.attention import GIVEN, given
from unmask.backbone.bidirectional import decoder_layers
from unmask.backbone.layout import Layout
from unmask.errors import UnsupportedModelError

#: Tokens that the smallest row is padded to; the others double it. So at most half of a row is padding, and a row that
#: was packed to a budget of such a size has hardly any.
SMALLEST: Final = 256
#: Tokens of a text of padding: short, since attention grows with the square.
_FILLER: Final = 64
#: Kinds of layers times sizes of rows that may be compiled; torch would stop at eight, and compute slowly unsaid.
_MOST: Final = 256


def room_for(tokens: int) -> int:
    """Return P, the size that a row of so many tokens is padded to."""
    return max(SMALLEST, 1 << (tokens - 1).bit_length())


def rooms(budget: int) -> list[int]:
    """Return every size that a row of up to ``budget`` tokens may be padded to."""
    sizes = [SMALLEST]
    while sizes[-1] < budget:
        sizes.append(2 * sizes[-1])
    return sizes


def padded(layout: Layout) -> Layout:
    """Return a layout with texts of padding behind its own, of :func:`room_for` tokens."""
    tokens = sum(layout.lengths)
    whole, rest = divmod(room_for(tokens) - tokens, _FILLER)
    return Layout(layout.lengths + (_FILLER,) * whole + ((rest,) if rest else ()), causal=layout.causal)


def filled(ids_T: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
    """Return a row with its padding behind it, ``[P]``, and the layout of both; a row of such a size as it is."""
    room = room_for(len(ids_T))
    if len(ids_T) == room:
        return ids_T, layout
    return torch.nn.functional.pad(ids_T, (0, room - len(ids_T))), padded(layout)


def compiled_layers(model: PreTrainedModel) -> CompiledLayers | None:
    """Return a model with its layers compiled, or None where torch was told not to (``TORCHDYNAMO_DISABLE=1``)."""
    config: Any = torch._dynamo.config
    return None if config.disable else CompiledLayers(model)


class CompiledLayers:
    """A model whose layers are compiled; called like :meth:`unmask.backbone.backbone.Backbone.hidden`.

    The compiled layers stand in the model while it is called; else its own do.

    Args:
        model: whose layers to compile; this happens when they are first called.
        backend: of ``torch.compile``.
    """

    def __init__(self, model: PreTrainedModel, backend: str = "inductor") -> None:
        self._model = model
        self._layers = decoder_layers(model, model.config.num_hidden_layers)
        # With graph breaks, what lies between two graphs would run as slowly as before, unseen.
        self._compiled: list[Any] = [
            torch.compile(layer, backend=backend, fullgraph=True, dynamic=False) for layer in self._layers
        ]

    def __call__(self, ids_T: Tensor, layout: Layout) -> Tensor:
        """Return the last hidden states, ``[T, D]``.

        Raises:
            UnsupportedModelError: torch cannot compile the layers.
        """
        tokens = len(ids_T)
        ids_T, layout = filled(ids_T, layout)
        positions = layout.on(ids_T.device).positions
        try:
            with given(layout), self._standing_in(), _limits():
                out = self._model(input_ids=ids_T[None], position_ids=positions[None], layout=GIVEN, use_cache=False)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise UnsupportedModelError(
                f"torch cannot compile the layers of this model: {str(error).strip().splitlines()[0]} It needs a C "
                "compiler and Triton. TORCHDYNAMO_DISABLE=1 in the environment runs them as they are, more slowly."
            ) from error
        states: Tensor = out.last_hidden_state[0, :tokens]
        return states

    @contextmanager
    def _standing_in(self) -> Iterator[None]:
        own = list(self._layers)
        try:
            for number, layer in enumerate(self._compiled):
                self._layers[number] = layer
            yield
        finally:
            for number, layer in enumerate(own):
                self._layers[number] = layer


def _limits() -> AbstractContextManager[None]:
    """Let the compiler keep all kinds and sizes, and raise where it would give up."""
    config: Any = torch._dynamo.config
    limits: AbstractContextManager[None] = config.patch(recompile_limit=_MOST, fail_on_recompile_limit_hit=True)
    return limits
