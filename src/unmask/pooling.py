"""Hidden states → vectors, and vectors → the form a caller wants. Pure functions.

Shapes: T tokens of a packed row, N texts, D dimensions.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.errors import InputError

Pooling = Literal["mean", "weighted_mean", "last", "first"]
Output = Literal["float32", "float16", "int8", "binary"]

POOLINGS: Final[tuple[Pooling, ...]] = get_args(Pooling)
OUTPUTS: Final[tuple[Output, ...]] = get_args(Output)


def pool(hidden_TD: Tensor, *, lengths: Tensor, starts: Tensor, mode: Pooling) -> Tensor:
    """Pool each text of a packed row into one vector.

    Args:
        hidden_TD: hidden states of N texts, one behind the other.
        lengths: tokens of each text, ``[N]`` int64.
        starts: first pooled token of each text, ``[N]`` int64, below its length.
        mode: ``mean`` over the pooled span; ``weighted_mean`` with weights 1, 2, 3 … over the span
            (SGPT, arXiv 2202.08904, section 3.1); ``last`` and ``first`` token of the text (the
            first one is the BOS where there is one).

    Returns:
        ``[N, D]`` float32.
    """
    ends = lengths.cumsum(0)
    if mode == "last":
        return hidden_TD[ends - 1].float()
    begins = ends - lengths
    if mode == "first":
        return hidden_TD[begins].float()
    text_T = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    rank_T = torch.arange(len(hidden_TD), device=lengths.device) - (begins + starts)[text_T] + 1
    weight_T = rank_T.clamp_min(0).float()
    count = (lengths - starts).float()
    if mode == "mean":
        weight_T, total = weight_T.clamp_max(1), count
    else:
        total = count * (count + 1) / 2
    weighted_TD = hidden_TD.float() * (weight_T / total[text_T])[:, None]
    return torch.zeros(len(lengths), hidden_TD.shape[1], device=hidden_TD.device).index_add_(0, text_T, weighted_TD)


def finish(vectors_ND: Tensor, *, normalize: bool, dimensions: int | None) -> Tensor:
    """Cut vectors to their first ``dimensions`` and scale them to length 1.

    A cut vector is always normalised again, as Matryoshka training expects (arXiv 2205.13147). Zero
    vectors stay zero.

    Raises:
        InputError: ``dimensions`` is not between 1 and D.
    """
    size = vectors_ND.shape[-1]
    if dimensions is not None:
        if not 1 <= dimensions <= size:
            raise InputError(f"dimensions is {dimensions}; this encoder's vectors have 1 to {size}.")
        vectors_ND = vectors_ND[..., :dimensions]
    if normalize or dimensions is not None:
        vectors_ND = torch.nn.functional.normalize(vectors_ND, dim=-1)
    return vectors_ND


def convert(vectors_ND: NDArray[np.float32], output: Output) -> NDArray[np.generic]:
    """Turn float32 vectors into another number format.

    * ``float16``: rounded.
    * ``int8``: each vector times ``127 / max|v|`` of its own, rounded. The scale is a vector's own, so
      cosine needs neither it nor any calibration data; dot products and distances lose the lengths.
    * ``binary``: bit 1 where a component is above 0, packed into bytes, first dimension in the highest
      bit, the last byte filled with zeros: ``[N, ceil(D / 8)]`` uint8, compared by Hamming distance.
    """
    if output == "float32":
        return vectors_ND
    if output == "float16":
        return vectors_ND.astype(np.float16)
    if output == "int8":
        largest = np.abs(vectors_ND).max(axis=-1, keepdims=True)
        return np.rint(vectors_ND * (127 / np.where(largest > 0, largest, 1))).astype(np.int8)
    return np.packbits(vectors_ND > 0, axis=-1)
