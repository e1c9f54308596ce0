"""An engine for one program's own texts: it refuses nothing for want of room, and a bad text costs no other.

What a server must not do, keep whoever asks waiting for as long as it takes, is what a program that encodes a file
wants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask.engine.dispatch import Call
from unmask.engine.engine import Engine
from unmask.errors import ModelColdError, ModelUnavailableError
from unmask.text import Text, TextTokenizer

#: Seconds between two looks at devices that load.
_LOOK: Final = 0.02


@dataclass
class Tally:
    """What is done of some texts, given-up ones included; written by the event loop, read by anyone."""

    texts: int = 0
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What became of some texts.

    Attributes:
        vectors: ``[n, D]`` float32, not normalised, in the order of the texts; zeros where there is none.
        failures: why workers failed on a text, alone and again, by its place.
    """

    vectors: NDArray[np.float32]
    failures: dict[int, str]


@dataclass(eq=False, kw_only=True)
class PatientCall(Call):
    """A request that goes on when a text of it is given up.

    Attributes:
        vectors: ``[n, D]`` float32 zeros, to be filled: the answer.
        rows: where each text's vector belongs in them.
        tally: what it counts in.
        failures: of texts that were given up, by their row.
    """

    vectors: NDArray[np.float32]
    rows: Sequence[int]
    tally: Tally
    failures: dict[int, str] = field(default_factory=dict)

    def fill(self, place: int, vector: NDArray[np.float32]) -> None:
        """Take the vector of a text."""
        self.vectors[self.rows[place]] = vector
        self._settle(place)

    def gave_up(self, place: int, why: str) -> None:
        """Note the failure, and go on."""
        self.failures[self.rows[place]] = why
        self._settle(place)

    def _settle(self, place: int) -> None:
        self.tally.texts += 1
        self.tally.tokens += self.lengths[place]
        self.settled(self.vectors)


class PatientEngine(Engine):
    """An engine of one model that waits where a server's would refuse, and tells what became of each text."""

    async def ready(self) -> tuple[TextTokenizer, int]:
        """Wait until the model is ready on every device; return what tokenises its texts, and its dimension.

        Raises:
            ModelUnavailableError: a device cannot have it; names it and says why.
        """
        (entry,) = self._loading.entries.values()
        while True:
            for device in self._devices:
                trouble = self._loading.trouble(device, entry)
                if trouble:
                    raise ModelUnavailableError(
                        f"{entry.settings.source} could not be loaded on {device.process.device}: {trouble}. "
                        "Mend it, or leave the device out."
                    )
            if entry.reading and entry.dimension and all(device.loaded for device in self._devices):
                return entry.reading.tokenizer, entry.dimension
            await asyncio.sleep(_LOOK)

    async def settle(
        self, texts: Sequence[Text | None], *, first: int, truncate: bool, caller: str, tally: Tally
    ) -> Settled:
        """Encode texts, however long it takes; one on which workers fail again and again costs no other.

        Args:
            texts: none of them blank; None stands for a vector of zeros.
            first: the number by which an error names the first of them.
            truncate: cut texts that are too long instead of raising.
            caller: whose they are: callers have equal shares.
            tally: counts what is done while it is done.

        Raises:
            InputError: as :meth:`tokenize`.
            ModelUnavailableError: no device can compute any more.
            StoppingError: the engine shuts down.
        """
        (entry,) = self._loading.entries.values()
        places = [place for place, text in enumerate(texts) if text is not None]
        tally.texts += len(texts) - len(places)
        with self._taking(), self._roster.using(entry):
            try:
                reading = await self._roster.ready(entry, inf)
                assert entry.dimension is not None
                vectors = np.zeros((len(texts), entry.dimension), dtype=np.float32)
                if not places:
                    return Settled(vectors=vectors, failures={})
                tokenize = partial(
                    reading.tokenizer.tokenize,
                    [text for text in texts if text is not None],
                    indices=[first + place for place in places],
                    truncate=truncate,
                )
                tokenized = await self._in_thread(tokenize)
                call = PatientCall(
                    model=entry.settings.weights,
                    caller=caller,
                    priority="realtime",
                    lengths=tuple(len(text.ids) for text in tokenized),
                    texts=tokenized,
                    answer=asyncio.get_running_loop().create_future(),
                    vectors=vectors,
                    rows=places,
                    tally=tally,
                )
                return Settled(vectors=await self._answered(call), failures=call.failures)
            except (ModelColdError, ModelUnavailableError) as error:
                why = entry.load.error or entry.read.error
                raise ModelUnavailableError(
                    f"No device can compute with {entry.settings.source} any more: {why}. Mend it, and start again."
                ) from error
