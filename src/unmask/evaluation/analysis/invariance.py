"""Does it matter which texts share a forward pass? It must not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from unmask.encoder import Encoder
from unmask.evaluation.analysis.sample import SEED, Matrix, Sample, cosines, vectors_of
from unmask.packing import plan
from unmask.pooling import pool
from unmask.text import TokenizedText

#: Tokens of the texts that are encoded once in each arrangement.
TOKENS: Final = 1_200
#: Least cosine of two computations of the same vector, by number format: rounding, and nothing else.
LEAST_COSINE: Final = MappingProxyType({torch.bfloat16: 0.999, torch.float16: 0.9999})
_LEAST_COSINE: Final = 0.99999

#: Packs as lists of indices into the texts, made from the lengths of the texts.
_Arrange = Callable[[Sequence[int]], Iterable[list[int]]]


def _shuffled(lengths: Sequence[int]) -> list[int]:
    order = list(range(len(lengths)))
    random.Random(SEED).shuffle(order)  # noqa: S311 - no secret
    return order


#: One row holds short texts between long ones here, which ``encode`` never makes: it sorts.
ARRANGEMENTS: Final[Mapping[str, _Arrange]] = MappingProxyType({
    "packs of 64 tokens": lambda lengths: plan(lengths, 64),
    "packs of 512 tokens": lambda lengths: plan(lengths, 512),
    "one row, as given": lambda lengths: [list(range(len(lengths)))],
    "one row, shuffled": lambda lengths: [_shuffled(lengths)],
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Vectors of texts that shared forward passes, against those of the same texts alone.

    Attributes:
        name: how the texts were arranged.
        difference: largest absolute difference of a component.
        relative: that, relative to the largest component.
        cosine: the least cosine of a text's two vectors.
    """

    name: str
    difference: float
    relative: float
    cosine: float


@dataclass(frozen=True, kw_only=True)
class Invariance:
    """Whether batch size and packing change vectors.

    Attributes:
        texts: how many texts, each encoded once in each arrangement.
        tokens: how many tokens they have.
        arrangements: what was tried.
        required: least cosine that rounding explains.
        passed: whether each arrangement reaches it.
    """

    texts: int
    tokens: int
    arrangements: tuple[Arrangement, ...]
    required: float
    passed: bool


def invariance(encoder: Encoder, sample: Sample) -> Invariance:
    """Encode the same texts alone, and together in several ways."""
    chosen = sample.within(TOKENS)
    texts = [sample.texts[i] for i in chosen]
    tokenized = [sample.tokenized[i] for i in chosen]
    lengths = [len(text.ids) for text in tokenized]
    alone = np.concatenate([vectors_of(encoder, [text]) for text in texts])
    turned = vectors_of(encoder, texts[::-1])[::-1]
    found = [_against("encode, all at once", alone, vectors_of(encoder, texts))]
    found += [_against("encode, in reverse", alone, turned)]
    found += [
        _against(name, alone, _vectors(encoder, tokenized, arrange(lengths))) for name, arrange in ARRANGEMENTS.items()
    ]
    required = LEAST_COSINE.get(encoder.dtype, _LEAST_COSINE)
    return Invariance(
        texts=len(texts),
        tokens=sum(lengths),
        arrangements=tuple(found),
        required=required,
        passed=all(each.cosine >= required for each in found),
    )


def _against(name: str, alone_ND: Matrix, together_ND: Matrix) -> Arrangement:
    difference = float(np.abs(together_ND - alone_ND).max())
    return Arrangement(
        name=name,
        difference=difference,
        relative=difference / float(np.abs(alone_ND).max()),
        cosine=float(cosines(alone_ND, together_ND).min()),
    )


@torch.inference_mode()
def _vectors(encoder: Encoder, texts: Sequence[TokenizedText], packs: Iterable[list[int]]) -> Matrix:
    """Return the vectors of texts that run in the given packs, ``[n, D]``."""
    vectors_ND = np.zeros((len(texts), encoder.dimension), dtype=np.float32)
    for pack in packs:
        together = [texts[i] for i in pack]
        hidden_TD: Tensor = encoder.pipeline.hidden(together)
        lengths, starts = (
            torch.tensor(numbers, device=hidden_TD.device)
            for numbers in ([len(text.ids) for text in together], [text.start for text in together])
        )
        vectors_ND[pack] = pool(hidden_TD, lengths=lengths, starts=starts, mode=encoder.pooling).cpu().numpy()
    return vectors_ND
