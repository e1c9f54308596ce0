"""``POST /v1/embeddings``: texts → vectors; also what answers the requests of a batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import orjson

from unmask.engine.contract import Embedded, EmbeddingEngine, Served, check_total
from unmask.errors import InputError
from unmask.gateway.api.access import Order
from unmask.gateway.api.errors import RequestError
from unmask.gateway.api.forms import Wanted
from unmask.gateway.api.http import Terms
from unmask.gateway.api.instructions import Instructions
from unmask.gateway.api.schemas import MAX_TOKENS, EmbeddingRequest
from unmask.text import Text


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A response and what it took.

    Attributes:
        body: JSON.
        model: that answered.
        tokens: as the model read them.
        provider: that computed it, None for this server itself.
    """

    body: bytes
    model: str
    tokens: int
    provider: str | None = None


class Embeddings:
    """Embeds the inputs of requests.

    Args:
        engine: what computes.
        instructions: of the models, by name, as the operator says.
        rerankers: names of models that are served, too, and do not embed.
        names: a model's name in a request → the one it is served under.
    """

    def __init__(
        self,
        engine: EmbeddingEngine,
        instructions: Mapping[str, Instructions],
        *,
        rerankers: Collection[str] = (),
        names: Callable[[str], str] = str,
    ) -> None:
        self.engine = engine
        self.name = names
        self._rerankers = rerankers
        self._instructions = instructions
        self._none = Instructions(None, ())
        self._completed: dict[str, Instructions] = {}

    def instructions(self, model: str) -> Instructions:
        """Return the instructions of a model as far as they are known; those of every model if it is not served."""
        found = self._completed.get(model)
        if found is not None:
            return found
        told = self._instructions.get(model, self._none)
        served = self.served(model)
        if served is None or served.max_length is None:
            return told
        found = self._completed[model] = told.with_own(served.query_instruction)
        return found

    async def all_instructions(self, model: str, terms: Terms) -> Instructions:
        """Return the instructions of a model, its own one included, which comes with its tokenizer.

        Raises:
            ServingError: as :meth:`unmask.engine.contract.EmbeddingEngine.tokenize`.
        """
        if model not in self._completed and self.served(model) is not None:
            await self.engine.tokenize(model, (), wait=terms.wait)
        return self.instructions(model)

    def served(self, model: str) -> Served | None:
        """Return a model by its name, None if it is not served."""
        return next((each for each in self.engine.served() if each.name == model), None)

    def check(self, model: str) -> None:
        """Refuse a model that only orders documents.

        Raises:
            RequestError: it does.
        """
        if model in self._rerankers:
            raise RequestError(
                f"Model {model!r} is a reranker: it gives no vectors. Send it to /v1/rerank, or choose another of "
                "/v1/models.",
                param="model",
                code="model_not_supported",
            )

    async def answer(self, request: EmbeddingRequest, terms: Terms) -> Reply:
        """Answer a request.

        Raises:
            RequestError: as :meth:`check`.
            TooManyTokensError: more tokens than a request may have.
            InputError: another reason why an input cannot be embedded; names its index.
            UnmaskError: the caller may not: as :meth:`unmask.gateway.api.access.Visit.take`.
            ServingError: as :meth:`unmask.engine.contract.EmbeddingEngine.embed`.
        """
        model = self.name(request.model)
        self.check(model)
        wanted = _wanted(request)
        if wanted.dimensions is not None and (served := self.served(model)):
            wanted.check(served.dimension)
        strings = await self._strings(model, request)
        texts = _texts(request, strings, await self.all_instructions(model, terms))
        embedded = await self.embed(model, texts, terms, truncate=request.truncate is not False)
        rows = await wanted.rows(embedded.vectors)
        tokens = sum(embedded.tokens)
        body = b'{"object":"list","data":%b,"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
            rows,
            orjson.dumps(request.model),
            tokens,
            tokens,
        )
        return Reply(body=body, model=model, tokens=tokens, provider=embedded.provider)

    async def embed(self, model: str, texts: Sequence[Text], terms: Terms, *, truncate: bool) -> Embedded:
        """Return vectors of texts, on the caller's account; raises as :meth:`answer`."""

        async def admit(tokens: Sequence[int]) -> None:
            await terms.visit.take(Order(model=model, priority=terms.priority, tokens=tokens))

        return await self.engine.embed(
            model,
            texts,
            caller=terms.visit.caller,
            priority=terms.priority,
            truncate=truncate,
            wait=terms.wait,
            most_tokens=MAX_TOKENS,
            admit=admit,
        )

    async def _strings(self, model: str, request: EmbeddingRequest) -> Sequence[str]:
        """Return a request's inputs as strings: token arrays are turned back."""
        given = request.input
        if isinstance(given, str):
            return [given]
        if isinstance(given[0], str):
            return given
        arrays: Sequence[Sequence[int]] = [given] if isinstance(given[0], int) else given
        # What would be cut off was sent, and counts.
        check_total(sum(map(len, arrays)), MAX_TOKENS)
        strings = await self.engine.detokenize(model, arrays)
        for index, string in enumerate(strings):
            if not string.strip():
                raise InputError(f"Input {index} stands for no text: its tokens are blank or special ones. Remove it.")
        return strings


def _texts(request: EmbeddingRequest, strings: Sequence[str], known: Instructions) -> list[Text]:
    """Return strings with their instructions: the request's own, or the one that a string begins with."""
    if request.instruction is not None:
        return [Text(request.instruction, string) for string in strings]
    if request.input_type == "document":
        return [Text("", string) for string in strings]
    texts = [known.split(string) for string in strings]
    if request.input_type == "query" and known.query:
        return [text if text.instruction else Text(known.query, text.content) for text in texts]
    return texts


def _wanted(request: EmbeddingRequest) -> Wanted:
    types = request.embedding_types or "float"
    return Wanted(
        normalize=request.normalize is not False,
        dimensions=request.dimensions,
        type=types if isinstance(types, str) else types[0],
        base64=request.encoding_format == "base64",
    )
