"""The engine on worker processes that start at once: many callers, models, memory, and how it stops."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import uvloop

from tests.light_worker import COMMAND, IDS, vector
from unmask.engine.contract import EmbeddingEngine, Priority, Served
from unmask.engine.engine import Engine
from unmask.engine.settings import EngineSettings, ModelSettings
from unmask.errors import (
    InputError,
    ModelColdError,
    ModelUnavailableError,
    QueueFullError,
    StoppingError,
    TooManyTokensError,
    UnknownModelError,
)
from unmask.text import Text, TextTokenizer

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def run(work: Callable[[], Awaitable[Any]], loop: str = "asyncio") -> None:
    """Run a test in an event loop, and see that nothing is left of it."""
    _first_process(loop)
    _of_others.clear()
    _of_others.update(children())
    threads, files = set(threading.enumerate()), open_files()
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(work(), 60))
    for thread in set(threading.enumerate()) - threads:
        thread.join(1)  # asyncio's own ones end a little later than what they wait for
    # Fewer there may be: what other tests left behind ends when it likes.
    assert set(threading.enumerate()) <= threads
    assert open_files() <= files
    assert not children()


@cache
def _first_process(loop: str) -> None:
    """Start a process: with the first one, uvloop opens files for good."""

    async def work() -> None:
        await (await asyncio.create_subprocess_exec("true")).wait()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(work())


def open_files() -> int:
    """Return how many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


#: Processes that were there before the test: what Python starts for semaphores, once, and leaves.
_of_others: set[int] = set()


def children() -> list[int]:
    """Return the processes that this one has, but for those that were there before the test."""
    return [process.pid for process in psutil.Process().children() if process.pid not in _of_others]


def model(name: str = "m", source: str = "size=1", **options: Any) -> ModelSettings:
    return ModelSettings(name=name, source=source, **options)


@asynccontextmanager
async def engine(
    *models: ModelSettings, warm: bool = True, command: tuple[str, ...] = COMMAND, **options: Any
) -> AsyncIterator[Engine]:
    """Run an engine; a ``warm`` one has the first model ready, too slow for batches to be sent ahead."""
    made = Engine(EngineSettings(models=models or (model(),), **({"devices": ("cpu",)} | options)), worker=command)
    await made.start()
    try:
        if warm:
            await embed(made, "slow", model=made.settings.models[0].name, wait=30)
        yield made
    finally:
        await made.stop(0)


async def embed(
    engine: EmbeddingEngine,
    *contents: str,
    model: str = "m",
    caller: str = "me",
    priority: Priority = "realtime",
    wait: float = 0,
) -> None:
    """Ask for vectors, and check them."""
    answer = await engine.embed(
        model, [Text("", content) for content in contents], caller=caller, priority=priority, wait=wait
    )
    ids = [[IDS.get(word, 0) for word in content.split()] for content in contents]
    assert answer.vectors.dtype == np.float32
    assert np.array_equal(answer.vectors, np.stack([vector(each) for each in ids]))
    assert answer.tokens == tuple(map(len, ids))


def states(engine: EmbeddingEngine) -> dict[str, str]:
    return {each.name: each.state for each in engine.served()}


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.01)


# --- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_everyone_gets_the_vectors_of_their_own_texts(loop: str) -> None:
    async def work() -> None:
        dice = random.Random(0)
        words = [f"w{number}" for number in range(200)]
        async with engine() as running:
            await asyncio.gather(
                *(
                    embed(
                        running,
                        *(" ".join(dice.choices(words, k=dice.randint(1, 40))) for _ in range(dice.choice([1, 1, 30]))),
                        caller=str(dice.randint(0, 5)),
                        priority=dice.choice(["realtime", "batch"]),
                    )
                    for _ in range(150)
                )
            )
            load = running.load()
            assert load.queued_tokens == {"realtime": 0, "batch": 0}
            assert (load.running_tokens, load.restarts) == (0, 0)
            assert load.batches < load.batch_tokens / 50, "batches of 64 tokens are full"
            assert (load.tokens_per_second or 0) > 0

    run(work, loop)


def test_one_text_waits_for_no_more_than_two_batches_of_another_caller() -> None:
    async def work() -> None:
        async with engine() as running:
            big = asyncio.create_task(embed(running, *["slow " + "w1 " * 63] * 2048, caller="big"))
            await until(lambda: running.load().queued_tokens["realtime"] > 100_000)
            before = running.load().batches
            await embed(running, "w2", caller="small")
            assert running.load().batches - before <= 3, "two before it, and its own"
            big.cancel()
            await asyncio.wait([big])
            assert running.load().queued_tokens["realtime"] == 0

    run(work)


def test_batch_work_yields_to_realtime() -> None:
    async def work() -> None:
        async with engine() as running:
            done = list[str]()

            async def ask(priority: Priority, number: int) -> None:
                await embed(running, *["slow " + "w1 " * 40], priority=priority, caller=str(number))
                done.append(priority)

            asks: list[Priority] = ["batch", "batch", "batch", "realtime", "realtime", "realtime"]
            await asyncio.gather(*(ask(priority, number) for number, priority in enumerate(asks)))
            assert done == ["batch", *["realtime"] * 3, "batch", "batch"]

    run(work)


def test_bad_requests_are_refused() -> None:
    async def work() -> None:
        async with engine(model(max_length=8)) as running:
            with pytest.raises(UnknownModelError, match="'other' is not served here; expected one of m"):
                await embed(running, "w1", model="other")
            with pytest.raises(InputError, match="No text"):
                await running.embed("m", [], caller="me")
            long = [Text("", "w1")] * 70 + [Text("", "w1 " * 9)]
            with pytest.raises(InputError, match="Text 70 has 9 tokens"):
                await running.embed("m", long, caller="me", truncate=False)
            assert (await running.embed("m", long, caller="me")).tokens[-1] == 8
            assert running._dispatch._calls == set()

    run(work)


def test_a_cancelled_request_leaves_the_queue_at_once_and_is_not_computed() -> None:
    async def work() -> None:
        async with engine() as running:
            slow = asyncio.create_task(embed(running, "slow slow"))
            await until(lambda: running.load().running_tokens > 0)
            gone = asyncio.create_task(embed(running, *["w1 " * 64] * 50))
            await until(lambda: running.load().queued_tokens["realtime"] == 3200)
            gone.cancel()
            await asyncio.wait([gone])
            assert running.load().queued_tokens["realtime"] == 0
            before = running.load().batch_tokens
            await slow
            await embed(running, "w1")
            assert running.load().batch_tokens == before + 3

    run(work)


def test_a_full_queue_refuses_and_says_when_to_ask_again() -> None:
    async def work() -> None:
        async with engine(queue_tokens=1000) as running:
            tasks = [asyncio.create_task(embed(running, "slow " * 5))]
            await until(lambda: running.load().running_tokens > 0)
            tasks.append(asyncio.create_task(embed(running, *["w1 " * 30] * 12)))
            await until(lambda: running.load().queued_tokens["realtime"] == 360)
            with pytest.raises(QueueFullError, match="360 tokens of 1000 wait already") as refused:
                await embed(running, *["w1 " * 41] * 4)
            assert refused.value.retry_after == pytest.approx(360 / (running.load().tokens_per_second or 0), rel=0.01)
            await embed(running, "w1", caller="another")
            await embed(running, *["w1"] * 5, priority="batch")
            await asyncio.gather(*tasks)

    run(work)


def test_too_many_tokens_are_refused_while_they_are_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenised: list[int] = []
    original = TextTokenizer.tokenize

    def counted(self: TextTokenizer, texts: Any, **options: Any) -> Any:
        tokenised.append(len(texts))
        return original(self, texts, **options)

    monkeypatch.setattr(TextTokenizer, "tokenize", counted)

    async def work() -> None:
        async with engine() as running:
            tokenised.clear()
            texts = [Text("", "w1 w2 w3 w4")] * 1000
            with pytest.raises(TooManyTokensError, match="more than 300 tokens"):
                await running.embed("m", texts, caller="me", most_tokens=300)
            assert sum(tokenised) < 200, "it stops when it has seen enough"
            assert running.load().queued_tokens["realtime"] == 0
            assert len((await running.embed("m", texts[:75], caller="me", most_tokens=300)).tokens) == 75
            with pytest.raises(TooManyTokensError):
                await running.embed("m", [*texts[:75], Text("", "w1")], caller="me", most_tokens=300)
            tokenised.clear()
            await running.embed("m", texts, caller="me", most_tokens=4000)
            assert sum(tokenised) == 1000, "each text is tokenised once"

    run(work)


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    async def work() -> None:
        async with engine(queue_tokens=100) as running:
            await embed(running, *["w1 " * 60] * 10)

    run(work)


def test_token_arrays_turn_into_texts_and_back() -> None:
    async def work() -> None:
        async with engine(model(), model("cold", "size=2", max_length=3), warm=False) as running:
            tokens = await running.tokenize("cold", [Text("w5", "w1 w2 w3")])
            assert tokens[0].ids == [IDS["w5"], IDS["w1"], IDS["w2"]]
            assert tokens[0].start == 1
            assert await running.detokenize("cold", [[IDS["w1"], IDS["w2"]], [IDS["w3"]]]) == ["w1 w2", "w3"]
            with pytest.raises(InputError, match="Token array 1 holds 9999"):
                await running.detokenize("cold", [[1], [9999]])
            assert states(running)["cold"] == "cold", "it need not be loaded for that"

    run(work)


# --- models ----------------------------------------------------------------------------------------


def test_a_cold_model_is_loaded_when_asked_for_and_says_when_to_ask_again() -> None:
    async def work() -> None:
        async with engine(model(), model("lazy", "size=2 seconds=0.4")) as running:
            assert running.served()[1] == Served(name="lazy", state="cold", dimension=None, max_length=512)
            with pytest.raises(ModelColdError, match="'lazy' is being loaded") as cold:
                await embed(running, "w1", model="lazy")
            assert cold.value.retry_after is not None
            assert cold.value.retry_after >= 1
            assert states(running) == {"m": "ready", "lazy": "warming"}
            with pytest.raises(ModelColdError):
                await embed(running, "w1", model="lazy", wait=0.1)
            await embed(running, "w1")  # others are served meanwhile
            assert states(running)["lazy"] == "warming"
            await embed(running, "w1", model="lazy", wait=20)
            assert running.served()[1] == Served(name="lazy", state="ready", dimension=4, max_length=512)

    run(work)


def test_models_are_preloaded() -> None:
    async def work() -> None:
        async with engine(model(preload=True), model("lazy", "size=2"), warm=False) as running:
            await until(lambda: states(running)["m"] == "ready")
            await embed(running, "w1")
            assert states(running)["lazy"] == "cold"

    run(work)


def test_names_of_one_source_share_its_memory_and_its_batches() -> None:
    async def work() -> None:
        async with engine(model("m"), model("alias", max_length=3)) as running:
            assert states(running) == {"m": "ready", "alias": "ready"}
            slow = asyncio.create_task(embed(running, "slow"))
            await until(lambda: running.load().running_tokens > 0)
            before = running.load().batches
            both = [embed(running, "w1 w2 w3 w4"), running.embed("alias", [Text("", "w1 w2 w3 w4")], caller="me")]
            _, short = await asyncio.gather(*both)
            await slow
            assert short is not None
            assert short.tokens == (3,)
            assert running.load().batches == before + 2

    run(work)


def test_the_least_recently_used_model_makes_room() -> None:
    async def work() -> None:
        models = [model(name, f"size=100 file=/ dies_not={name}") for name in "abc"]
        async with engine(*models, memory=250) as running:
            await embed(running, "w1", model="b", wait=20)
            await embed(running, "w1", model="a")
            await embed(running, "w1", model="c", wait=20)
            assert states(running) == {"a": "ready", "b": "cold", "c": "ready"}
            working = [asyncio.create_task(embed(running, "slow slow", model=name)) for name in "ac"]
            await until(lambda: running.load().running_tokens > 0)
            with pytest.raises(ModelColdError):
                await embed(running, "w1", model="b")
            assert states(running) == {"a": "ready", "b": "warming", "c": "ready"}, "both are in use"
            await embed(running, "w1", model="b", wait=20)
            assert sorted(states(running).values()) == ["cold", "ready", "ready"]
            await asyncio.gather(*working)

    run(work)


def test_a_model_larger_than_the_memory_fails_and_says_so() -> None:
    async def work() -> None:
        async with engine(model(), model("huge", "size=300"), memory=250) as running:
            with pytest.raises(ModelUnavailableError, match="'huge' cannot be loaded"):
                await embed(running, "w1", model="huge", wait=20)
            assert "300 bytes" in str(running.served()[1].error)
            await embed(running, "w1")

    run(work)


def test_a_model_without_its_files_fails_and_is_tried_again_after_a_pause(tmp_path: Path) -> None:
    async def work() -> None:
        file = tmp_path / "weights"
        async with engine(model(), model("late", f"file={file}"), retry_seconds=0.5) as running:
            for _ in range(2):
                with pytest.raises(ModelUnavailableError, match="'late' cannot be loaded") as failed:
                    await embed(running, "w1", model="late", wait=20)
                assert failed.value.retry_after is None
                assert str(file) not in str(failed.value)
                file.touch()
            (_, late) = running.served()
            assert (late.state, late.error) == ("failed", "CheckpointError: There is no file weights.")
            await embed(running, "w1")
            await asyncio.sleep(0.5)
            await embed(running, "w1", model="late", wait=20)
            assert running.served()[1].error is None

    run(work)


def test_what_may_pass_by_itself_is_to_be_asked_for_again() -> None:
    async def work() -> None:
        async with engine(model(), model("unlucky", "full=1"), retry_seconds=20) as running:
            with pytest.raises(ModelColdError, match="'unlucky' could not be loaded") as failed:
                await embed(running, "w1", model="unlucky", wait=20)
            assert 19 < (failed.value.retry_after or 0) <= 20
            assert str(running.served()[1].error).startswith("OSError: ")

    run(work)


def test_a_model_says_what_its_queries_have_once_its_tokenizer_is_read() -> None:
    async def work() -> None:
        async with engine(model(), model("asks", "size=2 query=w7"), warm=False) as running:
            assert [each.query_instruction for each in running.served()] == [None, None]
            await running.tokenize("asks", ())
            with pytest.raises(UnknownModelError):
                await running.tokenize("other", ())
            assert running.served()[1].query_instruction == "w7"
            await running.tokenize("m", ())
            assert running.served()[0].query_instruction is None
            assert states(running) == {"m": "cold", "asks": "cold"}, "none has been loaded for that"

    run(work)


def test_who_does_not_wait_for_a_tokenizer_is_told_at_once() -> None:
    async def work() -> None:
        async with engine(warm=False) as running:
            with pytest.raises(ModelColdError):
                await running.tokenize("m", (), wait=0)
            await running.tokenize("m", (), wait=20)

    run(work)


# --- how it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_stopping_finishes_what_was_taken_and_takes_nothing_more(loop: str) -> None:
    async def work() -> None:
        async with engine() as running:
            taken = [asyncio.create_task(embed(running, "slow " + "w1 " * 63)) for _ in range(3)]
            await asyncio.sleep(0)
            stopping = asyncio.create_task(running.stop(30))
            await asyncio.sleep(0)
            for late in (embed(running, "w1"), running.tokenize("m", []), running.detokenize("m", [])):
                with pytest.raises(StoppingError):
                    await late
            await asyncio.gather(*taken)
            await stopping
            assert not children()

    run(work, loop)


def test_stopping_without_time_answers_everyone() -> None:
    async def work() -> None:
        async with engine(model(), model("cold", "seconds=20")) as running:
            taken = [
                *(asyncio.create_task(embed(running, "slow " * 5)) for _ in range(30)),
                asyncio.create_task(embed(running, "w1", model="cold", wait=30)),
                asyncio.create_task(running.tokenize("m", [Text("", "w1 " * 500)] * 2000)),
            ]
            await until(lambda: running.load().queued_tokens["realtime"] > 0)
            started = time.monotonic()
            await running.stop(0.1)
            assert time.monotonic() - started < 3
            answers = await asyncio.gather(*taken, return_exceptions=True)
            assert all(isinstance(answer, StoppingError) for answer in answers)

    run(work)


def test_an_engine_that_was_never_started_stops() -> None:
    async def work() -> None:
        await Engine(EngineSettings(models=(model(),)), worker=COMMAND).stop(1)

    run(work)


SERVER = """
import asyncio, sys
sys.path[:0] = {paths!r}
from tests.integration.test_engine import children, embed, engine
async def main():
    async with engine() as running:
        asyncio.create_task(embed(running, "hang" if {hanging} else "w1"))
        await asyncio.sleep(0.2)
        print(*children(), flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("hanging", [False, True], ids=["idle", "hanging"])
def test_workers_end_when_the_server_is_killed(hanging: bool) -> None:
    root = Path(__file__).parents[2]
    script = SERVER.format(paths=[str(root), str(root / "src")], hanging=hanging)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        workers = [int(pid) for pid in server.stdout.readline().split()]
        assert len(workers) == 1
        server.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_nothing_grows_with_the_number_of_requests() -> None:
    async def work() -> None:
        async with engine() as running:
            sizes = []
            for round_ in range(3):
                for step in range(30):
                    some = (embed(running, "w1 w2", caller=f"{round_}-{step}-{i}") for i in range(3))
                    await asyncio.gather(*some)
                scheduler = running._scheduler
                lanes = [lane._shares for lane in scheduler._lanes.values()]
                kept = [scheduler._of_caller, running._dispatch._calls, running._loading._residency._users, *lanes]
                sizes.append((sum(map(len, kept)), open_files(), threading.active_count()))
            assert sizes[0][0] == 0
            assert len(set(sizes)) == 1

    run(work)
