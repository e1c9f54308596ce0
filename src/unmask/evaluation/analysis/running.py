"""The whole analysis of an encoder, step by step."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from unmask.encoder import Encoder
from unmask.evaluation.analysis.base import causal_base
from unmask.evaluation.analysis.effects import (
    Cut,
    InstructionEffect,
    LengthBucket,
    cut_effect,
    instruction_effect,
    length_effect,
)
from unmask.evaluation.analysis.forms import PAIRS, SAME, Forms, PairVectors, ScoredPairs, encode_pairs, forms
from unmask.evaluation.analysis.geometry import Geometry, geometry
from unmask.evaluation.analysis.invariance import Invariance, invariance
from unmask.evaluation.analysis.layers import Layers, movement
from unmask.evaluation.analysis.sample import SEED, Matrix, NotMeasuredError, Sample, draw, vectors_of
from unmask.evaluation.example import paraphrases
from unmask.progress import Progress

#: The instruction that is tried if none is given: it asks for nothing in particular.
INSTRUCTION: Final = "Retrieve texts that mean the same:"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Whether the encoder looks both ways, as proved when it was loaded (:mod:`unmask.backbone.bidirectional`).

    Attributes:
        both_ways: whether each layer does.
        layers: how far the first position moved in each layer alone when only its last input position changed,
            relative to the size of the state; 0 in a causal one.
        first_token: the same for the whole model.
        leak: how far a text's states moved when its neighbour in the packed row changed.
    """

    both_ways: bool
    layers: tuple[float, ...]
    first_token: float
    leak: float


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What was found; a part that could not be measured is None, or empty.

    Attributes:
        model: how to call the encoder.
        source: where the texts come from.
        given: how many distinct texts there were to draw from.
        texts: how many were drawn.
        tokens: how many tokens those have.
        seed: of everything drawn.
        direction: whether it looks both ways.
        layers: how far its states are from its base's.
        geometry: how its vectors lie.
        instruction: what an instruction changes.
        lengths: what the length of a text changes.
        cuts: what cutting a text changes.
        invariance: whether batch size and packing change anything.
        forms: what smaller vectors keep.
        not_measured: reasons by name of the part.
        seconds: how long it took.
    """

    model: str
    source: str
    given: int
    texts: int
    tokens: int
    seed: int
    direction: Direction
    layers: Layers | None
    geometry: Geometry
    instruction: InstructionEffect
    lengths: tuple[LengthBucket, ...]
    cuts: tuple[Cut, ...]
    invariance: Invariance
    forms: Forms
    not_measured: dict[str, str]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether all that must hold does: the same vector for a text whatever shares its forward pass."""
        return self.invariance.passed


def analyse(
    encoder: Encoder,
    texts: Sequence[str] | None = None,
    *,
    name: str = "encoder",
    base: str | Path | None = None,
    instruction: str = INSTRUCTION,
    pairs: Sequence[tuple[str, str]] = (),
    sts: ScoredPairs | None = None,
    progress: bool = False,
) -> Analysis:
    """Look into an encoder: what changed against its base, how its vectors lie, what they depend on.

    Takes two to three minutes for 135M parameters on two cores. All that is drawn is drawn with a fixed seed.

    Args:
        encoder: the encoder.
        texts: texts of the kind it is for; a sample of them is looked at. None: docstrings of the standard library.
        name: how to call it.
        base: its base, as a short name, folder or hub name; None: as its checkpoint says.
        instruction: the instruction whose effect is measured.
        pairs: texts that mean the same, for alignment; else the highest scored of ``sts``, else a few of our own.
        sts: scored pairs, by which the quality of smaller vectors is measured.
        progress: show a progress bar.

    Raises:
        InputError: a text is blank, there are too few, or ``base`` is not of the encoder's shape.
        CheckpointError: ``base`` cannot be loaded.
    """
    steps = _Steps(progress)
    with steps.bar:
        sample = steps.take("texts", lambda: draw(encoder, texts))
        vectors = steps.take("vectors", lambda: vectors_of(encoder, sample.texts))
        scored = steps.take("scored pairs", lambda: encode_pairs(encoder, sts.drawn()) if sts else None)
        positives, told = steps.take("pairs", lambda: _positives(encoder, pairs, scored))
        same = steps.take("packing", lambda: invariance(encoder, sample))
        instructed = steps.take("instruction", lambda: instruction_effect(encoder, sample, vectors, instruction))
        cuts = steps.attempt("truncation", lambda: cut_effect(encoder, sample, vectors))
        layers = steps.attempt("layers", lambda: _layers(encoder, base, sample))
        small = steps.take("dimensions", lambda: forms(vectors, scored))
        return Analysis(
            model=name,
            source=sample.source,
            given=sample.given,
            texts=len(sample.texts),
            tokens=int(sample.lengths.sum()),
            seed=SEED,
            direction=direction(encoder),
            layers=layers,
            geometry=geometry(vectors, positives, told),
            instruction=instructed,
            lengths=length_effect(sample, vectors),
            cuts=cuts or (),
            invariance=same,
            forms=small,
            not_measured=steps.not_measured,
            seconds=steps.seconds,
        )


def direction(encoder: Encoder) -> Direction:
    """Return what was proved when the encoder was loaded; a proof that failed would have refused it."""
    proof = encoder.backbone.proof
    return Direction(
        both_ways=encoder.bidirectional,
        layers=proof.layers,
        first_token=proof.first_token,
        leak=proof.leak,
    )


def _layers(encoder: Encoder, base: str | Path | None, sample: Sample) -> Layers:
    backbone, called = causal_base(encoder, base)
    return movement(encoder.backbone, backbone, sample, name=called)


def _positives(
    encoder: Encoder, pairs: Sequence[tuple[str, str]], scored: PairVectors | None
) -> tuple[Sequence[Matrix], str]:
    """Return vectors of both sides of pairs that mean the same, and where the pairs come from."""
    if pairs:
        drawn = random.Random(SEED).sample(list(pairs), min(PAIRS, len(pairs)))  # noqa: S311 - no secret
        return [vectors_of(encoder, side) for side in zip(*drawn, strict=True)], "given pairs"
    if scored:
        same = scored.same
        return [scored.left[same], scored.right[same]], f"{scored.name}, scores above {SAME:.0%} of the scale"
    ours = zip(*paraphrases(), strict=True)
    return [vectors_of(encoder, side) for side in ours], "of the example suite, for want of given ones"


class _Steps:
    """Runs steps under a progress bar, and keeps the reasons of those that could not be measured."""

    def __init__(self, progress: bool) -> None:
        self.bar = Progress("Analysis", total=9, unit="steps", enabled=progress)
        self.not_measured: dict[str, str] = {}
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._start, 1)

    def take(self, name: str, work: Callable[[], T]) -> T:
        self.bar.note = name
        found = work()
        self.bar.advance()
        return found

    def attempt(self, name: str, work: Callable[[], T]) -> T | None:
        def tried() -> Any:
            try:
                return work()
            except NotMeasuredError as reason:
                self.not_measured[name] = str(reason)
                return None

        found: T | None = self.take(name, tried)
        return found
