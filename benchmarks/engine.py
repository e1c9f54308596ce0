"""The serving engine at saturation against ``Encoder.encode``, on the same texts and threads, by turns in one run.

    python benchmarks/engine.py [--rounds 3] [--quick] [--threads N] [--out FILE]

The encoder runs in this process and the engine's model in its worker; neither computes while the other does. Clients
are coroutines that send a request, wait for its vectors and send the next, until all texts are encoded once. Vectors
are compared: both do the same work. On a machine that does other things too, times say little; the processor time
of all processes then says what the engine costs. Prints a table, and writes every time taken to FILE if it is given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

import unmask
from unmask import Encoder, Text
from unmask.backbone.memory import BUDGETS
from unmask.corpora import long_mix, short_mix, stdlib_docstrings
from unmask.engine.engine import Engine
from unmask.engine.settings import EngineSettings, ModelSettings
from unmask.measure import count_tokens

MODEL = "smollm2-135m"


@dataclass(frozen=True)
class Way:
    """How clients ask: how many at a time, with how many texts a request."""

    clients: int
    texts: int

    def __str__(self) -> str:
        return f"engine, {self.clients} clients with {self.texts} texts a request"


WAYS = (Way(clients=128, texts=1), Way(clients=8, texts=32))


async def ask(engine: Engine, texts: Sequence[str], way: Way) -> np.ndarray[Any, Any]:
    """Return the vectors of all texts, asked for by clients at the same time."""
    vectors: dict[int, np.ndarray[Any, Any]] = {}
    requests = iter(range(0, len(texts), way.texts))

    async def client(name: str) -> None:
        for first in requests:
            contents = texts[first : first + way.texts]
            answer = await engine.embed(MODEL, [Text("", content) for content in contents], caller=name)
            vectors[first] = answer.vectors

    await asyncio.gather(*(client(str(number)) for number in range(way.clients)))
    return np.concatenate([vectors[first] for first in sorted(vectors)])


async def measure(rounds: int, mixes: dict[str, list[str]], threads: int, budget: int) -> dict[str, Any]:
    """Run both by turns and return every time taken."""
    encoder = Encoder.load(MODEL, device="cpu")
    encoder.pipeline.token_budget = budget
    settings = EngineSettings(
        models=(ModelSettings(name=MODEL, source=MODEL, preload=True),),
        devices=("cpu",),
        threads=threads,
        batch_tokens=budget,
        batch_seconds=600,
    )
    engine = Engine(settings)
    await engine.start()
    try:
        await engine.embed(MODEL, [Text("", "warm up")], caller="warm up", wait=300)
        return {name: await _by_turns(encoder, engine, texts, rounds) for name, texts in mixes.items()}
    finally:
        await engine.stop(0)


async def _by_turns(encoder: Encoder, engine: Engine, texts: list[str], rounds: int) -> dict[str, Any]:
    tokens = count_tokens(encoder, texts)
    seconds: dict[str, list[float]] = {"Encoder.encode": [], **{str(way): [] for way in WAYS}}
    processor: dict[str, list[float]] = {name: [] for name in seconds}
    batches: dict[str, int] = {}
    difference = 0.0
    for number in range(rounds):
        started, used = time.perf_counter(), processor_seconds()
        expected = encoder.encode(texts, normalize=False)
        seconds["Encoder.encode"].append(time.perf_counter() - started)
        processor["Encoder.encode"].append(processor_seconds() - used)
        for way in WAYS:
            before = engine.load().batches
            started, used = time.perf_counter(), processor_seconds()
            vectors = await ask(engine, texts, way)
            seconds[str(way)].append(time.perf_counter() - started)
            processor[str(way)].append(processor_seconds() - used)
            batches[str(way)] = engine.load().batches - before
            difference = max(difference, float(np.abs(vectors - expected).max()))
        rates = {name: round(tokens / times[-1]) for name, times in seconds.items()}
        print(f"{number + 1}/{rounds}: {rates} tokens a second", flush=True)
    return {
        "texts": len(texts),
        "tokens": tokens,
        "seconds": seconds,
        "processor_seconds": processor,
        "batches": batches,
        "largest_difference": difference,
    }


def processor_seconds() -> float:
    """Return the processor time of this process and of those it started that still run."""
    process = psutil.Process()
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            times = each.cpu_times()
            total += times.user + times.system
    return total


def table(mixes: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a Markdown table: medians, and shares of the encoder's speed in the same round."""
    for name, mix in mixes.items():
        what = f"{name}: {mix['texts']} texts, {mix['tokens']} tokens"
        yield f"\n| {what} | tokens a second | of Encoder.encode | processor time |"
        yield "| --- | ---: | ---: | ---: |"
        for who, taken in mix["seconds"].items():
            speed = 1 / _times(mix["seconds"], who)
            cost = _times(mix["processor_seconds"], who)
            yield f"| {who} | {mix['tokens'] / statistics.median(taken):,.0f} | {speed:.1%} | × {cost:.3f} |"
        yield f"\nLargest difference between components of the vectors: {mix['largest_difference']:.1e}"


def _times(taken: dict[str, list[float]], who: str) -> float:
    """Return how many times what the encoder took, in the same round, one of them took."""
    return statistics.median(a / b for a, b in zip(taken[who], taken["Encoder.encode"], strict=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few texts in small batches: an indication")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="a JSON file of every time taken")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    entries = stdlib_docstrings(keep=True)
    size = (48, 12) if options.quick else (1024, 256)
    budget = 512 if options.quick else BUDGETS["cpu"]
    mixes = {
        "sentences": short_mix(entries, size[0]),
        "paragraphs": long_mix(entries, size[1]),
    }
    mixes["mixed"] = _mixed(mixes["sentences"], mixes["paragraphs"])
    if options.quick:
        mixes = {"mixed": mixes["mixed"]}
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "model": MODEL,
        "threads": options.threads,
        "token_budget": budget,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "versions": {"unmask": unmask.__version__, "torch": torch.__version__},
        "ways": [asdict(way) for way in WAYS],
        "mixes": asyncio.run(measure(options.rounds, mixes, options.threads, budget)),
    }
    print("\n".join(table(result["mixes"])))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _mixed(short: Sequence[str], long: Sequence[str]) -> list[str]:
    """Return half of each, a long one after some short ones."""
    every = max(1, len(short) // len(long))
    left = iter(short[: len(short) // 2])
    mixed = []
    for text in long[: len(long) // 2]:
        mixed += [*islice(left, every), text]
    return [*mixed, *left]


if __name__ == "__main__":
    main()
