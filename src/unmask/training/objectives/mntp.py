"""Masked next token prediction (LLM2Vec, arXiv 2404.05961, section 2.2).

A token is masked, and predicted from the hidden state of the position *before* it: that is where a
decoder's head has learned to read the next token.

Shapes: T tokens of a packed row, M masked positions, m positions of a chunk, D dimensions,
V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from unmask.errors import InputError

Strategy = Literal["bert", "all"]

STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A packed row prepared for masked next token prediction.

    Attributes:
        ids_T: what the model reads, int64.
        read_M: positions whose hidden states predict, i - 1 for each masked position i, int64, ascending.
        labels_M: the true ids of the masked positions, int64.
    """

    ids_T: Tensor  # noqa: N815
    read_M: Tensor  # noqa: N815
    labels_M: Tensor  # noqa: N815


def mask_tokens(
    ids_T: Tensor,
    *,
    lengths: Sequence[int],
    rate: float,
    strategy: Strategy,
    mask_id: int,
    vocab_size: int,
    protected: Tensor | None,
    generator: torch.Generator,
) -> Masked:
    """Mask tokens of a packed row, each on its own with the same probability.

    The first token of a text is never masked: the state before it belongs to another text.

    Args:
        ids_T: tokens of the texts, one behind the other, ``[T]`` int64; left as they are.
        lengths: tokens of each text, all at least 1.
        rate: probability that a token is selected, above 0, at most 1.
        strategy: what a selected token becomes. ``bert``: the mask token for 80 %, a token drawn from the
            whole vocabulary for 10 %, itself for 10 % (arXiv 1810.04805, section 3.1); ``all``: the mask token.
        mask_id: the mask token.
        vocab_size: V.
        protected: ids that are never selected, such as BOS and EOS, 1-D int64; None if there are none.
        generator: of the device of ``ids_T``; the same state gives the same mask.

    Returns:
        The masked row, with what is to be predicted and from where; M may be 0.

    Raises:
        InputError: an option is out of its range, or the lengths are not those of the row.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"strategy is {strategy!r}; expected one of {', '.join(STRATEGIES)}.")
    if not 0 < rate <= 1:
        raise InputError(f"rate is {rate}; expected a probability above 0, at most 1.")
    if not 0 <= mask_id < vocab_size:
        raise InputError(f"mask_id is {mask_id}; expected a token of the vocabulary, 0 to {vocab_size - 1}.")
    if ids_T.ndim != 1 or sum(lengths) != len(ids_T) or min(lengths, default=1) < 1:
        raise InputError(
            f"ids have shape {list(ids_T.shape)}, lengths are {list(lengths)}; "
            "expected one row of as many tokens as the lengths sum to, each at least 1. Drop empty texts."
        )
    device = ids_T.device
    length_N = torch.tensor(lengths, dtype=torch.int64, device=device)
    chosen_T = torch.rand(len(ids_T), generator=generator, device=device) < rate
    chosen_T[length_N.cumsum(0) - length_N] = False
    if protected is not None:
        chosen_T &= ~torch.isin(ids_T, protected)
    position_M = chosen_T.nonzero().squeeze(1)
    labels_M = ids_T[position_M]
    if strategy == "all":
        written_M = torch.full_like(labels_M, mask_id)
    else:
        fate_M = torch.rand(len(labels_M), generator=generator, device=device)
        random_M = torch.randint(vocab_size, labels_M.shape, generator=generator, device=device)
        written_M = torch.where(fate_M < 0.8, mask_id, torch.where(fate_M < 0.9, random_M, labels_M))
    return Masked(ids_T=ids_T.index_copy(0, position_M, written_M), read_M=position_M - 1, labels_M=labels_M)


@dataclass(frozen=True)
class TokenLoss:
    """Cross entropy of predicted tokens, as a sum.

    A sum, because only the caller knows the count that it is divided by: that of the whole batch, over all
    its micro-batches and processes. A mean of means would weigh tokens of sparse rows more.

    Attributes:
        total: sum of the cross entropies, scalar float32, differentiable.
        count: predicted tokens, M.
        correct: how many of them have the highest logit.
    """

    total: Tensor
    count: int
    correct: int


def masked_token_loss(
    states_MD: Tensor, labels_M: Tensor, head: Callable[[Tensor], Tensor], *, chunk: int = 4096
) -> TokenLoss:
    """Return the cross entropy of the masked tokens, in float32.

    A large vocabulary makes the logits the largest tensor of the step. Where M exceeds a chunk, only one
    chunk's logits exist at a time, forwards and backwards, at the price of running the head twice.

    Args:
        states_MD: hidden states at ``Masked.read_M``.
        labels_M: ``Masked.labels_M``.
        head: states ``[m, D]`` → logits ``[m, V]``, each position on its own.
        chunk: most positions at a time.

    Returns:
        The sum, its count and the hits. M = 0 gives 0, with gradients of 0.

    Raises:
        InputError: there are not as many states as labels, or ``chunk`` is below 1.
    """
    if states_MD.ndim != 2 or labels_M.shape != states_MD.shape[:1]:
        raise InputError(
            f"states have shape {list(states_MD.shape)}, labels {list(labels_M.shape)}; expected [M, D] and [M]. "
            "Read the states at the positions Masked.read_M."
        )
    if chunk < 1:
        raise InputError(f"chunk is {chunk}; expected at least 1 position.")

    def score(states_mD: Tensor, labels_m: Tensor) -> tuple[Tensor, Tensor]:
        logits_mV = head(states_mD).float()
        return cross_entropy(logits_mV, labels_m, reduction="sum"), (logits_mV.argmax(-1) == labels_m).sum()

    pieces = list(zip(torch.split(states_MD, chunk), torch.split(labels_M, chunk), strict=True))
    if len(pieces) == 1:
        total, correct = score(*pieces[0])
    else:
        scores = [checkpoint(score, *piece, use_reentrant=False) for piece in pieces]
        total, correct = (torch.stack(part).sum() for part in zip(*scores, strict=True))
    return TokenLoss(total=total, count=len(labels_M), correct=int(correct))
