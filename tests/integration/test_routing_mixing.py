"""Two providers of one model: mixed when they agree, never when they do not; looked after, carried, forgotten."""

from __future__ import annotations

import asyncio

import httpx
import pytest

pytest.importorskip("cryptography")

from tests.integration.test_routing_support import Fake, Rig, answer, fails, says, settle
from unmask.gateway.routing.errors import ProvidersFailedError
from unmask.gateway.routing.routes import Route


def test_one_that_disagrees_does_not_answer_not_even_when_the_other_is_down() -> None:
    async def scenario() -> None:
        rig = Rig("a", ("b", Fake(salt="other")), settings={"failures": 1})
        async with rig.started():
            await settle()
            report = rig.report()
            assert (report.agreement, report.pinned_to) == ("pinned", "a")
            assert report.providers[1].cosine is not None
            assert report.providers[1].cosine < 0.9
            assert [each.answers for each in report.providers] == [True, False]
            assert [await rig.ask() for _ in range(5)] == ["a"] * 5
            rig.fakes["a"].always = fails()
            for _ in range(3):
                with pytest.raises(ProvidersFailedError):
                    await rig.ask()
            assert rig.counts()["b"] == 0

    asyncio.run(scenario())


def test_until_it_is_checked_the_first_that_answers_does_so_alone() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b", choice="weight")
        rig.fakes["a"].always = fails()
        assert await rig.ask() == "b"  # the first is not well
        rig.fakes["a"].always = None
        assert [await rig.ask() for _ in range(10)] == ["b"] * 10
        async with rig.started():
            await settle()
            assert rig.report().agreement == "agreed"
            assert {await rig.ask() for _ in range(20)} == {"a", "b"}

    asyncio.run(scenario())


def test_an_answer_that_comes_when_another_is_pinned_is_not_given_out() -> None:
    async def scenario() -> None:
        rig = Rig("a", ("b", Fake(salt="other")), settings={"retry_share": 1})
        arrived, gate = asyncio.Event(), asyncio.Event()

        async def slowly(request: httpx.Request) -> httpx.Response:
            arrived.set()
            await gate.wait()
            return httpx.Response(200, content=answer(["a text"], salt="other"))

        rig.fakes["a"].script = [fails()]
        rig.fakes["b"].script = [slowly]
        slow = asyncio.create_task(rig.ask())
        await arrived.wait()
        assert await rig.ask() == "a"
        gate.set()
        assert await slow == "a"

    asyncio.run(scenario())


def test_one_that_comes_back_as_another_is_found_out() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b", settings={"failures": 1, "cooldown": 5, "check_seconds": 10}, choice="weight")
        async with rig.started():
            await settle()
            assert rig.report().agreement == "agreed"
            rig.fakes["b"].always = fails()
            while await rig.ask() != "a" or not rig.counts()["b"]:
                pass
            rig.fakes["b"].always, rig.fakes["b"].salt = None, "other"
            await rig.clock.skip(13)
            report = rig.report()
            assert (report.agreement, report.providers[1].status) == ("pinned", "up")
            assert [await rig.ask() for _ in range(10)] == ["a"] * 10

    asyncio.run(scenario())


def test_one_that_is_added_is_compared_before_it_answers() -> None:
    async def scenario() -> None:
        rig = Rig("a", choice="weight")
        async with rig.started():
            await rig.ask()
            rig.fakes["b"] = Fake(salt="other")
            rig.router.update({"model": Route(providers=(rig.remote("b"), rig.remote("a")), choice="weight")})
            assert [await rig.ask() for _ in range(10)] == ["a"] * 10
            await settle()
            assert rig.report().agreement == "pinned"
            assert [await rig.ask() for _ in range(10)] == ["a"] * 10

    asyncio.run(scenario())


def test_who_will_not_embed_the_probes_does_not_answer_for_others() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b")
        rig.fakes["b"].always = says(400)
        rig.fakes["b"].health = says(200)
        async with rig.started():
            await settle()
            assert rig.report().agreement == "checking"
            assert [await rig.ask() for _ in range(5)] == ["a"] * 5
            assert rig.report().providers[1].status == "up"

    asyncio.run(scenario())


def test_the_engine_here_and_a_server_elsewhere_agree_and_are_mixed() -> None:
    async def scenario() -> None:
        rig = Rig("a", local=True, choice="weight")
        async with rig.started():
            await settle()
            report = rig.report()
            assert report.agreement == "agreed"
            assert report.pinned_to == "local"
            assert report.providers[1].cosine == pytest.approx(1)
            assert {await rig.ask() for _ in range(20)} == {"local", "a"}

    asyncio.run(scenario())


def test_a_fault_of_ours_does_not_end_the_looking_after() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b", settings={"check_seconds": 10})

        async def nonsense(request: httpx.Request) -> httpx.Response:
            raise KeyError("a bug")

        rig.fakes["b"].health = nonsense
        async with rig.started():
            assert rig.report().agreement == "checking"
            rig.fakes["b"].health = None
            await rig.clock.skip(13)
            assert rig.report().agreement == "agreed"

    asyncio.run(scenario())
