"""What is known of a model's texts, on its way from a worker to the server; token arrays → the texts they stand for."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass

from unmask.errors import InputError
from unmask.text import TextTokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What is known of a model's texts without its weights.

    Attributes:
        tokenizer: as its encoder has it.
        query_instruction: what queries have by default; None where its checkpoint does not say.
    """

    tokenizer: TextTokenizer
    query_instruction: str | None = None


def packed(reading: Reading) -> bytes:
    """Return it as bytes."""
    return pickle.dumps(reading)


def unpacked(data: bytes) -> Reading:
    """Return what :func:`packed` made ``data`` from."""
    reading: Reading = pickle.loads(data)  # noqa: S301 - from this package's own process, over a private pipe
    return reading


def texts_of(tokenizer: TextTokenizer, arrays: Sequence[Sequence[int]]) -> list[str]:
    """Return the contents that token arrays stand for.

    What the model reads around every text is taken off where an array has it: all of it, as
    :meth:`~unmask.text.TextTokenizer.tokenize` gives it, or the outer special tokens alone, as a plain tokenizer
    gives them.

    Raises:
        InputError: an id is not in the vocabulary; names the array's index.
    """
    literal = tokenizer.literal
    for index, array in enumerate(arrays):
        wrong = next((n for n in array if not 0 <= n < 1 << 32 or literal.id_to_token(n) is None), None)
        if wrong is not None:
            raise InputError(
                f"Token array {index} holds {wrong}, which is not in the vocabulary of this model. "
                "Tokenise with the model's own tokenizer, or send the text itself."
            )
    special = {number for number, token in literal.get_added_tokens_decoder().items() if token.special}
    head, foot = tokenizer.head, tokenizer.foot
    begins = [_match(array, head, special) for array in arrays]
    ends = [
        len(array) - _match(array[begin:][::-1], foot[::-1], special)
        for array, begin in zip(arrays, begins, strict=True)
    ]
    bare = [list(array[begin:end]) for array, begin, end in zip(arrays, begins, ends, strict=True)]
    texts = []
    for array, begin, end, text in zip(arrays, begins, ends, _decoded(tokenizer, bare), strict=True):
        content = text.removeprefix(tokenizer.lead) if begin == len(head) else text
        texts.append(content.removesuffix(tokenizer.tail) if len(array) - end == len(foot) else content)
    return texts


def _decoded(tokenizer: TextTokenizer, arrays: list[list[int]]) -> list[str]:
    texts: list[str] = tokenizer.literal.decode_batch(arrays, skip_special_tokens=False)
    return texts


def _match(array: Sequence[int], around: Sequence[int], special: set[int]) -> int:
    """Return how many ids ``array`` begins with of ``around``: all, or the special ones at its start."""
    if list(array[: len(around)]) == list(around):
        return len(around)
    count = 0
    for number, expected in zip(array, around, strict=False):
        if number != expected or number not in special:
            break
        count += 1
    return count
