"""Where the time of encoding goes: kernels by kind, the device's pauses, and the host's work; and the token budget.

Kernels are told apart by their names, as cuBLAS, CUTLASS, torch and Triton give them.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch.profiler import ProfilerActivity

from unmask import Encoder
from unmask.measure import count_tokens

#: Parts of kernels' names, the first kind that fits counts: attention's kernels are built with CUTLASS, too.
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "attention": ("flash", "fmha", "attention", "flex"),
    "matrix products": ("gemm", "nvjet", "cutlass", "xmma", "cublas", "wgmma", "matmul"),
    "copies": ("memcpy", "memset"),
}
_DEVICE: Final = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
#: Kernels that are named.
_NAMED: Final = 12
_MICRO: Final = 1e-6


def profile(encode: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> dict[str, Any]:
    """Encode ``texts`` again and again, once under torch's profiler, and say where the time went."""
    encode(texts)
    begun, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
    encode(texts)
    host = {
        "seconds": time.perf_counter() - begun,
        "main_thread": time.thread_time() - thread,
        "all_threads": time.process_time() - process,
    }
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        encode(texts)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    return {"texts": len(texts), "host": host, "device": read_trace(events)}


def read_trace(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the device did between its first and its last kernel.

    Args:
        events: of a trace in Chrome's format; ``ts`` and ``dur`` are in microseconds.

    Returns:
        ``seconds`` from first to last, ``busy`` of them with some kernel at work, ``kinds`` with the seconds of each
        kind, ``top`` with the longest kernels' names, seconds and counts; None where nothing ran on a device.
    """
    ran = [event for event in events if event.get("ph") == "X" and event.get("cat") in _DEVICE]
    if not ran:
        return {"seconds": None}
    spans = sorted((float(event["ts"]), float(event["ts"]) + float(event["dur"])) for event in ran)
    busy, reached = 0.0, spans[0][0]
    for begin, end in spans:
        busy += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    names: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event in ran:
        names[event["name"]] += event["dur"]
        kinds[kind_of(event["name"])] += event["dur"]
        counts[event["name"]] += 1
    return {
        "seconds": (reached - spans[0][0]) * _MICRO,
        "busy": busy * _MICRO,
        "kinds": {kind: duration * _MICRO for kind, duration in kinds.most_common()},
        "top": [
            {"name": name[:120], "kind": kind_of(name), "seconds": duration * _MICRO, "count": counts[name]}
            for name, duration in names.most_common(_NAMED)
        ],
    }


def kind_of(name: str) -> str:
    """Return what a kernel does, by its name."""
    lower = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in lower for part in parts)), "other kernels")


def sweep(
    encoder: Encoder, texts: Sequence[str], budgets: Sequence[int], *, rounds: int, left: Callable[[], float]
) -> dict[str, Any]:
    """Encode ``texts`` with each token budget by turns; ends early where time is short, and says so."""
    planned = encoder.pipeline.token_budget
    about = {"planned": planned, "texts": len(texts), "tokens": count_tokens(encoder, texts)}
    seconds: dict[str, list[float]] = {}
    turns = [(number, budget) for number in range(rounds + 1) for budget in budgets]
    try:
        for number, budget in turns:
            if left() < max(seconds.get(str(budget), [0.0])):
                return {**about, "seconds": seconds, "cut": True}
            encoder.pipeline.token_budget = budget
            begun = time.perf_counter()
            encoder.encode(list(texts))
            if number:  # in the first round sizes are compiled
                seconds.setdefault(str(budget), []).append(time.perf_counter() - begun)
    finally:
        encoder.pipeline.token_budget = planned
    return {**about, "seconds": seconds, "cut": False}
