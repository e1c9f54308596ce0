"""The scheduler: every text once, no batch over budget, equal shares, priorities, suspects split until alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.engine.contract import Priority
from unmask.engine.lanes import Item, Request
from unmask.engine.scheduling import PRIORITIES, STRIKES, Pack, Scheduler

quick = settings(deadline=None, max_examples=50)
lengths = st.lists(st.integers(1, 60), min_size=1, max_size=12)
calls = st.tuples(st.sampled_from("MN"), st.sampled_from("abc"), st.sampled_from(PRIORITIES), lengths)


def request(lengths: Sequence[int], *, caller: str = "a", priority: Priority = "realtime", model: str = "M") -> Request:
    return Request(model=model, caller=caller, priority=priority, lengths=lengths)


def queue(*requests: Request, limit: int = 1_000_000) -> Scheduler:
    scheduler = Scheduler(limit)
    for each in requests:
        scheduler.add(each)
    return scheduler


def packs(scheduler: Scheduler, budget: int = 100, models: str = "MN") -> list[Pack]:
    """Return all batches, one after the other."""
    taken = []
    while (pack := scheduler.take(dict.fromkeys(models, budget))) is not None:
        taken.append(pack)
    return taken


def places(pack: Pack) -> list[tuple[str, int]]:
    return [(item.request.caller, item.place) for item in pack.items]


@quick
@given(st.lists(calls, max_size=12), st.integers(1, 100))
def test_every_text_is_taken_once_and_no_batch_is_over_budget(given_calls: list[Any], budget: int) -> None:
    requests = [
        request(sizes, caller=caller, priority=priority, model=model) for model, caller, priority, sizes in given_calls
    ]
    scheduler = queue(*requests)
    assert sum(scheduler.queued.values()) == sum(sum(each.lengths) for each in requests)
    taken = packs(scheduler, budget)
    for pack in taken:
        assert len(pack.items) == 1 or pack.tokens <= budget
        assert {item.request.model for item in pack.items} == {pack.model}
        sizes = [item.tokens for item in pack.items]
        assert sizes == sorted(sizes, reverse=True)
    seen = Counter(item for pack in taken for item in pack.items)
    assert seen == Counter(Item(each, place) for each in requests for place in range(len(each.lengths)))
    assert not any(scheduler.queued.values())


@quick
@given(st.lists(calls, max_size=8), st.integers(0, 2**32))
def test_whatever_happens_every_text_ends_once_and_nothing_is_kept(given_calls: list[Any], seed: int) -> None:
    """Requests come and go, batches succeed, fail, are returned; a text is given up only if it is bad."""
    random = Random(seed)
    scheduler, budgets = Scheduler(10_000), {"M": 70, "N": 40}
    requests = [request(c[3], caller=c[1], priority=c[2], model=c[0]) for c in given_calls]
    bad = {Item(each, random.randrange(len(each.lengths))) for each in requests[::3]}
    coming, ended = list(requests), Counter[Item]()
    mishaps = 40
    while True:
        if coming and random.random() < 0.3:
            scheduler.add(coming.pop())
        pack = scheduler.take(budgets)
        if pack is None:
            if not coming:
                break
            continue
        mishap = random.choice(["died", "dropped", *[""] * 4]) if mishaps else ""
        if mishap:
            mishaps -= 1
            if mishap == "dropped":
                scheduler.drop(pack.items[0].request)
            scheduler.returned(pack)
        elif bad & set(pack.items):
            for item in scheduler.failed(pack):
                assert item in bad
                scheduler.drop(item.request)
        else:
            ended.update(pack.items)
    assert not any(scheduler.queued.values())
    for each in requests:
        items = [Item(each, place) for place in range(len(each.lengths))]
        assert each.closed or not bad & set(items)
        assert all(ended[item] == 1 or (each.closed and ended[item] == 0) for item in items)
        scheduler.drop(each)
    assert not scheduler._of_caller
    assert not any(lane._shares or lane.tokens for lane in scheduler._lanes.values())


@quick
@given(st.integers(1, 50), st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_one_text_beside_many_is_in_the_next_batch(single: int, many: list[int]) -> None:
    scheduler = queue(*(request(many, caller="big") for _ in range(34)))
    for _ in range(3):
        scheduler.take({"M": 100})
    scheduler.add(request([single], caller="small"))
    waited = 0
    while ("small", 0) not in places(scheduler.take({"M": 100}) or pytest.fail("it was never taken")):
        waited += 1
    assert waited <= 1


@quick
@given(st.lists(st.integers(5, 40), min_size=2, max_size=5))
def test_callers_who_always_want_more_get_equal_shares(sizes: list[int]) -> None:
    """However many requests they send; short texts also get the gaps that no longer one fits into."""
    budget, batches = 100, 20
    scheduler = Scheduler(10**9)
    for number, size in enumerate(sizes):
        for _ in range(number + 1):
            scheduler.add(request([size] * (budget * batches // size + 1), caller=str(number)))
    given_to = Counter[str]()
    for _ in range(batches):
        pack = scheduler.take({"M": budget})
        assert pack is not None
        for item in pack.items:
            given_to[item.request.caller] += item.tokens
    least = batches * (budget - max(sizes)) / len(sizes) - max(sizes)
    for number, size in enumerate(sizes):
        assert given_to[str(number)] >= least
        assert abs(given_to[str(number)] - given_to[str(sizes.index(size))]) <= 2 * size


def test_a_caller_who_joins_late_gets_no_arrears() -> None:
    scheduler = queue(request([10] * 100, caller="old"))
    for _ in range(5):
        scheduler.take({"M": 100})
    scheduler.add(request([10] * 100, caller="new"))
    pack = scheduler.take({"M": 100})
    assert pack is not None
    assert Counter(item.request.caller for item in pack.items) == {"old": 5, "new": 5}


def test_inside_a_caller_requests_keep_their_order_and_the_longest_text_comes_first() -> None:
    first, second = request([5, 30, 5]), request([50, 1])
    taken = [item for pack in packs(queue(first, second), budget=30) for item in pack.items]
    assert [(item.request is second, item.place) for item in taken] == [
        *((False, 1), (False, 0), (False, 2)),
        *((True, 0), (True, 1)),
    ]


def test_a_gap_is_filled_by_another_caller_and_the_text_that_did_not_fit_heads_the_next_batch() -> None:
    scheduler = queue(request([60, 60], caller="a"), request([30] * 3, caller="b"))
    assert [places(pack) for pack in packs(scheduler)] == [
        [("a", 0), ("b", 0)],
        [("a", 1), ("b", 1)],
        [("b", 2)],
    ]


def test_batch_work_gets_only_what_realtime_leaves() -> None:
    scheduler = queue(request([40] * 4, priority="batch"), request([45] * 3, caller="b"))
    assert [[item.request.priority for item in pack.items] for pack in packs(scheduler)] == [
        ["realtime", "realtime"],
        ["realtime", "batch"],
        ["batch", "batch"],
        ["batch"],
    ]


def test_a_model_with_realtime_work_goes_before_one_with_batch_work_only() -> None:
    scheduler = queue(request([9], model="M", priority="batch"), *(request([9] * 20, model="N") for _ in range(2)))
    assert [pack.model for pack in packs(scheduler)] == ["N", "N", "N", "N", "M"]


def test_models_take_turns() -> None:
    scheduler = queue(request([50] * 8, model="M"), request([50] * 8, model="N"))
    assert [pack.model for pack in packs(scheduler)] == ["M", "N"] * 4


def test_a_model_that_is_not_ready_waits() -> None:
    scheduler = queue(request([5], model="M"))
    assert scheduler.take({"N": 100}) is None
    assert scheduler.take({}) is None
    assert scheduler.queued["realtime"] == 5
    assert scheduler.take({"M": 100}) is not None


def test_only_a_full_batch_is_kept_ready() -> None:
    scheduler = queue(request([30, 30, 30]))
    assert scheduler.take({"M": 100}, full=True) is None
    scheduler.add(request([10], priority="batch"))
    pack = scheduler.take({"M": 100}, full=True)
    assert pack is not None
    assert pack.tokens == 100


def test_a_text_longer_than_the_budget_is_alone() -> None:
    scheduler = queue(request([500, 500, 3]))
    assert [pack.tokens for pack in packs(scheduler)] == [500, 500, 3]


# --- room ------------------------------------------------------------------------------------------


@quick
@given(st.lists(st.integers(1, 200), min_size=1, max_size=12))
def test_what_waits_stays_within_the_limit_and_leaves_room_for_others(tokens: list[int]) -> None:
    scheduler = Scheduler(1000)
    for size in tokens:
        if scheduler.fits("greedy", "realtime", size):
            scheduler.add(request([size], caller="greedy"))
        assert scheduler.queued["realtime"] <= 500
    assert scheduler.fits("other", "realtime", 250)


def test_an_empty_queue_takes_a_request_of_any_size_and_then_no_other() -> None:
    scheduler = Scheduler(1000)
    assert scheduler.fits("a", "realtime", 5000)
    scheduler.add(request([5000]))
    assert not scheduler.fits("b", "realtime", 1)
    scheduler.take({"M": 100})
    assert scheduler.fits("b", "realtime", 1000)


def test_batch_work_does_not_take_the_room_of_realtime() -> None:
    scheduler = queue(request([1000], priority="batch"), limit=1000)
    assert not scheduler.fits("b", "batch", 1)
    assert scheduler.fits("b", "realtime", 400)


def test_a_dropped_request_leaves_at_once() -> None:
    mine, other = request([10] * 30, caller="a"), request([10], caller="b")
    scheduler = queue(mine, other)
    running = scheduler.take({"M": 50})
    scheduler.drop(mine)
    scheduler.drop(mine)
    assert scheduler.queued == {"realtime": 0 if running and ("b", 0) in places(running) else 10, "batch": 0}
    assert not any(item.request is mine for pack in packs(scheduler) for item in pack.items)


# --- failures --------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 64), st.data())
def test_a_bad_text_is_found_in_halves_and_the_others_are_computed(size: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, size - 1))
    scheduler = queue(request([1] * size))
    done, given_up, batches = set[int](), list[int](), 0
    while (pack := scheduler.take({"M": 64})) is not None:
        batches += 1
        assert pack.suspect == (batches > 1)
        if bad in [item.place for item in pack.items]:
            given_up += [item.place for item in scheduler.failed(pack)]
        else:
            done |= {item.place for item in pack.items}
    assert given_up == [bad]
    assert done == set(range(size)) - {bad}
    assert batches <= 2 * size.bit_length() + STRIKES


def test_a_text_fails_only_when_it_failed_alone_again() -> None:
    scheduler = queue(request([1]))
    for strike in range(STRIKES):
        pack = scheduler.take({"M": 9})
        assert pack is not None
        assert len(scheduler.failed(pack)) == (strike == STRIKES - 1)
    assert scheduler.take({"M": 9}) is None


def test_texts_known_to_have_failed_are_tried_alone_the_others_not_again() -> None:
    scheduler = queue(request([4, 3, 2, 1]))
    pack = scheduler.take({"M": 100})
    assert pack is not None
    assert scheduler.failed(pack, [1, 3]) == []
    assert [places(each) for each in packs(scheduler)] == [[("a", 1)], [("a", 3)]]


def test_suspects_come_first_and_never_behind_another_batch() -> None:
    scheduler = queue(request([50] * 8))
    pack = scheduler.take({"M": 100})
    assert pack is not None
    scheduler.failed(pack)
    assert scheduler.queued["realtime"] == 400
    assert scheduler.take({"M": 100}, full=True) is None
    assert [each.suspect for each in packs(scheduler)] == [True, True, False, False, False]


def test_dropping_a_request_takes_its_texts_out_of_suspects() -> None:
    mine, other = request([10], caller="a"), request([10], caller="b")
    scheduler = queue(mine, other)
    pack = scheduler.take({"M": 100})
    assert pack is not None
    scheduler.returned(pack)
    assert scheduler.of_model("M") == [mine, other]
    scheduler.drop(mine)
    assert scheduler.queued["realtime"] == 10
    assert [places(each) for each in packs(scheduler)] == [[("b", 0)]]


def test_what_waits_for_a_model_can_be_listed() -> None:
    first, second, third = request([1]), request([1], priority="batch"), request([1], model="N")
    assert queue(first, second, third).of_model("M") == [first, second]
