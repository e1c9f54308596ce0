"""Texts for the GPU benchmark: words of the standard library's docstrings, in texts of lengths that are asked for.

Nothing is downloaded: the tokenizer, a byte-level BPE, is learnt in seconds from the same docstrings and from source
files of the standard library. The words are real and in their order; the lengths of the mix are drawn.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from unmask.corpora import Entry

#: Tokens of the mix: most lengths are short, some long, as in the wild.
MEAN: Final = 130
SHORTEST, LONGEST = 8, 512
#: Spread of the logarithm of a length.
_SPREAD: Final = 0.8
_PAD, _EOS = "<pad>", "<eos>"


def learn_tokenizer(entries: Sequence[Entry], size: int, *, files: int) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE.

    Args:
        entries: docstrings to learn from.
        size: tokens of the vocabulary at most.
        files: source files of the standard library to learn from besides.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_PAD, _EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:files]
    texts = [entry.text for entry in entries] + [file.read_text(encoding="utf-8", errors="ignore") for file in sources]
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=_PAD,
        eos_token=_EOS,
        model_max_length=LONGEST,
        model_input_names=["input_ids", "attention_mask"],
    )


class Words:
    """The docstrings' words one after the other, and how many tokens each is: texts of a wanted length are cut out.

    A byte-level tokenizer cuts at white space first, so the tokens of a text are the sum of its words': the first one
    without the space before it.
    """

    def __init__(self, entries: Sequence[Entry], tokenizer: PreTrainedTokenizerFast) -> None:
        self._words = " ".join(entry.text for entry in entries).split()
        backend = tokenizer.backend_tokenizer
        kinds = sorted(set(self._words))
        first, later = (
            dict(
                zip(kinds, (len(one.ids) for one in backend.encode_batch([lead + kind for kind in kinds])), strict=True)
            )
            for lead in ("", " ")
        )
        self._first = np.array([first[word] for word in self._words])
        self._ends = np.cumsum([later[word] for word in self._words])

    def texts(self, lengths: Iterable[int], *, seed: int) -> list[str]:
        """Return a text of exactly each length, in tokens, from anywhere in the stream."""
        drawn = np.random.default_rng(seed)
        return [self._text(length, drawn) for length in lengths]

    def _text(self, length: int, drawn: np.random.Generator) -> str:
        most = int(np.searchsorted(self._ends, self._ends[-1] - 2 * length))
        while True:
            begin = int(drawn.integers(most))
            goal = self._ends[begin] + length - self._first[begin]
            end = int(np.searchsorted(self._ends, goal))
            if end >= begin and self._ends[end] == goal:
                return " ".join(self._words[begin : end + 1])


def real_lengths(count: int, *, seed: int) -> NDArray[np.int64]:
    """Return lengths in tokens, log-normal between :data:`SHORTEST` and :data:`LONGEST`, of mean :data:`MEAN`."""
    spread = np.exp(_SPREAD * np.random.default_rng(seed).standard_normal(count))
    middle = float(MEAN)
    lengths = spread
    for _ in range(20):
        lengths = np.clip(middle * spread, SHORTEST, LONGEST)
        middle *= MEAN / lengths.mean()
    return np.rint(lengths).astype(np.int64)


def lengths_of(mix: str, count: int, *, seed: int = 0) -> list[int]:
    """Return the lengths of a mix's texts in tokens; its name is a length, or ``real``."""
    lengths: list[int] = real_lengths(count, seed=seed).tolist() if mix == "real" else [int(mix)] * count
    return lengths


def mixes(words: Words, texts: Mapping[str, int], *, seed: int) -> dict[str, list[str]]:
    """Return the texts of each mix, by its name: a length in tokens, or ``real``."""
    return {name: words.texts(lengths_of(name, count), seed=seed) for name, count in texts.items()}
