from __future__ import annotations

import numpy as np
import pytest
import torch

from unmask.errors import InputError
from unmask.pooling import Form, pool, pool_words

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


def test_cut_vectors_are_normalised_and_zero_stays_zero() -> None:
    vectors = torch.tensor([[3.0, 4.0, 12.0], [0.0, 0.0, 0.0]])
    assert np.allclose(Form(dimensions=2).apply(vectors), np.array([[0.6, 0.8], [0, 0]]))
    expected = np.array([[3 / 13, 4 / 13, 12 / 13], [0, 0, 0]])
    assert np.allclose(Form(normalize=True).apply(vectors), expected)
    assert np.allclose(Form().apply(vectors), vectors)


def test_int8_keeps_the_direction() -> None:
    vectors = torch.randn(50, 64, generator=torch.Generator().manual_seed(2)) * torch.logspace(-3, 3, 50)[:, None]
    quantised = Form(output="int8").apply(vectors).astype(np.float32)
    cosine = torch.nn.functional.cosine_similarity(torch.from_numpy(quantised), vectors)
    assert cosine.min() > 0.9999
    assert np.abs(quantised).max(axis=1).tolist() == [127.0] * 50
    assert not Form(output="int8").apply(torch.zeros(1, 4)).any()


def test_binary_packs_the_first_dimension_into_the_highest_bit() -> None:
    bits = Form(output="binary").apply(torch.tensor([[1.0, -1, 1, 0, -2, 3, 1, 1, 5, -1]]))
    assert bits.dtype == np.uint8
    assert bits.tolist() == [[0b10100111, 0b10000000]]


@pytest.mark.parametrize("options", [{"dimensions": 0}, {"output": "int4"}])
def test_impossible_forms_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        Form(**options)  # type: ignore[arg-type]


def test_more_dimensions_than_there_are_are_refused() -> None:
    with pytest.raises(InputError, match="dimensions is 6; this encoder's vectors have 1 to 5"):
        Form(dimensions=6).apply(states())


def test_words_are_means_of_the_tokens_that_overlap_them() -> None:
    h = states()[:4]
    vectors = pool_words(h, [(0, 2), (2, 5), (5, 6), (6, 6)], [(0, 5), (5, 6)])
    assert torch.allclose(vectors, torch.stack([h[:2].mean(0), h[2]]), atol=1e-6)
    with pytest.raises(InputError, match="Word 0 has no token"):
        pool_words(h, [(0, 2)] * 4, [(3, 5)])
