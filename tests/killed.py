"""``unmask train …`` in processes of their own that are killed at a point asked for.

A server, so that torch is imported once: it forks before it has computed anything, once a line of its standard
input, ``{"point": …, "arguments": […]}``, and answers with the child's exit status, -9 where it was killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from unmask.backbone.backbone import Backbone
from unmask.checkpoint import saving
from unmask.cli import app
from unmask.cli.outcome import run
from unmask.encoder import Encoder
from unmask.hub import cache
from unmask.training import checkpoints, folder, loop, monitor, running
from unmask.training.data.rows import RowWriter
from unmask.training.lora import adapters_of
from unmask.training.sts import StsFile


def grown(self: StsFile, encoder: Encoder) -> float:
    """Score an encoder by how far its adapter is from none: it rises, and is the same in every run."""
    backbone: Backbone = encoder.backbone
    return sum(float(layer.lora_B.detach().abs().sum()) for _, layer in adapters_of(backbone.model))


def die(*_: Any, **__: Any) -> NoReturn:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _cut_short(weights: Any, file: Path, **options: Any) -> NoReturn:
    _save_file(weights, file, **options)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    die()


def _after(owner: Any, name: str, times: int = 1) -> None:
    """Have a function's so-manyth call kill the process when it has done its work."""
    function: Callable[..., Any] = getattr(owner, name)
    left = [times]

    def wrapped(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        left[0] -= 1
        return result if left[0] else die()

    setattr(owner, name, wrapped)


def _before(owner: Any, name: str, times: int) -> None:
    """Have a function's so-manyth call kill the process instead of doing its work."""
    function: Callable[..., Any] = getattr(owner, name)
    left = [times]

    def wrapped(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        return function(*arguments, **options) if left[0] else die()

    setattr(owner, name, wrapped)


def _half_a_checkpoint() -> None:
    left = [2]

    def save(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        return _save_file(*arguments, **options) if left[0] else _cut_short(*arguments, **options)

    vars(checkpoints)["save_file"] = save


def _between_two_adapters() -> None:
    """The second best adapter is out of the way, the best not yet in its place."""

    def move(draft: Path, final: Path) -> None:
        if final.name == "adapter" and final.exists():
            final.rename(cache._draft_of(final))
            die()
        _move_folder(draft, final)

    cache._move_folder = move


_save_file, _move_folder = vars(checkpoints)["save_file"], cache._move_folder
#: Of a run of two stages of six steps, checkpoints and scores every second one. (Steps are counted over both.)
POINTS: dict[str, Callable[[], None]] = {
    "before it is a run": lambda: _after(folder, "write_json", 1),
    "while data is read": lambda: _before(RowWriter, "finish", 1),
    "step 1": lambda: _before(loop.Training, "_update", 1),
    "between checkpoints": lambda: _before(loop.Training, "_update", 4),
    "right after a checkpoint": lambda: _after(checkpoints.Checkpoints, "save", 2),
    "half a checkpoint": _half_a_checkpoint,
    "between two adapters": _between_two_adapters,
    "before the last checkpoint": lambda: _before(checkpoints.Checkpoints, "save", 3),
    "while it is drawn": lambda: _before(monitor, "draw", 1),
    "before the checkpoints go": lambda: _after(running, "write_json", 1),
    "stage 2": lambda: _before(loop.Training, "_update", 10),
    "half an encoder": lambda: _after(saving, "write_weights", 1),
}


def _child(point: str, arguments: list[str]) -> NoReturn:
    StsFile.score = grown  # type: ignore[method-assign]
    POINTS[point]()
    os._exit(run(app, arguments))


def main() -> None:
    """Serve until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        number = os.fork()
        if number == 0:
            os.dup2(2, 1)
            _child(**request)
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
