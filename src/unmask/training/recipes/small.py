"""A recipe for any machine: some ten minutes on two cores, on text that is already there.

It shows every stage and every file of a run; its encoder is hardly better than the base.
"""

from __future__ import annotations

from typing import Final

from unmask.training.data.sources import STDLIB, Source
from unmask.training.lora import Lora
from unmask.training.recipe import Mntp, Recipe, SimCse

_DOCSTRINGS: Final = (Source(path=STDLIB),)
_LORA: Final = Lora(rank=8, alpha=16, dropout=0.0)

RECIPES: Final[tuple[Recipe, ...]] = (
    Recipe(
        name="small",
        about="SmolLM2-135M on the docstrings of Python's own library, in some ten minutes on two cores.",
        base="smollm2-135m",
        stages=(
            Mntp(data=_DOCSTRINGS, steps=25, batch=8, max_length=128, learning_rate=5e-4, warmup=5, lora=_LORA),
            SimCse(data=_DOCSTRINGS, steps=20, batch=16, max_length=64, learning_rate=2e-4, warmup=5, lora=_LORA),
        ),
    ),
)
