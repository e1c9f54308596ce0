"""A stream of texts → windows on their way through an engine → vectors in the order of the texts.

    texts ──► windows ──► tokens (threads) ──► the engine's queue ──► packs ──► workers
    vectors ◄── windows, in the order of the texts

A window for each device and one more are on their way at any time: enough for every worker to have a pack in work and
one waiting, and the most of a stream that is in memory. The first windows are small, so that all devices soon have
something to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import count
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask.engine.background import Background
from unmask.engine.patient import PatientEngine, Settled, Tally
from unmask.pipeline import WINDOW_TEXTS, take_window
from unmask.progress import Progress
from unmask.text import Text

#: Texts of the first window; each is twice as large as the one before it, up to the pipeline's.
FIRST_WINDOW: Final = 256
#: Seconds between two looks at what is done, for the progress bar.
_LOOK: Final = 0.25


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A text without a vector.

    Attributes:
        index: its place among the texts.
        why: what its worker did, alone with it and again.
    """

    index: int
    why: str


class Feeding:
    """Feeds an engine; safe to call from several threads.

    Args:
        engine: running, and ready.
        background: the loop it runs in.
    """

    def __init__(self, engine: PatientEngine, background: Background) -> None:
        self._engine, self._background = engine, background
        self._most = len(engine.settings.devices) + 1
        self._callers = count()

    def windows(
        self, texts: Iterator[Text | None], bar: Progress, *, truncate: bool
    ) -> Iterator[tuple[NDArray[np.float32], list[Failure]]]:
        """Yield the vectors ``[n, D]`` float32 of a window at a time, in order, and its texts that have none.

        Args:
            texts: read in the caller's thread; None stands for a zero vector.
            bar: advanced by texts, and by tokens beside them.
            truncate: cut texts that are too long instead of raising.

        Raises:
            InputError, ModelUnavailableError, StoppingError: as :meth:`~unmask.engine.patient.PatientEngine.settle`.
        """
        caller, tally = str(next(self._callers)), Tally()
        size, first, more = FIRST_WINDOW, 0, True
        running: deque[tuple[int, Future[Settled]]] = deque()
        try:
            while more or running:
                while more and len(running) < self._most:
                    taken = take_window(texts, size)
                    more = bool(taken)
                    if taken:
                        work = self._engine.settle(taken, first=first, truncate=truncate, caller=caller, tally=tally)
                        running.append((first, self._background.start(work)))
                    size, first = min(2 * size, WINDOW_TEXTS), first + len(taken)
                if running:
                    begin, window = running[0]
                    settled = _shown(window, bar, tally)
                    lost = sorted(settled.failures.items())
                    yield settled.vectors, [Failure(index=begin + place, why=why) for place, why in lost]
                    running.popleft()
        finally:
            for _, window in running:
                window.cancel()


def _shown(window: Future[Settled], bar: Progress, tally: Tally) -> Settled:
    """Wait for a window, and show what is done meanwhile."""
    done = False
    while not done:
        done = bool(wait([window], timeout=_LOOK).done)
        texts, tokens = tally.texts, tally.tokens
        bar.advance(texts - bar.count, extra=tokens - bar.extra)
    return window.result()
