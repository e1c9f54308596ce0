"""Texts → vectors, many at a time: windows sorted by length, packs without padding, tokenising ahead.

A window of texts is tokenised in a thread of its own while the one before it is computed. Within a
window texts are sorted by length and packed under a token budget, so that hardly any forward pass is
small, equal lengths share an attention call, and nothing is padded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from unmask.backbone.attention import Layout
from unmask.backbone.loading import Backbone
from unmask.cores import side_by_side
from unmask.errors import InputError
from unmask.packing import parts, plan
from unmask.pooling import Pooling, pool
from unmask.progress import Progress
from unmask.text import Text, TextTokenizer, TokenizedText, check_text

Empty = Literal["error", "zero"]

#: Tokens of one forward pass (experiments/LOG.md: fewer cost products their efficiency, more gain nothing).
BUDGETS: Final = {"cpu": 2048, "cuda": 16384, "mps": 4096}
#: Tokens that are worth a processor core of their own: with fewer, reading the weights takes the time.
LEAST: Final = 256
#: Texts, and characters, that are sorted by length together; what a stream holds in memory.
WINDOW_TEXTS: Final = 4096
WINDOW_CHARACTERS: Final = 4_000_000


def check(texts: Iterable[str | Text], instruction: str | None, empty: Empty) -> Iterator[Text | None]:
    """Yield each text, checked, with ``instruction`` put on plain strings; None for a blank one.

    Raises:
        InputError: a text is no string, broken, or blank while ``empty`` is ``error``; names its index.
    """
    if empty not in ("error", "zero"):
        raise InputError(f"empty is {empty!r}; expected 'error' or 'zero'.")
    for index, given in enumerate(texts):
        text = check_text(given, index)
        if instruction and not isinstance(given, Text):
            text = check_text(Text(instruction, text.content), index)
        if text.content.strip():
            yield text
        elif empty == "zero":
            yield None
        else:
            raise InputError(f'Text {index} is empty. Remove it, or pass empty="zero" for a zero vector.')


class Pipeline:
    """Runs texts through a backbone; safe to call from several threads.

    Args:
        backbone: the model.
        tokenizer: turns texts into token ids.
        pooling: how token states become one vector.
        token_budget: most tokens of one forward pass.
    """

    def __init__(self, backbone: Backbone, tokenizer: TextTokenizer, pooling: Pooling, token_budget: int) -> None:
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.token_budget = token_budget
        # Two passes at once would only take memory and cores from each other.
        self._turn = threading.Lock()

    def vectors(self, texts: Iterator[Text | None], bar: Progress, *, truncate: bool) -> Iterator[Tensor]:
        """Encode texts; None stands for a zero vector.

        Args:
            texts: read in the caller's thread, up to two windows ahead.
            bar: advanced by texts, and by tokens beside them.
            truncate: cut texts that are too long instead of raising.

        Yields:
            ``[n, D]`` float32 on the CPU, a window at a time, in order.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as ahead:
            waiting: Future[list[TokenizedText | None]] | None = None
            first = 0
            while True:
                window = _take_window(texts)
                upcoming = ahead.submit(self._tokenize, window, first, truncate) if window else None
                if waiting is not None:
                    yield self._compute(waiting.result(), bar)
                if upcoming is None:
                    return
                waiting, first = upcoming, first + len(window)

    def _tokenize(self, window: list[Text | None], first: int, truncate: bool) -> list[TokenizedText | None]:
        indices = [first + i for i, text in enumerate(window) if text is not None]
        present = [text for text in window if text is not None]
        tokenized = iter(self.tokenizer.tokenize(present, indices=indices, truncate=truncate))
        return [None if text is None else next(tokenized) for text in window]

    @torch.inference_mode()
    def _compute(self, window: Sequence[TokenizedText | None], bar: Progress) -> Tensor:
        vectors = torch.zeros(len(window), int(self.backbone.config.hidden_size))
        present = [(i, text) for i, text in enumerate(window) if text is not None]
        for pack in plan([len(text.ids) for _, text in present], self.token_budget):
            indices, texts = zip(*(present[i] for i in pack), strict=True)
            vectors[list(indices)] = self.pooled(texts).cpu()
            bar.advance(len(texts), extra=sum(len(text.ids) for text in texts))
        bar.advance(len(window) - len(present))
        return vectors

    def pooled(self, texts: Sequence[TokenizedText]) -> Tensor:
        """Return the vectors of one pack, ``[N, D]`` float32 on the model's device."""
        hidden_TD = self.hidden(texts)
        return pool(
            hidden_TD,
            lengths=torch.tensor([len(text.ids) for text in texts], device=hidden_TD.device),
            starts=torch.tensor([text.start for text in texts], device=hidden_TD.device),
            mode=self.pooling,
        )

    def hidden(self, texts: Sequence[TokenizedText]) -> Tensor:
        """Return the last hidden states of one pack, ``[T, D]``, texts one behind the other."""
        with self._turn:
            lengths = [len(text.ids) for text in texts]
            on_cpu = self.backbone.device.type == "cpu"
            count = min(torch.get_num_threads(), sum(lengths) // LEAST) if on_cpu else 1
            if count < 2:
                return self._hidden(texts)
            _ = self.backbone.fused  # made now, not by several threads at once
            rows = [[texts[index] for index in part] for part in parts(lengths, count)]
            return torch.cat(list(side_by_side([partial(self._hidden, row) for row in rows])))

    def _hidden(self, texts: Sequence[TokenizedText]) -> Tensor:
        ids_T, lengths = packed(texts, self.backbone.device)
        return self.backbone.hidden(ids_T, Layout(lengths, causal=not self.backbone.bidirectional))


def packed(texts: Sequence[TokenizedText], device: torch.device) -> tuple[Tensor, tuple[int, ...]]:
    """Return the ids of texts one behind the other, ``[T]`` int64 on ``device``, and the length of each."""
    lengths = tuple(len(text.ids) for text in texts)
    ids = np.fromiter(chain.from_iterable(text.ids for text in texts), dtype=np.int64, count=sum(lengths))
    return torch.from_numpy(ids).to(device), lengths


def _take_window(texts: Iterator[Text | None]) -> list[Text | None]:
    """Take the next texts off the iterator: a window's worth, fewer at the end."""
    window: list[Text | None] = []
    characters = 0
    for text in texts:
        window.append(text)
        characters += len(text.content) if text else 0
        if len(window) == WINDOW_TEXTS or characters > WINDOW_CHARACTERS:
            break
    return window
