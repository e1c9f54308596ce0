"""Workers that raise, die, hang or cannot start: every request gets the right answer, and the engine lives on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_engine import children, embed, engine, model, run, states, until
from unmask.engine import process
from unmask.engine.engine import Engine
from unmask.errors import EncodingFailedError, ModelColdError, ModelUnavailableError
from unmask.text import Text


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FIRST_PAUSE", 0.01)


async def among_others(running: Engine, *contents: str, others: int = 9) -> BaseException | None:
    """Ask for some texts while others ask for theirs; return the error of the first."""
    busy = asyncio.create_task(embed(running, "slow"))
    await until(lambda: running.load().running_tokens > 0)
    mine = asyncio.create_task(running.embed("m", [Text("", content) for content in contents], caller="me"))
    rest = [asyncio.create_task(embed(running, f"w{i} w2", caller=str(i))) for i in range(others)]
    await asyncio.gather(busy, *rest)
    await asyncio.wait([mine])
    await embed(running, "w3", wait=20)
    return mine.exception()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_worker_killed_amid_a_batch_loses_nothing(loop: str) -> None:
    async def work() -> None:
        async with engine() as running:
            asked = [asyncio.create_task(embed(running, "slow " + "w1 " * 40, "w2", caller=str(i))) for i in range(4)]
            await until(lambda: running.load().running_tokens > 0)
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)
            await asyncio.gather(*asked)
            assert running.load().restarts == 1
            assert children() != [pid]

    run(work, loop)


@pytest.mark.parametrize(
    ("word", "why", "restarts"),
    [("bad", "raised ValueError", 0), ("nan", "not finite", 0), ("die", "died over it, or hung", 5)],
)
def test_a_bad_text_fails_alone(word: str, why: str, restarts: int) -> None:
    async def work() -> None:
        async with engine() as running:
            error = await among_others(running, "w1", f"w1 {word}", "w1", others=5)
            assert isinstance(error, EncodingFailedError)
            assert str(error).startswith("Text 1 could not be encoded, alone and again")
            assert why in str(error)
            assert "texts of users" not in str(error)
            assert running.load().restarts <= restarts

    run(work)


def test_a_hung_worker_is_restarted() -> None:
    async def work() -> None:
        async with engine(batch_seconds=0.5) as running:
            error = await among_others(running, "hang", others=1)
            assert isinstance(error, EncodingFailedError)
            assert 2 <= running.load().restarts <= 4

    run(work)


def test_a_text_that_kills_a_worker_once_is_computed_the_second_time(tmp_path: Path) -> None:
    async def work() -> None:
        async with engine(model(source=f"marks={tmp_path / 'once'}")) as running:
            assert await among_others(running, "once") is None
            assert running.load().restarts == 1

    run(work)


def test_who_hangs_up_while_the_worker_is_dead_is_forgotten() -> None:
    async def work() -> None:
        async with engine() as running:
            mine = asyncio.create_task(embed(running, "slow " * 5))
            await until(lambda: running.load().running_tokens > 0)
            os.kill(children()[0], signal.SIGKILL)
            await until(lambda: running.load().restarts == 1)
            assert running.load().queued_tokens["realtime"] == 5
            mine.cancel()
            await asyncio.wait([mine])
            assert running.load().queued_tokens["realtime"] == 0
            await embed(running, "w1", wait=20)

    run(work)


def test_models_come_back_with_their_worker() -> None:
    async def work() -> None:
        async with engine(model(), model("second", "size=2"), model("never", "size=3")) as running:
            await embed(running, "w1", model="second", wait=20)
            os.kill(children()[0], signal.SIGKILL)
            await until(lambda: running.load().restarts == 1)
            assert states(running) == {"m": "warming", "second": "warming", "never": "cold"}
            with pytest.raises(ModelColdError):
                await embed(running, "w1")
            await until(lambda: states(running) == {"m": "ready", "second": "ready", "never": "cold"})
            await embed(running, "w1", model="second")

    run(work)


def test_a_model_that_kills_its_worker_when_loaded_fails_and_the_others_live() -> None:
    async def work() -> None:
        async with engine(model(), model("deadly", "dies=1")) as running:
            with pytest.raises(ModelColdError, match="'deadly' could not be loaded"):
                await embed(running, "w1", model="deadly", wait=30)
            assert running.load().restarts == 3
            assert "died over it 3 times" in str(running.served()[1].error)
            await embed(running, "w1", wait=20)

    run(work)


def test_who_waits_for_a_model_that_does_not_come_back_gets_an_answer(tmp_path: Path) -> None:
    async def work() -> None:
        file = tmp_path / "weights"
        file.touch()
        async with engine(model(source=f"file={file}")) as running:
            asked = [asyncio.create_task(embed(running, "slow " * 5, "w1" * 64)) for _ in range(3)]
            await until(lambda: running.load().running_tokens > 0)
            file.unlink()
            os.kill(children()[0], signal.SIGKILL)
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(answer) for answer in answers] == [ModelUnavailableError] * 3
            assert running.load().queued_tokens["realtime"] == 0

    run(work)


@pytest.mark.parametrize("command", [(sys.executable, "-c", "pass"), ("/no/such/program",)], ids=["ends", "absent"])
def test_a_worker_that_cannot_start_hangs_nobody(command: tuple[str, ...]) -> None:
    async def work() -> None:
        async with engine(warm=False, command=command) as running:
            with pytest.raises(ModelColdError, match="could not be loaded"):
                await embed(running, "w1", wait=30)
            with pytest.raises(ModelColdError, match="could not be loaded"):
                await running.tokenize("m", [Text("", "w1")])
            assert states(running) == {"m": "failed"}

    run(work)


def test_a_worker_that_answers_nonsense_is_restarted() -> None:
    async def work() -> None:
        async with engine() as running:
            real, calls = running._dispatch.computed, []

            def confused(*arguments: Any) -> None:
                calls.append(1)
                if len(calls) == 1:
                    raise LookupError("not a batch of ours")
                real(*arguments)

            running._dispatch.computed = confused  # type: ignore[assignment, method-assign]
            await embed(running, "w1", "w2")
            assert running.load().restarts == 1

    run(work)


def test_signals_to_the_whole_service_leave_the_workers_alive() -> None:
    async def work() -> None:
        async with engine() as running:
            asked = asyncio.create_task(embed(running, "slow"))
            await until(lambda: running.load().running_tokens > 0)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(children()[0], number)
            await asked
            assert running.load().restarts == 0

    run(work)


# --- several devices -------------------------------------------------------------------------------


def test_all_devices_work_and_one_takes_over_from_another() -> None:
    async def work() -> None:
        async with engine(devices=("cpu", "cpu")) as running:
            await until(lambda: all("m" in str(d.loaded) or d.loaded for d in running._devices))
            asked = [asyncio.create_task(embed(running, "slow " + "w1 " * 60, caller=str(i))) for i in range(6)]
            await until(lambda: all(device.packs for device in running._devices))
            os.kill(children()[0], signal.SIGKILL)
            await asyncio.gather(*asked)
            assert running.load().restarts == 1
            assert states(running) == {"m": "ready"}
            await until(lambda: all(device.loaded for device in running._devices))

    run(work)


def test_the_first_device_loads_alone() -> None:
    async def work() -> None:
        async with engine(model(source="seconds=0.3", preload=True), devices=("cpu",) * 2, warm=False) as running:
            await until(lambda: all(device.up for device in running._devices))
            await until(lambda: any(device.jobs for device in running._devices))
            await asyncio.sleep(0.1)
            assert sum(len(device.jobs) for device in running._devices) == 1
            await until(lambda: all(device.loaded for device in running._devices))

    run(work)
