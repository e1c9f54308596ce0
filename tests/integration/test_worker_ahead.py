"""A worker begins the next batch before it asks for the vectors of the one before; answers keep their order.

Run as a program, this file is a worker that notes what is asked of its model.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from unmask.engine.messages import HEADER, Answer, Compute, Computed, Failed, Load, Order, WasLoaded, frame, parse
from unmask.engine.settings import Weights
from unmask.engine.worker import Pending, serve

#: Ids of a batch that cannot be begun, and of one that begins and does not end well.
FAILS_AT_FIRST, FAILS_AT_LAST = 900, 901
#: Seconds that a batch takes.
TAKEN = 0.05


class NotingModels:
    """Models that write down what is asked of them, into the file that is their source."""

    def __init__(self, device: str, threads: int | None) -> None:
        pass

    def load(self, weights: Weights) -> NotingModel:
        """Return the model."""
        return NotingModel(Path(weights.source))


class NotingModel:
    """Notes ``begin N`` and ``finish N``; batch 0 ends when there is a file named ``gate`` beside the notes."""

    size, dimension, budget = 1, 1, 64

    def __init__(self, notes: Path) -> None:
        self._notes = notes

    def begin(self, ids: NDArray[np.int32], lengths: Sequence[int], starts: Sequence[int]) -> Pending:
        """Begin a batch of one text of one token: its number."""
        number = int(ids[0])
        self._note(f"begin {number}")
        if number == FAILS_AT_FIRST:
            raise ValueError("at first")

        def finish() -> NDArray[np.float32]:
            while number == 0 and not self._notes.with_name("gate").exists():
                time.sleep(0.01)
            time.sleep(TAKEN)
            self._note(f"finish {number}")
            if number == FAILS_AT_LAST:
                raise ValueError("at last")
            return np.full((1, 1), number, dtype=np.float32)

        return finish

    def warm_up(self) -> None:
        """Note that it was looked at."""
        self._note("look")

    def _note(self, line: str) -> None:
        with self._notes.open("a") as file:
            file.write(f"{line}\n")


class Pipe:
    """A worker process, spoken to by hand."""

    def __init__(self, notes: Path) -> None:
        self.notes, self.weights = notes, Weights(source=str(notes))
        self.process: Any = Popen([sys.executable, __file__, "cpu"], stdin=PIPE, stdout=PIPE)

    def send(self, order: Order) -> None:
        self.process.stdin.write(frame(order))
        self.process.stdin.flush()

    def compute(self, *numbers: int) -> None:
        for number in numbers:
            self.send(Compute(number, self.weights, np.asarray([number], dtype=np.int32), (1,), (0,)))

    def next(self, kind: type[Answer]) -> Any:
        """Return the next answer of a kind; others before it are dropped."""
        while True:
            (size,) = HEADER.unpack(self.process.stdout.read(HEADER.size))
            answer = parse(self.process.stdout.read(size))
            if isinstance(answer, kind):
                return answer

    def noted(self) -> list[str]:
        return self.notes.read_text().splitlines()


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    """Start a worker with its model loaded, that is busy with batch 0 until :func:`go_on`."""
    pipe = Pipe(tmp_path / "notes")
    try:
        pipe.send(Load(pipe.weights))
        pipe.next(WasLoaded)
        yield pipe
    finally:
        pipe.process.kill()
        pipe.process.communicate()


def compute(pipe: Pipe, *numbers: int) -> list[Computed | Failed]:
    """Have batches computed that all wait when the first one is done."""
    pipe.compute(0, *numbers)
    # Loads are answered while batches are computed, and orders are read one after the other.
    pipe.send(Load(pipe.weights))
    pipe.next(WasLoaded)
    pipe.notes.with_name("gate").touch()
    return [pipe.next(Computed | Failed) for _ in range(len(numbers) + 1)]  # type: ignore[arg-type]


def test_the_next_batch_is_begun_before_one_is_finished(pipe: Pipe) -> None:
    answers = compute(pipe, 1, 2, 3)
    assert [answer.number for answer in answers] == [0, 1, 2, 3]
    assert [float(answer.vectors[0, 0]) for answer in answers if isinstance(answer, Computed)] == [0, 1, 2, 3]
    when = {line: place for place, line in enumerate(pipe.noted()) if line != "look"}
    for number in (1, 2):
        assert when[f"begin {number + 1}"] < when[f"finish {number}"]
        # No more than two are under way.
        assert when[f"finish {number - 1}"] < when[f"begin {number + 1}"]


def test_a_batch_takes_the_time_since_the_one_before_it(pipe: Pipe) -> None:
    started = time.monotonic()
    answers = compute(pipe, 1, 2, 3)
    total = time.monotonic() - started
    seconds = [answer.seconds for answer in answers if isinstance(answer, Computed)]
    assert min(seconds) >= TAKEN
    # Counted from its beginning, each would hold the one before it, too.
    assert sum(seconds) <= total


@pytest.mark.parametrize(("broken", "why"), [(FAILS_AT_FIRST, "at first"), (FAILS_AT_LAST, "at last")])
def test_a_batch_that_fails_is_answered_in_its_turn(pipe: Pipe, broken: int, why: str) -> None:
    answers = compute(pipe, 1, broken, 3)
    assert [answer.number for answer in answers] == [0, 1, broken, 3]
    assert [isinstance(answer, Failed) for answer in answers] == [False, False, True, False]
    assert isinstance(answers[2], Failed)
    assert answers[2].error == f"ValueError: {why}"
    # Behind it the device is looked at: after some errors nothing works any more.
    noted = pipe.noted()
    assert noted.index("look", noted.index("finish 1")) < noted.index("finish 3")


def test_a_model_that_was_never_loaded_is_answered_in_its_turn(pipe: Pipe) -> None:
    other = Weights(source="other")
    pipe.compute(1)
    pipe.send(Compute(2, other, np.zeros(1, dtype=np.int32), (1,), (0,)))
    answers: list[Any] = [pipe.next(Computed | Failed) for _ in range(2)]  # type: ignore[arg-type]
    assert [answer.number for answer in answers] == [1, 2]
    assert isinstance(answers[1], Failed)


if __name__ == "__main__":
    serve(NotingModels, sys.argv[1:])  # type: ignore[arg-type]
