"""One job of the GPU benchmark, in a process of its own: a shape's encoding, or training. Run by ``gpu.py``.

    python benchmarks/gpu_job.py '{"job": "tiny", "device": "cpu", "quick": true, "until": 9e9, "seed": 42}'

Each part is written as one line of JSON as soon as it is done: ``{"part": name, "value": …}``, or, where it failed or
was left out, ``{"note": why, "failed": bool}``. So what was measured stays, whatever happens later.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, Final

import gpu_encode
import gpu_profile
import gpu_rates
import gpu_right
import gpu_train
import torch
import train_gpu
from gpu_shapes import SHAPES, encoder_of, random_model, twin
from gpu_texts import Words, learn_tokenizer, mixes
from train_floor import shape_of
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unmask.backbone.backbone import Backbone
from unmask.corpora import stdlib_docstrings
from unmask.training.recipe import Mntp, SimCse, Stage

#: What one part, or one contender, may fail with while the others go on: anything. The result says what and where, and
#: the run ends with an error.
FAILURES: Final = (Exception,)
#: Tokens of the vocabulary, and source files that it is learnt from.
_VOCABULARY: Final = 32_000
_FILES: Final = 150
#: Bytes copied to measure bandwidth.
_COPIED: Final = 4 << 30
_COPIED_QUICKLY: Final = 1 << 24
_ROUNDS: Final = 3
#: Seconds that a part needs at least on an H200; with less left, it is left out.
_NEEDS: Final = {"about": 0, "floor": 5, "mix": 12, "right": 12, "profile": 12, "sweep": 20, "alone": 30, "compare": 30}


@dataclass(kw_only=True)
class Job:
    """What a job was asked, and where its answers go.

    Attributes:
        job: name of a shape, or ``training-`` and that.
        device: ``cuda`` or ``cpu``.
        quick: little work, one round.
        until: it should have ended by then, in seconds since 1970.
        seed: of weights and texts.
        answer: takes a line a part.
    """

    job: str
    device: str
    quick: bool
    until: float
    seed: int
    answer: IO[str]
    _begun: float = field(default_factory=time.monotonic)

    @property
    def rounds(self) -> int:
        """Rounds of turns."""
        return 1 if self.quick else _ROUNDS

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.until - time.time()

    def say(self, **line: Any) -> None:
        """Answer a line."""
        self.answer.write(json.dumps({**line, "at": round(time.monotonic() - self._begun, 1)}) + "\n")
        self.answer.flush()

    def fail(self, what: str, error: Exception) -> None:
        """Say that something failed, and where."""
        traceback.print_exception(error)
        where = "".join(traceback.format_tb(error.__traceback__)[-3:])
        self.say(note=f"{what} failed: {type(error).__name__}: {error}"[:2000], where=where[:2000], failed=True)

    def part(self, name: str, work: Callable[[], Any]) -> None:
        """Do a part and say what it gave; leave it out where time is short."""
        needs = 0 if self.quick else _NEEDS[name.partition("/")[0]]
        if self.left() < needs:
            self.say(note=f"{name} left out: it needs {needs} s, {self.left():.0f} are left", failed=False)
            return
        begun = time.monotonic()
        try:
            value = work()
        except FAILURES as error:
            self.fail(name, error)
        else:
            self.say(part=name, value=value, seconds=round(time.monotonic() - begun, 1))


def encoding(job: Job) -> None:
    """Measure the encoding of a shape."""
    shape, device = SHAPES[job.job], torch.device(job.device)
    entries = stdlib_docstrings(keep=True)
    vocabulary = min(_VOCABULARY, shape.fields["vocab_size"])
    tokenizer = learn_tokenizer(entries[:500] if job.quick else entries, vocabulary, files=0 if job.quick else _FILES)
    texts = mixes(Words(entries, tokenizer), shape.texts, seed=job.seed)
    bench = _bench(job, random_model(shape.fields, device, seed=job.seed), tokenizer)
    encoder = bench.encoder
    first, *others = texts
    copied = _COPIED_QUICKLY if job.quick else _COPIED
    half = texts[first][: len(texts[first]) // 2]

    def about() -> dict[str, Any]:
        return {
            "title": shape.title,
            "fields": shape.fields,
            "weights": sum(layer.inputs * layer.outputs for layer in bench.shape.linears),
            "vocabulary": len(tokenizer),
            "token_budget": encoder.pipeline.token_budget,
            "form": encoder.backbone.form,
            "memory": torch.cuda.memory_allocated() if device.type == "cuda" else 0,
        }

    def measure(name: str) -> dict[str, Any]:
        peers = job.rounds if name in (first, "512") else 1
        return bench.measure(texts[name], job.rounds, peers=peers)

    job.part("about", about)
    job.part("floor", lambda: {"bandwidth": gpu_rates.bandwidth(device, copied), **bench.alone(shape.texts)})
    job.part(f"mix/{first}", partial(measure, first))
    job.part("right", lambda: _right(job, bench, texts[first], tokenizer))
    job.part("profile", lambda: gpu_profile.profile(bench.contenders["bf16"], half))
    for name in others:
        job.part(f"mix/{name}", partial(measure, name))
    job.part("sweep", lambda: gpu_profile.sweep(encoder, half, shape.budgets, rounds=job.rounds, left=job.left))


def _bench(job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> gpu_encode.Bench:
    """Return all who take turns, on one model's weights; who cannot be made is left out, and said."""
    encoder = encoder_of(Backbone(twin(model)), tokenizer)
    budget = encoder.pipeline.token_budget
    contenders = {"bf16": gpu_encode.packed(encoder)}
    products = {
        "bf16": gpu_rates.plain(model, budget, joined=False),
        "joined": gpu_rates.plain(model, budget, joined=True),
    }

    def in_eight_bits() -> gpu_encode.Encode:
        backbone = Backbone(twin(model))
        backbone.to_float8()
        products["fp8"] = gpu_rates.float8(backbone.model, budget)
        return gpu_encode.packed(encoder_of(backbone, tokenizer))

    makers: dict[str, Callable[[], gpu_encode.Encode]] = {
        "fp8": in_eight_bits,
        "sentence-transformers": lambda: gpu_encode.sentence_transformers(model, tokenizer),
        "padded": lambda: gpu_encode.reference(model, tokenizer),
    }
    for name, make in makers.items():
        try:
            contenders[name] = make()
        except FAILURES as error:
            job.fail(name, error)
    return gpu_encode.Bench(
        encoder=encoder,
        contenders=contenders,
        products=products,
        shape=shape_of(model, model.config),
        left=job.left,
        failed=job.fail,
        failures=FAILURES,
        least=0.02 if job.quick else 0.3,
    )


def _right(
    job: Job, bench: gpu_encode.Bench, texts: Sequence[str], tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    others = {name: encode for name, encode in bench.contenders.items() if name in ("fp8", "padded")}
    on_cpu = SHAPES[job.job].on_cpu
    return gpu_right.compare(bench.encoder, texts, others, tokenizer=tokenizer, on_cpu=on_cpu)


def training(job: Job) -> None:
    """Measure training steps of a shape."""
    fields = SHAPES[job.job.removeprefix("training-")].fields
    stages: tuple[Stage, ...] = train_gpu.STAGES
    if job.quick:
        stages = (Mntp(batch=4, max_length=64), SimCse(batch=4, max_length=32))
    device = torch.device(job.device)

    def compare(stage: Stage) -> dict[str, Any]:
        found = gpu_train.compare(fields, [stage], rounds=job.rounds, seed=job.seed, device=device, left=job.left)
        return dict(found[stage.kind])

    def alone(stage: Stage) -> dict[str, Any]:
        found = train_gpu.measure(fields, rounds=job.rounds, seed=job.seed, stages=(stage,), device=job.device)
        return dict(found["stages"][stage.kind])

    for stage in stages:
        job.part(f"compare/{stage.kind}", partial(compare, stage))
    for stage in stages:
        job.part(f"alone/{stage.kind}", partial(alone, stage))


def main(asked: str) -> None:
    """Do the job."""
    answer, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not mix with the answers
    job = Job(answer=answer, **json.loads(asked))
    (training if job.job.startswith("training-") else encoding)(job)


if __name__ == "__main__":
    main(sys.argv[1])
