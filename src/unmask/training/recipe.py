"""A recipe: base, stages, data and settings of one encoder, as plain data.

A variant is a copy with a field changed::

    from dataclasses import replace
    mine = replace(recipe, base="my/model")                                  # another base
    mine = recipe.with_value("simcse.temperature", "0.1")                     # one field of a stage
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Final, Literal, Self, Union, get_args, get_origin, get_type_hints

from unmask.errors import InputError
from unmask.pooling import POOLINGS, Pooling
from unmask.training.data.sources import PairSource, Source
from unmask.training.lora import Lora
from unmask.training.objectives import Strategy

Schedule = Literal["linear", "cosine", "constant"]
#: Mask tokens that are no token of the vocabulary: a vector of its own is learned.
NEW_MASK: Final = "new"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What every stage has.

    Attributes:
        data: where its texts come from; may be given later.
        steps: optimiser steps.
        batch: rows a step, those of all processes together.
        max_length: most tokens of a text; of MNTP, the tokens of a block.
        learning_rate: at its highest.
        schedule: its course after the warm-up: ``linear`` or ``cosine`` down to 0, or ``constant``.
        horizon: step at which it would reach 0; None: the last one. The published runs were planned for three
            epochs and stopped after 1,000 steps, their rate hardly lower than at first.
        warmup: steps in which it rises from 0.
        weight_decay: of AdamW.
        clip: most length of the gradient, None for any.
        lora: the adapter.
        attention_dropout: share of attention weights dropped.
    """

    kind: ClassVar[str]

    data: tuple[Source, ...] = ()
    steps: int = 1000
    batch: int = 32
    max_length: int = 512
    learning_rate: float = 5e-5
    schedule: Schedule = "linear"
    horizon: int | None = None
    warmup: int = 0
    weight_decay: float = 0.0
    clip: float | None = 1.0
    lora: Lora = field(default_factory=Lora)
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "max_length"):
            _require(getattr(self, name) >= 1, f"{self.kind}.{name}", getattr(self, name), "at least 1")
        _require(0 < self.learning_rate < math.inf, f"{self.kind}.learning_rate", self.learning_rate, "more than 0")
        _require(0 <= self.warmup < self.steps, f"{self.kind}.warmup", self.warmup, f"0 to {self.steps - 1}")
        _require(
            self.horizon is None or self.horizon >= self.steps, f"{self.kind}.horizon", self.horizon, "at least steps"
        )
        _require(self.weight_decay >= 0, f"{self.kind}.weight_decay", self.weight_decay, "at least 0")
        _require(self.clip is None or self.clip > 0, f"{self.kind}.clip", self.clip, "more than 0, or none")
        _require(0 <= self.attention_dropout < 1, f"{self.kind}.attention_dropout", self.attention_dropout, "0 to 1")
        _require_one_of(get_args(Schedule), f"{self.kind}.schedule", self.schedule)

    def rate_at(self, step: int) -> float:
        """Return the learning rate of step ``step``, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / ((self.horizon or self.steps) - self.warmup)
        factor = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}
        return self.learning_rate * factor[self.schedule]


@dataclass(frozen=True, kw_only=True)
class Mntp(Stage):
    """Masked next token prediction (LLM2Vec, section 2.2).

    Attributes:
        mask_token: what stands for a masked token: a token of the vocabulary, or ``new`` for a vector of its own.
        mask_rate: share of tokens masked.
        strategy: ``bert`` (80 % masked, 10 % another token, 10 % left) or ``all``.
    """

    kind: ClassVar[str] = "mntp"

    mask_token: str = "_"  # noqa: S105 - a token of text
    mask_rate: float = 0.2
    strategy: Strategy = "bert"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 < self.mask_rate <= 1, "mntp.mask_rate", self.mask_rate, "more than 0, at most 1")
        _require(bool(self.mask_token), "mntp.mask_token", repr(self.mask_token), f"a token, or {NEW_MASK!r}")
        _require_one_of(get_args(Strategy), "mntp.strategy", self.strategy)


@dataclass(frozen=True, kw_only=True)
class Contrastive(Stage):
    """What both contrastive stages have.

    Attributes:
        temperature: cosines are divided by it (published as a scale, its inverse).
        dimensions: Matryoshka: the loss is the mean over vectors cut to each of these sizes; () for the whole alone.
        false_negative_margin: leave out in-batch negatives that score higher than the positive less this.
    """

    temperature: float = 0.05
    dimensions: tuple[int, ...] = ()
    false_negative_margin: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.batch >= 2, f"{self.kind}.batch", self.batch, "at least 2: other rows are the negatives")
        _require(0 < self.temperature < math.inf, f"{self.kind}.temperature", self.temperature, "more than 0")
        margin, sizes = self.false_negative_margin, self.dimensions
        _require(margin is None or margin >= 0, f"{self.kind}.false_negative_margin", margin, "at least 0, or none")
        different = len(set(sizes)) == len(sizes) and min(sizes, default=1) >= 1
        _require(different, f"{self.kind}.dimensions", sizes, "sizes of at least 1, none twice")


@dataclass(frozen=True, kw_only=True)
class SimCse(Contrastive):
    """Unsupervised SimCSE: each sentence twice, through dropout drawn anew."""

    kind: ClassVar[str] = "simcse"

    batch: int = 128
    max_length: int = 128
    learning_rate: float = 3e-5
    attention_dropout: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        drops = self.attention_dropout or self.lora.dropout
        _require(
            bool(drops), "simcse.attention_dropout", self.attention_dropout, "some dropout: it makes the two views"
        )


@dataclass(frozen=True, kw_only=True)
class Supervised(Contrastive):
    """Supervised contrastive learning from pairs, or triples with hard negatives; one source a batch.

    Attributes:
        bidirectional_loss: positives also look for their queries.
    """

    kind: ClassVar[str] = "supervised"

    data: tuple[PairSource, ...] = ()
    batch: int = 512
    learning_rate: float = 2e-4
    warmup: int = 300
    temperature: float = 0.02
    bidirectional_loss: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one encoder is made.

    Attributes:
        name: its own.
        about: one line.
        base: short name, folder or hub name of the language model.
        adapters: merged into the base before the first stage.
        stages: in order; each one's adapter is merged before the next.
        bidirectional: False leaves the base causal, as a baseline.
        pooling: of the encoder.
        seed: of everything drawn.
    """

    name: str
    about: str = ""
    base: str
    adapters: tuple[str, ...] = ()
    stages: tuple[Stage, ...]
    bidirectional: bool = True
    pooling: Pooling = "mean"
    seed: int = 42

    def __post_init__(self) -> None:
        kinds = [stage.kind for stage in self.stages]
        if not kinds or len(set(kinds)) < len(kinds):
            raise InputError(f"Recipe {self.name!r} has the stages {kinds}; expected one or more, each kind once.")
        if "mntp" in kinds[1:]:
            raise InputError(f"Recipe {self.name!r} has the stages {kinds}; expected mntp first.")
        _require_one_of(POOLINGS, "pooling", self.pooling)
        _require(self.seed >= 0, "seed", self.seed, "at least 0")

    def stage(self, kind: str) -> Stage:
        """Return the stage of that kind."""
        for stage in self.stages:
            if stage.kind == kind:
                return stage
        kinds = ", ".join(stage.kind for stage in self.stages)
        raise InputError(f"Recipe {self.name!r} has no stage {kind!r}; expected one of {kinds}.")

    def with_stage(self, kind: str, **changes: Any) -> Self:
        """Return the recipe with fields of one stage changed."""
        changed = replace(self.stage(kind), **changes)
        return replace(self, stages=tuple(changed if stage.kind == kind else stage for stage in self.stages))

    def with_value(self, path: str, text: str) -> Self:
        """Return the recipe with one field set from text, as on the command line.

        Args:
            path: ``seed``, ``simcse.batch``, ``mntp.lora.rank`` …
            text: the value; ``none`` for None, commas between several.

        Raises:
            InputError: there is no such field, or the value does not fit it.
        """
        head, _, rest = path.partition(".")
        if not rest:
            own: Self = _with(self, head, text, path)
            return own
        stage = self.stage(head)
        changed = _with(stage, rest, text, path)
        return self.with_stage(head, **{one.name: getattr(changed, one.name) for one in fields(stage)})

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data: what a run keeps, and a card shows."""
        data = asdict(self)
        data["stages"] = [{"kind": stage.kind, **asdict(stage)} for stage in self.stages]
        return data


def _with(target: Any, path: str, text: str, whole: str) -> Any:
    """Return a dataclass with the field at ``path`` set from text."""
    name, _, rest = path.partition(".")
    hints = get_type_hints(type(target))
    own = {f.name for f in fields(target)}
    if name not in own or name in ("stages", "data"):
        raise InputError(
            f"There is no setting {whole!r}; expected one of {', '.join(sorted(own - {'stages', 'data'}))}."
        )
    if rest:
        inner = getattr(target, name)
        _require(is_dataclass(inner), whole, "no setting", f"{whole.removesuffix(f'.{rest}')}, which has no parts")
        return replace(target, **{name: _with(inner, rest, text, whole)})
    return replace(target, **{name: _parse(text, hints[name], whole)})


def _parse(text: str, hint: Any, whole: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        if text.lower() == "none":
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is tuple:
        return tuple(_parse(part.strip(), get_args(hint)[0], whole) for part in text.split(",") if part.strip())
    if get_origin(hint) is Literal:
        _require_one_of(get_args(hint), whole, text)
        return text
    readers: Mapping[Any, Any] = {int: int, float: float, str: str, bool: lambda word: _BOOLEANS[word.lower()]}
    if hint not in readers:
        raise InputError(f"{whole} holds several settings; name one of them, for instance {whole}.rank.")
    try:
        return readers[hint](text)
    except (ValueError, KeyError) as error:
        raise InputError(f"{whole} is {text!r}; expected a value of type {hint.__name__}.") from error


_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise InputError(f"{name} is {value}; expected {expected}.")


def _require_one_of(options: tuple[Any, ...], name: str, value: object) -> None:
    if value not in options:
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(map(repr, options))}.")
