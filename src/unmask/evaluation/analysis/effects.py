"""What an instruction, a text's length, and cutting a text do to its vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from unmask.encoder import Encoder
from unmask.errors import InputError
from unmask.evaluation.analysis.geometry import anisotropy
from unmask.evaluation.analysis.sample import (
    Matrix,
    NotMeasuredError,
    Sample,
    average,
    cosines,
    kept_neighbours,
    unit,
    vectors_of,
)
from unmask.evaluation.outcome import Metric

#: Tokens of the texts that are encoded once more, with the instruction.
INSTRUCTED_TOKENS: Final = 5_000
#: Buckets of length end at these numbers of tokens; the last one has no end.
ENDS: Final = (8, 16, 32, 64, 128, 256)
CUTS: Final = (32, 64, 128, 256)
#: Texts that are cut at each length: the longest of the sample.
CUT_TEXTS: Final = 12


@dataclass(frozen=True, kw_only=True)
class InstructionEffect:
    """What an instruction before each text changes.

    Attributes:
        instruction: the instruction.
        texts: how many texts.
        cosine: of a text's vectors with and without it.
        neighbours: share of the ten nearest texts without it that stay among the ten nearest if the query has it
            and the documents have not.
    """

    instruction: str
    texts: int
    cosine: Metric
    neighbours: Metric


@dataclass(frozen=True, kw_only=True)
class LengthBucket:
    """Texts of about the same number of tokens.

    Attributes:
        least: fewest tokens.
        most: most tokens; None: no limit.
        texts: how many there are.
        norm: mean length of their vectors before any normalisation.
        within: mean cosine of two of them; None if there is only one.
        others: mean cosine with texts of other buckets; None if there are none.
    """

    least: int
    most: int | None
    texts: int
    norm: float
    within: float | None
    others: float | None


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Texts cut after so many tokens, template included.

    Attributes:
        tokens: where they were cut.
        texts: how many; each is longer than that.
        whole: how many tokens they have on average when whole.
        cosine: of the vector of the beginning with that of the whole text.
    """

    tokens: int
    texts: int
    whole: float
    cosine: Metric


def instruction_effect(encoder: Encoder, sample: Sample, vectors_ND: Matrix, instruction: str) -> InstructionEffect:
    """Encode texts of the sample with ``instruction`` and compare with ``vectors_ND``, those without."""
    chosen = sample.within(INSTRUCTED_TOKENS)
    plain = vectors_ND[chosen]
    instructed = vectors_of(encoder, [sample.texts[i] for i in chosen], instruction=instruction)
    units = unit(plain)
    return InstructionEffect(
        instruction=instruction,
        texts=len(chosen),
        cosine=average(cosines(plain, instructed)),
        neighbours=average(kept_neighbours(units @ units.T, unit(instructed) @ units.T)),
    )


def length_effect(sample: Sample, vectors_ND: Matrix) -> tuple[LengthBucket, ...]:
    """Group texts by their number of tokens; buckets without a text are left out."""
    bucket = np.searchsorted(ENDS, sample.lengths)
    bounds = zip((1, *(end + 1 for end in ENDS)), (*ENDS, None), strict=True)
    return tuple(
        _bucket(least, most, vectors_ND[bucket == number], vectors_ND[bucket != number])
        for number, (least, most) in enumerate(bounds)
        if (bucket == number).any()
    )


def _bucket(least: int, most: int | None, inside: Matrix, outside: Matrix) -> LengthBucket:
    return LengthBucket(
        least=least,
        most=most,
        texts=len(inside),
        norm=float(np.linalg.norm(inside, axis=1).mean(dtype=np.float64)),
        within=anisotropy(inside) if len(inside) > 1 else None,
        others=float((unit(inside) @ unit(outside).T).mean()) if len(outside) else None,
    )


def cut_effect(encoder: Encoder, sample: Sample, vectors_ND: Matrix, *, cuts: Sequence[int] = CUTS) -> tuple[Cut, ...]:
    """Cut the longest texts at each of ``cuts``; one that no text is longer than is left out.

    Raises:
        NotMeasuredError: no text is longer than any of them.
    """
    found = []
    for tokens in cuts:
        chosen = sample.longest(CUT_TEXTS, above=tokens)
        if not chosen or (shorter := _cut_at(encoder, tokens)) is None:
            continue
        beginnings = vectors_of(shorter, [sample.texts[i] for i in chosen])
        found.append(
            Cut(
                tokens=tokens,
                texts=len(chosen),
                whole=float(sample.lengths[chosen].mean()),
                cosine=average(cosines(beginnings, vectors_ND[chosen])),
            )
        )
    if not found:
        raise NotMeasuredError(f"no text has more than {min(cuts)} tokens")
    return tuple(found)


def _cut_at(encoder: Encoder, tokens: int) -> Encoder | None:
    """Return the encoder with another ``max_length``, None if its template alone is as long."""
    try:
        return Encoder(
            encoder.backbone, encoder.tokenizer, replace(encoder.settings, max_length=tokens), encoder.checkpoint
        )
    except InputError:
        return None
