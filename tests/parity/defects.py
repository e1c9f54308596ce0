"""Where the reference library is wrong: what it answers, beside what it should answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.parity.cases import INSTRUCTION, LONG_TEXT, TEXTS
from tests.parity.reference import MARKER, Reference

QUESTION, BESIDE = TEXTS[0], TEXTS[4]
SHIFTED = "the lake"
NO_SPACES = "河边的图书馆每天早上开门" * 14
OVER_THE_LIMIT = (
    f"{LONG_TEXT} Besides, the fields below the town are the best of the valley: 3 harvests a year, and no stones."
)
MARKED = f"{TEXTS[3]} {MARKER} {BESIDE}"


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A question, and how to get the right answer to it."""

    name: str
    what: str
    pair: list[str]
    right: Callable[[Reference, Any], Any]
    """Takes the reference and the loaded encoder, returns the right vector, numpy [64]."""
    checkpoint: str = "llama3"
    settings: dict[str, Any] = field(default_factory=dict)


def _eos_after_space(checkpoint: str) -> Defect:
    return Defect(
        name=f"eos-after-space-{checkpoint}",
        what="eos_token pooling appends ' </s>': the space becomes a token of its own before it.",
        pair=["", QUESTION],
        right=lambda reference, encoder: reference.last_after(encoder, QUESTION, "</s>"),
        checkpoint=checkpoint,
        settings={"pooling_mode": "eos_token"},
    )


DEFECTS = (
    Defect(
        name="span-shifted",
        what="The text has more tokens alone than after the instruction, which is pooled in part.",
        pair=[INSTRUCTION, SHIFTED],
        right=lambda reference, encoder: reference.right(encoder, INSTRUCTION, SHIFTED),
    ),
    Defect(
        name="truncated-with-instruction",
        what="A text cut at max_length is pooled together with BOS and the instruction.",
        pair=[INSTRUCTION, LONG_TEXT],
        right=lambda reference, encoder: reference.right(encoder, INSTRUCTION, LONG_TEXT, 32),
        settings={"max_length": 32},
    ),
    Defect(
        name="no-spaces-over-doc-max-length",
        what="A text over doc_max_length without spaces becomes empty: BOS alone is pooled.",
        pair=["", NO_SPACES],
        right=lambda reference, encoder: reference.right(encoder, "", NO_SPACES),
    ),
    Defect(
        name="over-doc-max-length",
        what="A text over doc_max_length loses its last words, though max_length has room for all.",
        pair=["", OVER_THE_LIMIT],
        right=lambda reference, encoder: reference.right(encoder, "", OVER_THE_LIMIT),
    ),
    Defect(
        name="marker-in-text",
        what="A text that holds the border's marker loses it, and a part of its tokens is pooled.",
        pair=["", MARKED],
        right=lambda reference, encoder: reference.right(encoder, "", MARKED),
    ),
    Defect(
        name="local-folder",
        what="A folder whose config.json does not give the base's exact name gets no template.",
        pair=["", QUESTION],
        right=lambda reference, _: reference.vectors(reference.load("llama3-instruct"), [["", QUESTION]])[0],
    ),
    Defect(
        name="leading-spaces",
        what="White space before the text changes the vector.",
        pair=["", f"  {QUESTION}"],
        right=lambda reference, encoder: reference.right(encoder, "", QUESTION),
    ),
    Defect(
        name="trailing-newline",
        what="White space after the text changes the vector, where there is no template.",
        pair=["", f"{QUESTION}\n"],
        right=lambda reference, encoder: reference.right(encoder, "", QUESTION),
    ),
    Defect(
        name="blank-instruction",
        what="An instruction of spaces is not the same as none: a space stands before the text.",
        pair=["  ", QUESTION],
        right=lambda reference, encoder: reference.right(encoder, "", QUESTION),
    ),
    _eos_after_space("llama3"),
    _eos_after_space("llama2"),
)


def record_defects(reference: Reference) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return arrays and descriptions; ``empty-text`` and ``bare-string`` have no array."""
    arrays: dict[str, Any] = {}
    described: dict[str, Any] = {}
    for defect in DEFECTS:
        encoder = reference.load(defect.checkpoint, **defect.settings)
        answer = reference.vectors(encoder, [defect.pair])[0]
        right = defect.right(reference, encoder)
        arrays[f"defect/{defect.name}/reference"] = answer
        arrays[f"defect/{defect.name}/right"] = right
        described[defect.name] = {
            "what": defect.what,
            "checkpoint": defect.checkpoint,
            "pair": defect.pair,
            "settings": defect.settings,
            **_distance(answer, right),
        }
    return arrays, described | dict(_without_arrays(reference))


def _without_arrays(reference: Reference) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what has no single right vector."""
    encoder = reference.load("llama3")
    alone = reference.vectors(encoder, [["", ""]])[0]
    beside = reference.vectors(encoder, [["", ""], ["", BESIDE]])[0]
    what = "An empty text pools BOS and the padding: its vector depends on its neighbours."
    yield "empty-text", {"what": what, **_distance(alone, beside)}
    letters = reference.vectors(encoder, "hello")
    whole = reference.vectors(encoder, ["hello"])[0]
    what = "A str is read as a list of its letters; compared here: the first letter with the word."
    yield (
        "bare-string",
        {"what": what, "shape": list(letters.shape), **_distance(letters[0], whole)},
    )


def _distance(a: Any, b: Any) -> dict[str, float]:
    """Return the cosine and the largest absolute difference, six decimals."""
    cosine = float(a @ b / ((a @ a) ** 0.5 * (b @ b) ** 0.5))
    return {"cosine": round(cosine, 6), "max_abs": round(float(abs(a - b).max()), 6)}
