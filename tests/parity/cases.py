"""What the reference library is asked for its golden vectors: texts, checkpoints, cases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LLAMA3_INSTRUCT = "meta-llama/Meta-Llama-3-8B-Instruct"
LLAMA3_BASE = "meta-llama/Meta-Llama-3-8B"
MISTRAL_INSTRUCT = "mistralai/Mistral-7B-Instruct-v0.2"
LLAMA2_CHAT = "meta-llama/Llama-2-7b-chat-hf"
TEMPLATE_NAMES = (
    LLAMA3_INSTRUCT,
    LLAMA3_BASE,
    MISTRAL_INSTRUCT,
    LLAMA2_CHAT,
    "google/gemma-2-9b-it",
    "Qwen/Qwen2-1.5B-Instruct",
    "Qwen/Qwen2-7B-Instruct",
    "any/other",
)

INSTRUCTION = "Given a question, retrieve passages that answer the question:"
LONG_TEXT = (
    "When the flood came, the people of the lower town carried their beds, clocks and "
    "books up the hill and slept in the school. On the second day somebody brought a "
    "kettle, on the third somebody brought a guitar, and by the end of the week the "
    "school had a kitchen, a choir and 2 newspapers. The water went down on a Sunday. It "
    "left mud in every room, a boat in the market square and a line on the wall of the "
    "church, 3 metres above the floor, which is still there. Some families moved away; "
    "most of them stayed, cleaned the walls and planted willows along the bank. Visitors "
    "often ask why anyone would live so near a river like that. The answer, in the lower "
    "town, is always the same: the river was here first, and it has been a good neighbour "
    "on all the other days."
)
TEXTS = (
    "How do I repair a flat tyre?",
    "Bread",
    "She sold the boat.",
    "Is the library open on Monday, or only from Tuesday to Friday?",
    "A glacier is a slow river of ice: it carries stones, grinds valleys and, at last, melts.",
    LONG_TEXT,
    "...?!",
    "In 1969, 2 people walked on the Moon; 600 million watched.",
    "def add(a, b): return a + b",
    "河边的图书馆几点开门。",
    "أين تقع المكتبة القديمة؟",
    "Großmütter erzählen gern von früher, à la carte.",
    "😀🚲 see you at 8 🌧️",
    "First line.\nSecond line, with a tab:\there.",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of the reference: how it is loaded, and what is asked of it."""

    checkpoint: str
    inputs: str
    """``plain`` or ``instruction``."""
    pooling: str
    skip_instruction: bool = True
    bidirectional: bool = True
    adapters: str = "none"
    """``none``: a base folder; ``mntp``: one LoRA; ``merged`` or ``kept``: both, the second so."""

    @property
    def name(self) -> str:
        """The key in both files: what differs from the default is spelt out."""
        parts = [self.checkpoint, self.inputs, self.pooling]
        parts += [] if self.skip_instruction else ["all"]
        parts += [] if self.bidirectional else ["causal"]
        return "/".join(parts + ([] if self.adapters == "none" else [self.adapters]))


CHECKPOINTS: dict[str, dict[str, Any]] = {
    "llama3": {"model_type": "llama", "tokenizer": "llama3"},
    "llama3-instruct": {"model_type": "llama", "tokenizer": "llama3", "name": LLAMA3_INSTRUCT},
    "llama3-base": {"model_type": "llama", "tokenizer": "llama3", "name": LLAMA3_BASE},
    "llama2": {"model_type": "llama", "tokenizer": "llama2", "seed": 10},
    "llama2-chat": {"model_type": "llama", "tokenizer": "llama2", "name": LLAMA2_CHAT, "seed": 10},
    "mistral-instruct": {
        "model_type": "mistral",
        "tokenizer": "llama2",
        "name": MISTRAL_INSTRUCT,
        "seed": 20,
    },
    "published-llama3": {
        "model_type": "llama",
        "tokenizer": "llama3",
        "name": LLAMA3_INSTRUCT,
        "seed": 30,
        "rope_theta": 500000.0,
    },
    "published-mistral": {
        "model_type": "mistral",
        "tokenizer": "llama2",
        "name": MISTRAL_INSTRUCT,
        "seed": 40,
    },
}


def cases() -> Iterator[Case]:
    """Yield every case, in the order of the files."""
    for inputs in ("plain", "instruction"):
        yield from _plain_llama3(inputs)
        for pooling in ("mean", "weighted_mean", "last_token"):
            yield Case(checkpoint="llama3-instruct", inputs=inputs, pooling=pooling)
        yield Case(checkpoint="llama3-instruct", inputs=inputs, pooling="mean", skip_instruction=False)
        yield Case(checkpoint="llama3-base", inputs=inputs, pooling="eos_token")
        for pooling in ("mean", "eos_token"):
            yield Case(checkpoint="llama2", inputs=inputs, pooling=pooling)
        yield Case(checkpoint="llama2-chat", inputs=inputs, pooling="mean")
        for pooling in ("mean", "weighted_mean", "eos_token"):
            yield Case(checkpoint="mistral-instruct", inputs=inputs, pooling=pooling)
        yield Case(checkpoint="mistral-instruct", inputs=inputs, pooling="mean", bidirectional=False)
        yield from _published(inputs)


def _plain_llama3(inputs: str) -> Iterator[Case]:
    """Yield every pooling where no template is in the way."""
    for pooling in ("mean", "weighted_mean"):
        for skip in (True, False):
            yield Case(checkpoint="llama3", inputs=inputs, pooling=pooling, skip_instruction=skip)
    for pooling in ("last_token", "bos_token", "eos_token"):
        yield Case(checkpoint="llama3", inputs=inputs, pooling=pooling)
    for pooling in ("mean", "weighted_mean", "last_token"):
        yield Case(checkpoint="llama3", inputs=inputs, pooling=pooling, bidirectional=False)


def _published(inputs: str) -> Iterator[Case]:
    """Yield the layout of three folders, with one LoRA and with both."""
    for adapters in ("mntp", "merged", "kept"):
        yield Case(checkpoint="published-llama3", inputs=inputs, pooling="mean", adapters=adapters)
    yield Case(checkpoint="published-mistral", inputs=inputs, pooling="mean", adapters="merged")
    if inputs == "plain":
        yield Case(
            checkpoint="published-llama3",
            inputs=inputs,
            pooling="mean",
            bidirectional=False,
            adapters="merged",
        )


def pairs(inputs: str) -> list[list[str]]:
    """Return the [instruction, text] pairs that the reference's ``encode`` takes."""
    return [[INSTRUCTION if inputs == "instruction" else "", text] for text in TEXTS]
