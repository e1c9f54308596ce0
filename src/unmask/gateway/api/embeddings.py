"""``POST /v1/embeddings``: texts → vectors; also what answers the requests of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from unmask.engine.contract import Embedded, EmbeddingEngine, Served
from unmask.errors import InputError
from unmask.gateway.api.errors import TooManyTokensError
from unmask.gateway.api.forms import Wanted
from unmask.gateway.api.http import Terms
from unmask.gateway.api.instructions import Instructions
from unmask.gateway.api.schemas import MAX_TOKENS, EmbeddingRequest
from unmask.text import Text

#: More tokens than a template puts around a text.
_AROUND: Final = 64
#: Most bytes of a character in UTF-8.
_BYTES_A_CHARACTER: Final = 4
#: Characters of a text that are about one token, to take from a rate limit before the text is tokenised.
_CHARACTERS_A_TOKEN: Final = 4


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A response and what it took.

    Attributes:
        body: JSON.
        model: that answered.
        tokens: as the model read them.
    """

    body: bytes
    model: str
    tokens: int


class Embeddings:
    """Embeds the inputs of requests.

    Args:
        engine: what computes.
        instructions: of the models, by name.
    """

    def __init__(self, engine: EmbeddingEngine, instructions: Mapping[str, Instructions]) -> None:
        self.engine = engine
        self._instructions = instructions
        self._none = Instructions(None, ())

    def instructions(self, model: str) -> Instructions:
        """Return the instructions of a model; those of every model if it is not known."""
        return self._instructions.get(model, self._none)

    def served(self, model: str) -> Served | None:
        """Return a model by its name, None if it is not served."""
        return next((each for each in self.engine.served() if each.name == model), None)

    async def answer(self, request: EmbeddingRequest, terms: Terms) -> Reply:
        """Answer a request.

        Raises:
            TooManyTokensError: more tokens than a request may have.
            InputError: an input cannot be embedded; names its index.
            RateLimitError: the caller's tokens are used up.
            ServingError: as :meth:`unmask.engine.contract.EmbeddingEngine.embed`.
        """
        wanted = _wanted(request)
        if wanted.dimensions is not None and (served := self.served(request.model)):
            wanted.check(served.dimension)
        strings = await self._strings(request)
        texts = self._texts(request, strings)
        embedded = await self.embed(request.model, texts, terms, truncate=request.truncate is not False)
        rows = await wanted.rows(embedded.vectors)
        tokens = sum(embedded.tokens)
        body = b'{"object":"list","data":%b,"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
            rows,
            orjson.dumps(request.model),
            tokens,
            tokens,
        )
        return Reply(body=body, model=request.model, tokens=tokens)

    async def embed(self, model: str, texts: Sequence[Text], terms: Terms, *, truncate: bool) -> Embedded:
        """Return vectors of texts, on the caller's account; raises as :meth:`answer`."""
        await self._check_total(model, texts, truncate=truncate)
        sizes = (len(text.content) + len(text.instruction) for text in texts)
        estimate = sum(size // _CHARACTERS_A_TOKEN + 1 for size in sizes)
        if terms.allowance:
            terms.allowance.take("tokens", estimate)
        used = 0
        try:
            embedded = await self.engine.embed(
                model, texts, caller=terms.caller, priority=terms.priority, truncate=truncate, wait=terms.wait
            )
            used = sum(embedded.tokens)
        finally:
            if terms.allowance:
                terms.allowance.settle("tokens", estimate, used)
        # What the bound in _check_total lets through is caught here: some tokenizers write characters out.
        _refuse_over(used)
        return embedded

    async def _strings(self, request: EmbeddingRequest) -> Sequence[str]:
        """Return a request's inputs as strings: token arrays are turned back."""
        given = request.input
        if isinstance(given, str):
            return [given]
        if isinstance(given[0], str):
            return given
        arrays: Sequence[Sequence[int]] = [given] if isinstance(given[0], int) else given
        _refuse_over(sum(map(len, arrays)))
        strings = await self.engine.detokenize(request.model, arrays)
        for index, string in enumerate(strings):
            if not string.strip():
                raise InputError(f"Input {index} stands for no text: its tokens are blank or special ones. Remove it.")
        return strings

    def _texts(self, request: EmbeddingRequest, strings: Sequence[str]) -> list[Text]:
        """Return strings with their instructions: the request's own, or the one that a string begins with."""
        if request.instruction is not None:
            return [Text(request.instruction, string) for string in strings]
        if request.input_type == "document":
            return [Text("", string) for string in strings]
        known = self.instructions(request.model)
        texts = [known.split(string) for string in strings]
        if request.input_type == "query" and known.query:
            return [text if text.instruction else Text(known.query, text.content) for text in texts]
        return texts

    async def _check_total(self, model: str, texts: Sequence[Text], *, truncate: bool) -> None:
        """Refuse more tokens than a request may have; tokenises only texts that may have as many.

        A token stands for a byte of text or more, and a text is cut to the model's longest.
        """
        size = sum(_BYTES_A_CHARACTER * (len(text.content) + len(text.instruction)) + _AROUND for text in texts)
        if size <= MAX_TOKENS:
            return
        served = self.served(model)
        if not (truncate and served and served.max_length and len(texts) * served.max_length <= MAX_TOKENS):
            _refuse_over(sum(len(text.ids) for text in await self.engine.tokenize(model, texts, truncate=truncate)))


def _refuse_over(tokens: int) -> None:
    if tokens > MAX_TOKENS:
        raise TooManyTokensError(
            f"Invalid 'input': {tokens:,} tokens in all; at most {MAX_TOKENS:,} are allowed. Send fewer inputs."
        )


def _wanted(request: EmbeddingRequest) -> Wanted:
    types = request.embedding_types or "float"
    return Wanted(
        normalize=request.normalize is not False,
        dimensions=request.dimensions,
        type=types if isinstance(types, str) else types[0],
        base64=request.encoding_format == "base64",
    )
