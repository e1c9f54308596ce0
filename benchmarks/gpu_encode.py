"""Encoding on a GPU: ours in both formats, sentence-transformers and the reference's way, by turns on the same texts.

All stand on the same weights. Everyone gets strings and gives vectors on the CPU: tokenising counts.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from gpu_floor import Work
from gpu_rates import Products
from gpu_shapes import MAX_LENGTH, padded_twin
from gpu_texts import lengths_of
from numpy.typing import NDArray
from train_floor import Shape
from transformers import AutoModel, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

from unmask import Encoder
from unmask.backbone.attention import kernels_used
from unmask.packing import plan
from unmask.text import Text

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]

#: The contenders that are ours.
OURS: Final = ("bf16", "fp8")
#: Texts a batch, the default of both libraries.
BATCH: Final = 32
#: Texts whose vectors are compared with one another, to say what a cosine between two different texts is here.
_DIFFERENT: Final = 64


def packed(encoder: Encoder) -> Encode:
    """Return ours."""
    return lambda texts: np.asarray(encoder.encode(list(texts)))


def sentence_transformers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Encode:
    """Return sentence-transformers' with its defaults (batches of 32, sorted by length), around our model."""
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as folder:
        # It loads from folders only: a small model first, into whose place ours is put.
        small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
        config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **small)
        AutoModel.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        encoder = SentenceTransformer(folder, device=str(model.device))
    # Releases before 6 keep the model under the second name.
    name = next(name for name in ("model", "auto_model") if name in dict(encoder[0].named_children()))
    setattr(encoder[0], name, padded_twin(model))
    encoder.max_seq_length = MAX_LENGTH

    def encode(texts: Sequence[str]) -> Vectors:
        return np.asarray(encoder.encode(list(texts), batch_size=BATCH, show_progress_bar=False), dtype=np.float32)

    return encode


def reference(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Encode:
    """Return the way of llm2vec 0.2.3 (``LLM2Vec.encode``), written anew.

    Texts are sorted by their characters; batches of 32 are tokenised one after the other, padded on the left, and
    their vectors fetched before the next one.
    """
    other = padded_twin(model)

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> Vectors:
        order = np.argsort([-len(text) for text in texts], kind="stable")
        parts = []
        for begin in range(0, len(texts), BATCH):
            batch = tokenizer(
                [texts[index] for index in order[begin : begin + BATCH]],
                padding=True,
                padding_side="left",
                truncation=True,
                max_length=MAX_LENGTH,
                return_tensors="pt",
            ).to(other.device)
            states = other(**batch, use_cache=False).last_hidden_state.float()
            mask = batch["attention_mask"][..., None]
            parts.append(((states * mask).sum(dim=1) / mask.sum(dim=1)).cpu())
        vectors: Vectors = torch.cat(parts).numpy()[np.argsort(order)]
        return vectors

    return encode


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Who takes turns, and what the floor is made of.

    Attributes:
        encoder: ours in bfloat16: it says what a pack is.
        contenders: by name; ``bf16`` and ``fp8`` are ours.
        products: whose rates are taken in the same rounds, by name.
        shape: of the model, for counting.
        left: seconds that are left for this job.
        failed: told of a contender that failed, which takes no further part.
        failures: what is taken as a failure of one contender.
        least: seconds that a rate is taken over, in each round.
    """

    encoder: Encoder
    contenders: dict[str, Encode]
    products: Mapping[str, Products]
    shape: Shape
    left: Callable[[], float]
    failed: Callable[[str, Exception], None]
    failures: tuple[type[Exception], ...]
    least: float

    def measure(self, texts: Sequence[str], rounds: int, *, peers: int) -> dict[str, Any]:
        """Let all encode ``texts`` by turns; fewer rounds where time is short.

        Before that ours has encoded them all once, which compiles its sizes, and the others a few of them.

        Args:
            texts: what to encode.
            rounds: how often ours does.
            peers: how often the others do.
        """
        tokens = [len(text.ids) for text in self._tokenized(texts)]
        budget = self.encoder.pipeline.token_budget
        packs = len(list(plan(tokens, budget)))
        begun = time.perf_counter()
        kernels = self._warm_up(texts)
        warm_up = time.perf_counter() - begun
        vectors: dict[str, Vectors] = {}
        seconds: dict[str, list[float]] = {name: [] for name in self.contenders}
        rates: dict[str, list[float]] = {name: [] for name in self.products}
        begun = time.perf_counter()
        for number in range(rounds):
            if number and self.left() < (time.perf_counter() - begun) / number:
                break
            for name in self._in_round(number, peers):
                start = time.perf_counter()
                vectors[name] = self.contenders[name](texts)
                seconds[name].append(time.perf_counter() - start)
            for name, products in self.products.items():
                rates[name].append(products.rate(self.least))
        return {
            "texts": len(texts),
            "tokens": sum(tokens),
            "longest": max(tokens),
            "budget": budget,
            "packs": packs,
            "work": Work.of(self.shape, self.encoder.backbone.config, tokens, packs=packs).as_dict(),
            "seconds": seconds,
            "rates": rates,
            "warm_up": warm_up,
            "kernels": kernels,
            "form": self.encoder.backbone.form if "bf16" in self.contenders else None,
            **_likeness(vectors),
        }

    def alone(self, texts: Mapping[str, int]) -> dict[str, Any]:
        """Return the rates taken before anyone encodes, and the work of each mix as it is planned.

        Args:
            texts: how many texts each mix has, by its length in tokens, or ``real``.
        """
        budget, config = self.encoder.pipeline.token_budget, self.encoder.backbone.config
        work = {}
        for name, count in texts.items():
            lengths = lengths_of(name, count)
            packs = len(list(plan(lengths, budget)))
            work[name] = {
                "tokens": sum(lengths),
                "work": Work.of(self.shape, config, lengths, packs=packs).as_dict(),
            }
        rates = {name: [products.rate(self.least)] for name, products in self.products.items()}
        return {"rates": rates, "mixes": work}

    def _in_round(self, number: int, peers: int) -> list[str]:
        return [name for name in self.contenders if name in OURS or number < peers]

    def _tokenized(self, texts: Sequence[str]) -> Sequence[Any]:
        return self.encoder.pipeline.tokenizer.tokenize([Text("", text) for text in texts])

    def _warm_up(self, texts: Sequence[str]) -> list[str]:
        """Let everyone encode once, leave out who cannot, and return the attention kernels of ours."""
        kernels: set[str] = set()
        for name in list(self.contenders):
            try:
                with kernels_used() as used:
                    self.contenders[name](texts if name in OURS else texts[: 2 * BATCH])
            except self.failures as error:
                self.failed(name, error)
                del self.contenders[name]
            else:
                kernels |= used
        return sorted(kernels)


def cosines(a: Vectors, b: Vectors) -> Vectors:
    """Return the cosine of each row of ``a`` with the same row of ``b``."""
    products: Vectors = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return products


def _likeness(vectors: Mapping[str, Vectors]) -> dict[str, Any]:
    """Return how like everyone's vectors are ours in bfloat16, and how like different texts' vectors are."""
    if "bf16" not in vectors:
        return {"cosine": {}}
    ours = vectors["bf16"]
    each = {name: cosines(other, ours).tolist() for name, other in vectors.items() if name != "bf16"}
    few = ours[:_DIFFERENT] / np.linalg.norm(ours[:_DIFFERENT], axis=1, keepdims=True)
    different = (few @ few.T)[~np.eye(len(few), dtype=bool)]
    return {
        "cosine": {name: {"least": min(own), "median": statistics.median(own)} for name, own in each.items()},
        "different_texts": {"median": float(np.median(different)), "most": float(different.max())},
    }
