"""What a run leaves to look at: metrics as JSON lines and for TensorBoard, and a plot.

TensorBoard's file is written anew from the JSON lines when a run is taken up again: a killed process leaves
minutes of it unwritten.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from unmask.hub.cache import atomic_file
from unmask.training.checkpoints import writing

METRICS: Final = "metrics.jsonl"
PLOT: Final = "plot.png"


class Monitor:
    """Writes the metrics of one stage; those after the step taken up again are removed first.

    Args:
        folder: of the stage.
        step: steps done when the run begins.
        enabled: False writes nothing: of several processes one does.
    """

    def __init__(self, folder: Path, step: int, *, enabled: bool = True) -> None:
        self._enabled = enabled
        if not enabled:
            return
        self._file = folder / METRICS
        kept = [line for line in read_metrics(folder) if line["step"] <= step]
        with writing(self._file):
            with atomic_file(self._file, replace=True) as draft:
                draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            self._lines = self._file.open("a", encoding="utf-8")
            self._board = _board(folder / "tensorboard")
            for line in kept:
                self._show(**line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._enabled:
            return
        for close in (self._lines.close, self._board.close):
            # Files that a full disk kept from being written fail once more when they are closed.
            with suppress(OSError) if kind else writing(self._file):
                close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one step; they are on the disk when this returns."""
        if not self._enabled:
            return
        with writing(self._file):
            self._lines.write(json.dumps({"step": step, **values}) + "\n")
            self._lines.flush()
            self._show(step, **values)

    def _show(self, step: int, **values: float) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of a stage; a last line cut off by a crash is left out."""
    file = folder / METRICS
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def draw(folder: Path, title: str) -> Path:
    """Draw loss and score over the steps into a PNG, and return its path."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    lines = read_metrics(folder)
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    scores = [(line["step"], line["sts"]) for line in lines if "sts" in line]
    figure, axis = pyplot.subplots(figsize=(7, 4), dpi=150)
    axis.plot(*zip(*losses, strict=True), color="#9db8d9", linewidth=0.8)
    axis.plot(*zip(*_smoothed(losses), strict=True), color="#1f5aa6", linewidth=1.8)
    axis.set(xlabel="step", ylabel="loss", title=title)
    axis.yaxis.label.set_color("#1f5aa6")
    axis.spines[["top"]].set_visible(False)
    axis.grid(alpha=0.25)
    if scores:
        other = axis.twinx()
        other.plot(*zip(*scores, strict=True), color="#c4572b", marker="o", markersize=3, linewidth=1.2)
        best = max(scores, key=lambda point: point[1])
        other.plot(*best, color="#c4572b", marker="o", markersize=7, fillstyle="none")
        other.annotate("kept", best, (0, 7), textcoords="offset points", ha="center", color="#c4572b", fontsize=9)
        other.margins(y=0.15)
        other.set_ylabel("STS, Spearman", color="#c4572b")
        other.spines[["top"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(folder / PLOT)
    pyplot.close(figure)
    return folder / PLOT


def _smoothed(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return a running mean over a twentieth of the steps."""
    width = max(1, len(points) // 20)
    values = [value for _, value in points]
    return [
        (step, sum(part) / len(part))
        for at, (step, _) in enumerate(points)
        if (part := values[max(0, at - width + 1) : at + 1])
    ]


def _board(folder: Path) -> Any:
    """Return TensorBoard's writer in place of an earlier one's files."""
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    return SummaryWriter(str(folder))
