"""The router: who answers, who is asked next, what is admitted, what is told."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

pytest.importorskip("cryptography")

from tests.integration.test_routing_support import (
    KEY,
    Fake,
    Reply,
    Rig,
    answer,
    fails,
    hangs,
    says,
    settle,
    vectors_of,
)
from unmask.engine.contract import EmbeddingEngine
from unmask.errors import (
    EncodingFailedError,
    InputError,
    ModelColdError,
    ModelUnavailableError,
    QueueFullError,
    ServingError,
    StoppingError,
    TooManyTokensError,
    UnknownModelError,
)
from unmask.gateway.routing.errors import ProvidersFailedError
from unmask.gateway.routing.remote import REQUEST_ID
from unmask.gateway.routing.routes import LocalProvider, Route, Timeouts
from unmask.text import Text

SECRET_TEXT = "the caller's own words, which are nobody's business"

#: Failures after which another provider is asked.
PASSED_ON: dict[str, Reply] = {
    "refused": fails(httpx.ConnectError),
    "unreachable": fails(httpx.ConnectTimeout),
    "silent": fails(httpx.ReadTimeout),
    "broken off": fails(httpx.RemoteProtocolError),
    "hangs": hangs,
    "500": says(500),
    "502 html": says(502, "<html>Bad gateway</html>"),
    "503": says(503),
    "no connection free": fails(httpx.PoolTimeout),
    "429": says(429, retry_after="1"),
    "401": says(401),
    "403": says(403),
    "404": says(404),
    "redirect": says(307, location="https://evil.example/v1/embeddings"),
    "html": says(200, "<html>Log in</html>"),
    "truncated": says(200, answer(["a text"])[:-9]),
    "compressed": says(200, content_encoding="br"),
    "too few": says(200, orjson.dumps({"data": [], "usage": {"prompt_tokens": 1}})),
    "too many": says(200, answer(["a text", "another"])),
    "wrong dimension": says(200, answer(["a text"], dimension=8)),
    "not a number": says(200, orjson.dumps({"data": [{"embedding": "AADAfw==" * 16}], "usage": {"prompt_tokens": 1}})),
    "no usage": says(200, answer(["a text"], usage=None)),
}
#: Refusals that are the caller's own.
CALLERS = (400, 406, 409, 413, 415, 418, 422, 451)


class Desk:
    """An account: counts what it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.admitted: list[tuple[int, ...]] = []
        self.error = error

    async def __call__(self, tokens: Sequence[int]) -> None:
        self.admitted.append(tuple(tokens))
        if self.error:
            raise self.error


async def agreed(rig: Rig) -> None:
    """Have the providers compared."""
    await settle()
    assert rig.report().agreement == "agreed"


# --- fail-over -----------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", PASSED_ON)
def test_another_provider_answers_and_the_request_is_admitted_once(failure: str) -> None:
    async def scenario() -> None:
        rig = Rig("a", "b", route={"dimension": 16})
        async with rig.started():
            await agreed(rig)
            rig.fakes["a"].script = [PASSED_ON[failure]]
            desk = Desk()
            assert await rig.ask(admit=desk) == "b"
            assert rig.counts() == {"a": 1, "b": 1}
            assert len(desk.admitted) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("status", CALLERS)
def test_what_the_provider_calls_the_callers_fault_ends_the_request(status: int) -> None:
    async def scenario() -> None:
        rig = Rig("a", "b")
        async with rig.started():
            rig.fakes["a"].script = [says(status, '{"error": {"message": "input 0 is too long"}}')]
            with pytest.raises(InputError, match=f"'a' refuses the request with {status}: input 0 is too long"):
                await rig.ask()
            assert rig.counts() == {"a": 1, "b": 0}
            assert rig.report().providers[0].failures == 0
            assert rig.report().providers[0].status == "up"

    asyncio.run(scenario())


def test_nobody_is_asked_more_often_than_allowed() -> None:
    async def scenario() -> None:
        rig = Rig(*"abcd", settings={"attempts": 3})
        async with rig.started():
            await agreed(rig)
            for fake in rig.fakes.values():
                fake.always = says(500)
            desk = Desk()
            with pytest.raises(ProvidersFailedError, match=r"No provider of the model 'model' answered \(a, b, c\)"):
                await rig.ask(admit=desk)
            assert sum(rig.counts().values()) == 3
            assert len(desk.admitted) == 1

    asyncio.run(scenario())


def test_an_outage_does_not_multiply_the_load() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b", settings={"attempts": 3, "retry_share": 0.1, "failures": 10**6, "failure_share": 1})
        for fake in rig.fakes.values():
            fake.always = says(500)
        for _ in range(400):
            with pytest.raises(ProvidersFailedError):
                await rig.ask()
        # 20 are saved up at first.
        assert sum(rig.counts().values()) <= 400 * 1.1 + 20 + 5

    asyncio.run(scenario())


def test_a_single_provider_is_asked_again_after_what_passes_and_not_after_what_does_not() -> None:
    async def scenario() -> None:
        for failure, again in (("refused", True), ("500", True), ("hangs", False), ("html", False), ("401", False)):
            rig = Rig("a")
            rig.fakes["a"].script = [PASSED_ON[failure]]
            if again:
                assert await rig.ask() == "a"
                assert 0.05 <= rig.clock.naps[0] <= 0.15
            else:
                with pytest.raises(ServingError):
                    await rig.ask()
            assert rig.counts() == {"a": 1 + again}

    asyncio.run(scenario())


def test_time_is_up_for_all_attempts_together() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b", settings={"seconds": 10})

        async def slowly(request: httpx.Request) -> httpx.Response:
            rig.clock.now += 11
            return httpx.Response(500)

        rig.fakes["a"].script = [slowly]
        with pytest.raises(ProvidersFailedError):
            await rig.ask()
        assert rig.counts() == {"a": 1, "b": 0}

    asyncio.run(scenario())


# --- circuit and health --------------------------------------------------------------------------


def test_an_open_circuit_is_not_asked_and_its_recovery_costs_no_callers_request() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b", settings={"failures": 2, "cooldown": 30, "check_seconds": 10})
        async with rig.started():
            await agreed(rig)
            rig.fakes["a"].always = fails()
            for _ in range(4):
                assert await rig.ask() == "b"
            assert rig.counts()["a"] == 2
            assert rig.report().providers[0].status == "down"
            await rig.clock.skip(31)  # it is tried by those who look after it, and still down
            assert await rig.ask() == "b"
            assert rig.counts()["a"] == 2
            rig.fakes["a"].always = None
            probes = rig.fakes["a"].probed
            await rig.clock.skip(61)
            await rig.clock.skip(12)
            assert rig.report().providers[0].status == "up"
            assert rig.fakes["a"].probed == probes + 1  # it was compared again, as it may be another now
            assert await rig.ask() == "a"
            assert rig.counts()["a"] == 3

    asyncio.run(scenario())


def test_a_provider_that_vanishes_is_found_out_without_requests() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b", settings={"failures": 2, "check_seconds": 10})
        async with rig.started():
            await agreed(rig)
            rig.fakes["a"].health = fails()
            await rig.clock.skip(12)
            await rig.clock.skip(12)
            assert rig.report().providers[0].status == "down"
            assert await rig.ask() == "b"
            assert rig.counts()["a"] == 0
            counts = {(each.provider, each.figure): count for each, count in rig.router.tallies.take().items()}
            assert (counts["a", "up"], counts["a", "down"]) == (1, 2)
            assert (counts["b", "up"], counts["b", "answered"]) == (3, 1)
            assert ("b", "down") not in counts

    asyncio.run(scenario())


def test_checks_are_not_all_at_the_same_moment() -> None:
    async def scenario() -> None:
        rig = Rig(*"abcdef", settings={"check_seconds": 10})
        async with rig.started():
            pauses = {when - rig.clock.now for when, _ in rig.clock.sleepers}
            assert len(pauses) == 7  # the engine's own model is looked after, too
            assert 8 <= min(pauses) < max(pauses) <= 12

    asyncio.run(scenario())


def test_a_wrong_key_is_the_operators_business() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b")
        async with rig.started():
            await agreed(rig)
            rig.fakes["a"].always = says(401, '{"error": {"message": "Incorrect API key provided"}}')
            assert await rig.ask() == "b"
            report = rig.report().providers[0]
            assert (report.status, report.problem) == (
                "misconfigured",
                "The provider 'a' answers 401. The operator must look at its key.",
            )
            assert await rig.ask() == "b"
            assert rig.counts()["a"] == 1
        alone = Rig("a")
        alone.fakes["a"].always = says(401)
        with pytest.raises(ModelUnavailableError, match="Tell its operator"):
            await alone.ask()

    asyncio.run(scenario())


def test_a_busy_provider_is_left_alone_as_long_as_it_asks() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b")
        async with rig.started():
            await agreed(rig)
            rig.fakes["a"].script = [says(429, retry_after="7")]
            assert [await rig.ask() for _ in range(3)] == ["b", "b", "b"]
            assert rig.report().providers[0].status == "resting"
            rig.clock.now += 7
            assert await rig.ask() == "a"
            assert rig.counts() == {"a": 2, "b": 3}
            assert rig.report().providers[0].failures == 0

    asyncio.run(scenario())


def test_where_everybody_is_busy_the_caller_is_told_when_to_come_back() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b")
        async with rig.started():
            await agreed(rig)
            rig.fakes["a"].script = [says(429, retry_after="7")]
            rig.fakes["b"].script = [says(429, retry_after_ms="3000")]
            for _ in range(2):  # the second time nobody is asked
                with pytest.raises(QueueFullError) as raised:
                    await rig.ask()
                assert raised.value.retry_after == pytest.approx(3, abs=0.01)
            assert rig.counts() == {"a": 1, "b": 1}

    asyncio.run(scenario())


def test_one_text_that_fails_everywhere_opens_no_circuit() -> None:
    async def scenario() -> None:
        rig = Rig("a", kind="unmask", settings={"failures": 1})
        for _ in range(5):
            rig.fakes["a"].script = [says(500, '{"error": {"code": "encoding_failed"}}')]
            with pytest.raises(ServingError):
                await rig.ask()
        assert rig.report().providers[0].status == "up"

    asyncio.run(scenario())


# --- cold models ---------------------------------------------------------------------------------


def test_a_cold_model_is_told_with_the_time_to_wait() -> None:
    async def scenario() -> None:
        rig = Rig("a", kind="unmask")
        rig.fakes["a"].script = [says(503, '{"error": {"code": "model_cold"}}', retry_after="20")]
        with pytest.raises(ModelColdError) as raised:
            await rig.ask()
        assert raised.value.retry_after == 20
        assert "prefer" not in rig.fakes["a"].requests[0].headers
        assert rig.report().providers[0].failures == 0

    asyncio.run(scenario())


def test_who_is_ready_to_wait_waits_at_the_provider() -> None:
    async def scenario() -> None:
        rig = Rig("a", kind="unmask")
        assert await rig.ask(wait=30.0) == "a"
        assert rig.fakes["a"].requests[0].headers["prefer"] == "wait=30"
        # How long it took says nothing of the provider.
        assert {each.figure: count for each, count in rig.router.tallies.take().items()} == {"answered": 1}
        await rig.ask()
        assert {each.figure for each in rig.router.tallies.take()} == {"answered", "latency", "throughput"}

    asyncio.run(scenario())


def test_nobody_waits_while_another_is_warm_and_all_wait_when_none_is() -> None:
    async def scenario() -> None:
        cold = says(503, '{"error": {"code": "model_cold"}}', retry_after="20")
        rig = Rig("a", "b", kind="unmask")
        async with rig.started():
            await agreed(rig)
            rig.fakes["a"].script = [cold]
            assert await rig.ask(wait=30.0) == "b"
            assert await rig.ask(wait=30.0) == "b"  # the cold one comes last for a while
            assert rig.counts() == {"a": 1, "b": 2}
            rig.clock.now += 10
            rig.fakes["a"].script, rig.fakes["b"].script = [cold], [cold]
            assert await rig.ask(wait=30.0) == "a"
            assert [each.headers.get("prefer") for each in rig.fakes["a"].requests] == [None, None, "wait=30"]

    asyncio.run(scenario())


# --- choice --------------------------------------------------------------------------------------


def test_the_choice_is_made_among_those_that_agree() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b", choice="price")
        rig.router.update(
            {"model": Route(providers=(rig.remote("a", price=20), rig.remote("b", price=10)), choice="price")}
        )
        assert await rig.ask() == "a"  # nothing is known yet: the first of the operator's order
        async with rig.started():
            await agreed(rig)
            assert await rig.ask() == "b"

    asyncio.run(scenario())


def test_the_fastest_is_asked_and_the_others_now_and_then() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b", choice="latency", settings={"explore": 0.1})
        seconds = {"a": 0.5, "b": 0.1}

        def slowly(name: str) -> Reply:
            async def reply(request: httpx.Request) -> httpx.Response:
                rig.clock.now += seconds[name]
                return httpx.Response(200, content=answer(orjson.loads(request.content)["input"]))

            return reply

        async with rig.started():
            await agreed(rig)
            for name, fake in rig.fakes.items():
                fake.always = slowly(name)
            asked = [await rig.ask() for _ in range(100)]
            assert asked[:2] == ["a", "b"]
            assert 80 <= asked.count("b") < 100
            speeds = [each.speed for each in rig.report().providers]
            assert [speed and round(speed.p50, 3) for speed in speeds] == [0.5, 0.1]
            assert round(speeds[1].tokens_per_second) == 60
            seconds["b"] = 0.9
            await rig.clock.skip(901)  # what was measured so long ago counts no more
            asked = [await rig.ask() for _ in range(100)]
            assert asked.count("a") >= 80

    asyncio.run(scenario())


# --- this process --------------------------------------------------------------------------------


def test_the_engine_here_answers_beside_others() -> None:
    async def scenario() -> None:
        rig = Rig("a", local=True)
        async with rig.started():
            await agreed(rig)
            assert await rig.ask() == "local"
            failures: list[Exception] = [QueueFullError("full", retry_after=5), EncodingFailedError("no")]

            async def embed(*arguments: Any, **options: Any) -> Any:
                if options.get("admit") and failures:
                    raise failures.pop(0)
                return await type(rig.engine).embed(rig.engine, *arguments, **options)

            rig.engine.embed = embed  # type: ignore[method-assign]
            desk = Desk()
            assert await rig.ask(admit=desk) == "a"
            assert desk.admitted == [(6,)]  # exact, though another one computes
            # It is full for one caller, and not for the next.
            assert await rig.ask(admit=desk) == "a"
            assert await rig.ask() == "local"

    asyncio.run(scenario())


def test_an_engine_alone_is_as_it_was() -> None:
    async def scenario() -> None:
        rig = Rig("a")
        found = await rig.router.embed("m", [Text("", "x")], caller="me")
        assert found.provider is None
        names = {each.name: each for each in rig.router.served()}
        assert names["m"] == rig.engine.served()[0]
        with pytest.raises(UnknownModelError):
            await rig.router.embed("none", [Text("", "x")], caller="me")
        with pytest.raises(InputError, match="No text"):
            await rig.router.embed("model", [], caller="me")
        report = next(each for each in rig.router.report() if each.model == "m")
        assert (report.agreement, report.pinned_to, report.providers[0].successes) == ("single", None, 1)

    asyncio.run(scenario())


def test_the_router_keeps_the_contract() -> None:
    engine: EmbeddingEngine = Rig("a").router
    assert engine.load().queued_tokens == {"realtime": 0, "batch": 0}


# --- admission -----------------------------------------------------------------------------------


def test_what_the_account_refuses_is_not_sent() -> None:
    async def scenario() -> None:
        for error in (QueueFullError("the account's own"), ValueError("no credit")):
            rig = Rig("a", "b")
            with pytest.raises(type(error), match=str(error)):
                await rig.ask(admit=Desk(error))
            assert rig.counts() == {"a": 0, "b": 0}

    asyncio.run(scenario())


def test_tokens_are_exact_with_a_tokenizer_here() -> None:
    async def scenario() -> None:
        rig = Rig("a", local=True)
        rig.router.update({"model": Route(providers=(rig.remote("a"), LocalProvider(model="m")))})
        desk = Desk()
        assert await rig.ask("four", "é", admit=desk) == "a"
        assert desk.admitted == [(4, 2)]
        with pytest.raises(TooManyTokensError):
            await rig.ask("four", "é", most_tokens=5)
        with pytest.raises(InputError, match="Text 0 has 600 tokens"):
            await rig.ask("x" * 600, truncate=False)

    asyncio.run(scenario())


def test_tokens_are_a_bound_or_asked_for_without_a_tokenizer_here() -> None:
    async def scenario() -> None:
        for kind in ("openai", "unmask"):
            rig = Rig("a", kind=kind, route={"max_length": 500})
            small, large = Desk(), Desk()
            assert await rig.ask("four", "é", admit=small) == "a"
            assert small.admitted[0] > (4, 2)
            texts = ["x" * 400] * 30
            assert await rig.ask(*texts, admit=large) == "a"
            assert large.admitted == [(400,) * 30 if kind == "unmask" else (448,) * 30]

    asyncio.run(scenario())


def test_usage_is_the_providers_own() -> None:
    async def scenario() -> None:
        rig = Rig("a")
        rig.fakes["a"].script = [says(200, answer(["ab", "abcd"], usage={"total_tokens": 31}))]
        found = await rig.router.embed("model", [Text("", "ab"), Text("", "abcd")], caller="me")
        assert sum(found.tokens) == 31
        assert found.tokens[1] >= found.tokens[0]

    asyncio.run(scenario())


# --- what is sent --------------------------------------------------------------------------------


def test_what_is_sent_to_a_plain_endpoint() -> None:
    async def scenario() -> None:
        rig = Rig("a")
        token = REQUEST_ID.set("req_1")
        await rig.router.embed("model", [Text("Say:", " a "), Text("", "b")], caller="me", priority="batch", wait=5)
        REQUEST_ID.reset(token)
        (request,) = rig.fakes["a"].requests
        assert orjson.loads(request.content) == {
            "model": "there",
            "input": ["Say: a", "b"],
            "encoding_format": "base64",
        }
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["x-request-id"] == "req_1"
        assert request.headers["accept-encoding"] == "identity"
        assert not {"prefer", "x-tier"} & set(request.headers)

    asyncio.run(scenario())


def test_what_is_sent_to_an_unmask_server() -> None:
    async def scenario() -> None:
        rig = Rig("a", kind="unmask", key=None)
        texts = [Text("Say:", "a"), Text("", "b"), Text("Say: ", "c")]
        found = await rig.router.embed("model", texts, caller="me", priority="batch", truncate=False)
        assert np.array_equal(found.vectors, vectors_of(["Say: a", "b", "Say: c"]))
        bodies = [orjson.loads(request.content) for request in rig.fakes["a"].requests]
        common = {"model": "there", "encoding_format": "base64", "normalize": False, "truncate": False}
        assert bodies == [
            {**common, "input": ["a", "c"], "instruction": "Say:"},
            {**common, "input": ["b"], "instruction": ""},
        ]
        headers = rig.fakes["a"].requests[0].headers
        assert headers["x-tier"] == "batch"
        assert "authorization" not in headers

    asyncio.run(scenario())


def test_more_texts_than_a_request_may_have_are_sent_in_several() -> None:
    async def scenario() -> None:
        rig = Rig("a")
        assert await rig.ask(*(f"text {number}" for number in range(2049))) == "a"
        assert [len(each) for each in rig.fakes["a"].asked] == [2048, 1]

    asyncio.run(scenario())


# --- cancelling, updating, stopping --------------------------------------------------------------


def test_a_caller_who_goes_ends_the_request_elsewhere_and_costs_the_provider_nothing() -> None:
    async def scenario() -> None:
        rig = Rig("a", timeouts=Timeouts(), settings={"failures": 1})
        rig.fakes["a"].script = [hangs]
        task = asyncio.create_task(rig.ask())
        await settle()
        assert rig.counts() == {"a": 1}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rig.fakes["a"].cancelled == 1
        assert await rig.ask() == "a"

    asyncio.run(scenario())


def test_other_routes_take_effect_while_requests_finish_on_the_old() -> None:
    async def scenario() -> None:
        rig = Rig("a", timeouts=Timeouts())
        rig.fakes["b"] = Fake()
        gate = asyncio.Event()

        async def gated(request: httpx.Request) -> httpx.Response:
            await gate.wait()
            return httpx.Response(200, content=answer(["a text"]))

        async with rig.started():
            rig.fakes["a"].script = [gated]
            old = asyncio.create_task(rig.ask())
            await settle()
            rig.router.update({"model": Route(providers=(rig.remote("b"),))})
            await settle()
            assert await rig.ask() == "b"
            assert rig.closed() == set()
            gate.set()
            assert await old == "a"
            await settle()
            assert rig.closed() == {"a"}
            rig.router.update({})
            with pytest.raises(UnknownModelError):
                await rig.ask()
            await settle()
            assert rig.closed() == {"a", "b"}
            with pytest.raises(InputError, match="names 'other', which is not served here"):
                rig.router.update({"model": Route(providers=(LocalProvider(model="other"),))})

    asyncio.run(scenario())


def test_providers_that_stay_keep_what_is_known_of_them() -> None:
    async def scenario() -> None:
        rig = Rig("a", "b")
        async with rig.started():
            await agreed(rig)
            await rig.ask()
            rig.fakes["c"] = Fake()
            providers = (rig.remote("a"), rig.remote("b", weight=2), rig.remote("c"))
            rig.router.update({"model": Route(providers=providers)})
            report = rig.report()
            assert [each.successes for each in report.providers] == [1, 0, 0]
            assert report.pinned_to == "a"
            assert report.agreement == "checking"  # b was changed
            await agreed(rig)

    asyncio.run(scenario())


def test_stopping_ends_what_does_not_finish() -> None:
    async def scenario() -> None:
        rig = Rig("a", timeouts=Timeouts())
        await rig.router.start()
        rig.fakes["a"].script = [hangs]
        task = asyncio.create_task(rig.ask())
        await settle()
        await rig.router.stop(0.01)
        with pytest.raises(StoppingError):
            await task
        with pytest.raises(StoppingError):
            await rig.ask()
        assert rig.closed() == {"a"}

    asyncio.run(scenario())


def test_stopping_ends_what_goes_on_at_a_provider_that_was_taken_away() -> None:
    async def scenario() -> None:
        rig = Rig("a", timeouts=Timeouts())
        await rig.router.start()
        rig.fakes["a"].script = [hangs]
        task = asyncio.create_task(rig.ask())
        await settle()
        rig.router.update({})
        await settle()
        assert rig.closed() == set()
        await rig.router.stop(0.01)
        with pytest.raises(StoppingError):
            await task
        assert rig.closed() == {"a"}

    asyncio.run(scenario())


# --- tokens and what is served -------------------------------------------------------------------


def test_tokens_come_from_here_or_from_an_unmask_server_or_not_at_all() -> None:
    async def scenario() -> None:
        peer, plain, both = Rig("a", kind="unmask"), Rig("a"), Rig("a", local=True)
        for rig in (peer, both):
            (found,) = await rig.router.tokenize("model", [Text("", "abc")])
            assert found.ids == [97, 98, 99]
        assert await plain.router.tokenize("model", []) == []
        with pytest.raises(InputError, match="Send texts"):
            await plain.router.tokenize("model", [Text("", "abc")])
        with pytest.raises(InputError, match="Send texts"):
            await peer.router.detokenize("model", [[97]])
        assert await both.router.detokenize("model", [[97]]) == ["a"]

    asyncio.run(scenario())


def test_a_model_elsewhere_is_served_as_far_as_it_is_known() -> None:
    async def scenario() -> None:
        rig = Rig("a", kind="unmask", route={"query_instruction": "Q:"}, settings={"failures": 1})
        rig.fakes["a"].models = [{"id": "there", "status": "ready", "dimensions": 16, "max_length": 99}]

        def served() -> tuple[Any, ...]:
            found = next(each for each in rig.router.served() if each.name == "model")
            return found.state, found.dimension, found.max_length, found.query_instruction

        assert served() == ("ready", None, None, "Q:")
        async with rig.started():
            assert served() == ("ready", 16, 99, "Q:")
            rig.fakes["a"].models = [{"id": "there", "status": "cold"}]
            await rig.clock.skip(20)
            assert served()[0] == "cold"
            rig.fakes["a"].models = []
            await rig.clock.skip(20)
            assert served()[0] == "failed"
            assert "does not list the model" in str(rig.report().providers[0].problem)

    asyncio.run(scenario())


# --- what is not told ----------------------------------------------------------------------------


def test_no_key_and_no_text_is_ever_told(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        told: list[str] = []
        for name, failure in {**PASSED_ON, "400": says(400, f'{{"error": {{"message": "{KEY}"}}}}')}.items():
            rig = Rig("a", "b")
            async with rig.started():
                await settle()
                for fake in rig.fakes.values():
                    fake.always = failure
                try:
                    await rig.ask(SECRET_TEXT)
                except (ServingError, InputError) as error:
                    told += traceback.format_exception(error)
                    told.append(repr(error))
                    assert SECRET_TEXT not in str(error), name
                told += [repr(rig.router.report()), repr(rig.router.served()), repr(rig.route)]
        told += [str(record.__dict__) for record in caplog.records]
        assert len(caplog.records) > 20
        assert KEY not in "".join(told)
        assert SECRET_TEXT not in "".join(str(record.__dict__) for record in caplog.records)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
