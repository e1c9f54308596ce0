"""The real language model, fetched and converted: loads fast, encodes sensibly, the same in sentence-transformers."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from unmask import Encoder

TEXTS = ["How do I compress a file?", "图书馆 7 🌞", "x", "The library opens every morning. " * 20]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smollm2() -> None:
    Encoder.load("smollm2-135m", progress=True)
    encoder = Encoder.load("smollm2-135m")
    assert encoder.backbone.form == "fused"
    assert min(encoder.backbone.proof.layers) > 1e-5
    ours = encoder.encode(TEXTS)
    theirs = SentenceTransformer(str(encoder.checkpoint.base), device="cpu").encode_document(TEXTS)
    assert np.diag(encoder.similarity(ours, theirs)).min() > 0.99999
