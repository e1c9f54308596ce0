"""Speed and memory of training on this machine: Unmask's steps and llm2vec's, same base, texts and settings.

    python benchmarks/train.py [--rounds 3] [--quick]
    python benchmarks/train.py --gpu    # a Llama of 8B, ours alone, on the GPU of this machine

Sides take turns, a step each, each in an environment and process of its own, after one step to warm up. The floor is
the step's matrix products at the rate measured in the same turns (train_floor.py). Writes
benchmarks/results/train.json, the table in docs/speed.md and docs/train-speed.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cpu
import torch
import train_gpu
import train_report
from train_floor import operations, product_rate, shape_of

import unmask
from unmask import Encoder
from unmask.corpora import Entry, long_mix, short_mix, stdlib_docstrings
from unmask.hub.locate import path_of
from unmask.training.steps import TOKENS, TOKENS_AT_ONCE

SEED = 42
RESULT = Path(__file__).parent / "results" / "train.json"
#: The published ones (LLM2Vec's train_configs), on both sides; the rate is of no account here.
SETTINGS: dict[str, Any] = {
    "seed": SEED,
    "lora": {
        "rank": 16,
        "alpha": 32,
        "dropout": 0.05,
        "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    },
    "learning_rate": 5e-5,
    "weight_decay": 0.0,
    "clip": 1.0,
    "mask_token": "_",
    "mask_rate": 0.2,
    "temperature": 0.05,
    "attention_dropout": 0.3,
}


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    Attributes:
        stage: ``mntp`` or ``simcse``.
        rows: blocks or sentences a step.
        length: tokens of a block; most tokens of a sentence.
        sides: who takes part.
    """

    stage: str
    rows: int
    length: int
    sides: tuple[str, ...] = ("unmask", "llm2vec")

    @property
    def name(self) -> str:
        """Its key in the result."""
        return f"{self.stage}-{self.length}"


ALL = (
    Workload("mntp", 4, 512, ("unmask", "llm2vec", "unmask-undropped")),
    Workload("mntp", 8, 128),
    Workload("simcse", 32, 128),
)
QUICK = (Workload("mntp", 2, 64, ("unmask", "llm2vec", "unmask-undropped")), Workload("simcse", 4, 128))


def rows_of(workload: Workload, encoder: Encoder, entries: Sequence[Entry]) -> list[Any]:
    """Return blocks of token ids, or sentences: docstrings of the standard library."""
    if workload.stage == "simcse":
        return list(short_mix(entries, workload.rows))
    needed = workload.rows * workload.length
    encoded = encoder.tokenizer.backend.encode_batch(long_mix(entries, needed // 50), add_special_tokens=False)
    ids = [number for text in encoded for number in text.ids]
    assert len(ids) >= needed
    return [ids[begin : begin + workload.length] for begin in range(0, needed, workload.length)]


def measure(
    workload: Workload, rounds: int, encoder: Encoder, rows: list[Any], models: dict[str, Path]
) -> dict[str, Any]:
    """Let all sides take steps by turns and return every time taken."""
    mntp = workload.stage == "mntp"
    lengths = [len(row) for row in rows] if mntp else _lengths(encoder, rows) * 2
    tokens = sum(lengths)
    masked = round(SETTINGS["mask_rate"] * tokens) if mntp else 0
    # Ours passes at most so many at once.
    share = min(1.0, (TOKENS if mntp else TOKENS_AT_ONCE)["cpu"] / tokens)
    model = encoder.backbone.model
    head = model.get_input_embeddings().weight if mntp else None
    count = operations(shape_of(model, encoder.backbone.config), lengths, rank=SETTINGS["lora"]["rank"], masked=masked)
    seconds: dict[str, list[float]] = {name: [] for name in workload.sides}
    rates: list[float] = []
    with ExitStack() as stack:
        running = {name: _start(name, workload, rows, models) for name in workload.sides}
        for side in running.values():
            stack.callback(side.process.kill)
        last = {name: side.ask({}) for name, side in running.items()}
        first = {name: answer["loss"] for name, answer in last.items()}
        for number in range(rounds):
            for name, side in running.items():
                last[name] = side.ask({})
                seconds[name].append(last[name]["seconds"])
            rates.append(
                product_rate(model, head, tokens=round(tokens * share), masked=round(masked * share), warm=number > 0)
            )
            shown = {name: round(tokens / times[-1]) for name, times in seconds.items()}
            print(f"{workload.name} {number + 1}/{rounds}: {shown}, {rates[-1] / 1e9:.0f} GFLOP/s", flush=True)
    if any(answer["tokens"] != tokens for answer in last.values()):
        raise SystemExit(f"Tokens differ: {tokens} expected, { ({n: a['tokens'] for n, a in last.items()}) }")
    return {
        "stage": workload.stage,
        "rows": workload.rows,
        "length": workload.length,
        "tokens": tokens,
        "seconds": seconds,
        "operations": {"frozen": count.frozen, "lora": count.lora, "head": count.head, "attention": count.attention},
        "products_per_second": rates,
        "loaded": {name: side.ready["loaded"] for name, side in running.items()},
        "peak": {name: answer["peak"] for name, answer in last.items()},
        "trained": {name: side.ready["trained"] for name, side in running.items()},
        "first_loss": first,
    }


def _lengths(encoder: Encoder, sentences: Sequence[str]) -> list[int]:
    return [len(text.ids) for text in encoder.pipeline.tokenizer.tokenize([unmask.Text("", s) for s in sentences])]


def _start(name: str, workload: Workload, rows: list[Any], models: dict[str, Path]) -> cpu.Contender:
    lora = dict(SETTINGS["lora"])
    if name == "unmask-undropped":
        lora["dropout"] = 0.0
    model = str(models["llm2vec" if name == "llm2vec" else "unmask"])
    job = {
        **SETTINGS,
        "stage": workload.stage,
        "max_length": workload.length,
        "model": model,
        "lora": lora,
        "rows": rows,
    }
    file = cpu.WORK / f"train-{name}.json"
    file.write_text(json.dumps(job))
    return cpu.Contender.start(name, file, runner="train_runner.py")


def compare(workloads: Sequence[Workload], rounds: int) -> dict[str, Any]:
    """Measure all workloads on the CPU."""
    cpu.WORK.mkdir(exist_ok=True)
    folder = path_of(cpu.MODEL).path
    models = {"unmask": folder, "llm2vec": cpu.plain_folder(folder)}
    encoder = Encoder.load(folder, device="cpu", dtype="float32", progress=False)
    entries = stdlib_docstrings(keep=True)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "make bench-train",
        "model": cpu.MODEL,
        "rounds": rounds,
        "hardware": cpu.hardware(),
        "versions": versions(),
        "settings": SETTINGS,
        "workloads": {
            one.name: measure(one, rounds, encoder, rows_of(one, encoder, entries), models) for one in workloads
        },
    }


def versions() -> dict[str, str]:
    """Return the version of each side and what it needs."""
    pins = dict(pin.split("==") for pin in cpu.ENVIRONMENTS["llm2vec"])
    return {"unmask": unmask.__version__, "torch": torch.__version__, **pins}


def main() -> None:
    """Measure, write the result, the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few tokens, one round, nothing written")
    parser.add_argument("--gpu", action="store_true", help="our step alone, on a Llama of 8B made on the GPU")
    options = parser.parse_args()
    if options.gpu:
        print(train_gpu.report(train_gpu.measure(train_gpu.LARGE, rounds=options.rounds, seed=SEED)))
        return
    result = compare(QUICK if options.quick else ALL, 1 if options.quick else options.rounds)
    if options.quick:
        print(train_report.section(result), "Too small to mean anything.", sep="\n\n")
        return
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    train_report.write(result, cpu.ROOT / "docs")
    print(train_report.table(result), f"\nWritten: {RESULT.relative_to(cpu.ROOT)}, docs/speed.md, docs/train-speed.png")


if __name__ == "__main__":
    main()
