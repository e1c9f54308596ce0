"""The budget of a forward pass, planned from two small ones."""

from __future__ import annotations

import pytest

from unmask.backbone.memory import LEAST, SHARE, largest_budget

MB = 1_000_000


def passes(fixed: int, a_token: int) -> tuple[list[int], object]:
    asked: list[int] = []

    def peak_of(tokens: int) -> int:
        asked.append(tokens)
        return fixed + a_token * tokens

    return asked, peak_of


@pytest.mark.parametrize(
    ("fixed", "a_token", "free", "expected"),
    [
        (0, 1000, 1_000 * MB, 32768),  # more than enough
        (0, 10_000, 300 * MB, 16384),  # 27,000 tokens would fit
        (0, 10_000, int(16384 * 10_000 / SHARE) + 1, 16384),
        (0, 10_000, int(16384 * 10_000 / SHARE) - 1, 8192),
        (200 * MB, 10_000, 300 * MB, 4096),  # what does not grow counts, too
        (0, 10_000, 0, LEAST),
        (500 * MB, 0, 100 * MB, LEAST),
    ],
)
def test_the_largest_power_of_two_that_fits(fixed: int, a_token: int, free: int, expected: int) -> None:
    asked, peak_of = passes(fixed, a_token)
    assert largest_budget(peak_of, free, 32768) == expected  # type: ignore[arg-type]
    assert len(asked) == 2
    assert max(asked) <= 1024


def test_a_second_pass_that_took_less_is_no_negative_memory() -> None:
    peaks = {512: 1_000_000, 1024: 900_000}
    assert largest_budget(peaks.__getitem__, int(850_000 / SHARE), 4096) == LEAST
    assert largest_budget(peaks.__getitem__, int(950_000 / SHARE), 4096) == 4096
