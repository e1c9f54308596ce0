"""A pool of workers that die, raise and hang: nothing that can be had is lost, and nothing outlives the pool."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.integration.conftest import Unmask
from tests.light_worker import COMMAND, IDS, vector
from unmask import EncoderPool
from unmask.engine import pool as pools
from unmask.engine import process
from unmask.engine.feeding import Failure
from unmask.engine.settings import EngineSettings, ModelSettings
from unmask.errors import EncodingFailedError, ModelUnavailableError, StoppingError
from unmask.pipeline import WINDOW_TEXTS

TWO = ("cpu", "cpu")


#: Workers that were there before the test: those of the pool that tests share.
_shared: set[int] = set()


def workers() -> set[int]:
    """Return the processes that this one has and that are workers, but for those that were there before the test."""
    found = psutil.Process().children()
    return {each.pid for each in found if any("worker" in part for part in _command(each))} - _shared


def _command(each: psutil.Process) -> list[str]:
    try:
        command: list[str] = each.cmdline()
    except psutil.Error:
        command = []
    return command


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait for something that comes by itself."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FIRST_PAUSE", 0.01)
    _shared.clear()
    _shared.update(workers())


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    yield
    _shared.clear()
    assert not workers()
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    assert set(threading.enumerate()) <= threads


def light(
    *, devices: tuple[str, ...] = TWO, source: str = "size=1", worker: tuple[str, ...] = COMMAND, **options: Any
) -> EncoderPool:
    model = ModelSettings(name="pool", source=source, preload=True)
    return EncoderPool(EngineSettings(models=(model,), devices=devices, **options), worker=worker)


@pytest.fixture(scope="module")
def steady() -> Iterator[EncoderPool]:
    """Return a pool for tests that kill nobody."""
    with light() as made:
        yield made


def light_texts(number: int, longest: int = 9) -> list[str]:
    dice = random.Random(number)
    return [" ".join(f"w{dice.randrange(200)}" for _ in range(dice.randint(1, longest))) for _ in range(number)]


def light_vectors(texts: list[str]) -> NDArray[np.float32]:
    return np.stack([vector([IDS[word] for word in text.split()]) for text in texts])


def test_a_stream_is_read_only_as_far_ahead_as_its_windows(steady: EncoderPool) -> None:
    texts = light_texts(20_000)
    read = 0

    def reading() -> Iterator[str]:
        nonlocal read
        for text in texts:
            read += 1
            yield text

    taken: list[NDArray[np.generic]] = []
    for part in steady.encode_stream(reading()):
        taken.append(part)
        assert read <= sum(map(len, taken)) + 3 * WINDOW_TEXTS
    assert [len(part) for part in taken[:3]] == [256, 512, 1024]
    np.testing.assert_array_equal(np.concatenate(taken), light_vectors(texts))


def test_a_stream_that_is_left_leaves_nothing_in_the_queue() -> None:
    with light(devices=("cpu",), batch_tokens=2) as made:
        stream = made.encode_stream("w1" if number < 256 else "slow" for number in count())
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        until(lambda: made._engine.load().queued_tokens["realtime"] == 0, seconds=30)


def test_a_worker_killed_amid_its_work_loses_nothing() -> None:
    texts = [f"slow {text}" for text in light_texts(16)]
    with light(batch_tokens=8) as made:
        before = workers()

        def kill() -> None:
            until(_busy(made))
            os.kill(min(before), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        vectors = made.encode(texts)
        killer.join()
        np.testing.assert_array_equal(vectors, light_vectors(texts))
        until(lambda: len(workers() - before) == 1)
        assert made._engine.load().restarts == 1
        assert len(workers() & before) == 1
        np.testing.assert_array_equal(made.encode(light_texts(40)), light_vectors(light_texts(40)))


def test_a_worker_that_dies_once_gets_its_texts_again(tmp_path: Path) -> None:
    texts = light_texts(300)
    texts[200] = "w1 once"
    with light(source=f"marks={tmp_path / 'once'}") as made:
        np.testing.assert_array_equal(made.encode(texts), light_vectors(texts))
        assert made._engine.load().restarts == 1


def _busy(made: EncoderPool) -> Callable[[], bool]:
    return lambda: all(device.packs for device in made._engine._devices)


@pytest.mark.parametrize(
    ("word", "why"), [("die", "died over it, or hung"), ("bad", "raised ValueError"), ("nan", "not finite")]
)
def test_a_text_that_always_fails_is_named_and_costs_no_other(word: str, why: str) -> None:
    texts = light_texts(300)
    expected = light_vectors(texts)
    texts[270], expected[270] = f"w1 {word}", 0
    failures: list[Failure] = []
    with light(batch_tokens=16) as made:
        np.testing.assert_array_equal(made.encode(texts, failed=failures.append), expected)
        np.testing.assert_array_equal(made.encode(texts[:100]), expected[:100])
    assert [failure.index for failure in failures] == [270]
    assert why in failures[0].why


def test_the_error_names_what_failed_and_has_the_others_vectors(steady: EncoderPool) -> None:
    texts = light_texts(400)
    expected = light_vectors(texts)
    bad = [3, *range(60, 400, 30)]
    for number in bad:
        texts[number], expected[number] = "w1 bad", 0
    with pytest.raises(EncodingFailedError, match="^Texts 3, 60, .*, 300 and 3 more could not .*ValueError") as caught:
        steady.encode(texts)
    np.testing.assert_array_equal(caught.value.vectors, expected)
    with pytest.raises(EncodingFailedError, match="^Text 0 could not") as caught:
        steady.encode("bad")
    np.testing.assert_array_equal(caught.value.vectors, np.zeros((1, 4)))


def test_a_stream_yields_all_others_before_the_error(steady: EncoderPool) -> None:
    texts = ["", *light_texts(500)]
    texts[300] = "bad"
    stream = steady.encode_stream(texts, empty="zero", normalize=False)
    got = [next(stream) for _ in range(2)]
    with pytest.raises(EncodingFailedError, match="Text 300 could not") as caught:
        next(stream)
    assert caught.value.vectors is None
    vectors = np.concatenate(got)
    good = [number for number in range(1, 501) if number != 300]
    np.testing.assert_array_equal(vectors[good], light_vectors([texts[number] for number in good]))
    assert not vectors[[0, 300]].any()


def test_blank_texts_are_zero_though_a_window_has_no_other(steady: EncoderPool) -> None:
    texts = [" "] * 300 + ["w1"]
    vectors = steady.encode(texts, empty="zero")
    assert not steady.encode([" ", ""], empty="zero").any()
    assert vectors.shape == (301, 4)
    assert np.flatnonzero(vectors.any(axis=1)).tolist() == [300]


def test_several_threads_share_a_pool(steady: EncoderPool) -> None:
    answers: dict[int, NDArray[np.float32]] = {}
    threads = [
        threading.Thread(target=lambda n=n: answers.update({n: steady.encode(light_texts(n))})) for n in (300, 700)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, vectors in answers.items():
        np.testing.assert_array_equal(vectors, light_vectors(light_texts(number)))
    assert len(answers) == 2


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, ...]]:
    """Return what makes a worker's command of what it does, in Python, before it loads weights."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    def command(before: str) -> tuple[str, ...]:
        script = tmp_path / "odd_worker.py"
        script.write_text(
            "import sys\nfrom tests.light_worker import *\n"
            "class Odd(LightModels):\n"
            "    def __init__(self, device, threads):\n        self.device = device\n"
            f"    def load(self, weights):\n        {before}\n        return super().load(weights)\n"
            "serve(Odd, sys.argv[1:])\n"
        )
        return sys.executable, str(script)

    return command


def test_a_device_that_kills_whoever_loads_there_is_named(worker: Callable[[str], tuple[str, ...]]) -> None:
    with pytest.raises(ModelUnavailableError, match="size=1 could not be loaded on cpu:1: .* 3 times in a row"):
        light(devices=("cpu", "cpu:1"), worker=worker("self.device == 'cpu:1' and die()"))
    assert not workers()


def test_a_device_that_does_not_come_back_leaves_the_work_to_the_others(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.touch()
    with light(source=f"file={file}") as made:
        file.unlink()
        os.kill(min(workers()), signal.SIGKILL)
        (entry,) = made._engine._loading.entries.values()
        until(lambda: entry.load.refused_by)
        texts = light_texts(300)
        np.testing.assert_array_equal(made.encode(texts), light_vectors(texts))
        for worker in workers():
            os.kill(worker, signal.SIGKILL)
        with pytest.raises(ModelUnavailableError, match="No device can compute with file=.* any more: .*no file"):
            made.encode(["w1"])


def test_memory_that_comes_back_late_is_asked_for_again(
    tmp_path: Path, worker: Callable[[str], tuple[str, ...]]
) -> None:
    full = tmp_path / "full"
    with light(worker=worker(f"assert not Path({str(full)!r}).exists(), 'full'"), retry_seconds=0.3) as made:
        full.touch()
        os.kill(min(workers()), signal.SIGKILL)
        (entry,) = made._engine._loading.entries.values()
        until(lambda: entry.load.refused_by)
        full.unlink()
        until(lambda: all(device.loaded for device in made._engine._devices))


def test_a_device_that_kills_whoever_loads_there_later_takes_nothing_from_the_others(
    tmp_path: Path, worker: Callable[[str], tuple[str, ...]]
) -> None:
    cursed = tmp_path / "cursed"
    with light(worker=worker(f"Path({str(cursed)!r}).exists() and die()")) as made:
        cursed.touch()
        os.kill(min(workers()), signal.SIGKILL)
        (entry,) = made._engine._loading.entries.values()
        until(lambda: entry.load.refused_by)
        texts = light_texts(300)
        np.testing.assert_array_equal(made.encode(texts), light_vectors(texts))
        assert len([device for device in made._engine._devices if device.loaded]) == 1


# --- its end ---------------------------------------------------------------------------------------


def test_closing_ends_the_workers_and_who_waits_is_told() -> None:
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            made.encode(["slow"] * 500)
        except StoppingError as error:
            errors.append(error)

    made = light()
    asking = threading.Thread(target=ask)
    asking.start()
    until(_busy(made))
    made.close()
    made.close()
    asking.join(10)
    assert not workers()
    assert len(errors) == 1
    with pytest.raises(StoppingError, match="The pool is closed"):
        made.encode(["w1"])


def test_an_error_in_the_block_ends_the_workers() -> None:
    made = light()

    def fail() -> None:
        with made:
            assert len(workers()) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not workers()
    made.close()


def test_a_pool_that_is_forgotten_ends_its_workers() -> None:
    made: EncoderPool | None = light()
    assert len(workers()) == 2
    made = None
    gc.collect()
    assert made is None
    assert not workers()


PROGRAM = """
import signal
import psutil
from tests.light_worker import COMMAND
from unmask.engine.pool import EncoderPool
from unmask.engine.settings import EngineSettings, ModelSettings
signal.signal(signal.SIGINT, signal.default_int_handler)
model = ModelSettings(name="pool", source="size=1", preload=True)
pool = EncoderPool(EngineSettings(models=(model,), devices=("cpu", "cpu")), worker=COMMAND)
print(*(child.pid for child in psutil.Process().children()), flush=True)
pool.encode(["slow"] * 5000)
"""


def test_ctrl_c_ends_the_workers_of_a_program_that_does_not_close_its_pool() -> None:
    paths = os.pathsep.join([str(Path(pools.__file__).parents[2]), str(Path(__file__).parents[2])])
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        started = [int(number) for number in running.stdout.readline().split()]
        assert len(started) == 2
        running.send_signal(signal.SIGINT)
        said = running.stderr.read()
        assert running.wait(30) == -signal.SIGINT
    assert not any(psutil.pid_exists(number) for number in started)
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert "Exception ignored" not in said


# --- the command -----------------------------------------------------------------------------------


def test_the_command_writes_the_others_and_names_the_line(
    unmask: Unmask, steady: EncoderPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(EncoderPool, "load", lambda *_, **__: nullcontext(steady))
    texts = light_texts(600)
    expected = light_vectors(texts)
    texts[456], expected[456] = "w1 bad", 0
    Path("texts.txt").write_text("\n".join(texts) + "\n")
    status, _, err = unmask("encode", "texts.txt", "-o", "v.npy", "--device", "cpu,cpu")
    assert status == 2
    assert "texts.txt, line 457: its worker raised ValueError" in err.splitlines()[-1]
    np.testing.assert_array_equal(np.load("v.npy"), expected)
