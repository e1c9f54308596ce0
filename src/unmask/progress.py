"""The one progress bar: live on a terminal, plain lines elsewhere, silent when not wanted."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

#: Seconds between two plain lines.
LINE_SECONDS: Final = 5.0
#: Rates and the time left are measured over about this many seconds.
WINDOW_SECONDS: Final = 30.0
_SAMPLES: Final = 60


class Progress:
    """Counts work and shows how far it is and how fast.

    On a terminal a bar moves; elsewhere a line is written every five seconds. Both end with one line
    that says what was done, or where it stopped if the block raised. Everything goes to standard
    error. :meth:`advance` may be called from several threads.

        with Progress("Encoding", total=2000, unit="texts", extra_unit="tokens") as progress:
            progress.advance(10, extra=300)

    Attributes:
        description: what is being done, in a word or two.
        total: how many units there are, None while unknown; may be set on the way.
        count: units done so far, those of an earlier run included.
        extra: units of the second kind done so far.
        note: a word on how it goes, such as a loss; may be set on the way.
    """

    def __init__(
        self,
        description: str,
        *,
        total: int | None = None,
        initial: int = 0,
        unit: str = "items",
        extra_unit: str | None = None,
        enabled: bool = True,
        file: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is shown before the block is entered.

        Args:
            description: what is being done.
            total: number of units, None if unknown.
            initial: units done before: they count, but not as this run's speed.
            unit: name of the units, in the plural; ``bytes`` are shown as kB, MB, GB.
            extra_unit: name of a second thing counted, for instance tokens.
            enabled: False shows nothing at all.
            file: where to write, standard error by default.
            clock: seconds, from any origin.
        """
        self.description, self.total, self.unit, self.extra_unit = description, total, unit, extra_unit
        self.count, self.extra, self._initial = initial, 0, initial
        self.note = ""
        self._enabled, self._file, self._clock = enabled, file, clock
        self._lock = threading.Lock()
        self._live: RichProgress | None = None
        self._start = self._shown = 0.0
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=_SAMPLES)

    def __enter__(self) -> Self:
        """Start the clock, and the bar on a terminal."""
        self._start = self._shown = self._clock()
        self._samples.append((self._start, self.count, self.extra))
        if self._enabled and _is_terminal(self._out):
            self._live = _start_bar(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away and write the last line, unless nothing was done."""
        with self._lock:
            live, self._live = self._live, None
        if live is not None:
            live.stop()
        if self._enabled and self.count > self._initial:
            self._write(self._summary(stopped=kind is not None))

    def advance(self, amount: int = 1, *, extra: int = 0) -> None:
        """Count ``amount`` more units, and ``extra`` more of the second kind."""
        with self._lock:
            self.count += amount
            self.extra += extra
            now = self._clock()
            if now - self._samples[-1][0] >= WINDOW_SECONDS / _SAMPLES:
                self._samples.append((now, self.count, self.extra))
            if self._live is not None:
                self._live.update(self._live.task_ids[0], completed=self.count, total=self.total)
            elif self._enabled and now - self._shown >= LINE_SECONDS:
                self._shown = now
                self._write(f"{self.description}: {self}")

    def __str__(self) -> str:
        """Return how far it is, how fast, and the time left: what stands beside the bar."""
        parts = [f"{100 * self.count // self.total}%" if self.total else _amount(self.count, self.unit)]
        then, count, extra = self._samples[0]
        seconds = self._clock() - then
        if seconds > 0 and self.count > count:
            parts += self._rates(self.count - count, self.extra - extra, seconds)
            if self.total is not None:
                left = max(0, self.total - self.count) * seconds / (self.count - count)
                parts.append(f"{_duration(left)} left")
        if self.note:
            parts.append(self.note)
        return "  ".join(parts)

    @property
    def _out(self) -> TextIO:
        return self._file if self._file is not None else sys.stderr

    def _rates(self, count: int, extra: int, seconds: float) -> list[str]:
        rates = [_amount(count / seconds, self.unit) + "/s"]
        if self.extra_unit is not None:
            rates.append(_amount(extra / seconds, self.extra_unit) + "/s")
        return rates

    def _summary(self, *, stopped: bool) -> str:
        seconds = self._clock() - self._start
        done = _amount(self.count, self.unit)
        if stopped:
            whole = "" if self.total is None else f" of {_amount(self.total, self.unit)}"
            return f"{self.description}: stopped after {done}{whole}, {_duration(seconds)}"
        rates = self._rates(self.count - self._initial, self.extra, seconds) if seconds > 0 else []
        return f"{self.description}: {done} in {_duration(seconds)}" + (f" ({', '.join(rates)})" if rates else "")

    def _write(self, line: str) -> None:
        print(line, file=self._out, flush=True)


def _is_terminal(file: TextIO) -> bool:
    return file.isatty() and os.environ.get("TERM") != "dumb"


def _start_bar(progress: Progress) -> RichProgress:
    """Return a running bar of rich that reads ``str(progress)`` each time it is drawn."""
    # Imported here: a fifth of a second that plain output and other commands need not pay.
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    live = RichProgress(
        TextColumn("{task.description}", markup=False, table_column=Column(max_width=32, no_wrap=True)),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[status]}", markup=False),
        console=Console(file=progress._out),
        transient=True,
        redirect_stdout=False,  # standard output may be a file of vectors
    )
    live.add_task(progress.description, total=progress.total, completed=progress.count, status=progress)
    live.start()
    return live


def _amount(number: float, unit: str) -> str:
    """Return ``12,345 texts``, ``0.3 texts`` or ``98.4 MB``."""
    if unit != "bytes":
        return f"{number:,.0f} {unit}" if number >= 10 or number == int(number) else f"{number:.1f} {unit}"
    for name in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} B" if name == "B" else f"{number:.1f} {name}"
        number /= 1000
    return f"{number:.1f} GB"


def _duration(seconds: float) -> str:
    """Return ``0.3 s``, ``42 s``, ``3:05`` or ``1:02:03``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
