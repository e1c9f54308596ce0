"""Speed on this CPU: Unmask, sentence-transformers and llm2vec on the same texts and weights, in one run.

    python benchmarks/cpu.py [--rounds 5] [--quick]

Contenders take turns, each in an environment of its own (made under .bench/ on the first run), so that what the
machine does besides meets all of them. The ceiling is the model's own matrix products, timed alone, in the same
turns. Vectors are compared: all do the same work. Writes benchmarks/results/cpu.json, docs/speed.md and
docs/speed.png; nothing in those is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import report
import torch
from safetensors.torch import load_file, save_file

import unmask
from unmask import Encoder
from unmask.corpora import long_mix, short_mix, stdlib_docstrings
from unmask.hardware import processor
from unmask.hub.locate import path_of
from unmask.measure import ceiling

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".bench"
MODEL = "smollm2-135m"
TORCH = "torch==2.13.0"
#: What each peer is installed with; the reference library needs its transformers.
ENVIRONMENTS: dict[str, list[str]] = {
    "sentence-transformers": ["sentence-transformers==6.2.0", "transformers==5.23.0"],
    "llm2vec": ["llm2vec==0.2.3", "transformers==4.44.2", "peft==0.13.2"],
}
CONTENDERS = ("unmask", "sentence-transformers", "llm2vec")


@dataclass
class Contender:
    """A runner process, asked by turns."""

    name: str
    process: subprocess.Popen[str]
    ready: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, argument: Path | str, *, runner: str = "runner.py") -> Self:
        """Start the runner and wait until its model is loaded.

        Args:
            name: of the contender; a peer's runs in its own environment.
            argument: the runner's: the model, or what describes the work.
            runner: a file beside this one.
        """
        python = environment(name, [TORCH, *ENVIRONMENTS[name]]) if name in ENVIRONMENTS else Path(sys.executable)
        command = [str(python), str(Path(__file__).with_name(runner)), name, str(argument)]
        variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        log = (WORK / f"{name}.log").open("w")
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=variables
        )
        contender = cls(name, process)
        contender.ready = contender._answer()
        return contender

    def encode(self, texts: Sequence[str]) -> tuple[float, np.ndarray[Any, Any]]:
        """Return the seconds that encoding ``texts`` took, and the first vectors."""
        answer = self.ask({"texts": list(texts)})
        return float(answer["seconds"]), np.array(answer["vectors"])

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the runner's answer to a request."""
        pipe: IO[str] = self.process.stdin or sys.stdout
        pipe.write(json.dumps(request) + "\n")
        pipe.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        pipe: IO[str] = self.process.stdout or sys.stdin
        line = pipe.readline()
        if not line:
            log = (WORK / f"{self.name}.log").read_text()[-2000:]
            raise SystemExit(f"{self.name} stopped:\n{log}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def environment(name: str, packages: Sequence[str]) -> Path:
    """Return the Python of a peer's environment, made on first use and whenever its packages change."""
    folder = WORK / "environments" / name
    python = folder / "bin" / "python"
    done, wanted = folder / ".done", " ".join(packages)
    if not done.exists() or done.read_text() != wanted:
        print(f"Making the environment of {name} …", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        done.write_text(wanted)
    return python


def plain_folder(folder: Path) -> Path:
    """Return a copy of the model that the reference library's transformers understands."""
    target = WORK / "plain"
    if target.is_dir():
        return target
    draft = WORK / "plain.part"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    config = json.loads((folder / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config.update(architectures=["LlamaForCausalLM"], torch_dtype="float32", _name_or_path=MODEL)
    (draft / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    renamed = {f"model.{name}": tensor for name, tensor in tensors.items()}
    save_file(renamed, draft / "model.safetensors", {"format": "pt"})
    encoder = Encoder.load(folder)
    tokenizer = json.loads(encoder.tokenizer.backend.to_str())
    # tokenizers 0.19, which transformers 4.44 needs, reads merges as strings only.
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    (draft / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "bos_token": encoder.tokenizer.bos,
        "eos_token": encoder.tokenizer.eos,
    }
    (draft / "tokenizer_config.json").write_text(json.dumps(settings))
    draft.rename(target)
    return target


def hardware() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float(np.min((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


def measure(rounds: int, texts: dict[str, list[str]], contenders: Sequence[str]) -> dict[str, Any]:
    """Run all contenders by turns and return every time taken."""
    folder = path_of(MODEL).path
    models: dict[str, Path] = {"llm2vec": plain_folder(folder)}
    encoder = Encoder.load(folder)
    tokenizer, budget = encoder.pipeline.tokenizer, encoder.pipeline.token_budget
    counted = {mix: _count(tokenizer, batch) for mix, batch in texts.items()}
    mixes: dict[str, Any] = {}
    with ExitStack() as stack:
        running = {}
        for name in contenders:
            running[name] = Contender.start(name, models.get(name, folder))
            stack.callback(running[name].process.kill)
        for mix, batch in texts.items():
            tokens = counted[mix]
            seconds: dict[str, list[float]] = {name: [] for name in (*contenders, "ceiling")}
            cosines: dict[str, float] = {}
            expected = encoder.encode(batch[:16])
            for number in range(rounds):
                for name in contenders:
                    taken, vectors = running[name].encode(batch)
                    seconds[name].append(taken)
                    cosines[name] = _cosine(vectors, expected)
                seconds["ceiling"].append(tokens / ceiling(encoder.backbone.model, budget, repeats=1))
                rates = {name: round(tokens / times[-1]) for name, times in seconds.items()}
                print(f"{mix} {number + 1}/{rounds}: {rates}", flush=True)
            mixes[mix] = {"texts": len(batch), "tokens": tokens, "seconds": seconds, "cosine": cosines}
    return {"token_budget": budget, "mixes": mixes}


def _count(tokenizer: Any, batch: Sequence[str]) -> int:
    return sum(len(text.ids) for text in tokenizer.tokenize([unmask.Text("", content) for content in batch]))


def main() -> None:
    """Measure, write the result, the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few texts, one round, nothing written")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), choices=CONTENDERS)
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    entries = stdlib_docstrings(keep=True)
    size = (32, 8) if options.quick else (128, 32)
    texts = {"short": short_mix(entries, size[0]), "long": long_mix(entries, size[1])}
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "make bench",
        "model": MODEL,
        "hardware": hardware(),
        "versions": {"unmask": unmask.__version__, "torch": torch.__version__, **_pins()},
        **measure(1 if options.quick else options.rounds, texts, options.only),
    }
    if options.quick:
        print(report.table(result))
        return
    file = Path(__file__).parent / "results" / "cpu.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    report.write(result, ROOT / "docs")
    print(report.table(result), f"\nWritten: {file.relative_to(ROOT)}, docs/speed.md, docs/speed.png", sep="")


def _pins() -> dict[str, str]:
    return {name: pins[0].split("==")[1] for name, pins in ENVIRONMENTS.items()}


if __name__ == "__main__":
    main()
