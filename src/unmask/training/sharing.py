"""How a batch is shared: between processes, between the passes that one device has room for; and what seeds them.

Every process is told of the whole batch and takes its part of it, so that all agree without asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from unmask.packing import plan
from unmask.training.trainee import Trainee

_Row = TypeVar("_Row")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every step works with.

    Attributes:
        trainee: what is trained.
        model: the same, as the accelerator wrapped it.
        accelerator: of the run.
        seed: of everything drawn.
        tokens: most tokens of one pass; None for what such a device usually holds.
    """

    trainee: Trainee
    model: Any
    accelerator: Accelerator
    seed: int
    tokens: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = self.accelerator.device
        return device

    def tokens_of(self, usual: dict[str, int]) -> int:
        """Return the most tokens of one pass."""
        return self.tokens or usual.get(self.device.type, usual["cpu"])

    def shares(self, rows: Sequence[_Row]) -> list[Sequence[_Row]]:
        """Return each process's part of a batch."""
        size = len(rows) // self.accelerator.num_processes
        return [rows[process * size :][:size] for process in range(self.accelerator.num_processes)]

    def passes(self, lengths: Sequence[Sequence[int]], usual: dict[str, int]) -> list[list[int]]:
        """Split this process's texts into passes: as many, of as many texts, as every other process.

        Where weights are sharded (FSDP) a pass gathers them, which takes all processes: one with fewer passes
        would leave the others waiting for ever.

        Args:
            lengths: tokens of each text, process by process; all have as many texts.
            usual: most tokens of one pass, by device.

        Returns:
            Lists of indices into this process's texts; together they name each once.
        """
        orders = [np.argsort(-np.asarray(own), kind="stable") for own in lengths]
        longest = np.max([np.asarray(own)[order] for own, order in zip(lengths, orders, strict=True)], axis=0)
        own = orders[self.accelerator.process_index]
        # These lengths fall, so plan leaves them in their order.
        return [own[places].tolist() for places in plan(longest.tolist(), self.tokens_of(usual))]

    def draw_from(self, step: int) -> None:
        """Seed torch for this step and process: what dropout draws from."""
        torch.manual_seed(seed_of(self.seed, step, self.accelerator.process_index))

    def total(self, *numbers: float) -> list[float]:
        """Return the sums of numbers over all processes."""
        if self.accelerator.num_processes == 1:
            return list(numbers)
        # On Apple's devices there is no float64.
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        summed: Tensor = self.accelerator.reduce(torch.tensor(numbers, dtype=kind, device=self.device))
        return [float(number) for number in summed]


class Passes:
    """Lets gradients be averaged over processes in the last of several backward passes only."""

    def __init__(self, run: Run, count: int) -> None:
        self._left = count
        self._unsynced = ExitStack()
        if count > 1:
            self._unsynced.enter_context(run.accelerator.no_sync(run.model))

    def next(self) -> None:
        """Say that the next forward pass with gradients begins."""
        self._left -= 1
        if self._left == 0:
            self._unsynced.close()


def seed_of(*numbers: int) -> int:
    """Return one seed made of several numbers, so that neighbouring steps draw nothing alike."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
