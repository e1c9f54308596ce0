"""The published configurations of LLM2Vec (McGill-NLP/llm2vec, ``train_configs``; arXiv 2404.05961, appendix D).

One function makes the row of a base; what differs between bases is an argument. Bases that were published with
other methods since (Llama-3.2, Qwen, Gemma) take the settings of Llama-3. The supervised data of the paper is the
public part of E5's (https://github.com/jakespringer/echo-embeddings); give it with ``--data supervised=FILE``, one
file a data set.
"""

from __future__ import annotations

from typing import Final

from unmask.training.data.sources import Source
from unmask.training.lora import Lora
from unmask.training.objectives import Strategy
from unmask.training.recipe import Mntp, Recipe, SimCse, Stage, Supervised

_WIKITEXT: Final = (Source(path="hf:Salesforce/wikitext", config="wikitext-103-raw-v1"),)
_WIKI1M: Final = (Source(path="hf:princeton-nlp/datasets-for-simcse"),)
_LORA: Final = Lora(rank=16, alpha=32, dropout=0.05)


def _recipes(name: str, base: str, *, mask_rate: float = 0.2, strategy: Strategy = "bert") -> tuple[Recipe, Recipe]:
    """Return the unsupervised and the supervised recipe of a base."""
    mntp = Mntp(
        data=_WIKITEXT, steps=1000, horizon=21_600, batch=32, max_length=512, learning_rate=5e-5,
        mask_rate=mask_rate, strategy=strategy, lora=_LORA,
    )  # fmt: skip
    simcse = SimCse(
        data=_WIKI1M, steps=1000, horizon=23_438, batch=128, max_length=128, learning_rate=3e-5,
        attention_dropout=0.3, temperature=1 / 20, lora=_LORA,
    )  # fmt: skip
    supervised = Supervised(
        steps=1000, horizon=8_800, batch=512, max_length=512, learning_rate=2e-4, warmup=300,
        temperature=1 / 50, lora=_LORA,
    )  # fmt: skip

    def recipe(suffix: str, about: str, last: Stage) -> Recipe:
        return Recipe(name=f"{name}-{suffix}", about=f"{base}: {about}.", base=base, stages=(mntp, last))

    return recipe("unsup", "MNTP, then SimCSE", simcse), recipe("sup", "MNTP, then supervised", supervised)


RECIPES: Final[tuple[Recipe, ...]] = (
    *_recipes("llama-3-8b", "meta-llama/Meta-Llama-3-8B-Instruct"),
    *_recipes("llama-3.1-8b", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
    *_recipes("llama-3.2-1b", "meta-llama/Llama-3.2-1B-Instruct"),
    *_recipes("llama-3.2-3b", "meta-llama/Llama-3.2-3B-Instruct"),
    *_recipes("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.2", mask_rate=0.8, strategy="all"),
    *_recipes("llama-2-7b", "meta-llama/Llama-2-7b-chat-hf"),
    *_recipes("s-llama-1.3b", "princeton-nlp/Sheared-LLaMA-1.3B"),
    *_recipes("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B-Instruct"),
    *_recipes("qwen2.5-7b", "Qwen/Qwen2.5-7B-Instruct"),
    *_recipes("qwen3-0.6b", "Qwen/Qwen3-0.6B"),
    *_recipes("qwen3-8b", "Qwen/Qwen3-8B"),
    *_recipes("gemma-2-2b", "google/gemma-2-2b-it"),
    *_recipes("gemma-2-9b", "google/gemma-2-9b-it"),
    *_recipes("gemma-3-270m", "google/gemma-3-270m-it"),
    *_recipes("gemma-3-1b", "google/gemma-3-1b-it"),
)
