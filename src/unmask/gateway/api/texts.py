"""Operations on texts: embeddings, reranking, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unmask.gateway.api.embeddings import Embeddings, Reply
from unmask.gateway.api.http import Answer, Call, Operation
from unmask.gateway.api.parsing import parse
from unmask.gateway.api.rerank import Reranking
from unmask.gateway.api.schemas import (
    EmbeddingRequest,
    EmbeddingResponse,
    RerankRequest,
    RerankResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from unmask.gateway.api.tokenize import tokenize

#: Refusals of whatever asks the engine: an unknown model, a body too slow, a full queue, a cold model, a slow answer.
_ENGINE: Final = (404, 503, 504)


class Texts:
    """Answers requests about texts.

    Args:
        embeddings: embeds.
        reranking: ranks.
        longest_wait: seconds for a cold model, whatever a caller asks for.
    """

    def __init__(self, embeddings: Embeddings, reranking: Reranking, *, longest_wait: float) -> None:
        self._embeddings = embeddings
        self._reranking = reranking
        self._longest_wait = longest_wait

    def operations(self) -> Sequence[Operation]:
        """Return what can be asked for."""
        return (
            Operation(
                method="POST", path="/v1/embeddings", handler=self.embed, summary="Embed texts", tag="Texts",
                request=EmbeddingRequest, response=EmbeddingResponse, terms=True, statuses=_ENGINE,
            ),
            Operation(
                method="POST", path="/v1/rerank", handler=self.rerank, summary="Order documents by relevance",
                tag="Texts", request=RerankRequest, response=RerankResponse, terms=True, statuses=_ENGINE,
            ),
            Operation(
                method="POST", path="/v1/tokenize", handler=self.tokens, summary="Turn texts into tokens", tag="Texts",
                request=TokenizeRequest, response=TokenizeResponse, statuses=_ENGINE,
            ),
        )  # fmt: skip

    async def embed(self, call: Call) -> Answer:
        """Answer with vectors."""
        terms = call.terms(self._longest_wait)
        return _answer(call, await self._embeddings.answer(parse(EmbeddingRequest, call.body), terms))

    async def rerank(self, call: Call) -> Answer:
        """Answer with scores."""
        terms = call.terms(self._longest_wait)
        return _answer(call, await self._reranking.answer(parse(RerankRequest, call.body), terms))

    async def tokens(self, call: Call) -> Answer:
        """Answer with tokens."""
        request = parse(TokenizeRequest, call.body)
        model = self._embeddings.name(request.model)
        self._embeddings.check(model)
        return _answer(call, await tokenize(self._embeddings.engine, model, request))


def _answer(call: Call, reply: Reply) -> Answer:
    call.model, call.tokens, call.provider = reply.model, reply.tokens, reply.provider
    return Answer(body=reply.body, headers={"x-provider": reply.provider} if reply.provider else {})
