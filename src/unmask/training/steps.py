"""One step of each stage: a batch of rows → gradients on the adapter, and what to report.

A step is a pure function of the weights, the rows, the seed and the step's number: everything drawn is
seeded from the last two, so a run taken up at step n draws what an unbroken one draws there. What is reported is
of the whole batch, of which each process takes its share.

Shapes: T tokens of a packed row, N rows of this process, K hard negatives a row, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from unmask.errors import InputError
from unmask.pooling import Pooling
from unmask.text import TokenizedText
from unmask.tokenizers import ModelTokenizer
from unmask.training.data.rows import Row
from unmask.training.objectives import (
    Masked,
    TokenLoss,
    cached_backward,
    info_nce,
    mask_tokens,
    masked_token_loss,
    matryoshka,
)
from unmask.training.recipe import NEW_MASK, Mntp, SimCse, Stage, Supervised
from unmask.training.sharing import Passes, Run, seed_of
from unmask.training.trainee import embed

#: Tokens of one forward and backward pass of MNTP.
TOKENS: Final = {"cpu": 1024, "cuda": 32768, "mps": 4096}
#: Tokens of a contrastive batch up to which it is one pass; a larger one is cut into passes of so many, and
#: gradients are cached, which costs a second forward pass.
TOKENS_AT_ONCE: Final = {"cpu": 8192, "cuda": 65536, "mps": 8192}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one step gave, over the whole batch of all processes.

    Attributes:
        loss: its mean.
        tokens: tokens that went through the model once.
        accuracy: share of masked tokens that were predicted; None for contrastive stages.
    """

    loss: float
    tokens: int
    accuracy: float | None = None


class Step(Protocol):
    """Computes the gradients of one batch."""

    def __call__(self, rows: Sequence[Row], step: int) -> Outcome:
        """Back-propagate the loss of ``rows``, the batch of all processes, at global step ``step``."""


def make_step(stage: Stage, run: Run, *, tokenizer: ModelTokenizer, base: Path, pooling: Pooling) -> Step:
    """Return the step of a stage.

    Args:
        stage: its settings.
        run: what it works with.
        tokenizer: of the model.
        base: where the base lies: MNTP reads its LM head.
        pooling: of the encoder; MNTP needs none.
    """
    if isinstance(stage, Mntp):
        return _MntpStep(stage, run, tokenizer, base)
    assert isinstance(stage, SimCse | Supervised)
    return _ContrastiveStep(stage, run, pooling)


class _MntpStep:
    def __init__(self, stage: Mntp, run: Run, tokenizer: ModelTokenizer, base: Path) -> None:
        self._stage, self._run = stage, run
        self._head = run.trainee.head(base)
        vocabulary = int(run.trainee.backbone.config.vocab_size)
        self._mask_id = vocabulary if stage.mask_token == NEW_MASK else _token_id(tokenizer, stage.mask_token)
        self._vocabulary = vocabulary + (stage.mask_token == NEW_MASK)
        special = [i for i, token in tokenizer.backend.get_added_tokens_decoder().items() if token.special]
        self._protected = torch.tensor(special, dtype=torch.int64)

    def __call__(self, rows: Sequence[Row], step: int) -> Outcome:
        run = self._run
        generator = torch.Generator().manual_seed(seed_of(run.seed, step))
        # Every process masks the whole batch: so they agree on the number of masked tokens without asking.
        masked = [self._mask(row[0], generator) for row in rows]
        count = sum(len(row.labels_M) for row in masked)
        shares = run.shares(masked)
        own = shares[run.accelerator.process_index]
        passes = run.passes([[len(row.ids_T) for row in share] for share in shares], TOKENS)
        # Processes' gradients are averaged: each weighs its sum as if all others had the same.
        weight = run.accelerator.num_processes / max(count, 1)
        jobs = [partial(self._pass, [own[index] for index in chosen], weight) for chosen in passes]
        losses, hits = zip(*run.backward(step, jobs), strict=True)
        loss, hit_total = run.total(sum(losses), float(sum(hits)))
        tokens = sum(len(row[0].ids) for row in rows)
        return Outcome(loss=loss / max(count, 1), tokens=tokens, accuracy=hit_total / max(count, 1))

    def _mask(self, text: TokenizedText, generator: torch.Generator) -> Masked:
        return mask_tokens(
            torch.tensor(text.ids),
            lengths=[len(text.ids)],
            rate=self._stage.mask_rate,
            strategy=self._stage.strategy,
            mask_id=self._mask_id,
            vocab_size=self._vocabulary,
            protected=self._protected,
            generator=generator,
        )

    def _pass(self, rows: Sequence[Masked], weight: float) -> tuple[Tensor, tuple[float, int]]:
        """Return a pass's share of the loss, and its sum of losses and number of hits to report."""
        part = self._forward(rows)
        return part.total * weight, (float(part.total.detach()), part.correct)

    def _forward(self, rows: Sequence[Masked]) -> TokenLoss:
        device = self._run.device
        lengths = [len(row.ids_T) for row in rows]
        begins = np.cumsum([0, *lengths[:-1]])
        read_M = torch.cat([row.read_M + int(begin) for row, begin in zip(rows, begins, strict=True)]).to(device)
        ids_T = torch.cat([row.ids_T for row in rows]).to(device)
        labels_M = torch.cat([row.labels_M for row in rows]).to(device)
        states_MD = self._run.model(ids_T, lengths, lambda hidden_TD: hidden_TD[read_M])
        return masked_token_loss(states_MD, labels_M, self._head)


class _ContrastiveStep:
    def __init__(self, stage: SimCse | Supervised, run: Run, pooling: Pooling) -> None:
        self._run, self._pooling = run, pooling
        self._twice = isinstance(stage, SimCse)
        self._dimensions = stage.dimensions
        self._loss = partial(
            info_nce,
            temperature=stage.temperature,
            bidirectional=isinstance(stage, Supervised) and stage.bidirectional_loss,
            false_negative_margin=stage.false_negative_margin,
            gather=True,
        )

    def __call__(self, rows: Sequence[Row], step: int) -> Outcome:
        run = self._run
        shares = [self._texts(share) for share in run.shares(rows)]
        texts = shares[run.accelerator.process_index]
        count = len(rows) // len(shares)
        chunks = run.passes([[len(text.ids) for text in share] for share in shares], TOKENS_AT_ONCE)
        back = torch.tensor(np.argsort(np.concatenate(chunks)), device=run.device)
        loss_function: Callable[..., Tensor] = partial(self._loss, related_NB=self._related(rows))
        if self._dimensions:
            loss_function = matryoshka(loss_function, self._dimensions)

        def vectors_of(chunk: list[int]) -> Tensor:
            return embed(run.model, [texts[index] for index in chunk], self._pooling, run.device)

        def loss_of(vectors: Tensor) -> Tensor:
            columns = vectors[back].view(-1, count, vectors.shape[-1])
            negatives_NKD = columns[2:].transpose(0, 1) if len(columns) > 2 else None
            return loss_function(columns[0], columns[1], negatives_NKD)

        if run.side_by_side:
            keep = sum(len(text.ids) for text in texts) <= run.tokens_of(TOKENS_AT_ONCE)
            loss = self._side_by_side(step, [partial(vectors_of, chunk) for chunk in chunks], loss_of, keep=keep)
        else:
            loss = self._in_turn(step, chunks, vectors_of, loss_of)
        (mean,) = run.total(float(loss.detach()) / run.accelerator.num_processes)
        return Outcome(loss=mean, tokens=sum(len(text.ids) for share in shares for text in share))

    def _in_turn(
        self,
        step: int,
        chunks: list[list[int]],
        vectors_of: Callable[[list[int]], Tensor],
        loss_of: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Propagate the loss of all chunks, one after the other, and return it."""
        run = self._run
        passes = Passes(run, len(chunks))

        def counted(number: int) -> Tensor:
            run.draw_from(step, number)
            if torch.is_grad_enabled():
                passes.next()
            return vectors_of(chunks[number])

        if len(chunks) > 1:
            return cached_backward(range(len(chunks)), counted, loss_of, backward=run.accelerator.backward)
        loss = loss_of(counted(0))
        run.accelerator.backward(loss)
        return loss

    def _side_by_side(
        self, step: int, jobs: list[Callable[[], Tensor]], loss_of: Callable[[Tensor], Tensor], *, keep: bool
    ) -> Tensor:
        """Propagate the loss of all chunks, a core each, and return it.

        Gradients are cached at the vectors, as in :func:`cached_backward`; but with ``keep`` the first passes keep
        their states for backward, and there are no second ones.
        """
        with torch.set_grad_enabled(keep):
            parts = self._run.forward(step, jobs)
        vectors_ND = torch.cat(parts).detach().requires_grad_()
        loss = loss_of(vectors_ND)
        (gradient_ND,) = torch.autograd.grad(loss, vectors_ND)
        shares = torch.split(gradient_ND, [len(part) for part in parts])

        def share_of(number: int) -> tuple[Tensor, None]:
            return ((parts[number] if keep else jobs[number]()) * shares[number]).sum(), None

        self._run.backward(step, [partial(share_of, number) for number in range(len(jobs))])
        return loss.detach()

    def _texts(self, rows: Sequence[Row]) -> list[TokenizedText]:
        """Return the texts of rows, column by column: queries, positives, first negatives and so on."""
        return list(chain.from_iterable(zip(*(row * (1 + self._twice) for row in rows), strict=True)))

    def _related(self, rows: Sequence[Row]) -> Tensor | None:
        """Return which rows of the whole batch share a query or a positive with each row of this process, ``[N, B]``.

        Data sets give several answers to one question, and one answer to several questions; in one batch these
        are not each other's negatives.
        """
        columns = [[tuple(row[column].ids) for row in rows] for column in range(min(2, len(rows[0])))]
        numbers = [[{text: n for n, text in enumerate(texts)}[text] for text in texts] for texts in columns]
        if all(len(set(texts)) == len(rows) for texts in numbers):
            return None
        same = [torch.tensor(texts)[:, None] == torch.tensor(texts) for texts in numbers]
        related_BB = torch.stack(same).any(dim=0)
        size = len(rows) // self._run.accelerator.num_processes
        return related_BB[self._run.accelerator.process_index * size :][:size].to(self._run.device)


def _token_id(tokenizer: ModelTokenizer, token: str) -> int:
    number = tokenizer.backend.token_to_id(token)
    if number is None:
        raise InputError(
            f"mntp.mask_token is {token!r}, which is no token of this model; expected one of its vocabulary, such as "
            f"'_', or {NEW_MASK!r} to learn a vector for it."
        )
    return int(number)
