"""Counts in fixed buckets: how exact a percentile is, that they add up, and what a process counted meanwhile."""

from __future__ import annotations

import random

import pytest

from unmask.gateway.routing.histograms import ERROR, FIRST, LAST, STEPS, Histogram, bucket_of, merged, middle_of
from unmask.gateway.routing.meters import percentile
from unmask.gateway.routing.tallies import Cell, Tallies

SHARES = (0.01, 0.1, 0.5, 0.9, 0.99, 1.0)


def histogram(values: list[float]) -> Histogram:
    """Return values in their buckets."""
    counts: dict[int, int] = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    return Histogram(counts)


@pytest.mark.parametrize("seed", range(5))
def test_a_percentile_is_within_the_stated_error(seed: int) -> None:
    chance = random.Random(seed)
    assert ERROR < 0.06
    for size in (1, 2, 10, 997):
        values = [10 ** chance.uniform(-4, 6) for _ in range(size)]
        rising, falling, found = sorted(values), sorted(values, reverse=True), histogram(values)
        assert found.total == size
        for share in SHARES:
            for told, exact in ((found.at_most(share), rising), (found.at_least(share), falling)):
                assert told is not None
                true = percentile(exact, share)
                assert 1 / (1 + ERROR) - 1e-9 <= told / true <= 1 + ERROR + 1e-9, (size, share)


def test_parts_add_up_to_the_whole() -> None:
    chance = random.Random(1)
    values = [chance.lognormvariate(-3, 1) for _ in range(600)]
    parts = [histogram(values[start::3]) for start in range(3)]
    assert merged(parts) == histogram(values)
    assert merged([]) == Histogram()
    assert Histogram().at_most(0.5) is Histogram().at_least(0.5) is None


def test_buckets_are_a_twentieth_of_a_factor_of_ten_and_hold_whatever_comes() -> None:
    assert bucket_of(10.0) - bucket_of(1.0) == STEPS == 20
    assert [bucket_of(value) for value in (-1.0, 0.0, 1e-300, 1e300, 1e9)] == [
        FIRST, FIRST, FIRST, LAST, LAST,
    ]  # fmt: skip
    for bucket in (FIRST, -37, 0, 40, LAST):
        assert bucket_of(middle_of(bucket)) == bucket


def test_what_is_counted_is_taken_once_and_belongs_to_its_hour() -> None:
    now = [3600.0 * 500_000]
    tallies = Tallies(lambda: now[0])
    tally = tallies.of("m", "here")
    assert tallies.of("m", "here") is tally
    assert tallies.of("n", "here") is not tally
    for seconds in (0.1, 0.1, 10.0):
        tally.answered(seconds, 100)
    tally.answered(None, 100)  # its caller waited for the model: that says nothing of its speed
    tally.answered(0.0, 1)
    tally.failed()
    for up in (True, True, False):
        tally.checked(up=up)
    found = tallies.take()
    assert found == {
        Cell("m", "here", "answered", 500_000, 0): 5,
        Cell("m", "here", "failed", 500_000, 0): 1,
        Cell("m", "here", "up", 500_000, 0): 2,
        Cell("m", "here", "down", 500_000, 0): 1,
        Cell("m", "here", "latency", 500_000, bucket_of(0.1)): 2,
        Cell("m", "here", "latency", 500_000, bucket_of(10.0)): 1,
        Cell("m", "here", "latency", 500_000, FIRST): 1,
        Cell("m", "here", "throughput", 500_000, bucket_of(1000.0)): 2,
        Cell("m", "here", "throughput", 500_000, bucket_of(10.0)): 1,
        Cell("m", "here", "throughput", 500_000, LAST): 1,
    }
    assert tallies.take() == {}
    now[0] += 3600
    tally.failed()
    assert tallies.take() == {Cell("m", "here", "failed", 500_001, 0): 1}
