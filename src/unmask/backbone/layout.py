"""How texts lie in a packed row, and the same as tensors, for kernels that read it on the device.

Shapes: T tokens of a row, N texts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from unmask.transfers import to_device

_T = TypeVar("_T")


@dataclass(frozen=True)
class OnDevice:
    """A layout as tensors on a device.

    Attributes:
        positions: each token's position in its own text, ``[T]`` int64.
        texts: which text each token belongs to, ``[T]`` int32.
        bounds: where texts begin, and at last where they end, ``[N + 1]`` int32.
    """

    positions: Tensor
    texts: Tensor
    bounds: Tensor


@dataclass(frozen=True)
class Layout:
    """How texts lie in a packed row: their lengths in order, and whether attention is causal."""

    lengths: tuple[int, ...]
    causal: bool = False
    runs: tuple[tuple[int, int, int], ...] = field(init=False, repr=False)
    """``(first token, number of texts, their length)`` of each run of equal lengths."""
    _made: dict[Hashable, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        runs, begin = [], 0
        for length, group in groupby(self.lengths):
            count = len(list(group))
            runs.append((begin, count, length))
            begin += count * length
        object.__setattr__(self, "runs", tuple(runs))

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(self.lengths)

    def positions(self) -> Tensor:
        """Return each token's position in its own text, ``[T]`` int64."""
        return self.on(torch.device("cpu")).positions

    def on(self, device: torch.device) -> OnDevice:
        """Return the layout as tensors on ``device``, sent there in one copy."""
        return self.once(("on", device), lambda: self._to(device))

    def once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return what ``make`` made when it was first asked for under ``key``: all layers share it."""
        if key not in self._made:
            self._made[key] = make()
        made: _T = self._made[key]
        return made

    def _to(self, device: torch.device) -> OnDevice:
        lengths = np.asarray(self.lengths)
        ends = np.cumsum(lengths)
        count, tokens = len(lengths), int(ends[-1])
        row = np.empty(2 * tokens + count + 1, dtype=np.int32)
        row[:tokens] = np.arange(tokens) - np.repeat(ends - lengths, lengths)
        row[tokens : 2 * tokens] = np.repeat(np.arange(count), lengths)
        row[2 * tokens] = 0
        row[2 * tokens + 1 :] = ends
        sent = to_device(torch.from_numpy(row), device)
        positions, texts, bounds = torch.split(sent, [tokens, tokens, count + 1])
        return OnDevice(positions.long(), texts, bounds)
