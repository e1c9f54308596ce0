"""The losses of twenty steps of every stage, on a tiny model and a few sentences.

    python -m tests.golden_losses --write

makes ``tests/integration/golden_losses.json`` anew: after a change that is meant to change them, and says so.
Dropout is LoRA's alone, which draws whole numbers: other kinds of dropout differ between builds of torch.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.tiny import write_base
from tests.tiny_tokenizer import SENTENCES
from unmask.training.data.sources import PairSource, Source
from unmask.training.lora import Lora
from unmask.training.monitor import read_metrics
from unmask.training.preparing import Options
from unmask.training.recipe import Mntp, Recipe, SimCse, Stage, Supervised
from unmask.training.running import run_recipe

FILE: Final = Path(__file__).parent / "integration" / "golden_losses.json"
KINDS: Final = ("mntp", "simcse", "supervised")
_LORA: Final = Lora(rank=4, alpha=8, dropout=0.1)


def losses(kind: str, folder: Path) -> list[float]:
    """Return the losses of one stage's twenty steps; ``folder`` is empty."""
    base = write_base(folder / "base")
    texts, pairs = folder / "texts.txt", folder / "pairs.jsonl"
    texts.write_text("\n".join(SENTENCES), encoding="utf-8")
    rows = zip(SENTENCES, SENTENCES[1:], SENTENCES[2:], strict=False)
    lines = [json.dumps({"query": query, "positive": near, "negative": far}) for query, near, far in rows]
    pairs.write_text("\n".join(lines), encoding="utf-8")
    stages: dict[str, Stage] = {
        "mntp": Mntp(data=(Source(path=str(texts)),), steps=20, batch=4, max_length=32, learning_rate=1e-2, lora=_LORA),
        "simcse": SimCse(
            data=(Source(path=str(texts)),),
            steps=20, batch=8, max_length=48, learning_rate=1e-2, warmup=4, attention_dropout=0.0, lora=_LORA,
        ),
        "supervised": Supervised(
            data=(PairSource(path=str(pairs), instruction="Find what comes next:"),),
            steps=20, batch=6, max_length=48, learning_rate=1e-2, warmup=4, bidirectional_loss=True, lora=_LORA,
        ),
    }  # fmt: skip
    recipe = Recipe(name="golden", base=str(base), stages=(stages[kind],))
    run_recipe(recipe, folder / "run", options=Options(device="cpu", progress=False))
    return [line["loss"] for line in read_metrics(folder / "run" / f"1-{kind}")]


def _made(kind: str) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        return losses(kind, Path(folder))


if __name__ == "__main__":
    found = {kind: _made(kind) for kind in KINDS}
    text = json.dumps(found, indent=1) + "\n"
    if "--write" in sys.argv[1:]:
        FILE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
