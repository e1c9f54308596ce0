"""How a batch is shared: between processes, then between passes; how passes are run, and what seeds them.

Every process is told of the whole batch and takes its part of it, so that all agree without asking. A pass is what
a device takes at once; a processor takes several, a core each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from unmask.backbone.dropout import drawing_from
from unmask.cores import side_by_side
from unmask.packing import plan
from unmask.training.trainee import Trainee

_Row = TypeVar("_Row")
_Rest = TypeVar("_Rest")

#: Tokens of a pass of which several run side by side. The same for every number of cores: so are dropout's draws.
TOKENS_A_CORE: Final = 512


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

    @property
    def side_by_side(self) -> bool:
        """Whether passes run at once: in one process on a CPU, unless layers are computed again, and draw again."""
        alone = self.accelerator.num_processes == 1
        return alone and self.device.type == "cpu" and not self.trainee.checkpointing

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
            usual: most tokens of one pass, by device; of passes side by side, at most :data:`TOKENS_A_CORE`.

        Returns:
            Lists of indices into this process's texts; together they name each once.
        """
        orders = [np.argsort(-np.asarray(own), kind="stable") for own in lengths]
        longest = np.max([np.asarray(own)[order] for own, order in zip(lengths, orders, strict=True)], axis=0)
        own = orders[self.accelerator.process_index]
        # These lengths fall, so plan leaves them in their order.
        most = self.tokens_of(usual)
        most = min(most, TOKENS_A_CORE) if self.side_by_side else most
        return [own[places].tolist() for places in plan(longest.tolist(), most)]

    def draw_from(self, step: int, number: int) -> None:
        """Seed torch for a pass of a step: what dropout draws from."""
        torch.manual_seed(self._seed(step, number))

    def forward(self, step: int, jobs: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
        """Run the forward passes of a step side by side; called again, each draws the same again."""
        return list(side_by_side([partial(self._drawing, step, *job) for job in enumerate(jobs)]))

    def backward(self, step: int, jobs: Sequence[Callable[[], tuple[Tensor, _Rest]]]) -> list[_Rest]:
        """Run passes and add their gradients up.

        Args:
            step: number of the step.
            jobs: a pass each → the scalar that is to be propagated back, and anything else.

        Returns:
            What else each pass gave.
        """
        if self.side_by_side:
            return self._backward_side_by_side(step, jobs)
        passes, rests = Passes(self, len(jobs)), []
        for number, job in enumerate(jobs):
            self.draw_from(step, number)
            passes.next()
            scalar, rest = job()
            self.accelerator.backward(scalar)
            rests.append(rest)
        return rests

    def _backward_side_by_side(self, step: int, jobs: Sequence[Callable[[], tuple[Tensor, _Rest]]]) -> list[_Rest]:
        parameters = self.trainee.parameters_trained

        def run(number: int, job: Callable[[], tuple[Tensor, _Rest]]) -> tuple[tuple[Tensor | None, ...], _Rest]:
            scalar, rest = self._drawing(step, number, job)
            return torch.autograd.grad(scalar, parameters, allow_unused=True), rest

        rests = []
        # Added up in order, sums do not depend on which pass ends first.
        for gradients, rest in side_by_side([partial(run, *job) for job in enumerate(jobs)]):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            rests.append(rest)
        return rests

    def _drawing(self, step: int, number: int, job: Callable[[], _Rest]) -> _Rest:
        with drawing_from(torch.Generator().manual_seed(self._seed(step, number))):
            return job()

    def _seed(self, step: int, number: int) -> int:
        return seed_of(self.seed, step, self.accelerator.process_index, number)

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
