"""The serving benchmark counts what became of requests as a hand does, and its page says what was measured."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

_FOLDER = str(Path(__file__).parents[2] / "benchmarks")
sys.path.insert(0, _FOLDER)
load: Any = importlib.import_module("serve_load")
report: Any = importlib.import_module("serve_report")
serve: Any = importlib.import_module("serve")
sys.path.remove(_FOLDER)


def test_a_share_of_values_is_its_nearest_rank() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [load.nearest_rank(values, share) for share in (0.5, 0.99, 0.999, 1)] == [50, 99, 100, 100]
    assert load.nearest_rank([7.0], 0.5) == 7


def test_an_answer_counts_from_when_its_request_was_due() -> None:
    said = {"hits": [[1.0, 1.5, 0.25, 200, ""], [0.0, 0.0, 0.5, 429, ""], [2.0, 2.0, 0.0, 0, "TimeoutError"]]}
    found = load.Load.of(said | {"processor_seconds": 0.5})
    assert [hit.due for hit in found.hits] == [0, 1, 2]
    assert found.latency(1) == 0.75  # half a second of it before it was sent
    assert found.lateness(1) == 0.5
    assert found.seconds == 2
    assert found.errors == {"429": 1, "TimeoutError": 1}


def test_the_mix_has_half_of_each_and_every_text_once() -> None:
    mixes = serve._mixes(serve.Sizes(rounds=1, short=40, long=8, peer=0.5, seconds=1, minutes=1), 1)
    short, long, mixed = (mixes[name] for name in ("short", "long", "mixed"))
    assert (len(short), len(long), len(mixed)) == (40, 8, 24)
    assert sorted(mixed) == sorted([*short[::2], *long[::2]])
    assert [number for number, text in enumerate(mixed) if text in long] == [0, 6, 12, 18]
    mixes = serve._mixes(serve.Sizes(rounds=1, short=38, long=8, peer=0.5, seconds=1, minutes=1), 1)
    assert sorted(mixes["mixed"]) == sorted([*mixes["short"][::2], *mixes["long"][::2]])


def test_memory_that_grows_is_seen() -> None:
    seconds = [float(number) for number in range(90)]
    flat = [10**8 + number % 2 for number in range(90)]
    grows = [10**8 + 10**6 * number for number in range(90)]
    early = [10**8 * (1 if number < 30 else 2) for number in range(90)]
    assert abs(report.growth(flat)) < 1e-6
    assert report.growth(grows) == pytest.approx(30 / 144.5)
    assert report.growth(early) == 0
    assert report.slope(seconds, grows) == pytest.approx(60e6)
    assert report.slope(seconds, early) == pytest.approx(0, abs=1e-3)


def result() -> dict[str, Any]:
    """Return a result as the benchmark writes it."""
    about = {
        "date": "2026-01-01",
        "command": "python benchmarks/serve.py",
        "took": 9,
        "hardware": {"processor": "CPU", "cores": 2, "threads": 2, "instructions": "AVX2"},
        "versions": {"unmask": "0"},
    }
    mix = {"texts": 10, "tokens": 1000, "errors": {}}
    latency = {"p50": 0.002, "p99": 0.02}
    one = {
        "requests_per_second": 2500.0,
        "processor_seconds_per_request": 0.0003,
        "client_processor_share": 0.7,
        "saturated": latency,
        "steady": latency,
        "lateness": 0.001,
        "errors": {"503": 2},
    }
    memory = {"seconds": [0.0, 1.0, 2.0], "server": [10**8] * 3, "workers": [10**9, 10**9, 11 * 10**8]}
    ours = {"Encoder.encode": [1.0, 2.0, 4.0], "128 clients, 1 text a request": [1.25, 2.0, 5.0]}
    theirs = {"unmask": [2.0], "infinity": [3.0]}
    return {
        "model": "a-model",
        "parts": {
            "saturation": about | {"mixes": {"short": mix | {"seconds": ours, "cosine": 1.0}}},
            "fake": about | {"text": "x", "clients": 64, "rate": 1000, "goal": 2000, "rounds": [one, one]},
            "endurance": about
            | {"clients": 64, "minutes": 5, "requests": 600, "seconds": 300.0, "latency": latency, "errors": {}}
            | {"memory": memory},
            "peers": about
            | {"way": "64 clients", "packages": {"infinity": ["infinity-emb==1"]}}
            | {"mixes": {"short": mix | {"seconds": theirs, "cosine": {"unmask": 1.0, "infinity": 0.5}}}},
        },
    }


def test_the_page_says_what_was_measured() -> None:
    page = report.page(result())
    assert "| HTTP, 128 clients, 1 text a request | 500 (200–800) | 80.0% |" in page
    assert "Goal: 92% of `Encoder.encode`; **not met**." in page
    assert "**2,500 (2,500–2,500) requests a second**, 300 (300–300) µs" in page
    assert "Goal: 2,000; met." in page
    assert "99 % within 15 ms; **not met**. Errors: 503 4 ×." in page
    assert "| its worker | 1,033 MB | 1,100 MB | +10.00% |" in page
    assert "memory that is flat (grows by less than 1%);\n**not met**." in page
    assert "| infinity | 333 (333–333), Unmask is 1.50 × |" in page
    assert "Goal: Unmask ahead;\nmet." in page
    assert "The vectors of infinity are not the model's" in page


def test_the_page_has_only_what_was_measured(tmp_path: Path) -> None:
    found = result()
    del found["parts"]["saturation"], found["parts"]["peers"]
    report.write(found, tmp_path)
    assert (tmp_path / "serving-speed.png").stat().st_size > 5_000
    page = (tmp_path / "serving-speed.md").read_text()
    assert "Other servers" not in page
    assert "64 clients for 5 minutes" in page
