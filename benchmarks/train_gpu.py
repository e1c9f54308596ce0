"""Training speed of a large model on a GPU: an 8B-shaped Llama with random weights, made on the device.

Nothing is loaded. Real rows of ids are not needed either: time does not depend on which tokens they are.
The head shares the embeddings' weight, unlike Llama-3-8B's own, which saves 1 GB and no operation.
Counted is what the step asks for, once: the layers computed again for gradient checkpointing are not, so a
step that does nothing but matrix products at the measured rate reaches two thirds (4 of 6 operations a weight).
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from train_floor import operations, product_rate, shape_of
from transformers import AutoModel, LlamaConfig

import unmask
from unmask.backbone.backbone import Backbone
from unmask.text import TokenizedText
from unmask.tokenizers import ModelTokenizer
from unmask.training.data.rows import Row
from unmask.training.loop import make_optimizer
from unmask.training.recipe import Mntp, SimCse, Stage
from unmask.training.sharing import Run
from unmask.training.steps import TOKENS, Outcome, make_step
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
    start_peak(device)
    backbone = _backbone(shape, device)
    step = PackedStep(stage, backbone, seed=seed)
    ids = torch.randint(3, shape["vocab_size"], (stage.batch, stage.max_length)).tolist()
    rows = [(TokenizedText(ids=row, start=0),) for row in ids]
    seconds: list[float] = []
    tokens = 0
    for number in range(rounds + 1):
        begun = time.perf_counter()
        tokens = step(rows, number).tokens
        seconds.append(time.perf_counter() - begun)
    peak = peak_of(device)
    middle = statistics.median(seconds[1:])
    lengths = [stage.max_length] * (tokens // stage.max_length)
    counted = floor_of(backbone, shape, stage, lengths, repeats=max(rounds, 1))
    step.close()
    return {
        "tokens": tokens,
        "seconds": seconds[1:],
        "tokens_per_second": tokens / middle,
        "share": counted["operations"] / middle / counted["products_per_second"],
        "peak": peak,
        **counted,
    }


class PackedStep:
    """Our step of a stage in a process of its own: gradients, then the optimiser.

    Args:
        stage: its settings.
        backbone: changed in place, with gradient checkpointing.
        seed: of all that is drawn.
    """

    def __init__(self, stage: Stage, backbone: Backbone, *, seed: int) -> None:
        self._device, self._stage = backbone.device, stage
        trainee = Trainee(backbone, stage.lora, attention_dropout=stage.attention_dropout, checkpointing=True)
        self._accelerator = Accelerator(cpu=self._device.type == "cpu")
        self._parameters = trainee.parameters_trained
        model, self._optimizer = self._accelerator.prepare(trainee, make_optimizer(stage, self._parameters))
        trainee.train()
        run = Run(trainee=trainee, model=model, accelerator=self._accelerator, seed=seed)
        self._step = make_step(stage, run, tokenizer=_tokenizer(), base=Path(), pooling="mean")

    def __call__(self, rows: Sequence[Row], number: int) -> Outcome:
        """Take step ``number`` with ``rows``, and return when the device has done it."""
        outcome = self._step(rows, number)
        self._accelerator.clip_grad_norm_(self._parameters, self._stage.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return outcome

    def close(self) -> None:
        """Let go of what accelerate holds."""
        self._accelerator.free_memory()


def floor_of(
    backbone: Backbone, shape: dict[str, Any], stage: Stage, lengths: Sequence[int], *, repeats: int
) -> dict[str, Any]:
    """Count a step's operations and measure the rate of its matrix products.

    Args:
        backbone: whose products are timed.
        shape: fields of its configuration.
        stage: its settings.
        lengths: tokens of each text that goes through the model, both views of SimCSE.
        repeats: how often the products are timed; the median counts.
    """
    tokens, mntp = sum(lengths), isinstance(stage, Mntp)
    masked = round(stage.mask_rate * tokens) if isinstance(stage, Mntp) else 0
    count = operations(shape_of(_plain(shape), backbone.config), lengths, rank=stage.lora.rank, masked=masked)
    together = min(tokens, TOKENS["cuda"])
    head = backbone.model.get_input_embeddings().weight if mntp else None
    rate = product_rate(backbone.model, head, tokens=together, masked=min(masked, 4096), repeats=repeats)
    return {"operations": count.counted, "attention_share": count.attention_share, "products_per_second": rate}


def start_peak(device: torch.device) -> None:
    """Begin to look for the most memory in use, anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_of(device: torch.device) -> int:
    """Return the most bytes in use on a GPU since :func:`start_peak`, 0 elsewhere."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


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
