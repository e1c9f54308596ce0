from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unmask.errors import InputError
from unmask.training.objectives import Masked, mask_tokens, masked_token_loss

MASK = 7
VOCABULARY = 1000
LENGTHS = [1, 2, 400, 97, 500]


def row(size: int = sum(LENGTHS), seed: int = 1) -> Tensor:
    """Ids from 100 up, so that neither the mask nor a protected id is among them by chance."""
    return torch.randint(100, VOCABULARY, (size,), generator=torch.Generator().manual_seed(seed))


def masked(ids: Tensor, seed: int = 0, **changes: Any) -> Masked:
    options = {"lengths": [len(ids)], "rate": 0.2, "strategy": "all", "mask_id": MASK, "vocab_size": VOCABULARY}
    options |= {"protected": None, "generator": torch.Generator().manual_seed(seed)} | changes
    return mask_tokens(ids, **options)  # type: ignore[arg-type]


def within(hits: int, trials: int, probability: float) -> bool:
    """Within four standard deviations of the binomial distribution."""
    return abs(hits - trials * probability) < 4 * math.sqrt(trials * probability * (1 - probability))


@pytest.mark.parametrize("rate", [0.15, 0.2, 0.8])
@pytest.mark.parametrize("strategy", ["bert", "all"])
def test_tokens_are_selected_at_the_rate_and_independently(rate: float, strategy: str) -> None:
    size = 100_001
    read = masked(row(size), rate=rate, strategy=strategy).read_M
    assert within(len(read), size - 1, rate)
    neighbours = int((read.diff() == 1).sum())
    assert within(neighbours, size - 2, rate**2)


def test_bert_writes_80_10_10() -> None:
    ids = row(200_001)
    result = masked(ids, strategy="bert", rate=0.5)
    written = result.ids_T[result.read_M + 1]
    total = len(written)
    assert within(int((written == MASK).sum()), total, 0.8 + 0.1 / VOCABULARY)
    assert within(int((written == result.labels_M).sum()), total, 0.1 + 0.1 / VOCABULARY)
    drawn = written[(written != MASK) & (written != result.labels_M)]
    assert within(len(drawn), total, 0.1 * (1 - 2 / VOCABULARY))
    low, high = int(drawn.min()), int(drawn.max())
    assert (low, high) == (0, VOCABULARY - 1)  # ids below 100 occur in no text: the whole vocabulary is drawn from
    assert within(int((drawn < 500).sum()), len(drawn), 0.5)


def test_all_writes_the_mask_alone() -> None:
    result = masked(row(), strategy="all")
    assert set(result.ids_T[result.read_M + 1].tolist()) == {MASK}


@pytest.mark.parametrize("strategy", ["bert", "all"])
def test_labels_are_the_true_ids_and_the_rest_is_untouched(strategy: str) -> None:
    ids = row()
    before = ids.clone()
    result = masked(ids, strategy=strategy, lengths=LENGTHS, rate=0.5)
    assert torch.equal(ids, before)
    assert torch.equal(result.labels_M, before[result.read_M + 1])
    elsewhere = torch.ones(len(ids), dtype=torch.bool)
    elsewhere[result.read_M + 1] = False
    assert torch.equal(result.ids_T[elsewhere], before[elsewhere])
    assert result.ids_T.dtype == result.read_M.dtype == result.labels_M.dtype == torch.int64


@pytest.mark.parametrize("strategy", ["bert", "all"])
def test_nothing_returned_shares_memory_with_the_input(strategy: str) -> None:
    for ids in (row(), row(1), row(0)):
        before = ids.clone()
        result = masked(ids, strategy=strategy, lengths=[len(ids)] if len(ids) else [])
        for tensor in (result.ids_T, result.read_M, result.labels_M):
            tensor.fill_(-1)
        assert torch.equal(ids, before)


def test_first_tokens_are_never_selected_and_all_others_are_at_rate_one() -> None:
    result = masked(row(), lengths=LENGTHS, rate=1.0)
    firsts = {0, 1, 3, 403, 500}
    assert set(range(sum(LENGTHS))) - set((result.read_M + 1).tolist()) == firsts
    text = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    assert torch.equal(text[result.read_M], text[result.read_M + 1])


def test_protected_ids_are_never_selected() -> None:
    ids = row()
    ids[10::20], ids[13::50] = 1, 2
    result = masked(ids, rate=1.0, protected=torch.tensor([1, 2]))
    assert len(result.labels_M) == int((ids > 2).sum()) - 1
    assert int(result.labels_M.min()) >= 100
    assert torch.equal(result.ids_T == 1, ids == 1)


def test_the_generator_alone_decides() -> None:
    ids = row()
    first = masked(ids, seed=3, strategy="bert")
    torch.manual_seed(99)
    again, other = masked(ids, seed=3, strategy="bert"), masked(ids, seed=4, strategy="bert")
    assert torch.equal(first.ids_T, again.ids_T)
    assert torch.equal(first.read_M, again.read_M)
    assert not torch.equal(first.ids_T, other.ids_T)
    generator = torch.Generator().manual_seed(3)
    state = torch.get_rng_state()
    one, two = masked(ids, generator=generator), masked(ids, generator=generator)
    assert not torch.equal(one.read_M, two.read_M)
    assert torch.equal(state, torch.get_rng_state())


def test_texts_of_one_token_have_nothing_to_predict() -> None:
    result = masked(row(3), lengths=[1, 1, 1], rate=1.0)
    assert result.read_M.shape == result.labels_M.shape == (0,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 0.0}, "rate is 0.0"),
        ({"rate": 1.1}, "rate is 1.1"),
        ({"rate": math.nan}, "rate is nan"),
        ({"mask_id": VOCABULARY}, "mask_id is 1000; expected a token of the vocabulary, 0 to 999"),
        ({"mask_id": -1}, "mask_id is -1"),
        ({"lengths": [3, 4]}, r"ids have shape \[10\], lengths are \[3, 4\]"),
        ({"lengths": [0, 10]}, r"lengths are \[0, 10\]"),
        ({"lengths": [12, -2]}, r"lengths are \[12, -2\]"),
        ({"strategy": "some"}, "strategy is 'some'; expected one of bert, all"),
    ],
)
def test_what_cannot_be_masked_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        masked(row(10), **changes)


def test_a_row_must_be_one_row() -> None:
    with pytest.raises(InputError, match=r"ids have shape \[2, 5\]"):
        masked(row(10).view(2, 5), lengths=[2])


def test_a_model_that_knows_each_next_token_has_no_loss() -> None:
    """States that encode their position, a head that knows what follows each: reading at i-1 is what scores."""
    ids = row(50)
    result = masked(ids, rate=0.5, lengths=[20, 30])
    states = torch.eye(50)
    follows = torch.zeros(50, VOCABULARY)
    follows[torch.arange(49), ids[1:]] = 100.0
    right = masked_token_loss(states[result.read_M], result.labels_M, lambda chunk: chunk @ follows)
    assert right.correct == right.count == len(result.labels_M) > 10
    assert float(right.total) < 1e-3
    itself = masked_token_loss(states[result.read_M + 1], result.labels_M, lambda chunk: chunk @ follows)
    assert itself.correct < itself.count / 4
    assert float(itself.total) > 50 * itself.count


def batch(count: int = 10, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, nn.Linear]:
    torch.manual_seed(5)
    head = nn.Linear(6, 11, dtype=dtype)
    return torch.randn(count, 6, dtype=dtype, requires_grad=True), torch.randint(11, (count,)), head


@pytest.mark.parametrize("chunk", [1, 3, 5, 10, 11])
def test_the_loss_is_the_sum_of_cross_entropies_however_it_is_cut(chunk: int) -> None:
    states, labels, head = batch()
    expected = cross_entropy(head(states), labels, reduction="sum")
    gradients = torch.autograd.grad(expected, (states, head.weight))
    result = masked_token_loss(states, labels, head, chunk=chunk)
    assert result.total.shape == ()
    assert result.count == 10
    assert result.correct == int((head(states).argmax(-1) == labels).sum())
    torch.testing.assert_close(result.total, expected)
    result.total.backward()  # type: ignore[no-untyped-call]
    assert states.grad is not None
    assert head.weight.grad is not None
    torch.testing.assert_close(states.grad, gradients[0])
    torch.testing.assert_close(head.weight.grad, gradients[1])


def test_logits_of_one_chunk_at_a_time() -> None:
    states, labels, head = batch()
    sizes: list[int] = []

    def counted(chunk: Tensor) -> Tensor:
        sizes.append(len(chunk))
        logits: Tensor = head(chunk)
        return logits

    kept: list[torch.Size] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = masked_token_loss(states, labels, counted, chunk=4).total
    assert sizes == [4, 4, 2]
    assert not [shape for shape in kept if shape[-1:] == (11,)]
    total.backward()  # type: ignore[no-untyped-call]
    assert sorted(sizes[3:]) == [2, 4, 4]
    sizes.clear()
    masked_token_loss(states, labels, counted, chunk=10).total.backward()  # type: ignore[no-untyped-call]
    assert sizes == [10]  # one chunk: nothing to save by running the head twice


def test_cross_entropy_is_float32_for_bfloat16_states() -> None:
    states, labels, head = batch(dtype=torch.bfloat16)
    result = masked_token_loss(states, labels, head)
    assert result.total.dtype == torch.float32
    torch.testing.assert_close(result.total, cross_entropy(head(states).float(), labels, reduction="sum"))


def test_no_masked_token_gives_zero_that_back_propagates() -> None:
    states, labels, head = batch(0)
    below = nn.Linear(6, 6)
    result = masked_token_loss(below(states), labels, head)
    assert (result.total.item(), result.count, result.correct) == (0.0, 0, 0)
    result.total.backward()  # type: ignore[no-untyped-call]
    for parameter in (*below.parameters(), *head.parameters()):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_states_and_labels_must_match() -> None:
    states, labels, head = batch()
    with pytest.raises(InputError, match=r"states have shape \[10, 6\], labels \[9\]"):
        masked_token_loss(states, labels[:9], head)
    with pytest.raises(InputError, match="chunk is 0"):
        masked_token_loss(states, labels, head, chunk=0)
