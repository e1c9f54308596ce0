from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from unmask.packing import parts, plan


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 2048))
def test_packs_hold_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    packs = list(plan(lengths, budget))
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    for pack in packs:
        assert len(pack) == 1 or sum(lengths[index] for index in pack) <= budget


@given(st.lists(st.integers(1, 600), min_size=1, max_size=200), st.integers(1, 2048))
def test_longest_come_first_and_no_two_neighbours_would_fit_in_one(lengths: list[int], budget: int) -> None:
    packs = list(plan(lengths, budget))
    ordered = [lengths[index] for pack in packs for index in pack]
    assert ordered == sorted(lengths, reverse=True)
    for pack, following in pairwise(packs):
        assert sum(lengths[index] for index in pack) + lengths[following[0]] > budget


def test_equal_lengths_keep_their_order() -> None:
    assert list(plan([3, 5, 3, 3], 100)) == [[1, 0, 2, 3]]


@given(st.lists(st.integers(1, 600), min_size=1, max_size=40), st.integers(1, 9))
def test_parts_are_stretches_that_hold_every_text_once(lengths: list[int], count: int) -> None:
    found = parts(lengths, count)
    assert [index for part in found for index in part] == list(range(len(lengths)))
    assert 1 <= len(found) <= count
    assert all(len(part) for part in found)
    # No text could move to a neighbour without one of the two being further from its share than half that text.
    share = sum(lengths) / count
    for number, part in enumerate(found[:-1], start=1):
        if len(found) == count:
            end = sum(lengths[: part.stop])
            assert abs(end - share * number) <= max(lengths) / 2


def test_equal_texts_are_shared_out_evenly() -> None:
    assert [len(part) for part in parts([7] * 12, 4)] == [3, 3, 3, 3]
