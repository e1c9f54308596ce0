"""Ours, for SmolLM2-135M: the settings of the shipped encoders, trained on a CPU.

The published amount of data is out of a CPU's reach: these runs see an eightieth of it (MNTP), a twentieth (SimCSE), so
blocks are shorter, batches smaller and learning rates higher. Without dropout in the LoRA: no text is seen twice. The
texts named here can be had by everyone; the shipped encoders saw others of their kind (``experiments/recipes``).
"""

from __future__ import annotations

from typing import Final

from unmask.training.data.sources import PairSource, Source
from unmask.training.lora import Lora
from unmask.training.recipe import Mntp, Recipe, SimCse, Supervised

_BASE: Final = "smollm2-135m"
_WIKI: Final = (Source(path="hf:Salesforce/wikitext", config="wikitext-103-raw-v1"),)
_SENTENCES: Final = (Source(path="hf:princeton-nlp/datasets-for-simcse"),)
_PAIRS: Final = (PairSource(path="hf:sentence-transformers/all-nli", config="triplet"),)
_LORA: Final = Lora(rank=16, alpha=32, dropout=0.0)

_MNTP: Final = Mntp(
    data=_WIKI, steps=100, horizon=160, batch=16, max_length=128, learning_rate=5e-4, warmup=10, lora=_LORA
)
_SIMCSE: Final = SimCse(data=_SENTENCES, steps=90, batch=64, max_length=32, learning_rate=3e-4, warmup=10, lora=_LORA)
_SUPERVISED: Final = Supervised(
    data=_PAIRS, steps=75, batch=64, max_length=48, learning_rate=3e-4, warmup=10, temperature=0.05, lora=_LORA
)

RECIPES: Final[tuple[Recipe, ...]] = (
    Recipe(
        name="smollm2-135m-unsup",
        about="SmolLM2-135M: MNTP, then SimCSE.",
        base=_BASE,
        stages=(_MNTP, _SIMCSE),
    ),
    Recipe(
        name="smollm2-135m-sup",
        about="SmolLM2-135M: MNTP, then supervised.",
        base=_BASE,
        stages=(_MNTP, _SUPERVISED),
    ),
)
