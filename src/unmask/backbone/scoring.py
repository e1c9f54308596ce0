"""What a layer asks of attention besides its queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Scoring:
    """How scores become weights.

    Attributes:
        scale: factor of the scores, ``E ** -0.5`` if None, E the head dimension.
        window: W. Causal: a token sees itself and the W - 1 before it. Bidirectional: all with |i - j| ≤ W
            (transformers' ``sliding_window_bidirectional_overlay``). None: all of the text.
        softcap: scores become ``softcap * tanh(scores / softcap)`` (Gemma 2).
        sinks: one learned logit a head that takes weight and gives nothing, ``[H]`` (GPT-OSS).
        dropout: probability that a weight is dropped.
    """

    scale: float | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    dropout: float = 0.0

    def flash_window(self, *, causal: bool) -> tuple[int, int]:
        """Return how many tokens to the left and right a token sees, as flash kernels count them; -1: all."""
        if self.window is None:
            return (-1, 0) if causal else (-1, -1)
        return (self.window - 1, 0) if causal else (self.window, self.window)
