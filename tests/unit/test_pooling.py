from __future__ import annotations

import pytest
import torch

from unmask.errors import InputError
from unmask.pooling import pool, pool_words

LENGTHS = [4, 1, 3]
STARTS = [2, 0, 0]


def states() -> torch.Tensor:
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(1))


def pooled(mode: str) -> torch.Tensor:
    return pool(states(), lengths=torch.tensor(LENGTHS), starts=torch.tensor(STARTS), mode=mode)  # type: ignore[arg-type]


def test_mean_is_over_the_span_alone() -> None:
    h = states()
    expected = torch.stack([h[2:4].mean(0), h[4], h[5:8].mean(0)])
    assert torch.allclose(pooled("mean"), expected, atol=1e-6)


def test_weighted_mean_counts_from_the_spans_first_token() -> None:
    h = states()
    expected = torch.stack([(h[2] + 2 * h[3]) / 3, h[4], (h[5] + 2 * h[6] + 3 * h[7]) / 6])
    assert torch.allclose(pooled("weighted_mean"), expected, atol=1e-6)


def test_last_and_first_are_of_the_whole_text() -> None:
    h = states()
    assert torch.equal(pooled("last"), h[[3, 4, 7]])
    assert torch.equal(pooled("first"), h[[0, 4, 5]])


def test_pooling_is_done_in_float32() -> None:
    half = states().bfloat16()
    vectors = pool(half, lengths=torch.tensor(LENGTHS), starts=torch.tensor(STARTS), mode="mean")
    assert vectors.dtype == torch.float32
    assert torch.allclose(vectors[0], half[2:4].float().mean(0), atol=1e-6)


def test_words_are_means_of_the_tokens_that_overlap_them() -> None:
    h = states()[:4]
    vectors = pool_words(h, [(0, 2), (2, 5), (5, 6), (6, 6)], [(0, 5), (5, 6)])
    assert torch.allclose(vectors, torch.stack([h[:2].mean(0), h[2]]), atol=1e-6)
    with pytest.raises(InputError, match="Word 0 has no token"):
        pool_words(h, [(0, 2)] * 4, [(3, 5)])
