"""Texts → vectors, many at a time: windows sorted by length, packs without padding, tokenising ahead.

A window of texts is tokenised in a thread of its own while the one before it is computed. Within a
window texts are sorted by length and packed under a token budget, so that hardly any forward pass is
small, equal lengths share an attention call, and nothing is padded, but for the tail of a row whose layers
are compiled (:mod:`unmask.backbone.compiled`). A pass for which memory does not suffice is cut in two, and the
passes after it are smaller.

Shapes: T tokens of a packed row, N texts, D hidden size.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from unmask.backbone.backbone import Backbone
from unmask.backbone.compiled import filled
from unmask.backbone.layout import Layout
from unmask.cores import side_by_side
from unmask.errors import InputError, OutOfMemoryError
from unmask.packing import parts, plan
from unmask.pooling import Pooling, pool
from unmask.progress import Progress
from unmask.text import Text, TextTokenizer, TokenizedText, check_text
from unmask.transfers import ahead, behind, to_device

log = logging.getLogger(__name__)

Empty = Literal["error", "zero"]

#: Tokens that are worth a processor core of their own: with fewer, reading the weights takes the time.
LEAST: Final = 256
#: Texts, and characters, that are sorted by length together; what a stream holds in memory.
WINDOW_TEXTS: Final = 4096
WINDOW_CHARACTERS: Final = 4_000_000
#: Texts of the first window, each twice as large as the one before: a device must not wait for the tokens of thousands.
FIRST_WINDOW: Final = {"cuda": 256}


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
            size = FIRST_WINDOW.get(self.backbone.device.type, WINDOW_TEXTS)
            while True:
                window = take_window(texts, size)
                size = min(2 * size, WINDOW_TEXTS)
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
        places = [place for place, text in enumerate(window) if text is not None]
        present = [text for text in window if text is not None]
        packs = plan([len(text.ids) for text in present], self.token_budget)
        results = ((pack, self._pooled(own, row)) for pack, own, row in self._rows(present, packs))
        for pack, pooled in behind(results, self.backbone.device):
            vectors[[places[index] for index in pack]] = pooled
            bar.advance(len(pack), extra=sum(len(present[index].ids) for index in pack))
        bar.advance(len(window) - len(present))
        return vectors

    def _rows(
        self, texts: Sequence[TokenizedText], packs: Iterable[list[int]]
    ) -> Iterator[tuple[list[int], list[TokenizedText], _Row | None]]:
        """Yield each pack with its texts and their row."""
        _ = self.backbone.form  # made now: compiling is no work for the thread that lays out

        def laid_out(pack: list[int]) -> tuple[list[int], list[TokenizedText], _Row | None]:
            own = [texts[index] for index in pack]
            try:
                return pack, own, self._row(own)
            except torch.OutOfMemoryError:  # laid out when the pass before it has ended, and its memory is free
                return pack, own, None

        return ahead(packs, laid_out, self.backbone.device)

    def pooled(self, texts: Sequence[TokenizedText]) -> Tensor:
        """Return the vectors of one pack, ``[N, D]`` float32 on the model's device."""
        return self._pooled(texts)

    def hidden(self, texts: Sequence[TokenizedText]) -> Tensor:
        """Return the last hidden states of one pack, ``[T, D]``, texts one behind the other."""
        return self._hidden(self._row(texts))

    def _row(self, texts: Sequence[TokenizedText]) -> _Row:
        device = self.backbone.device
        ids_T, lengths = packed(texts, torch.device("cpu"))
        layout = Layout(lengths, causal=not self.backbone.bidirectional)
        if self.backbone.form == "compiled":
            ids_T, layout = filled(ids_T, layout)
        if device.type != "cpu":
            layout.on(device)  # sent now, while the device computes
        spans = to_device(torch.tensor([lengths, [text.start for text in texts]]), device)
        return _Row(to_device(ids_T, device), layout, spans, sum(lengths))

    def _pooled(self, texts: Sequence[TokenizedText], row: _Row | None = None) -> Tensor:
        """Return the vectors of texts; where memory does not suffice, those of their halves, one after the other.

        Args:
            texts: of one pass.
            row: they, where they were laid out ahead.
        """
        tokens = sum(len(text.ids) for text in texts)
        if tokens > self.token_budget and len(texts) > 1:  # planned before the budget was halved
            return self._by_halves(texts)
        try:
            row = row or self._row(texts)
            lengths, starts = row.spans
            return pool(self._hidden(row), lengths=lengths, starts=starts, mode=self.pooling)
        except torch.OutOfMemoryError as error:
            if len(texts) == 1:
                raise OutOfMemoryError(
                    f"The memory of {self.backbone.device} does not suffice for a text of {tokens} tokens. Lower "
                    "max_length, free memory there, or use a device with more."
                ) from error
        # Behind the handler, which holds on to what the failed pass had made.
        self._shrink(tokens)
        return self._by_halves(texts)

    def _by_halves(self, texts: Sequence[TokenizedText]) -> Tensor:
        halves = parts([len(text.ids) for text in texts], 2)
        return torch.cat([self._pooled([texts[index] for index in half]) for half in halves])

    def _shrink(self, tokens: int) -> None:
        """Halve the budget, below the size of a pass that was too large."""
        torch.cuda.empty_cache()
        self.token_budget = max(1, min(self.token_budget, tokens) // 2)
        log.warning(
            "The memory of %s did not suffice for %d tokens at once; going on with %d.",
            self.backbone.device,
            tokens,
            self.token_budget,
        )

    def _hidden(self, row: _Row) -> Tensor:
        """Return the last hidden states of a row, ``[T, D]``, without those of padding."""
        with self._turn:
            on_cpu = self.backbone.device.type == "cpu"
            count = min(torch.get_num_threads(), row.tokens // LEAST) if on_cpu else 1
            if count < 2:
                return self.backbone.hidden(row.ids, row.layout)[: row.tokens]
            _ = self.backbone.form  # made now, not by several threads at once
            lengths = [row.layout.lengths[part.start : part.stop] for part in parts(row.layout.lengths, count)]
            jobs = [
                partial(self.backbone.hidden, ids_T, Layout(each, causal=row.layout.causal))
                for ids_T, each in zip(torch.split(row.ids, [sum(each) for each in lengths]), lengths, strict=True)
            ]
            return torch.cat(list(side_by_side(jobs)))[: row.tokens]


@dataclass(frozen=True)
class _Row:
    """Texts laid out on the model's device.

    Attributes:
        ids: token ids, one text behind the other, perhaps with padding behind, ``[T]`` int64.
        layout: where they lie, the padding included.
        spans: the texts' lengths, and the first pooled token of each, ``[2, N]`` int64.
        tokens: of the texts, without padding.
    """

    ids: Tensor
    layout: Layout
    spans: Tensor
    tokens: int


def packed(texts: Sequence[TokenizedText], device: torch.device) -> tuple[Tensor, tuple[int, ...]]:
    """Return the ids of texts one behind the other, ``[T]`` int64 on ``device``, and the length of each."""
    lengths = tuple(len(text.ids) for text in texts)
    ids = np.fromiter(chain.from_iterable(text.ids for text in texts), dtype=np.int64, count=sum(lengths))
    return torch.from_numpy(ids).to(device), lengths


def take_window(texts: Iterator[Text | None], size: int = WINDOW_TEXTS) -> list[Text | None]:
    """Take the next texts off an iterator: ``size`` of them, fewer at its end or where they are long."""
    window: list[Text | None] = []
    room = WINDOW_CHARACTERS * size // WINDOW_TEXTS
    for text in texts:
        window.append(text)
        room -= len(text.content) if text else 0
        if len(window) == size or room < 0:
            break
    return window
