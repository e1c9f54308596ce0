"""One contender in its own environment: encodes when told to, and waits without using the processor.

Run by ``cpu.py``. Reads one JSON request a line, ``{"texts": [...]}`` or ``{"tokens": n}``, and answers each
with ``{"seconds": s}`` and, for texts, the first vectors. Standard library and the contender's library only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

Encode = Callable[[Sequence[str]], Any]


def unmask(model: str) -> Encode:
    """Return our encoder's function, with its defaults."""
    from unmask import Encoder

    return Encoder.load(model).encode


def sentence_transformers(model: str) -> Encode:
    """Return sentence-transformers' function, with its defaults (batches of 32, padded)."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu")
    return lambda texts: encoder.encode(list(texts), show_progress_bar=False)


def llm2vec(model: str) -> Encode:
    """Return the reference library's function, with its defaults (batches of 32, padded on the left)."""
    import torch
    from llm2vec import LLM2Vec

    encoder = LLM2Vec.from_pretrained(model, pooling_mode="mean", max_length=512, torch_dtype=torch.float32)
    return lambda texts: encoder.encode(list(texts), show_progress_bar=False, device="cpu").numpy()


CONTENDERS: dict[str, Callable[[str], Encode]] = {
    "unmask": unmask,
    "sentence-transformers": sentence_transformers,
    "llm2vec": llm2vec,
}


def main(name: str, model: str) -> None:
    """Answer requests until the input ends."""
    answer, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not mix with the answers
    encode = CONTENDERS[name](model)
    encode(["warm up"] * 4)
    print(json.dumps({"ready": name}), file=answer, flush=True)
    for line in sys.stdin:
        texts = json.loads(line)["texts"]
        start = time.perf_counter()
        vectors = encode(texts)
        seconds = time.perf_counter() - start
        first = [[float(value) for value in vector] for vector in vectors[:16]]
        print(json.dumps({"seconds": seconds, "vectors": first}), file=answer, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
