"""Which rows each step trains on: a pure function of the rows, the batch size, the seed and the step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.errors import InputError
from unmask.training.data.rows import Rows


class Batches:
    """Row numbers of every step's batch, in seeded order.

    An epoch takes each row once at most, in an order of its own; the rows that fill no batch wait for the next
    epoch. Nothing is consumed: to resume at step n, ask for step n. Of one epoch the order is kept, 8 bytes a row.

    Args:
        rows: the training rows.
        batch: rows in a batch, those of all processes together.
        seed: of the order; 0 or more.
        homogeneous: take each batch from one source. Sources come in proportion to their rows; those that
            fill no batch are left out.

    Attributes:
        per_epoch: batches in an epoch.
        left_out: the rows of each source, by its index, that is left out for being smaller than a batch.

    Raises:
        InputError: there are fewer rows than a batch takes, or an argument is out of range.
    """

    def __init__(self, rows: Rows, *, batch: int, seed: int, homogeneous: bool) -> None:
        if batch < 1 or seed < 0:
            raise InputError(f"batch is {batch} and seed is {seed}; expected at least 1 and at least 0.")
        pools = _by_group(rows.groups) if homogeneous else {0: np.arange(len(rows))}
        self._batch, self._seed = batch, seed
        self._pools = [pool for pool in pools.values() if len(pool) >= batch]
        self.per_epoch = sum(len(pool) // batch for pool in self._pools)
        if not self._pools:
            most = f", {max(map(len, pools.values())):,} at most of one source," if homogeneous else ""
            raise InputError(
                f"There are {len(rows):,} rows{most} and a batch takes {batch:,}; expected at least one whole batch. "
                "Use a smaller batch, or more data."
            )
        self.left_out = {group: len(pool) for group, pool in pools.items() if len(pool) < batch}
        self._current = (0, self._order(0))

    def indices(self, step: int) -> NDArray[np.int64]:
        """Return the row numbers, ``[batch]``, of global step ``step``, counted from 0."""
        if step < 0:
            raise InputError(f"step is {step}; expected 0 or more.")
        epoch, place = divmod(step, self.per_epoch)
        if self._current[0] != epoch:
            self._current = (epoch, self._order(epoch))
        chosen: NDArray[np.int64] = self._current[1][place]
        return chosen

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Return the row numbers of an epoch's batches, ``[per_epoch, batch]``."""
        random = np.random.default_rng([self._seed, epoch])
        cut = [random.permutation(pool)[: len(pool) // self._batch * self._batch] for pool in self._pools]
        order: NDArray[np.int64] = random.permutation(np.concatenate(cut).reshape(-1, self._batch))
        return order


def _by_group(groups: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Return the row numbers of each group."""
    order = np.argsort(groups, kind="stable")
    names, firsts = np.unique(groups[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, firsts[1:]), strict=True))
