"""Who may answer for whom: vectors are mixed only where they are shown to be the same."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from unmask.gateway.routing.agreement import AGREED, PROBES, Agreement, least_cosine

VECTORS = np.random.default_rng(7).standard_normal((len(PROBES), 8)).astype(np.float32)


def turned(cosine: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return the vectors, one of them turned so that its cosine with what it was is as told."""
    other = VECTORS.copy()
    one = VECTORS[3].astype(np.float64)
    aside = np.random.default_rng(8).standard_normal(8)
    aside -= aside @ one / (one @ one) * one
    aside *= np.linalg.norm(one) / np.linalg.norm(aside)
    other[3] = cosine * one + np.sqrt(1 - cosine**2) * aside
    return other


def test_the_least_cosine_counts_and_length_does_not() -> None:
    assert least_cosine(VECTORS, 3 * VECTORS) == pytest.approx(1)
    assert least_cosine(VECTORS, turned(0.99)) == pytest.approx(0.99, abs=1e-6)
    assert least_cosine(VECTORS, VECTORS[:, :4]) == 0


def test_the_probes_are_of_every_kind() -> None:
    assert len(PROBES) == len({(each.instruction, each.content) for each in PROBES}) == 12
    assert sum(bool(each.instruction) for each in PROBES) >= 3
    assert sum(not each.content.isascii() for each in PROBES) >= 3
    assert max(len(each.content) for each in PROBES) > 800


def test_nobody_but_the_first_to_answer_answers_until_the_check_is_passed(caplog: pytest.LogCaptureFixture) -> None:
    agreement = Agreement("m", ["a", "b", "c"])
    assert [agreement.allows(name) for name in "abc"] == [True, True, True]
    assert agreement.answered("b")
    assert (agreement.pin, agreement.standing) == ("b", "checking")
    assert [agreement.allows(name) for name in "abc"] == [False, True, False]
    assert not agreement.answered("a")  # it was asked before, and comes too late
    agreement.probed("a", VECTORS, first=True)
    assert not agreement.allows("a")  # there is nothing to compare it with yet
    agreement.probed("b", turned(AGREED + 1e-5), first=False)
    assert agreement.allows("a")
    assert agreement.figures["a"] == pytest.approx(AGREED + 1e-5, abs=1e-6)
    standings = [agreement.standing]
    agreement.probed("c", turned(AGREED + 1e-5), first=False)
    assert [*standings, agreement.standing] == ["checking", "agreed"]
    assert not caplog.records


def test_who_disagrees_never_answers_and_the_figure_is_told(caplog: pytest.LogCaptureFixture) -> None:
    agreement = Agreement("m", ["a", "b"])
    agreement.probed("a", VECTORS, first=True)
    assert agreement.pin == "a"
    with caplog.at_level(logging.WARNING, "unmask.routing"):
        agreement.probed("b", turned(AGREED - 1e-4), first=False)
    assert (agreement.allows("b"), agreement.standing) == (False, "pinned")
    fields = caplog.records[-1].__dict__["fields"]
    assert fields == {
        "model": "m",
        "provider": "b",
        "pinned_to": "a",
        "cosine": pytest.approx(AGREED - 1e-4, abs=1e-5),
        "expected": AGREED,
    }


def test_one_who_was_down_is_compared_again_while_the_pins_vectors_are_remembered() -> None:
    agreement = Agreement("m", ["a", "b"])
    agreement.probed("a", VECTORS, first=True)
    agreement.probed("b", VECTORS, first=False)
    agreement.forget("a")  # the pin is down, and the other goes on
    assert (agreement.allows("b"), agreement.needs("a"), agreement.needs("b")) == (True, True, False)
    agreement.forget("b")
    assert not agreement.allows("b")
    agreement.probed("b", VECTORS, first=True)
    assert (agreement.allows("b"), agreement.pin) == (True, "a")


def test_a_pin_that_comes_back_as_another_leaves_the_others_behind(caplog: pytest.LogCaptureFixture) -> None:
    agreement = Agreement("m", ["a", "b"])
    agreement.probed("a", VECTORS, first=True)
    agreement.probed("b", VECTORS, first=False)
    agreement.forget("a")
    with caplog.at_level(logging.WARNING, "unmask.routing"):
        agreement.probed("a", turned(0.5), first=True)
    assert not agreement.allows("b")
    assert [record.getMessage() for record in caplog.records] == [
        "the vectors of the provider that the model is pinned to have changed",
        "provider disagrees and does not answer",
    ]


def test_without_a_pin_the_first_that_is_well_becomes_it() -> None:
    agreement = Agreement("m", ["a", "b"])
    agreement.probed("b", VECTORS, first=False)  # the other is only slower
    pins = [agreement.pin]
    agreement.probed("a", VECTORS, first=True)
    assert [*pins, agreement.pin, agreement.standing] == [None, "a", "agreed"]


def test_a_single_one_needs_nobodys_agreement() -> None:
    agreement = Agreement("m", ["a"])
    assert not agreement.needs("a")
    agreement.probed("a", VECTORS, first=True)
    agreement.probed("a", turned(0.1), first=True)
    assert (agreement.allows("a"), agreement.standing) == (True, "single")


def test_what_holds_after_the_operator_changed_something() -> None:
    agreement = Agreement("m", ["a", "b", "c"])
    agreement.probed("a", VECTORS, first=True)
    agreement.probed("b", VECTORS, first=False)
    agreement.probed("c", turned(0.5), first=False)
    kept = agreement.carried(["a", "b", "c"], ["a", "c"])  # b was changed
    assert (kept.pin, kept.needs("b"), kept.allows("b"), kept.allows("c")) == ("a", True, False, False)
    gone = agreement.carried(["b", "c"], ["b", "c"])  # the pin was taken away: who agreed with it goes on
    assert (gone.pin, gone.allows("b"), gone.allows("c")) == ("b", True, False)
    new = agreement.carried(["c", "d"], ["c"])  # nobody is left who agreed with it
    assert (new.pin, new.allows("c"), new.figures) == (None, True, {})
