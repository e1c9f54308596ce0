"""Who may answer for whom: vectors are mixed only where they are shown to be the same."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
import pytest

from unmask.errors import InputError
from unmask.gateway.routing.agreement import AGREED, PROBES, Agreement, least_cosine
from unmask.gateway.routing.pinning import Pinning
from unmask.gateway.routing.pins import PinsInMemory

T = TypeVar("T")
Vectors = np.ndarray[tuple[int, int], np.dtype[np.float32]]

VECTORS = np.random.default_rng(7).standard_normal((len(PROBES), 8)).astype(np.float32)


def turned(cosine: float) -> Vectors:
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


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what comes of something that waits for nothing: pins in memory are there."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


class Model:
    """An agreement that is in step with its pin at once.

    Args:
        agreement: of the model.
        pins: as a database would keep them.
    """

    def __init__(self, agreement: Agreement, pins: PinsInMemory | None = None) -> None:
        self.agreement = agreement
        self.pins = pins or PinsInMemory()
        self.pinning = Pinning("m", agreement, self.pins)
        self.embedded = 0

    def settle(self, first: str | None = None) -> None:
        at_once(self.pinning.settle(first))

    def probed(self, name: str, vectors: Vectors, *, first: bool = False) -> None:
        self.agreement.probed(name, vectors)
        self.settle(name if first else None)

    def proves(self, name: str, vectors: Vectors | None) -> bool:
        """Return whether the answer of a provider is given out that embeds the probes so, or refuses to."""

        async def embed() -> Vectors:
            self.embedded += 1
            if vectors is None:
                raise InputError("It does not take them.")
            return vectors

        return at_once(self.pinning.prove(name, embed))

    def carried(self, names: list[str], unchanged: list[str]) -> Model:
        return Model(self.agreement.carried(names, unchanged), self.pins)

    def learns(self) -> None:
        """Take what the pin is now, as every few seconds."""
        row = self.agreement.row
        for found in at_once(self.pins.news({"m": row.mark if row else None})).values():
            self.agreement.adopt(found)

    def pin(self) -> str | None:
        """Return the pin that all processes see."""
        found = at_once(self.pins.news({"m": None})).get("m")
        return found.provider if found else None


def model(*names: str, pins: PinsInMemory | None = None) -> Model:
    return Model(Agreement("m", names), pins)


def test_nobody_but_the_first_to_answer_answers_until_the_check_is_passed(caplog: pytest.LogCaptureFixture) -> None:
    m = model("a", "b", "c")
    agreement = m.agreement
    assert [agreement.may_ask(name) for name in "abc"] == [True, True, True]
    assert [agreement.allows(name) for name in "abc"] == [False, False, False]  # nobody knows yet whose the model is
    assert m.proves("b", VECTORS)
    assert (agreement.pin, agreement.standing) == ("b", "checking")
    assert [agreement.may_ask(name) for name in "abc"] == [False, True, False]
    assert m.proves("a", turned(AGREED + 1e-5))  # it was asked before, and comes late
    assert agreement.figures["a"] == pytest.approx(AGREED + 1e-5, abs=1e-6)
    standings = [agreement.standing]
    m.probed("c", turned(AGREED + 1e-5), first=True)
    assert [*standings, agreement.standing] == ["checking", "agreed"]
    assert m.pin() == "b"
    assert not caplog.records


def test_who_disagrees_never_answers_and_the_figure_is_told(caplog: pytest.LogCaptureFixture) -> None:
    m = model("a", "b")
    m.probed("a", VECTORS, first=True)
    assert m.agreement.pin == "a"
    with caplog.at_level(logging.WARNING, "unmask.routing"):
        m.probed("b", turned(AGREED - 1e-4))
    assert (m.agreement.allows("b"), m.agreement.may_ask("b"), m.agreement.standing) == (False, False, "pinned")
    assert not m.proves("b", turned(AGREED - 1e-4))
    fields = caplog.records[-1].__dict__["fields"]
    assert fields == {
        "model": "m",
        "provider": "b",
        "pinned_to": "a",
        "cosine": pytest.approx(AGREED - 1e-4, abs=1e-5),
        "expected": AGREED,
    }


def test_one_who_was_down_is_compared_again_while_the_pins_vectors_are_kept() -> None:
    m = model("a", "b")
    m.probed("a", VECTORS, first=True)
    m.probed("b", VECTORS)
    agreement = m.agreement
    agreement.forget("a")  # the pin is down, and the other goes on
    assert (agreement.allows("b"), agreement.needs("a"), agreement.needs("b")) == (True, True, False)
    agreement.forget("b")
    assert (agreement.allows("b"), agreement.may_ask("b")) == (False, False)
    m.probed("b", VECTORS, first=True)
    assert (agreement.allows("b"), agreement.pin) == (True, "a")


def test_a_pin_that_comes_back_as_another_does_not_answer_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    m = model("a", "b")
    m.probed("a", VECTORS, first=True)
    m.probed("b", VECTORS)
    m.agreement.forget("a")
    assert (m.agreement.allows("a"), m.agreement.may_ask("a")) == (False, True)  # it is asked, and compared then
    with caplog.at_level(logging.WARNING, "unmask.routing"):
        assert not m.proves("a", turned(0.5))
    assert [m.agreement.may_ask(name) for name in "ab"] == [False, True]
    assert (m.agreement.standing, m.pin()) == ("pinned", "a")
    assert "has other vectors than it had" in caplog.records[-1].getMessage()


def test_without_a_pin_the_first_that_is_well_becomes_it() -> None:
    m = model("a", "b")
    m.probed("b", VECTORS)  # the other is only slower
    pins = [m.agreement.pin]
    m.probed("a", VECTORS, first=True)
    assert [*pins, m.agreement.pin, m.agreement.standing] == [None, "a", "agreed"]


def test_a_single_one_needs_nobodys_agreement_and_no_pin() -> None:
    m = model("a")
    assert not m.agreement.needs("a")
    m.probed("a", VECTORS, first=True)
    m.probed("a", turned(0.1), first=True)
    assert (m.agreement.allows("a"), m.agreement.standing, m.pin()) == (True, "single", None)


def test_one_that_refuses_the_probes_answers_alone_until_it_embeds_them() -> None:
    m = model("a", "b")
    m.settle("a")
    assert m.pin() is None  # only an answer makes it the pin
    assert m.proves("a", None)
    assert [m.agreement.allows(name) for name in "ab"] == [True, False]
    m.probed("b", VECTORS)
    assert not m.agreement.allows("b")
    m.probed("a", VECTORS)
    assert (m.agreement.allows("b"), m.pin()) == (True, "a")
    m.agreement.forget("a")
    assert not m.proves("a", None)  # it can be compared now, and refuses to


def test_what_holds_after_the_operator_changed_something() -> None:
    m = model("a", "b", "c")
    m.probed("a", VECTORS, first=True)
    m.probed("b", VECTORS)
    m.probed("c", turned(0.5))
    kept = m.carried(["a", "b", "c"], ["a", "c"]).agreement  # b was changed
    assert (kept.pin, kept.needs("b"), kept.allows("b"), kept.allows("c")) == ("a", True, False, False)
    gone = m.carried(["b", "c"], ["b", "c"])  # the pin was taken away: who agreed with it goes on, without a gap
    assert [gone.agreement.allows(name) for name in "bc"] == [True, False]
    gone.settle()
    assert (gone.agreement.pin, gone.pin(), gone.agreement.allows("b")) == ("b", "b", True)
    new = gone.carried(["c", "d"], ["c"])  # nobody is left who agreed with it, and one might
    new.settle("c")
    assert (new.agreement.pin, new.pin(), new.agreement.allows("c"), new.agreement.may_ask("d")) == (
        None,
        "b",
        False,
        True,
    )
    agreeing = new.carried(["c", "d"], ["c", "d"])
    agreeing.probed("d", VECTORS)
    assert (agreeing.agreement.pin, agreeing.pin()) == ("d", "d")


def test_a_pin_that_is_gone_is_forgotten_when_all_that_are_left_disagree() -> None:
    m = model("a", "b", "c")
    m.probed("a", VECTORS, first=True)
    m.probed("b", turned(0.5))
    left = m.carried(["b", "c"], ["b", "c"])
    left.settle("b")
    assert left.pin() == "a"  # c was not compared yet
    left.probed("c", turned(0.6))
    assert left.pin() is None
    left.settle("b")
    assert (left.pin(), left.agreement.allows("b"), left.agreement.allows("c")) == ("b", True, False)


def test_a_pin_that_was_changed_is_compared_with_what_it_was() -> None:
    m = model("a", "b")
    m.probed("a", VECTORS, first=True)
    m.probed("b", turned(0.5))
    changed = m.carried(["a", "b"], ["b"])
    assert (changed.agreement.allows("a"), changed.agreement.may_ask("a")) == (False, True)
    assert changed.proves("a", VECTORS)  # another price, the same weights
    assert (changed.pin(), changed.agreement.standing) == ("a", "pinned")


def test_who_answered_alone_is_the_pin_of_those_that_are_added() -> None:
    m = model("a")
    more = m.carried(["b", "a"], ["a"])
    more.probed("b", turned(0.5), first=True)
    assert (more.pin(), more.agreement.may_ask("b"), more.agreement.may_ask("a")) == (None, False, True)
    assert more.proves("a", VECTORS)
    assert (more.pin(), more.agreement.allows("b"), more.agreement.standing) == ("a", False, "pinned")


def test_who_answered_alone_is_the_pin_whatever_was_before() -> None:
    m = model("a", "b")
    m.probed("a", VECTORS, first=True)
    alone = m.carried(["b"], ["b"])
    alone.settle()
    assert (alone.agreement.allows("b"), alone.pin()) == (True, "a")  # it is not known whether b agrees
    more = alone.carried(["b", "c"], ["b"])
    more.probed("c", VECTORS, first=True)
    assert more.pin() is None
    assert more.proves("b", turned(0.5))
    assert (more.pin(), more.agreement.allows("c")) == ("b", False)


@pytest.mark.parametrize(("heir", "pin"), [("b", "c"), ("d", "d")])
def test_a_pin_learnt_of_late_outdoes_who_answered_alone_only_if_its_provider_is_there(heir: str, pin: str) -> None:
    m = model("a", "b", "c")
    m.probed("a", VECTORS, first=True)
    m.probed("c", turned(0.5))
    row = m.agreement.row
    assert row is not None
    # Another process, or a step of this one that nobody waited for.
    at_once(m.pins.change(row, heir, VECTORS))
    more = m.carried(["c"], ["c"]).carried(["d", "c"], ["c"])
    more.probed("d", VECTORS, first=True)
    assert (more.pin(), more.agreement.pin) == (pin, pin)
    assert (more.agreement.allows("c"), more.agreement.allows("d")) == (pin == "c", pin == "d")


def test_what_another_process_did_is_learnt() -> None:
    pins = PinsInMemory()
    here, there = model("a", "b", pins=pins), model("a", "b", pins=pins)
    there.probed("b", turned(0.5))
    here.probed("a", VECTORS, first=True)
    assert not there.proves("b", turned(0.5))  # it came second
    assert there.agreement.pin == "a"
    row = here.agreement.row
    assert row is not None
    at_once(pins.forget("m", "an older one"))
    assert here.pin() == "a"
    at_once(pins.forget("m", row.mark))
    there.learns()
    assert there.agreement.row is None
    assert there.agreement.needs("b")  # it may have other weights now
    assert there.proves("b", turned(0.4))
    assert here.agreement.allows("a")  # as it does not know yet
    here.learns()
    assert (here.agreement.pin, here.agreement.allows("a"), here.agreement.may_ask("a")) == ("b", False, False)
