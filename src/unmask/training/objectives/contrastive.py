"""Contrastive learning: a query's own document against all others of the batch.

Shapes: N queries of this process, K hard negatives of each query, D dimensions, B = N × processes,
C candidates. A candidate axis holds the processes one behind the other, so query i of rank r owns
candidate r × N + i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import Function, FunctionCtx
from torch.nn.functional import cross_entropy, normalize

from unmask.errors import InputError


def info_nce(
    query_ND: Tensor,
    positive_ND: Tensor,
    negatives_NKD: Tensor | None = None,
    *,
    temperature: float,
    bidirectional: bool = False,
    false_negative_margin: float | None = None,
    related_NB: Tensor | None = None,
    gather: bool = False,
) -> Tensor:
    """Return the InfoNCE loss (arXiv 1807.03748) with cosine similarity and in-batch negatives.

    The mean over queries of ``-log(exp(s(q, p) / t) / sum over c of exp(s(q, c) / t))``; the candidates c
    of each query are all positives and all hard negatives of the batch.

    Unsupervised SimCSE (arXiv 2104.08821, eq. 4) is ``info_nce(view1, view2, temperature=0.05)``: both
    views are vectors of the same texts under different dropout. Its supervised form (eq. 5) has one hard
    negative a query.

    Args:
        query_ND: vectors of the queries, N at least 1; lengths do not matter.
        positive_ND: vectors of their documents, in the same order.
        negatives_NKD: vectors of their hard negatives, K at least 0.
        temperature: t above 0; a *scale* is ``1 / t``.
        bidirectional: take the mean of this loss and of the reverse one, in which each positive looks for its
            query among all queries of the batch; hard negatives look for nothing (arXiv 2310.19923).
        false_negative_margin: m at least 0. What is more similar to a query than its own positive less m is
            held to be another positive and leaves the softmax (GISTEmbed, arXiv 2402.16829, the trained model
            being its own guide). In the reverse direction the same holds for queries.
        related_NB: which rows of the whole batch say the same as each row, ``[N, B]`` bool: their query or positive
            is its own. Their positives are no negatives of it, and leave the softmax. What it says of a row itself
            does not matter.
        gather: let the candidates be those of all processes of ``torch.distributed``, where that is
            initialised. N, K and D must be the same everywhere. The gradients, averaged over the processes
            as ``DistributedDataParallel`` does, are those of one process that has the whole batch.

    Returns:
        The mean over this process's queries, a scalar; computed in float32 at least, under autocast too.

    Raises:
        InputError: shapes do not fit, or an option is out of its range.
    """
    _check(query_ND, positive_ND, negatives_NKD)
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}; expected a number above 0.")
    if false_negative_margin is not None and not false_negative_margin >= 0:
        raise InputError(f"false_negative_margin is {false_negative_margin}; expected at least 0, or None to keep all.")
    across = gather and distributed.is_available() and distributed.is_initialized()
    # Products of bfloat16 are off by 0.004: a tenth of a logit at a temperature of 0.05.
    with torch.autocast(query_ND.device.type, enabled=False):
        query_ND, positive_ND = _unit(query_ND), _unit(positive_ND)
        candidates_CD = _everyones(positive_ND, across)
        if negatives_NKD is not None:
            candidates_CD = torch.cat([candidates_CD, _everyones(_unit(negatives_NKD).flatten(0, 1), across)])
        options = {"temperature": temperature, "margin": false_negative_margin, "related_NB": related_NB}
        loss = _softmax_loss(query_ND, candidates_CD, across=across, **options)
        if bidirectional:
            queries_BD = _everyones(query_ND, across)
            loss = (loss + _softmax_loss(positive_ND, queries_BD, across=across, **options)) / 2
    return loss


def matryoshka(loss: Callable[..., Tensor], dimensions: Sequence[int]) -> Callable[..., Tensor]:
    """Return a loss that trains the first d dimensions for each of several d (arXiv 2205.13147, eq. 1).

    Args:
        loss: takes vectors, and options by keyword.
        dimensions: at least one, each at least 1, none twice. D itself is trained only if it is named.

    Returns:
        The same loss, averaged over its values on vectors cut to each d; all tensors that it is called with
        are cut on their last axis. It raises InputError where a d exceeds D.

    Raises:
        InputError: the dimensions are not as above.
    """
    if not dimensions or min(dimensions) < 1 or len(set(dimensions)) < len(dimensions):
        raise InputError(f"dimensions are {list(dimensions)}; expected one or more, each at least 1, none twice.")
    largest = max(dimensions)

    def cut(argument: Any, dimension: int) -> Any:
        if not isinstance(argument, Tensor):
            return argument
        if argument.shape[-1] < largest:
            raise InputError(
                f"dimensions go up to {largest}; the vectors have {argument.shape[-1]}. Leave out the rest."
            )
        return argument[..., :dimension]

    def averaged(*vectors: Any, **options: Any) -> Tensor:
        losses = [
            loss(*(cut(each, d) for each in vectors), **{name: cut(each, d) for name, each in options.items()})
            for d in dimensions
        ]
        return torch.stack(losses).mean()

    return averaged


def _check(query_ND: Tensor, positive_ND: Tensor, negatives_NKD: Tensor | None) -> None:
    """Raise InputError unless the shapes fit."""
    fits = query_ND.ndim == 2 and len(query_ND) > 0 and query_ND.shape == positive_ND.shape
    if negatives_NKD is not None:
        fits = fits and negatives_NKD.ndim == 3 and negatives_NKD.shape[::2] == query_ND.shape
    if not fits:
        shapes = [
            None if vectors is None else list(vectors.shape) for vectors in (query_ND, positive_ND, negatives_NKD)
        ]
        raise InputError(
            f"queries, positives and negatives have the shapes {', '.join(map(str, shapes))}; expected [N, D], "
            "[N, D] and [N, K, D] (or None), N at least 1. Give each query one positive, and all as many negatives."
        )


def _unit(vectors: Tensor) -> Tensor:
    """Scale vectors to length 1, in float32 or better."""
    return normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def _softmax_loss(
    anchor_ND: Tensor,
    candidates_CD: Tensor,
    *,
    temperature: Any,
    margin: Any,
    related_NB: Any,
    across: bool,
) -> Tensor:
    """Return the mean cross entropy of each anchor's own candidate among all; unit vectors."""
    similarity_NC = anchor_ND @ candidates_CD.T
    row_N = torch.arange(len(anchor_ND), device=anchor_ND.device)
    own_N = row_N + (distributed.get_rank() * len(anchor_ND) if across else 0)
    logits_NC = similarity_NC / temperature
    leave_out_NC = torch.zeros_like(similarity_NC, dtype=torch.bool)
    if related_NB is not None:
        leave_out_NC[:, : related_NB.shape[1]] = related_NB
    if margin is not None:
        known_NC = similarity_NC.detach()
        leave_out_NC |= known_NC > known_NC[row_N, own_N][:, None] - margin
    leave_out_NC[row_N, own_N] = False
    return cross_entropy(logits_NC.masked_fill(leave_out_NC, float("-inf")), own_N)


def _everyones(vectors_ND: Tensor, across: bool) -> Tensor:
    """Return the vectors of all processes by rank, ``[B, D]``, or this one's alone."""
    gathered: Tensor = _Gather.apply(vectors_ND) if across else vectors_ND  # type: ignore[no-untyped-call]
    return gathered


class _Gather(Function):
    """All processes' vectors; backwards, each process's share of the sum of all processes' gradients.

    Every process's loss holds every process's vectors, so what a vector owes is the *sum* over processes;
    the averaging of parameter gradients then divides by their number, as the mean over the whole batch does.
    ``torch.distributed.nn.functional.all_gather`` computes the same, but warns of its removal.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, vectors_ND: Tensor) -> Tensor:
        """Gather ``[N, D]`` into ``[B, D]``."""
        parts = [
            torch.empty_like(vectors_ND, memory_format=torch.contiguous_format)
            for _ in range(distributed.get_world_size())
        ]
        distributed.all_gather(parts, vectors_ND.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient_BD: Tensor) -> Tensor:
        """Sum ``[B, D]`` over processes, keep this one's ``[N, D]``."""
        total_BD = gradient_BD.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total_BD)
        count = len(total_BD) // distributed.get_world_size()
        return total_BD[distributed.get_rank() * count :][:count]
