"""The floor of encoding: seconds that no version can be faster than, from counted work and measured rates.

    the larger of  operations ÷ operations a second of the model's own products  and  bytes ÷ bytes a second of a copy

Counted, a multiply-add as two: the linear layers' products, 2·I·O a token, and attention's, Q·K and P·V, 4·A·L² a
text and layer. Both at the rate of the linear layers' products, which attention does not reach. Bytes: the layers'
weights once a pack; of what lies between products, each tensor written once and read once. Left out: embeddings, norms,
rotation, gate, softmax, pooling, tokenising, copies to and from the device, and all waiting.

Shapes: I inputs, O outputs of a layer, D hidden size, A width of all query heads, K of all key heads,
L tokens of a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from train_floor import Shape

#: Bytes of a weight in each of our formats; states are of two bytes in both.
WEIGHT_BYTES = {"bf16": 2, "fp8": 1}
_STATE_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class Work:
    """What encoding some texts takes.

    Attributes:
        linear: operations of the linear layers.
        attention: operations of attention.
        weights: numbers read as weights, all packs together.
        states: numbers written and read between products.
    """

    linear: float
    attention: float
    weights: float
    states: float

    @classmethod
    def of(cls, shape: Shape, config: Any, lengths: Sequence[int], *, packs: int) -> Self:
        """Count.

        Args:
            shape: of the model, as the training benchmark counts it.
            config: of the model.
            lengths: tokens of each text.
            packs: forward passes that they take.
        """
        tokens, size = sum(lengths), sum(layer.inputs * layer.outputs for layer in shape.linears)
        keys = shape.attention * config.num_key_value_heads // config.num_attention_heads
        # Out of q, k and v; out of attention; out of o; of gate and up, joined; out of down.
        between = (
            (shape.attention + 2 * keys) + shape.attention + shape.hidden + config.intermediate_size + shape.hidden
        )
        return cls(
            linear=2.0 * size * tokens,
            attention=4.0 * shape.layers * shape.attention * sum(length * length for length in lengths),
            weights=float(size * packs),
            states=2.0 * between * shape.layers * tokens,
        )

    def as_dict(self) -> dict[str, float]:
        """Return it as plain data."""
        return asdict(self)

    def seconds(self, form: str, rates: Mapping[str, float], bandwidth: float) -> float:
        """Return the floor.

        Args:
            form: ``bf16`` or ``fp8``, that of the linear layers; attention is always in bf16.
            rates: operations a second, by form.
            bandwidth: bytes a second of a copy, those read and those written.
        """
        computing = self.linear / rates[form] + self.attention / rates["bf16"]
        return max(computing, (self.weights * WEIGHT_BYTES[form] + self.states * _STATE_BYTES) / bandwidth)
