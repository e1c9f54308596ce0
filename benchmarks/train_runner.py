"""One side of the training benchmark in its own environment: takes a training step when told to.

Run by ``train.py`` as ``train_runner.py NAME JOB``, JOB being a JSON file: stage, model, rows, settings. Says
when its model is loaded, then takes one step on the same rows for each line it reads, and answers with
seconds, tokens (no padding), loss, and the most memory so far. Standard library and the side's own library
only: the reference's environment has neither Unmask nor its transformers.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Step = Callable[[], tuple[float, int]]
"""Takes one step; returns the loss and the number of tokens that went through the model."""


def unmask(job: dict[str, Any]) -> tuple[Any, Step]:
    """Return our model and its training step, as ``unmask train`` takes it."""
    from accelerate import Accelerator

    from unmask import Encoder, Text
    from unmask.text import TokenizedText
    from unmask.training.lora import Lora
    from unmask.training.preparing import Options, prepare
    from unmask.training.recipe import Mntp, Recipe, SimCse, Stage

    mntp = job["stage"] == "mntp"
    common: dict[str, Any] = {
        "batch": len(job["rows"]),
        "max_length": job["max_length"],
        "learning_rate": job["learning_rate"],
        "clip": job["clip"],
        "lora": Lora(**job["lora"]),
    }
    stage: Stage = (
        Mntp(mask_token=job["mask_token"], mask_rate=job["mask_rate"], strategy="bert", **common)
        if mntp
        else SimCse(temperature=job["temperature"], attention_dropout=job["attention_dropout"], **common)
    )
    encoder = Encoder.load(job["model"], max_length=job["max_length"], device="cpu", dtype="float32", progress=False)
    texts = (
        [TokenizedText(ids=ids, start=0) for ids in job["rows"]]
        if mntp
        else encoder.pipeline.tokenizer.tokenize([Text("", text) for text in job["rows"]])
    )
    recipe = Recipe(name="benchmark", base=job["model"], stages=(stage,), seed=job["seed"])
    options = Options(device="cpu", dtype="float32", progress=False)
    run, gradients_of, optimizer = prepare(recipe, stage, encoder, Accelerator(cpu=True), options)
    done = 0

    def step() -> tuple[float, int]:
        nonlocal done
        outcome = gradients_of([(text,) for text in texts], done)
        run.accelerator.clip_grad_norm_(run.trainee.parameters_trained, job["clip"])
        optimizer.step()
        optimizer.zero_grad()
        done += 1
        return outcome.loss, outcome.tokens

    return run.trainee, step


def llm2vec(job: dict[str, Any]) -> tuple[Any, Step]:
    """Return the reference's model and the step that its published scripts let transformers' trainer take."""
    import torch
    from transformers import set_seed

    set_seed(job["seed"])
    model, loss_of = (_reference_mntp if job["stage"] == "mntp" else _reference_simcse)(job)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=job["learning_rate"], betas=(0.9, 0.999), eps=1e-8, weight_decay=job["weight_decay"]
    )

    def step() -> tuple[float, int]:
        model.train()
        loss, tokens = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, job["clip"])
        optimizer.step()
        model.zero_grad()
        return float(loss.detach()), tokens

    return model, step


def _with_lora(model: Any, settings: dict[str, Any]) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=settings["targets"],
        bias="none",
        task_type=None,
    )
    return get_peft_model(model, config)


def _reference_mntp(job: dict[str, Any]) -> tuple[Any, Callable[[], tuple[Any, int]]]:
    """As experiments/run_mntp.py: the collator masks, the head reads every position."""
    import torch
    from llm2vec.models import LlamaBiForMNTP
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    tokenizer.mask_token = job["mask_token"]
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = LlamaBiForMNTP.from_pretrained(job["model"], torch_dtype=torch.float32, attn_implementation="sdpa")
    model.set_model_for_peft(_with_lora(model.get_model_for_peft(), job["lora"]))
    collate = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=job["mask_rate"])
    rows: Sequence[list[int]] = job["rows"]

    def loss_of() -> tuple[Any, int]:
        plain = [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "special_tokens_mask": [0] * len(ids)} for ids in rows
        ]
        return model(**collate(plain)).loss, sum(map(len, rows))

    return model, loss_of


def _reference_simcse(job: dict[str, Any]) -> tuple[Any, Callable[[], tuple[Any, int]]]:
    """As experiments/run_simcse.py: padded batches, a forward pass for each of the two views."""
    import torch
    from llm2vec import LLM2Vec
    from llm2vec.loss.utils import load_loss

    model = LLM2Vec.from_pretrained(
        job["model"],
        enable_bidirectional=True,
        pooling_mode="mean",
        max_length=job["max_length"],
        torch_dtype=torch.float32,
        attn_implementation="sdpa",
        attention_dropout=job["attention_dropout"],
    )
    model.model = _with_lora(model.model, job["lora"])
    loss_function = load_loss("HardNegativeNLLLoss", scale=1 / job["temperature"])

    def loss_of() -> tuple[Any, int]:
        views = [model.tokenize(job["rows"]) for _ in range(2)]
        tokens = sum(int(view["attention_mask"].sum()) for view in views)
        first, second = (model(view) for view in views)
        return loss_function(first, second, None), tokens

    return model, loss_of


def _memory(name: str) -> int | None:
    """Return ``VmRSS`` or ``VmHWM`` of this process in bytes; None where there is no such thing (not Linux)."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return None


def _most_memory() -> int:
    most = _memory("VmHWM")
    if most is not None:
        return most
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _forget_most_memory() -> None:
    """Let the peak begin at what is in use now: loading may have taken more than training does."""
    file = Path("/proc/self/clear_refs")
    if file.exists():
        file.write_text("5")


SIDES: dict[str, Callable[[dict[str, Any]], tuple[Any, Step]]] = {
    "unmask": unmask,
    "unmask-undropped": unmask,
    "llm2vec": llm2vec,
}


def main(name: str, job_file: str) -> None:
    """Take steps until the input ends."""
    answer, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not mix with the answers
    model, step = SIDES[name](json.loads(Path(job_file).read_text()))
    for parameter in model.parameters():  # weights lie in mapped files until they are read
        parameter.detach().sum()
    gc.collect()
    _forget_most_memory()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    loaded = _memory("VmRSS") or _most_memory()
    print(json.dumps({"ready": name, "loaded": loaded, "trained": trained}), file=answer, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss, tokens = step()
        seconds = time.perf_counter() - start
        result = {"seconds": seconds, "tokens": tokens, "loss": loss, "peak": _most_memory()}
        print(json.dumps(result), file=answer, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
