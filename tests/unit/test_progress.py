"""The progress bar: plain lines, the live bar, silence; rates and the time left."""

from __future__ import annotations

import io
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import unmask.progress
from unmask.progress import Progress


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_plain_lines_come_at_most_every_five_seconds_and_once_at_the_end() -> None:
    clock, out = Clock(), io.StringIO()
    with Progress("Encoding", total=200, unit="texts", extra_unit="tokens", file=out, clock=clock) as progress:
        for _ in range(20):
            clock.now += 0.6
            progress.advance(10, extra=300)
    assert out.getvalue().splitlines() == [
        "Encoding: 45%  17 texts/s  500 tokens/s  6.6 s left",
        "Encoding: 90%  17 texts/s  500 tokens/s  1.2 s left",
        "Encoding: 200 texts in 12 s (17 texts/s, 500 tokens/s)",
    ]


def test_an_unknown_total_shows_a_count_and_may_be_told_later() -> None:
    clock = Clock()
    with Progress("Reading", unit="texts", enabled=False, clock=clock) as progress:
        clock.now += 10
        progress.advance(1200)
        assert str(progress) == "1,200 texts  120 texts/s"
        progress.total = 2400
        assert str(progress) == "50%  120 texts/s  10 s left"


def test_bytes_are_shown_in_their_own_units_and_what_was_there_before_is_not_speed() -> None:
    clock, out = Clock(), io.StringIO()
    with Progress("Downloading", total=93_000_000, initial=53_000_000, unit="bytes", file=out, clock=clock) as progress:
        clock.now += 8
        progress.advance(20_000_000)
        clock.now += 8
        progress.advance(20_000_000)
    assert out.getvalue().splitlines() == [
        "Downloading: 78%  2.5 MB/s  8.0 s left",
        "Downloading: 100%  2.5 MB/s  0.0 s left",
        "Downloading: 93.0 MB in 16 s (2.5 MB/s)",
    ]


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    clock = Clock()
    with Progress("Downloading", total=10_000, unit="texts", enabled=False, clock=clock) as progress:
        for step in range(200):
            clock.now += 1
            progress.advance(1 if step < 100 else 10)
    assert str(progress) == "11%  10 texts/s  14:50 left"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (185, "3:05"), (3723, "1:02:03")]
)
def test_times_are_written_for_people(seconds: float, shown: str) -> None:
    clock, out = Clock(), io.StringIO()
    with Progress("Working", unit="items", file=out, clock=clock) as progress:
        progress.advance(1)
        clock.now += seconds
    assert f"1 items in {shown} (" in out.getvalue()


@pytest.mark.parametrize(
    ("count", "shown"), [(999, "999 B"), (1010, "1.0 kB"), (98_362_432, "98.4 MB"), (16_060_000_000, "16.1 GB")]
)
def test_sizes_are_written_for_people(count: int, shown: str) -> None:
    out = io.StringIO()
    with Progress("Working", unit="bytes", file=out, clock=Clock()) as progress:
        progress.advance(count)
    assert out.getvalue() == f"Working: {shown} in 0.0 s\n"


def test_work_that_stopped_says_where_and_the_error_passes() -> None:
    clock, out = Clock(), io.StringIO()

    def stop_halfway() -> None:
        with Progress("Encoding", total=9, unit="texts", file=out, clock=clock) as progress:
            clock.now += 3
            progress.advance(4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert out.getvalue() == "Encoding: stopped after 4 texts of 9 texts, 3.0 s\n"


@pytest.mark.parametrize("file", [io.StringIO, Terminal])
def test_nothing_done_or_not_wanted_shows_nothing(file: type[io.StringIO]) -> None:
    clock, out = Clock(), file()
    with Progress("Encoding", total=9, enabled=False, file=out, clock=clock) as progress:
        clock.now += 60
        progress.advance(9)
    assert out.getvalue() == ""
    plain = io.StringIO()
    with Progress("Encoding", total=0, file=plain, clock=clock):
        clock.now += 60
    assert plain.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes_away_and_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    clock, out = Clock(), Terminal()
    before = sys.stdout
    with Progress("Encoding [bold]", total=200, unit="texts", extra_unit="tokens", file=out, clock=clock) as progress:
        assert sys.stdout is before
        clock.now += 6
        progress.advance(100, extra=3000)
    shown = out.getvalue()
    assert "━" in shown
    assert "50%  17 texts/s  500 tokens/s  6.0 s left" in shown
    assert shown.count("Encoding [bold]") > 1
    assert shown.endswith("\x1b[2KEncoding [bold]: 100 texts in 6.0 s (17 texts/s, 500 tokens/s)\n")


def test_a_long_name_leaves_room_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    clock, out = Clock(), Terminal()
    with Progress("Downloading " + "x" * 80, total=4_000_000, unit="bytes", file=out, clock=clock) as progress:
        clock.now += 1
        progress.advance(1_000_000)
    assert "xxx… " in out.getvalue()
    assert "25%  1.0 MB/s  3.0 s left" in out.getvalue()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    with Progress("Encoding", unit="texts", file=out, clock=Clock()) as progress:
        progress.advance(4)
    assert out.getvalue() == "Encoding: 4 texts in 0.0 s\n"


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("Encoding", unit="texts", clock=Clock()) as progress:
        progress.advance(4)
    assert capsys.readouterr() == ("", "Encoding: 4 texts in 0.0 s\n")


def test_plain_lines_do_not_need_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    module = runpy.run_path(str(unmask.progress.__file__))
    with module["Progress"]("Encoding", file=io.StringIO()) as progress:
        progress.advance(4)


def test_threads_may_count_together() -> None:
    def count(progress: Progress) -> None:
        for _ in range(2000):
            progress.advance(1, extra=2)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Progress("Downloading", enabled=False) as progress, ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(count, progress)
    finally:
        sys.setswitchinterval(interval)
    assert (progress.count, progress.extra) == (16_000, 32_000)
