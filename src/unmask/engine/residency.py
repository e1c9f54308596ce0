"""Which weights lie in memory under a budget: the least recently used idle ones make room. Pure bookkeeping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable


class Residency:
    """What is in memory, or on its way there.

    Sizes are known once weights have been loaded. What was never loaded is let in unseen; when it has been measured,
    others make room.

    Args:
        limit: most bytes; None for no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._sizes: dict[Hashable, int] = {}
        self._users: Counter[Hashable] = Counter()
        self._resident: dict[Hashable, None] = {}
        """From the least to the most recently used."""

    def __contains__(self, weights: Hashable) -> bool:
        return weights in self._resident

    def resident(self) -> list[Hashable]:
        """Return what is in memory or on its way, the most recently used first."""
        return list(reversed(self._resident))

    def idle(self, weights: Hashable) -> bool:
        """Return whether nobody uses it now."""
        return not self._users[weights]

    def use(self, weights: Hashable) -> None:
        """Count one more user, until :meth:`release`."""
        self._users[weights] += 1
        if weights in self._resident:
            self._resident[weights] = self._resident.pop(weights)

    def release(self, weights: Hashable) -> list[Hashable]:
        """Count one user less; return what is to be unloaded because the memory was over its limit."""
        self._users[weights] -= 1
        if not self._users[weights]:
            del self._users[weights]
        return self._make_room(0, keep=None)

    def admit(self, weights: Hashable) -> list[Hashable] | None:
        """Let weights in.

        Returns:
            What is to be unloaded first. None: they do not fit beside what is in use; ask again after a release.
        """
        need = self._sizes.get(weights, 0)
        in_use = sum(self._sizes.get(each, 0) for each in self._resident if not self.idle(each))
        if self._limit is not None and in_use + need > self._limit:
            return None
        unload = self._make_room(need, keep=None)
        self._resident[weights] = None
        return unload

    def measured(self, weights: Hashable, size: int) -> list[Hashable]:
        """Note how many bytes loaded weights take; return what is to be unloaded for them."""
        self._sizes[weights] = size
        return self._make_room(0, keep=weights)

    def too_large(self, weights: Hashable) -> bool:
        """Return whether weights take more than all of the memory."""
        return self._limit is not None and self._sizes.get(weights, 0) > self._limit

    def remove(self, weights: Hashable) -> None:
        """Note that weights are not in memory."""
        self._resident.pop(weights, None)

    def _make_room(self, need: int, *, keep: Hashable) -> list[Hashable]:
        """Take idle weights off, least recently used first, until ``need`` more bytes fit."""
        removed: list[Hashable] = []
        if self._limit is None:
            return removed
        total = need + sum(self._sizes.get(each, 0) for each in self._resident)
        for each in list(self._resident):
            if total <= self._limit:
                break
            if each != keep and self.idle(each) and self._sizes.get(each):
                total -= self._sizes[each]
                del self._resident[each]
                removed.append(each)
        return removed
