"""A worker without torch, which starts in no time and misbehaves when a text asks for it.

What a model does is said by its source: ``size=100 seconds=0.2 file=/a/path full=1 dies=3 marks=/a/folder query=w1``.
What a batch does is said by words in its texts; see :data:`WORDS`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from unmask.engine.settings import ModelSettings, Weights
from unmask.engine.tokens import Reading, packed
from unmask.engine.worker import Pending, serve
from unmask.errors import CheckpointError
from unmask.text import TextTokenizer

#: bad raises, die kills the process, hang never ends, nan gives no number, slow takes a fifth of a second, once kills
#: the process the first time only.
WORDS = ("[UNK]", "bad", "die", "hang", "nan", "slow", "once", *(f"w{number}" for number in range(200)))
IDS = {word: number for number, word in enumerate(WORDS)}
COMMAND = (sys.executable, __file__)


def vector(ids: Sequence[int] | NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the vector of a text."""
    numbers = np.asarray(ids, dtype=np.float32)
    return np.asarray([len(ids), numbers.sum(), numbers @ np.arange(len(ids)), 1], dtype=np.float32)


class LightModels:
    """Models that their sources describe."""

    def __init__(self, device: str, threads: int | None) -> None:
        print("libraries print what they like")  # noqa: T201

    def read(self, model: ModelSettings) -> bytes:
        """Return a tokenizer of one token a word."""
        backend: Any = Tokenizer(models.WordLevel(IDS, unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = TextTokenizer(backend, max_length=model.max_length or 512)
        own = _options(model.source).get("query")
        return packed(Reading(tokenizer=tokenizer, query_instruction=own))

    def load(self, weights: Weights) -> LightModel:
        """Do as the source says."""
        options = _options(weights.source)
        time.sleep(float(options.get("seconds", 0)))
        file = Path(options.get("file", __file__))
        if not file.exists():
            raise CheckpointError(f"There is no file {file.name}.")
        if options.get("full"):
            raise OSError(28, "No space left on device")
        if "dies" in options:
            die()
        return LightModel(int(options.get("size", 1)), options.get("marks"))

    def tidy(self) -> None:
        """Nothing is kept."""


def _options(source: str) -> dict[str, str]:
    return dict(option.split("=") for option in source.split())


class LightModel:
    """Vectors without a model."""

    def __init__(self, size: int, marks: str | None) -> None:
        self.size, self.dimension, self.budget = size, 4, 64
        self._marks = Path(marks) if marks else None

    def begin(self, ids: NDArray[np.int32], lengths: Sequence[int], starts: Sequence[int]) -> Pending:
        """Return what does as the words say."""
        return partial(self._vectors, ids, lengths, starts)

    def _vectors(self, ids: NDArray[np.int32], lengths: Sequence[int], starts: Sequence[int]) -> NDArray[np.float32]:
        found = [WORDS[number] for number in ids.tolist()]
        time.sleep(0.2 * found.count("slow"))
        if self._marks and "once" in found and not self._marks.exists():
            self._marks.touch()
            die()
        if "die" in found:
            die()
        if "hang" in found:
            time.sleep(1000)
        if "bad" in found:
            raise ValueError(f"texts of users: {found}")
        texts = np.split(ids, np.cumsum(lengths)[:-1])
        return np.stack([vector(text) * (np.nan if IDS["nan"] in text else 1) for text in texts])

    def warm_up(self) -> None:
        """Nothing is slow at first."""


def die() -> None:
    """End this process as the kernel's memory guard would."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve(LightModels, sys.argv[1:])
