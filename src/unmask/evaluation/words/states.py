"""The states of words: a frozen encoder's last hidden states, averaged over each word's tokens.

As in LLM2Vec (arXiv 2404.05961, section 3; ``experiments/run_word_task.py``): a word's state is the mean over the
positions of its tokens, ``own``; for a model trained with MNTP, which learnt to say from each position what the next
token is, the mean over the positions one before each of its tokens, ``before``.

What differs from there:

- The words are joined by single spaces and tokenised as one text, in the encoder's template, as this encoder reads
  texts everywhere else. The reference tokenises each word alone: where a tokenizer adds no space before a word, that
  runs the words together.
- A space that is a token of its own belongs to the word behind it, with every tokenizer. (So it is in the reference
  where the tokenizer marks the beginnings of words.)
- Where nothing stands before the first token, neither a BOS nor a template, it is read from its own position. The
  reference drops the word from the data; here all models answer for the same words.

Shapes: T tokens of a packed row, P positions that are read, W words, D dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.encoder import Encoder
from unmask.errors import InputError
from unmask.evaluation.words.conll import Sentence
from unmask.packing import plan
from unmask.text import Text, TokenizedText

Position = Literal["before", "own"]
POSITIONS: Final[tuple[Position, ...]] = get_args(Position)


def position_for(encoder: Encoder) -> Position:
    """Return where an encoder's words are read: ``before`` if it sees both ways and knows MNTP, else ``own``.

    Nothing in a checkpoint says how it was trained. What says it by custom, and is read here, is the name of an
    adapter or of the base: ``mntp`` as a part of it, as in ``LLM2Vec-Sheared-LLaMA-mntp-unsup-simcse`` or ``1-mntp``.
    """
    found = encoder.checkpoint
    names = [*found.merged, found.base_name or "", *(name for folder in found.adapters for name in _names(folder))]
    trained = any("mntp" in re.split(r"[^a-z0-9]+", name.lower()) for name in names)
    return "before" if trained and encoder.bidirectional else "own"


@torch.inference_mode()
def word_states(
    encoder: Encoder,
    sentences: Sequence[Sentence],
    position: Position,
    *,
    advance: Callable[[int, int], None] = lambda texts, tokens: None,
) -> list[NDArray[np.float32]]:
    """Return the states of the words of each sentence, ``[words, D]``.

    Sentences of like length share a forward pass; none is cut.

    Args:
        encoder: the frozen encoder.
        sentences: to read.
        position: where a word is read.
        advance: told after each forward pass how many sentences and tokens it had.

    Raises:
        InputError: the model gives what is no number; or, with file and line, a sentence is longer than the encoder's
            max_length, or the tokenizer leaves nothing of a word.
    """
    if position not in POSITIONS:
        raise InputError(f"words is {position!r}; expected one of {', '.join(POSITIONS)}.")
    texts = [" ".join(sentence.words) for sentence in sentences]
    tokenized = encoder.pipeline.tokenizer.tokenize([Text("", text) for text in texts], spans=True)
    read = [
        [np.maximum(own - (position == "before"), 0) for own in _positions(encoder, sentence, text)]
        for sentence, text in zip(sentences, tokenized, strict=True)
    ]
    states: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(sentences)
    for pack in plan([len(text.ids) for text in tokenized], encoder.pipeline.token_budget):
        hidden_TD = encoder.pipeline.hidden([tokenized[index] for index in pack])
        begins = np.cumsum([0, *(len(tokenized[index].ids) for index in pack[:-1])])
        words = [begin + own for begin, index in zip(begins, pack, strict=True) for own in read[index]]
        means_WD = _means(hidden_TD, words).cpu().numpy()
        ends = np.cumsum([len(read[index]) for index in pack])
        for index, part in zip(pack, np.split(means_WD, ends[:-1]), strict=True):
            states[index] = part
        if not np.isfinite(means_WD).all():
            raise InputError("The model gives words states with NaN or infinity. Check it, or load it in float32.")
        advance(len(pack), len(hidden_TD))
    return states


def _means(hidden_TD: Tensor, words: Sequence[NDArray[np.int64]]) -> Tensor:
    """Return the mean of the states at each word's positions, ``[W, D]`` float32."""
    counts = np.array([len(positions) for positions in words])
    place_P = torch.from_numpy(np.concatenate(words)).to(hidden_TD.device)
    word_P = torch.from_numpy(np.repeat(np.arange(len(words)), counts)).to(hidden_TD.device)
    sums_WD = torch.zeros(len(words), hidden_TD.shape[1], device=hidden_TD.device)
    sums_WD.index_add_(0, word_P, hidden_TD[place_P].float())
    return sums_WD / torch.from_numpy(counts).to(hidden_TD.device)[:, None]


def _positions(encoder: Encoder, sentence: Sentence, text: TokenizedText) -> list[NDArray[np.int64]]:
    """Return the positions of each word's tokens in the text."""
    assert text.spans is not None
    begin_T, end_T = np.asarray(text.spans, dtype=np.int64).reshape(-1, 2).T
    size = sum(map(len, sentence.words)) + len(sentence.words) - 1
    if len(text.ids) == encoder.max_length and end_T[end_T > begin_T].max(initial=0) < size:
        raise InputError(
            f"{sentence.place}: the sentence of {len(sentence.words)} words has more tokens than max_length "
            f"{encoder.max_length}. Split it, or load the encoder with a larger max_length."
        )
    found, start = [], 0
    for word in sentence.words:
        end = start + len(word)
        # The space before the word is its own, too.
        first = int(np.searchsorted(end_T, max(start - 1, 0), side="right"))
        stop = int(np.searchsorted(begin_T, end, side="left"))
        if not ((end_T[first:stop] > start) & (end_T[first:stop] > begin_T[first:stop])).any():
            raise InputError(
                f"{sentence.place}: this model's tokenizer leaves nothing of the word {word!r}. Remove the sentence."
            )
        found.append(text.start + np.arange(first, stop))
        start = end + 1
    return found


def _names(folder: Path) -> list[str]:
    """Return an adapter's names: its folder's, the parent's, and in the hub's cache the repository's.

    A parent, because a training run keeps an adapter in a folder called after the stage.
    """
    parts = folder.resolve().parts
    return [*parts[-2:], *(part for part in parts if part.startswith("models--"))]
