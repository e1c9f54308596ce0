"""Whether vectors on a GPU are right: packed against alone and padded, in other packs, in eight bits, on a processor.

The weights are random: errors are those of the formats and sizes, not those of a trained model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from gpu_encode import Encode, Vectors, cosines, packed
from gpu_shapes import encoder_of
from transformers import PreTrainedTokenizerFast

from unmask import Encoder
from unmask.backbone.backbone import Backbone
from unmask.text import Text, TokenizedText

#: Texts that are compared, and others beside which they lie in other packs.
_TEXTS: Final = 24
_OTHERS: Final = 72
#: Of those, how many are computed on the processor: an 8B model would take too long there.
_ON_CPU: Final = 8


def compare(
    encoder: Encoder,
    texts: Sequence[str],
    others: dict[str, Encode],
    *,
    tokenizer: PreTrainedTokenizerFast,
    on_cpu: bool,
) -> dict[str, Any]:
    """Compare the vectors of a few texts, each computed in several ways.

    Args:
        encoder: ours in bfloat16.
        texts: of many lengths, more than are compared.
        others: other ways, by name, to be compared with the packed vectors.
        tokenizer: of the model.
        on_cpu: also compute some in float32 on the processor.
    """
    chosen = list(texts[:_TEXTS])
    tokenized = encoder.pipeline.tokenizer.tokenize([Text("", text) for text in texts[: _TEXTS + _OTHERS]])
    together = _vectors(encoder, tokenized[:_TEXTS])
    ways = {"alone": np.concatenate([_vectors(encoder, [text]) for text in tokenized[:_TEXTS]])}
    ways |= {name: encode(chosen) for name, encode in others.items()}
    found: dict[str, Any] = {name: _difference(together, vectors) for name, vectors in ways.items()}
    found["in other packs"] = _difference(together, *_in_other_packs(encoder, tokenized))
    if on_cpu:
        model = copy.deepcopy(encoder.backbone.model).cpu().float()
        exact = packed(encoder_of(Backbone(model), tokenizer))(chosen[:_ON_CPU])
        found["cpu float32"] = _difference(exact, together[:_ON_CPU])
    return {"texts": len(chosen), "tokens": [len(text.ids) for text in tokenized[:_TEXTS]], "ways": found}


@torch.inference_mode()
def _vectors(encoder: Encoder, texts: Sequence[TokenizedText]) -> Vectors:
    vectors: Vectors = encoder.pipeline.pooled(texts).cpu().numpy()
    return vectors


def _in_other_packs(encoder: Encoder, texts: Sequence[TokenizedText]) -> list[Vectors]:
    """Return the vectors of the first texts, computed several times among other neighbours in other places."""
    drawn = np.random.default_rng(0)
    few, all_texts = min(_TEXTS, len(texts)), len(texts)
    found = []
    # Among themselves and among many others: two sizes of packs, so that few are compiled for this.
    for size in (few, all_texts, few, all_texts):
        order = drawn.permutation(size)
        vectors = _vectors(encoder, [texts[index] for index in order])
        found.append(vectors[np.argsort(order)][:few])
    return found


def _difference(expected: Vectors, *given: Vectors) -> dict[str, float]:
    """Return the largest relative error of a vector and the least cosine."""
    errors = [np.linalg.norm(one - expected, axis=1) / np.linalg.norm(expected, axis=1) for one in given]
    return {
        "relative_error": float(np.max(errors)),
        "cosine": float(min(cosines(one, expected).min() for one in given)),
    }
