"""A query and a document → the tokens that a cross-encoder reads of both. Without torch: the server tokenises."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Final

from tokenizers import Tokenizer

from unmask.errors import CheckpointError, InputError
from unmask.text import Text, TokenizedText

#: The command that is a worker with cross-encoders; see :data:`unmask.engine.process.WORKER`.
RERANKER: Final = (sys.executable, "-P", "-m", "unmask.engine.cross_encoders")


class PairTokenizer:
    """Turns pairs into token ids, as a fast tokenizer does that is given a pair; safe to call from several threads.

    To an engine a pair is a :class:`~unmask.text.Text`: the query its instruction, the document its content. Strings of
    special tokens inside of them are plain text.

    Args:
        backend: the model's fast tokenizer; copied, never changed.
        max_length: most tokens of a pair, special tokens included.
    """

    def __init__(self, backend: Tokenizer, *, max_length: int) -> None:
        self.max_length = max_length
        around = backend.encode("a", "b")
        sides = around.sequence_ids
        first, second = _span(sides, 0), _span(sides, 1)
        if first is None or second is None or first[1] > second[0]:
            raise CheckpointError(
                "The tokenizer does not read a query and then a document; expected one of a cross-encoder. "
                "Choose another model."
            )
        self._head = around.ids[: first[0]]
        self._middle = around.ids[first[1] : second[0]]
        self._foot = around.ids[second[1] :]
        types = around.type_ids[first[1] :]
        #: Tokens behind the query that are still of its type; None where all tokens are of one type.
        self._until_second = types.index(1) if 1 in types else None
        self._room = max_length - len(self._head) - len(self._middle) - len(self._foot)
        if self._room < 2:
            raise InputError(
                f"max_length is {max_length}, but the special tokens of a pair alone take {max_length - self._room}. "
                f"Use a max_length of at least {max_length - self._room + 2}."
            )
        copy: Any = deepcopy(backend)
        copy.no_truncation()
        copy.no_padding()
        copy.post_processor = None
        copy.encode_special_tokens = True
        self._plain = copy

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore attributes; a pickled tokenizer forgets that nothing in its input is special."""
        self.__dict__.update(state)
        self._plain.encode_special_tokens = True

    def tokenize(
        self, texts: Sequence[Text], *, indices: Sequence[int] | None = None, truncate: bool = True
    ) -> list[TokenizedText]:
        """Tokenise pairs.

        Args:
            texts: the pairs.
            indices: the number by which an error names each document; its position if None.
            truncate: cut the end of the longer side of a pair that is too long; otherwise that is an error.

        Returns:
            The ids of each pair; ``start`` is the first of the document's type, their number where there is but one.

        Raises:
            InputError: a pair is too long and ``truncate`` is false; names the document's index.
        """
        queries = list(dict.fromkeys(text.instruction for text in texts))
        read = self._ids([*queries, *(text.content for text in texts)])
        of_query = dict(zip(queries, read, strict=False))
        numbers = range(len(texts)) if indices is None else indices
        return [
            self._join(of_query[text.instruction], document, index, truncate)
            for text, document, index in zip(texts, read[len(queries) :], numbers, strict=True)
        ]

    def _ids(self, strings: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self._plain.encode_batch_fast(strings, add_special_tokens=False)]

    def _join(self, query: list[int], document: list[int], index: int, truncate: bool) -> TokenizedText:
        total = len(query) + len(document)
        if total > self._room:
            if not truncate:
                raise InputError(
                    f"Document {index} and the query have {self.max_length - self._room + total} tokens together, "
                    f"{total - self._room} more than max_length {self.max_length}. Shorten them, or pass truncate=True "
                    "to cut the longer one's end."
                )
            query, document = _cut(query, document, self._room)
        begin = len(self._head) + len(query)
        ids = [*self._head, *query, *self._middle, *document, *self._foot]
        return TokenizedText(ids=ids, start=len(ids) if self._until_second is None else begin + self._until_second)


def _cut(query: list[int], document: list[int], room: int) -> tuple[list[int], list[int]]:
    """Cut a pair as the tokenizers library does for ``longest_first``: the longer side, then both alike."""
    shorter = min(len(query), len(document), room // 2)
    if len(query) > len(document):
        return query[: room - shorter], document[:shorter]
    return query[:shorter], document[: room - shorter]


def _span(sides: Sequence[int | None], side: int) -> tuple[int, int] | None:
    """Return where the tokens of one side begin and end."""
    places = [place for place, found in enumerate(sides) if found == side]
    return (places[0], places[-1] + 1) if places else None
