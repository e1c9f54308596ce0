"""Dropout from sixteen random bits an element, which threads can draw at once, each from a generator of its own.

torch's functions draw from one generator of the device: with several threads, who gets which numbers would be chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import torch
from torch import Tensor

_STEPS: Final = 1 << 16
_generator: ContextVar[torch.Generator | None] = ContextVar("generator", default=None)


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let this thread's dropout draw from ``generator``, a CPU's; without, it draws from torch's of the device."""
    token = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(token)


def random_bits(shape: torch.Size, device: torch.device) -> Tensor:
    """Return sixteen random bits an element, int16."""
    words = torch.randint(
        -(1 << 63), (1 << 63) - 1, (-(-shape.numel() // 4),), device=device, generator=_generator.get()
    )
    return words.view(torch.int16)[: shape.numel()].view(shape)


def kept(bits: Tensor, rate: float, dtype: torch.dtype) -> Tensor:
    """Return 0 for the share ``rate`` of the elements, which is dropped, and 1 for the others, in ``dtype``.

    The rate is met to 1/65,536. Bits and a comparison into floats take a tenth of the time of ``bernoulli_`` on a
    CPU, where that took a fifth of a training step, and multiplying by the result a sixth of ``masked_fill``'s.
    """
    # 65,536 of 65,536 would be a number that 16 bits do not hold.
    least = min(round(rate * _STEPS), _STEPS - 1) - _STEPS // 2
    return torch.ge(bits, least, out=torch.empty(bits.shape, dtype=dtype, device=bits.device))


def dropped(x: Tensor, rate: float) -> Tensor:
    """Return ``x`` with the share ``rate`` of its elements dropped, and the others grown by ``1 / (1 - rate)``."""
    if not rate:
        return x
    return x * kept(random_bits(x.shape, x.device), rate, x.dtype).div_(1 - rate)
