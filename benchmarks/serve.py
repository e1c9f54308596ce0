"""The server under load: what HTTP costs, what the API bears, what stays over minutes, what others do.

    python benchmarks/serve.py [--only saturation fake credit endurance peers] [--rounds 3] [--minutes 5] [--quick]

- saturation: tokens a second through HTTP against ``Encoder.encode`` on the same texts, by turns.
- fake: an engine that computes nothing: requests a second as fast as clients can; and how long an answer takes at a
  fixed rate of half of what is asked of the server, sent whether there are answers or not.
- credit: the same without keys and through the gateway, by turns, which checks a key and reserves and charges credit
  (SQLite): requests a second, and what that adds to an answer's time at half of what is asked of the gateway.
- endurance: 64 clients with texts of all lengths; errors, and memory over time.
- peers: other servers on the same model, texts and clients, by turns.

Writes its parts of benchmarks/results/serve.json, docs/serving-speed.md and docs/serving-speed.png; nothing in those is
typed by hand. Load comes from Locust (serve_load.py); it and the peers (serve_servers.py) have environments
of their own, made under .bench/ on first use.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain, zip_longest
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import serve_report
import torch
from cpu import MODEL, ROOT, WORK, hardware
from serve_fake import MODEL as FAKE
from serve_load import LOCUST, Load, attack, body
from serve_servers import SERVICES, Server, running

import unmask
from unmask import Encoder
from unmask.corpora import long_mix, short_mix, stdlib_docstrings
from unmask.measure import count_tokens

RESULT = Path(__file__).parent / "results" / "serve.json"
PEERS = ("unmask", "sentence-transformers", "infinity")
#: Requests a second that are asked of a process; latency is measured at half of it.
RATE = 2000
#: Likewise of a gateway's process.
PAID_RATE = 1000
_SHORT = "how do I compress a file"
_CLIENTS = 64


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        rounds: turns of each part.
        short, long: texts of the saturation part; the mix has half of each.
        peer: share of those texts that peers get.
        seconds: of each attack on the fake engine.
        minutes: of the endurance part.
    """

    rounds: int
    short: int
    long: int
    peer: float
    seconds: float
    minutes: float


QUICK = Sizes(rounds=1, short=32, long=8, peer=0.25, seconds=2, minutes=0.2)


@dataclass(frozen=True)
class Way:
    """How clients ask: how many at a time, with how many texts a request."""

    clients: int
    texts: int

    def bodies(self, texts: Sequence[str]) -> list[bytes]:
        """Return the requests for all texts."""
        return [body(MODEL, texts[first : first + self.texts]) for first in range(0, len(texts), self.texts)]

    def __str__(self) -> str:
        return f"{self.clients} clients, {self.texts} text{'s' if self.texts > 1 else ''} a request"


ONE, MANY = Way(128, 1), Way(8, 32)
#: Which mixes of texts are asked for how.
WAYS = {"short": (ONE,), "long": (ONE,), "mixed": (ONE, MANY)}


def saturation(sizes: Sizes) -> dict[str, Any]:
    """Measure tokens a second through HTTP and without, by turns."""
    encoder = Encoder.load(MODEL, device="cpu")
    mixes: dict[str, Any] = {}
    with running("unmask") as server:
        for name, texts in _mixes(sizes, 1).items():
            mix = mixes[name] = _mix(encoder, texts)
            mix["cosine"] = _cosine(encoder, server, texts)
            for number in range(sizes.rounds):
                start = perf_counter()
                encoder.encode(texts)
                _append(mix["seconds"], "Encoder.encode", perf_counter() - start)
                for way in WAYS[name]:
                    load = attack(server.url, way.bodies(texts), clients=way.clients)
                    _append(mix["seconds"], str(way), load.seconds)
                    _count(mix["errors"], load.errors)
                _say(name, number, sizes, mix)
    return {"mixes": mixes}


def fake(sizes: Sizes) -> dict[str, Any]:
    """Measure the API over an engine that computes nothing."""
    bodies, rounds = [body(FAKE, _SHORT)], []
    with running("fake") as server:
        attack(server.url, bodies, clients=_CLIENTS, seconds=2)
        for number in range(sizes.rounds):
            before = server.processor_seconds()
            fast = attack(server.url, bodies, clients=_CLIENTS, seconds=sizes.seconds)
            used = server.processor_seconds() - before
            steady = attack(server.url, bodies, clients=1000, rate=RATE // 2, seconds=2 * sizes.seconds)
            rounds.append(
                {
                    "requests_per_second": len(fast.hits) / fast.seconds,
                    "processor_seconds_per_request": used / len(fast.hits),
                    "client_processor_share": fast.client_seconds / fast.seconds,
                    "saturated": _latencies(fast),
                    "steady": _latencies(steady),
                    "lateness": steady.lateness(0.99),
                    "errors": dict(Counter(fast.errors) + Counter(steady.errors)),
                }
            )
            print(f"fake {number + 1}/{sizes.rounds}: {rounds[-1]}", flush=True)
    return {"text": _SHORT, "clients": _CLIENTS, "rate": RATE // 2, "goal": RATE, "rounds": rounds}


def credit(sizes: Sizes) -> dict[str, Any]:
    """Measure what keys and credit add to the API, by turns."""
    bodies, rounds = [body(FAKE, _SHORT)], []
    with running("fake") as plain, running("gateway") as paid:
        for number in range(sizes.rounds):
            taken: dict[str, Any] = {"errors": {}}
            for name, server in (("plain", plain), ("paid", paid)):
                headers = server.headers
                before = server.processor_seconds()
                fast = attack(server.url, bodies, clients=_CLIENTS, seconds=sizes.seconds, headers=headers)
                used = server.processor_seconds() - before
                steady = attack(
                    server.url, bodies, clients=1000, rate=PAID_RATE // 2, seconds=2 * sizes.seconds, headers=headers
                )
                taken[name] = {
                    "requests_per_second": len(fast.hits) / fast.seconds,
                    "processor_seconds_per_request": used / len(fast.hits),
                    "steady": _latencies(steady),
                }
                _count(taken["errors"], fast.errors | steady.errors)
            rounds.append(taken)
            print(f"credit {number + 1}/{sizes.rounds}: {taken}", flush=True)
    return {"clients": _CLIENTS, "rate": PAID_RATE // 2, "goal": PAID_RATE, "rounds": rounds}


def endurance(sizes: Sizes) -> dict[str, Any]:
    """Measure errors and memory over minutes."""
    bodies = Way(_CLIENTS, 1).bodies(_mixes(sizes, 1)["mixed"])
    with running("unmask") as server, server.memory() as memory:
        load = attack(server.url, bodies, clients=_CLIENTS, seconds=60 * sizes.minutes)
    return {
        "clients": _CLIENTS,
        "minutes": sizes.minutes,
        "requests": len(load.hits),
        "seconds": load.seconds,
        "latency": _latencies(load),
        "errors": load.errors,
        "memory": asdict(memory),
    }


def peers(sizes: Sizes) -> dict[str, Any]:
    """Measure all servers by turns."""
    encoder, mixes, way = Encoder.load(MODEL, device="cpu"), {}, Way(_CLIENTS, 1)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(name)) for name in PEERS}
        for mix_name, texts in _mixes(sizes, sizes.peer).items():
            mix = mixes[mix_name] = _mix(encoder, texts)
            mix["cosine"] = {name: _cosine(encoder, server, texts) for name, server in servers.items()}
            mix["latency"] = {}
            for number in range(sizes.rounds):
                for name, server in servers.items():
                    load = attack(server.url, way.bodies(texts), clients=way.clients)
                    _append(mix["seconds"], name, load.seconds)
                    _append(mix["latency"], name, _latencies(load))
                    _count(mix["errors"], {f"{name}: {what}": count for what, count in load.errors.items()})
                _say(mix_name, number, sizes, mix)
    packages = {name: list(SERVICES[name].packages) for name in PEERS if SERVICES[name].packages}
    return {"way": str(way), "mixes": mixes, "packages": packages}


PARTS: dict[str, Callable[[Sizes], dict[str, Any]]] = {
    "saturation": saturation,
    "fake": fake,
    "credit": credit,
    "endurance": endurance,
    "peers": peers,
}


def _mixes(sizes: Sizes, share: float) -> dict[str, list[str]]:
    entries = stdlib_docstrings(keep=True)
    short, long = short_mix(entries, int(sizes.short * share)), long_mix(entries, int(sizes.long * share))
    every = len(short) // len(long)
    runs = zip_longest(*[iter(short[::2])] * every)
    mixed = chain.from_iterable((text, *(run or ())) for text, run in zip_longest(long[::2], runs))
    return {"short": short, "long": long, "mixed": [text for text in mixed if text is not None]}


def _mix(encoder: Encoder, texts: Sequence[str]) -> dict[str, Any]:
    return {"texts": len(texts), "tokens": count_tokens(encoder, texts), "seconds": {}, "errors": {}}


def _cosine(encoder: Encoder, server: Server, texts: Sequence[str]) -> float:
    """Return the smallest cosine between the encoder's vectors and the server's: both do the same work."""
    ours, theirs = encoder.encode(texts[:16]), server.vectors(texts[:16])
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(np.min((ours * theirs).sum(1) / lengths))


def _latencies(load: Load) -> dict[str, float]:
    return {f"p{100 * share:g}": load.latency(share) for share in (0.5, 0.9, 0.99, 0.999, 1)}


def _append(lists: dict[str, list[Any]], name: str, value: Any) -> None:
    lists.setdefault(name, []).append(value)


def _count(errors: dict[str, int], more: dict[str, int]) -> None:
    for what, count in more.items():
        errors[what] = errors.get(what, 0) + count


def _say(name: str, number: int, sizes: Sizes, mix: dict[str, Any]) -> None:
    rates = {who: round(mix["tokens"] / taken[-1]) for who, taken in mix["seconds"].items()}
    print(f"{name} {number + 1}/{sizes.rounds}: {rates} tokens a second {mix['errors'] or ''}", flush=True)


def main() -> None:
    """Measure, and write the result, the tables and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--quick", action="store_true", help="little of everything, nothing written")
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    full = Sizes(rounds=options.rounds, short=384, long=80, peer=0.2, seconds=10, minutes=options.minutes)
    sizes = QUICK if options.quick else full
    result: dict[str, Any] = {"model": MODEL, "parts": {}}
    if RESULT.exists() and not options.quick:
        result = json.loads(RESULT.read_text())
    for name in options.only:
        start, load = perf_counter(), os.getloadavg()[0]
        result["parts"][name] = PARTS[name](sizes) | {
            "date": datetime.now(UTC).date().isoformat(),
            "command": f"python benchmarks/serve.py --only {name}",
            "took": round(perf_counter() - start),
            "load_before": round(load, 2),
            "hardware": hardware(),
            "versions": {"unmask": unmask.__version__, "torch": torch.__version__, "locust": LOCUST.split("==")[1]},
        }
        if not options.quick:  # part by part: what was measured is not lost with what fails after it
            RESULT.write_text(json.dumps(result, indent=1) + "\n")
    if options.quick:
        print(serve_report.page(result))
        return
    serve_report.write(result, ROOT / "docs")
    print(serve_report.page(result), "\nWritten: benchmarks/results/serve.json, docs/serving-speed.md and .png", sep="")


if __name__ == "__main__":
    main()
