from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import (
    GISTEmbedLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from unmask.errors import InputError
from unmask.training.objectives import info_nce, matryoshka


def batch(count: int = 7, negatives: int | None = None, dimension: int = 12) -> list[Tensor]:
    """Queries, positives and, if asked for, negatives, of different lengths, all with gradients."""
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(count, dimension, generator=generator)
    positive = query + torch.randn(count, dimension, generator=generator)
    vectors = [3 * query, positive]
    if negatives is not None:
        vectors.append(torch.randn(count, negatives, dimension, generator=generator))
    return [each.requires_grad_() for each in vectors]


def with_gradients(loss: Tensor, vectors: list[Tensor]) -> list[Tensor]:
    return [loss, *torch.autograd.grad(loss, vectors)]


def columns(vectors: list[Tensor]) -> list[Tensor]:
    """As sentence-transformers takes them: one tensor for queries, positives and each rank of negatives."""
    return [*vectors[:2], *(vectors[2].unbind(1) if len(vectors) > 2 else ())]


class Stored(nn.Module):
    """In place of a model of sentence-transformers: its "features" are the vectors."""

    def get_embedding_dimension(self) -> int:
        return 12

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"]}


def features(vectors: list[Tensor]) -> list[dict[str, Tensor]]:
    return [{"vectors": each} for each in columns(vectors)]


@pytest.mark.parametrize("negatives", [None, 1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_loss_and_gradients_are_those_of_sentence_transformers(negatives: int | None, bidirectional: bool) -> None:
    vectors = batch(negatives=negatives)
    options: dict[str, Any] = {}
    if bidirectional:
        options = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    reference = MultipleNegativesRankingLoss(model=None, scale=1 / 0.05, **options)
    theirs = reference.compute_loss_from_embeddings(columns(vectors), torch.empty(0))
    ours = info_nce(*vectors, temperature=0.05, bidirectional=bidirectional)
    assert ours.shape == ()
    torch.testing.assert_close(with_gradients(ours, vectors), with_gradients(theirs, vectors))


@pytest.mark.parametrize("negatives", [None, 1])
@pytest.mark.parametrize("margin", [0.0, 0.3, 0.7])
def test_false_negatives_are_those_of_sentence_transformers_gist(negatives: int | None, margin: float) -> None:
    vectors = batch(count=30, negatives=negatives)
    reference = GISTEmbedLoss.__new__(GISTEmbedLoss)  # its __init__ asks for models with tokenizers
    nn.Module.__init__(reference)
    reference.model = reference.guide = Stored()
    reference.must_retokenize = reference.gather_across_devices = False
    reference.contrast_anchors = reference.contrast_positives = False
    reference.margin_strategy, reference.margin, reference.temperature = "absolute", margin, 0.05
    reference.similarity_fct, reference.cross_entropy_loss = nn.CosineSimilarity(dim=-1), nn.CrossEntropyLoss()
    theirs = reference(features(vectors), torch.empty(0))
    ours = info_nce(*vectors, temperature=0.05, false_negative_margin=margin)
    assert abs(float(ours.detach() - info_nce(*vectors, temperature=0.05).detach())) > 1e-3
    torch.testing.assert_close(with_gradients(ours, vectors), with_gradients(theirs, vectors))


# Cosine of query and document: [[1, r], [0, r]]; of query and hard negative: [[0.6, 0], [0.8, 1]].
QUERY = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
POSITIVE = torch.tensor([[3.0, 0.0], [4.0, 4.0]])
NEGATIVE = torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]])
ROOT = math.sqrt(0.5)


def among(own: float, *others: float, temperature: float = 0.5) -> float:
    return math.log(1 + sum(math.exp((other - own) / temperature) for other in others))


def close(loss: Tensor, *terms: float) -> bool:
    return math.isclose(float(loss), sum(terms) / len(terms), rel_tol=1e-5)


def test_by_hand() -> None:
    assert close(info_nce(QUERY, POSITIVE, temperature=0.5), among(1, ROOT), among(ROOT, 0))
    loss = info_nce(QUERY, POSITIVE, NEGATIVE, temperature=0.5)
    assert close(loss, among(1, ROOT, 0.6, 0), among(ROOT, 0, 0.8, 1))


def test_bidirectional_by_hand() -> None:
    loss = info_nce(QUERY, POSITIVE, NEGATIVE, temperature=0.5, bidirectional=True)
    forth = among(1, ROOT, 0.6, 0), among(ROOT, 0, 0.8, 1)
    back = among(1, 0), among(ROOT, ROOT)
    assert close(loss, *forth, *back)


def test_false_negatives_by_hand() -> None:
    def loss(margin: float, **options: Any) -> Tensor:
        return info_nce(QUERY, POSITIVE, NEGATIVE, temperature=0.5, false_negative_margin=margin, **options)

    assert close(loss(0.0), among(1, ROOT, 0.6, 0), among(ROOT, 0))  # 0.8 and 1 exceed the root of a half
    assert close(loss(0.29), among(1, ROOT, 0.6, 0), among(ROOT, 0))
    assert close(loss(0.3), among(1, 0.6, 0), among(ROOT, 0))  # 0.707 exceeds 1 - 0.3
    assert close(loss(0.5), among(1, 0), among(ROOT, 0))
    assert float(loss(2.5)) == 0.0  # only its own positive is left to each query
    back = among(1, 0), among(ROOT, ROOT)  # a tie does not exceed
    assert close(loss(0.0, bidirectional=True), among(1, ROOT, 0.6, 0), among(ROOT, 0), *back)
    assert close(loss(0.1, bidirectional=True), among(1, ROOT, 0.6, 0), among(ROOT, 0), among(1, 0), 0.0)


def test_what_is_left_out_gets_no_gradient() -> None:
    vectors = [each.clone().requires_grad_() for each in (QUERY, POSITIVE, NEGATIVE)]
    info_nce(*vectors, temperature=0.5, false_negative_margin=0.5).backward()  # type: ignore[no-untyped-call]
    negative = vectors[2].grad
    assert negative is not None
    assert torch.equal(negative[0], torch.zeros(1, 2))  # 0.6 and 0.8: too near to both queries
    assert float(negative[1].abs().max()) > 0.01  # 0: a true negative of the first query
    info_nce(*vectors, temperature=0.5, false_negative_margin=2.5).backward()  # type: ignore[no-untyped-call]
    assert all(bool(each.grad.isfinite().all()) for each in vectors if each.grad is not None)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True},
        {"false_negative_margin": 0.2},
        {"bidirectional": True, "false_negative_margin": 0.2},
    ],
)
@pytest.mark.parametrize("negatives", [None, 2])
def test_gradients_are_derivatives(options: dict[str, Any], negatives: int | None) -> None:
    vectors = [each.detach().double().requires_grad_() for each in batch(4, negatives, dimension=5)]
    assert torch.autograd.gradcheck(lambda *inputs: info_nce(*inputs, temperature=0.3, **options), vectors)


def test_no_negatives_of_any_kind() -> None:
    query, positive, none = batch(negatives=0)
    with_none = info_nce(query, positive, none, temperature=0.1)
    assert torch.equal(with_none, info_nce(query, positive, temperature=0.1))
    assert float(info_nce(query[:1], positive[:1], temperature=0.1).detach()) == 0.0


def test_it_is_computed_in_float32_for_half_vectors_and_under_autocast() -> None:
    vectors = batch(negatives=2)
    exact = info_nce(*vectors, temperature=0.05, bidirectional=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = info_nce(*vectors, temperature=0.05, bidirectional=True)
    assert torch.equal(under, exact)
    halves = [each.detach().bfloat16() for each in vectors]
    loss = info_nce(*halves, temperature=0.05)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, info_nce(*(each.float() for each in halves), temperature=0.05))


def test_zero_vectors_give_no_nan() -> None:
    query, positive = batch()
    query.data[0] = 0
    info_nce(query, positive, temperature=0.05).backward()  # type: ignore[no-untyped-call]
    assert query.grad is not None
    assert bool(query.grad.isfinite().all())


def test_gathering_without_processes_changes_nothing() -> None:
    vectors = batch(negatives=2)
    alone, gathered = (info_nce(*vectors, temperature=0.05, gather=gather) for gather in (False, True))
    assert torch.equal(alone, gathered)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(3, 4), (2, 4)], r"\[3, 4\], \[2, 4\], None; expected"),
        ([(3, 4), (3, 5)], r"\[3, 4\], \[3, 5\], None"),
        ([(3,), (3,)], r"\[3\], \[3\]"),
        ([(0, 4), (0, 4)], "N at least 1"),
        ([(3, 4), (3, 4), (3, 4)], r"\[3, 4\], \[3, 4\], \[3, 4\]"),
        ([(3, 4), (3, 4), (2, 1, 4)], r"\[2, 1, 4\]"),
        ([(3, 4), (3, 4), (3, 1, 5)], r"\[3, 1, 5\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        info_nce(*(torch.ones(shape) for shape in shapes), temperature=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": 1.0, "false_negative_margin": -0.1}, "false_negative_margin is -0.1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        info_nce(*batch(), **options)  # type: ignore[arg-type]


def test_simcse_is_info_nce_of_two_views() -> None:
    """Equation 4 of arXiv 2104.08821, written out."""
    one, two = batch()
    terms = []
    for i, view in enumerate(one):
        scores = [torch.exp(cosine_similarity(view, other, dim=0) / 0.05) for other in two]
        terms.append(-torch.log(scores[i] / torch.stack(scores).sum()))
    torch.testing.assert_close(info_nce(one, two, temperature=0.05), torch.stack(terms).mean())


@pytest.mark.parametrize("negatives", [None, 3])
def test_matryoshka_is_that_of_sentence_transformers(negatives: int | None) -> None:
    vectors = batch(negatives=negatives)
    model = Stored()
    inner = MultipleNegativesRankingLoss(model=model, scale=10)
    reference = MatryoshkaLoss(model, inner, matryoshka_dims=[12, 5, 2], matryoshka_weights=[1 / 3] * 3)
    theirs = reference(features(vectors), torch.empty(0))
    ours = matryoshka(info_nce, [2, 12, 5])(*vectors, temperature=0.1)
    torch.testing.assert_close(with_gradients(ours, vectors), with_gradients(theirs, vectors))


def test_matryoshka_is_the_mean_over_cut_vectors_given_in_any_way() -> None:
    query, positive, negatives = batch(negatives=2)
    losses = [info_nce(query[:, :d], positive[:, :d], negatives[..., :d], temperature=0.2) for d in (3, 8)]
    loss = matryoshka(info_nce, [3, 8])
    by_position = loss(query, positive, negatives, temperature=0.2)
    by_name = loss(query, positive_ND=positive, negatives_NKD=negatives, temperature=0.2)
    torch.testing.assert_close(by_position, (losses[0] + losses[1]) / 2)
    assert torch.equal(by_position, by_name)
    without = loss(query, positive, None, temperature=0.2)
    assert torch.equal(without, loss(query, positive, temperature=0.2))


@pytest.mark.parametrize("dimensions", [[], [0], [4, -1], [4, 2, 4]])
def test_matryoshka_dimensions_are_checked(dimensions: list[int]) -> None:
    with pytest.raises(InputError, match="one or more, each at least 1, none twice"):
        matryoshka(info_nce, dimensions)


def test_matryoshka_dimensions_must_exist() -> None:
    loss = matryoshka(info_nce, [4, 13])
    with pytest.raises(InputError, match="dimensions go up to 13; the vectors have 12"):
        loss(*batch(), temperature=0.1)


# --- related rows ----------------------------------------------------------------------------------


def test_related_rows_are_no_negatives() -> None:
    queries, positives = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(5))
    related = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    similarity = torch.nn.functional.cosine_similarity(queries[:, None], positives[None], dim=-1) / 0.1
    kept = [[0, 2], [1, 2], [0, 1, 2]]
    expected = [torch.logsumexp(similarity[row, some], 0) - similarity[row, row] for row, some in enumerate(kept)]
    found = info_nce(queries, positives, temperature=0.1, related_NB=related)
    torch.testing.assert_close(found, torch.stack(expected).mean())
    both = info_nce(queries, positives, temperature=0.1, related_NB=related, bidirectional=True)
    reverse = info_nce(positives, queries, temperature=0.1, related_NB=related)
    torch.testing.assert_close(both, (found + reverse) / 2)


def test_related_rows_leave_hard_negatives_in() -> None:
    queries, positives, negatives = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(6))
    alone = info_nce(queries[:1], positives[:1], torch.stack([negatives], dim=0), temperature=0.1)
    related = torch.ones(2, 2, dtype=torch.bool)
    pair = info_nce(queries, positives, negatives[:, None], temperature=0.1, related_NB=related)
    other = info_nce(queries[1:], positives[1:], torch.stack([negatives], dim=0), temperature=0.1)
    torch.testing.assert_close(pair, (alone + other) / 2)
