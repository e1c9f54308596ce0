"""Training speed of a large model on a GPU: an 8B-shaped Llama with random weights, made on the device.

Nothing is loaded. Real rows of ids are not needed either: time does not depend on which tokens they are.
The head shares the embeddings' weight, unlike Llama-3-8B's own, which saves 1 GB and no operation.
Counted is what the step asks for, once: the layers computed again for gradient checkpointing are not, so a
step that does nothing but matrix products at the measured rate reaches two thirds (4 of 6 operations a weight).
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from train_floor import operations, product_rate, shape_of
from transformers import AutoModel, LlamaConfig

import unmask
from unmask.backbone.loading import Backbone
from unmask.text import TokenizedText
from unmask.tokenizers import ModelTokenizer
from unmask.training.loop import make_optimizer
from unmask.training.recipe import Mntp, SimCse, Stage
from unmask.training.sharing import Run
from unmask.training.steps import TOKENS, make_step
from unmask.training.trainee import Trainee

RESULT: Final = Path(__file__).parent / "results" / "train-gpu.json"
#: Llama-3-8B.
LARGE: Final[dict[str, Any]] = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
#: The published batches: 32 blocks of 512, 128 sentences (of at most 128 tokens; here all have them).
STAGES: Final[tuple[Stage, ...]] = (Mntp(batch=32, max_length=512), SimCse(batch=128, max_length=128))


def measure(
    shape: dict[str, Any],
    *,
    rounds: int,
    seed: int,
    stages: tuple[Stage, ...] = STAGES,
    device: str = "cuda",
) -> dict[str, Any]:
    """Take steps of each stage in bfloat16 with gradient checkpointing, and time them.

    Args:
        shape: fields of a Llama configuration.
        rounds: timed steps, after one to warm up.
        seed: of the weights, the rows and all that is drawn.
        stages: whose batch and length are taken.
        device: where; ``cpu`` shows, with a tiny shape, that it runs.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here. Leave out --gpu, or run on a machine that has one.")
    return {
        "command": "python benchmarks/train.py --gpu",
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "versions": {"unmask": unmask.__version__, "torch": torch.__version__},
        "seed": seed,
        "shape": shape,
        "stages": {stage.kind: _measure(shape, stage, rounds, seed, torch.device(device)) for stage in stages},
    }


def _measure(shape: dict[str, Any], stage: Stage, rounds: int, seed: int, device: torch.device) -> dict[str, Any]:
    torch.manual_seed(seed)
    backbone = _backbone(shape, device)
    trainee = Trainee(backbone, stage.lora, attention_dropout=stage.attention_dropout, checkpointing=True)
    accelerator = Accelerator(cpu=device.type == "cpu")
    optimizer = make_optimizer(stage, trainee.parameters_trained)
    model, optimizer = accelerator.prepare(trainee, optimizer)
    trainee.train()
    run = Run(trainee=trainee, model=model, accelerator=accelerator, seed=seed)
    step = make_step(stage, run, tokenizer=_tokenizer(), base=Path(), pooling="mean")
    ids = torch.randint(3, shape["vocab_size"], (stage.batch, stage.max_length)).tolist()
    rows = [(TokenizedText(ids=row, start=0),) for row in ids]
    seconds: list[float] = []
    tokens = 0
    for number in range(rounds + 1):
        begun = time.perf_counter()
        tokens = step(rows, number).tokens
        accelerator.clip_grad_norm_(trainee.parameters_trained, stage.clip)
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    mntp = isinstance(stage, Mntp)
    masked = round(stage.mask_rate * tokens) if isinstance(stage, Mntp) else 0
    count = operations(
        shape_of(_plain(shape), backbone.config),
        [stage.max_length] * (tokens // stage.max_length),
        rank=stage.lora.rank,
        masked=masked,
    )
    together = min(tokens, TOKENS["cuda"])
    head = backbone.model.get_input_embeddings().weight if mntp else None
    rate = product_rate(backbone.model, head, tokens=together, masked=min(masked, 4096), repeats=max(rounds, 1))
    middle = statistics.median(seconds[1:])
    accelerator.free_memory()
    return {
        "tokens": tokens,
        "seconds": seconds[1:],
        "tokens_per_second": tokens / middle,
        "products_per_second": rate,
        "operations": count.counted,
        "share": count.counted / middle / rate,
        "attention_share": count.attention_share,
        "peak": peak,
    }


def _backbone(shape: dict[str, Any], device: torch.device) -> Backbone:
    with device:
        model = AutoModel.from_config(LlamaConfig(**shape, tie_word_embeddings=True), dtype=torch.bfloat16)
    return Backbone(model.to(device))


def _plain(shape: dict[str, Any]) -> Any:
    """Return the model without weights and without LoRA."""
    with torch.device("meta"):
        return AutoModel.from_config(LlamaConfig(**shape))


def _tokenizer() -> ModelTokenizer:
    """Return a tokenizer that knows the mask token, all that a step asks of it."""
    backend = Tokenizer(WordLevel({"_": 0, "?": 1}, unk_token="?"))  # noqa: S106 - a token of text
    return ModelTokenizer(backend=backend, control=(), bos=None, eos=None, chat_template=None)


def report(result: dict[str, Any]) -> str:
    """Write the result beside the others and return it as lines."""
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    lines = [f"Llama of 8B, random, bfloat16, LoRA r16, gradient checkpointing, {result['device']}:"]
    for kind, stage in result["stages"].items():
        lines.append(
            f"  {kind}: {stage['tokens_per_second']:,.0f} tokens/s ({stage['tokens']:,} tokens a step), "
            f"{stage['share']:.0%} of the rate of its matrix products ({stage['products_per_second'] / 1e12:.0f} "
            f"TFLOP/s, recomputation not counted), {stage['peak'] / 1e9:.1f} GB"
        )
    return "\n".join([*lines, f"Written: {RESULT}"])
