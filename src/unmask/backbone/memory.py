"""How many tokens fit into one forward pass, planned when a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from unmask.backbone.backbone import Backbone
from unmask.backbone.layout import Layout

#: Tokens of one forward pass, where memory allows it (experiments/LOG.md: on a CPU fewer cost products their
#: efficiency, more gain nothing).
BUDGETS: Final = {"cpu": 2048, "cuda": 32768, "mps": 4096}
#: The smallest budget that is planned; memory that does not suffice for it does not suffice for work.
LEAST: Final = 256
#: Share of the free memory that is planned with: the allocator loses some to gaps, and other processes come and go.
SHARE: Final = 0.9
#: Tokens of the two passes that are measured, and of each of their texts.
_MEASURED: Final = (512, 1024)
_TEXT: Final = 128


def largest_budget(peak_of: Callable[[int], int], free: int, largest: int) -> int:
    """Return the largest budget whose pass fits into memory.

    The memory of a pass grows with its tokens: packed attention keeps no scores. Two small passes tell how fast.

    Args:
        peak_of: bytes that a pass of so many tokens takes at its peak.
        free: bytes that are free.
        largest: the budget where memory is no matter, a power of two.

    Returns:
        A power of two from :data:`LEAST` to ``largest``.
    """
    few, many = _MEASURED
    less, more = peak_of(few), peak_of(many)
    slope = max(0, more - less) / (many - few)
    fixed = max(0.0, more - slope * many)
    budget = largest
    while budget > LEAST and fixed + slope * budget > SHARE * free:
        budget //= 2
    return budget


def budget_for(backbone: Backbone) -> int:
    """Return the tokens of one forward pass on the device that a backbone lies on."""
    device = backbone.device
    largest = BUDGETS.get(device.type, BUDGETS["cpu"])
    if device.type != "cuda":
        return largest
    _peak(backbone, LEAST)  # the first pass takes what is kept from then on, such as workspaces of products
    return largest_budget(lambda tokens: _peak(backbone, tokens), _free(device), largest)


@torch.inference_mode()
def _peak(backbone: Backbone, tokens: int) -> int:
    """Return the bytes that a pass through the model's own layers takes; compiled ones take less."""
    ids_T = torch.arange(tokens, device=backbone.device) % backbone.config.vocab_size
    layout = Layout((_TEXT,) * (tokens // _TEXT), causal=not backbone.bidirectional)
    before = torch.cuda.memory_allocated(backbone.device)
    torch.cuda.reset_peak_memory_stats(backbone.device)
    # Pooling adds the states in float32, twice.
    states = backbone.own_hidden(ids_T, layout).float()
    (states * 2).sum()
    return torch.cuda.max_memory_allocated(backbone.device) - before


def _free(device: torch.device) -> int:
    """Return the bytes that are free, those included that torch keeps and does not use."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept
