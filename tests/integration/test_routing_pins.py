"""Pins in the database: one for all processes, kept over a restart, carried and forgotten as the operator says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("alembic")
pytest.importorskip("psycopg")
pytest.importorskip("cryptography")

from tests.bank import raw
from tests.integration.test_routing_support import Fake, Rig, fails, settle, vectors_of
from unmask.engine.contract import Embedded
from unmask.gateway.db.database import Database
from unmask.gateway.db.errors import DatabaseUnavailableError
from unmask.gateway.routing.agreement import PROBES, Pin
from unmask.gateway.routing.errors import ProvidersFailedError
from unmask.gateway.routing.pins import Pins, PinsInDatabase, PinsInMemory
from unmask.gateway.routing.routes import Route
from unmask.text import Text

pytest_plugins = ("tests.databases",)

Vectors = NDArray[np.float32]
OTHER = "other weights"


class Counted:
    """Pins that count what they are asked, and wait or fail before they answer if they are told to.

    Args:
        pins: that answer.
        before: awaited before each question.
    """

    def __init__(self, pins: Pins, before: Callable[[], Awaitable[object]] | None = None) -> None:
        self.pins, self.before, self.asked = pins, before, 0

    async def _ask(self) -> None:
        self.asked += 1
        if self.before is not None:
            await self.before()

    async def claim(self, model: str, provider: str, reference_ND: Vectors | None) -> Pin:
        await self._ask()
        return await self.pins.claim(model, provider, reference_ND)

    async def change(self, pin: Pin, provider: str, reference_ND: Vectors | None) -> Pin | None:
        await self._ask()
        return await self.pins.change(pin, provider, reference_ND)

    async def forget(self, model: str, mark: str) -> Pin | None:
        await self._ask()
        return await self.pins.forget(model, mark)

    async def news(self, known: Mapping[str, str | None]) -> dict[str, Pin | None]:
        await self._ask()
        return await self.pins.news(known)


@asynccontextmanager
async def shared(url: str, probes: Sequence[Text] = PROBES) -> AsyncIterator[PinsInDatabase]:
    """Open the pins of a database, as a process of its own would."""
    async with Database(url) as database:
        yield PinsInDatabase(database, probes=probes)


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that a thread has a part in; pytest's own limit ends what hangs."""
    while not happened():
        await asyncio.sleep(0.002)


async def vectors(rig: Rig) -> Embedded:
    """Return what a router answers, whatever it is."""
    return await rig.router.embed("model", [Text("", "a text")], caller="me")


def pinned(url: str) -> list[tuple[object, ...]]:
    """Return the models and providers of all pins."""
    return raw(url, "SELECT model, provider FROM pins ORDER BY model")


def salt_of(embedded: Embedded) -> str:
    """Return which weights vectors are of."""
    return next(salt for salt in ("m", OTHER) if np.array_equal(embedded.vectors, vectors_of(["a text"], salt)))


def test_of_two_processes_that_pin_at_once_one_does_and_the_other_gives_nothing_out(url: str) -> None:
    async def scenario() -> None:
        async with shared(url) as one, shared(url) as other:
            both = asyncio.Barrier(2)
            here = Rig("a", ("b", Fake(salt=OTHER)), pins=Counted(one, both.wait))
            there = Rig("a", ("b", Fake(salt=OTHER)), pins=Counted(other, both.wait))
            there.fakes["a"].always = fails()  # it cannot be reached from there: b is the first that answers
            asked = [vectors(rig) for rig in (here, there) for _ in range(8)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            ((_, winner),) = pinned(url)
            given = {salt_of(each) for each in found if isinstance(each, Embedded)}
            refused = [each for each in found if not isinstance(each, Embedded)]
            assert given == {"m" if winner == "a" else OTHER}
            assert all(isinstance(each, ProvidersFailedError) for each in refused), refused
            assert len(refused) == (8 if winner == "a" else 0)  # b can be reached from everywhere
            assert here.report().pinned_to == there.report().pinned_to == winner
            assert there.fakes["b"].asked

    asyncio.run(scenario())


@pytest.mark.parametrize("first", ["here", "there"])
def test_the_second_goes_by_the_first_and_asks_the_winner(url: str, first: str) -> None:
    async def scenario() -> None:
        async with shared(url) as one, shared(url) as other:
            here, there = Rig("a", ("b", Fake(salt=OTHER)), pins=one), Rig("a", ("b", Fake(salt=OTHER)), pins=other)
            there.fakes["a"].script = [fails()]
            rigs = [here, there] if first == "here" else [there, here]
            found = [await vectors(rig) for rig in rigs]
            assert {salt_of(each) for each in found} == ({"m"} if first == "here" else {OTHER})
            assert pinned(url) == [("model", "a" if first == "here" else "b")]

    asyncio.run(scenario())


def test_a_restart_keeps_the_pin_and_compares_with_what_it_stood_for(url: str) -> None:
    async def scenario() -> None:
        async with shared(url) as pins:
            before = Rig("a", "b", pins=pins)
            async with before.started():
                await until(lambda: before.report().agreement == "agreed")
        async with shared(url) as pins:
            after = Rig(("c", Fake(salt=OTHER)), "b", "a", pins=pins)  # another order, and another one in front
            after.fakes["a"].always = fails()
            await after.router.refresh_pins()
            async with after.started():
                await until(lambda: after.report().agreement == "pinned" and after.report().providers[1].answers)
                report = after.report()
                assert report.pinned_to == "a"
                assert [each.answers for each in report.providers[:2]] == [False, True]
                assert {await after.ask() for _ in range(5)} == {"b"}  # while the pin is down
                assert after.counts()["c"] == 0
                assert (pinned(url), after.router.served()[0].dimension) == ([("model", "a")], 16)

    asyncio.run(scenario())


def test_a_process_that_has_not_read_the_pin_finds_it_before_it_gives_anything_out(url: str) -> None:
    async def scenario() -> None:
        async with shared(url) as pins:
            assert await Rig("a", "b", pins=pins).ask() == "a"
        async with shared(url) as pins:
            after = Rig(("b", Fake(salt=OTHER)), "a", pins=pins)
            assert await after.ask() == "a"
            assert after.counts() == {"a": 1, "b": 1}
            assert [await after.ask() for _ in range(3)] == ["a"] * 3
            assert after.counts()["b"] == 1

    asyncio.run(scenario())


def test_with_the_pin_known_nothing_is_asked_of_the_database(url: str) -> None:
    async def scenario() -> None:
        async with shared(url) as pins:
            counted = Counted(pins)
            rig = Rig("a", "b", pins=counted, choice="weight")
            async with rig.started():
                await until(lambda: rig.report().agreement == "agreed")
                before = counted.asked
                assert {await rig.ask() for _ in range(30)} == {"a", "b"}
                await rig.clock.skip(20)
                assert (before, counted.asked) == (1, 1)
            single = Rig("a", pins=(alone := Counted(pins)))
            async with single.started():
                await single.ask()
                await single.clock.skip(20)
                assert alone.asked == 0

    asyncio.run(scenario())


def test_other_weights_under_the_pins_name_answer_when_the_operator_says_so(url: str) -> None:
    async def scenario() -> None:
        async with shared(url) as one, shared(url) as other:
            here, there = Rig("a", "b", pins=one), Rig("a", "b", pins=other)
            for rig in (here, there):
                assert await rig.ask() == "a"
            for rig in (here, there):
                rig.fakes["a"].salt = OTHER
            restarted = Rig("a", "b", pins=other)
            for fake in restarted.fakes.values():
                fake.salt = OTHER
            with pytest.raises(ProvidersFailedError):
                await vectors(restarted)
            (pin,) = await one.list()
            assert await one.forget("model", "another mark") is not None
            assert await one.forget("model", pin.mark) is None
            for rig in (here, restarted):
                await rig.router.refresh_pins()
                assert salt_of(await vectors(rig)) == OTHER
            await there.router.refresh_pins()
            assert there.report().pinned_to == "a"
            assert salt_of(await vectors(there)) == OTHER
            (anew,) = await one.list()
            assert (anew.provider, anew.mark != pin.mark) == ("a", True)

    asyncio.run(scenario())


def test_other_probes_than_the_kept_ones_are_noticed(url: str) -> None:
    async def scenario() -> None:
        async with shared(url, PROBES[:-1]) as pins:
            await pins.claim("model", "a", vectors_of([each.content for each in PROBES[:-1]], OTHER))
        async with shared(url) as pins:
            rig = Rig("b", "a", pins=pins)
            rig.fakes["a"].always = fails()
            await rig.router.refresh_pins()
            async with rig.started():
                await settle()
                with pytest.raises(ProvidersFailedError):  # nobody can be compared with the pin while it is down
                    await rig.ask()
                rig.fakes["a"].always = None
                while rig.report().agreement != "agreed":
                    await rig.clock.skip(20)
                    await asyncio.sleep(0.002)
                assert (rig.report().pinned_to, pinned(url)) == ("a", [("model", "a")])
        async with shared(url) as pins:
            found = (await pins.news({"model": None}))["model"]
            assert found is not None
            assert found.reference is not None
            assert found.reference.shape == (len(PROBES), 16)
        async with shared(url, [*PROBES[:-1], Text("", "z")]) as pins:
            found = (await pins.news({"model": None}))["model"]
            assert found is not None
            assert (found.provider, found.reference) == ("a", None)

    asyncio.run(scenario())


def test_vectors_come_back_as_they_were(url: str) -> None:
    async def scenario() -> None:
        reference = np.random.default_rng(3).standard_normal((12, 5)).astype(np.float32)
        async with shared(url) as pins:
            made = await pins.claim("model", "a", reference)
            assert np.array_equal(made.reference, reference)  # type: ignore[arg-type]
            assert (await pins.claim("model", "b", None)).mark == made.mark
            assert await pins.news({"model": made.mark, "none": None}) == {}
            moved = await pins.change(made, "b", reference)
            assert moved is not None
            assert (moved.provider, np.array_equal(moved.reference, reference)) == ("b", True)  # type: ignore[arg-type]
            late = await pins.change(made, "c", reference)  # of what is not any more
            assert late is not None
            assert (late.provider, late.mark) == ("b", moved.mark)
            assert (await pins.news({"model": made.mark}))["model"] is not None
            assert await pins.forget("model", moved.mark) is None
            assert await pins.news({"model": moved.mark}) == {"model": None}
            assert await pins.change(moved, "c", None) is None
            blind = await pins.claim("model", "c", None)
            assert (blind.provider, blind.reference) == ("c", None)
        assert raw(url, "SELECT texts, dimension, vectors FROM pins") == [(0, 0, None)]

    asyncio.run(scenario())


def test_taking_the_pin_away_has_those_that_agreed_go_on_in_the_database_too(url: str) -> None:
    async def scenario() -> None:
        async with shared(url) as one, shared(url) as other:
            here = Rig("a", "b", ("c", Fake(salt=OTHER)), pins=one)
            there = Rig("c", "b", "a", pins=other)
            there.fakes["c"].salt = OTHER
            async with here.started():
                await until(lambda: len([each for each in here.report().providers if each.cosine is not None]) == 3)
                await there.router.refresh_pins()
                here.router.update({"model": Route(providers=(here.remote("c"), here.remote("b")))})
                assert await here.ask() == "b"  # without a gap
                await until(lambda: pinned(url) == [("model", "b")])
                await there.router.refresh_pins()
                assert there.report().pinned_to == "b"
                here.router.update({"model": Route(providers=(here.remote("c"),))})
                await until(lambda: pinned(url) == [("model", "b")])
                assert salt_of(await vectors(here)) == OTHER  # the only one left is nobody's second
                here.fakes["d"] = Fake()
                here.router.update({"model": Route(providers=(here.remote("d"), here.remote("c")))})
                await until(lambda: pinned(url) == [("model", "c")])
                assert salt_of(await vectors(here)) == OTHER

    asyncio.run(scenario())


def test_when_all_that_are_left_disagree_with_a_pin_that_is_gone_the_model_is_pinned_anew(url: str) -> None:
    async def scenario() -> None:
        async with shared(url) as pins:
            assert await Rig("old", "a", pins=pins).ask() == "old"
        async with shared(url) as pins:
            new = Fake(salt=OTHER)
            rig = Rig(("a", new), ("b", Fake(salt="third")), pins=pins)
            new.always = fails()
            await rig.router.refresh_pins()
            async with rig.started():
                await until(lambda: rig.report().agreement == "pinned")
                assert pinned(url) == [("model", "old")]  # a might agree
                with pytest.raises(ProvidersFailedError):
                    await vectors(rig)
                new.always = None
                while pinned(url) != [("model", "a")]:
                    await rig.clock.skip(20)
                    await asyncio.sleep(0.002)
                await until(lambda: rig.report().pinned_to == "a")
                assert salt_of(await vectors(rig)) == OTHER

    asyncio.run(scenario())


def test_without_the_database_models_whose_pin_is_not_known_are_refused_and_others_go_on(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with shared(url) as pins:
            known = Rig("a", "b", pins=pins)
            assert await known.ask() == "a"
            async with known.started():
                await until(lambda: known.report().agreement == "agreed")
                await pins._database.close()
                unknown = Rig("a", "b", pins=pins)
                with pytest.raises(ProvidersFailedError, match="cannot be known now") as refused:
                    await unknown.ask()
                assert refused.value.retry_after == 1.0
                with pytest.raises(DatabaseUnavailableError):
                    await known.router.refresh_pins()
                assert [await known.ask() for _ in range(3)] == ["a"] * 3
                known.fakes["a"].always = fails()
                assert await known.ask() == "b"
                assert await Rig("a", pins=pins).ask() == "a"
                async with unknown.started():
                    await until(lambda: "a model's pin cannot be read or changed now" in caplog.messages)
                    assert unknown.report().pinned_to is None

    asyncio.run(scenario())


def test_when_the_database_is_back_the_model_is_pinned() -> None:
    async def scenario() -> None:
        away = True

        async def before() -> None:
            if away:
                raise DatabaseUnavailableError("It is away.")

        rig = Rig("a", "b", pins=Counted(PinsInMemory(), before))
        async with rig.started():
            await settle()
            with pytest.raises(ProvidersFailedError):
                await rig.ask()
            away = False
            await rig.clock.skip(20)
            assert (rig.report().pinned_to, rig.report().agreement) == ("a", "agreed")

    asyncio.run(scenario())


def test_what_is_learnt_late_does_not_undo_what_was_done_meanwhile() -> None:
    async def scenario() -> None:
        gate, pins = asyncio.Event(), PinsInMemory()
        slow = Counted(pins)
        read = slow.news

        async def news(known: Mapping[str, str | None]) -> dict[str, Pin | None]:
            found = await read(known)
            await gate.wait()
            return found

        slow.news = news  # type: ignore[method-assign]
        assert await Rig("b", "a", pins=pins).ask() == "b"
        rig = Rig("a", "b", pins=slow)
        reading = asyncio.create_task(rig.router.refresh_pins())
        await settle()  # it has read that b is the pin
        (made,) = pins._pins.values()
        await pins.forget("model", made.mark)
        assert await rig.ask() == "a"
        gate.set()
        await reading
        assert rig.report().pinned_to == "a"

    asyncio.run(scenario())


class Slow(Fake):
    """A provider that lets others go on before it answers."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        return await super().__call__(request)


def test_of_many_first_answers_one_is_compared() -> None:
    async def scenario() -> None:
        rig = Rig(("a", Slow()), "b", pins=(pins := Counted(PinsInMemory())))
        assert set(await asyncio.gather(*(rig.ask() for _ in range(20)))) == {"a"}
        assert (rig.fakes["a"].probed, pins.asked) == (1, 1)

    asyncio.run(scenario())
