"""``POST /v1/rerank``: a query and documents → how well each document answers.

By cosine over the vectors of a model that embeds, or by a cross-encoder, under its own name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from unmask.errors import InputError
from unmask.form import normalized
from unmask.gateway.api.embeddings import Embeddings, Reply
from unmask.gateway.api.errors import RequestError, rule_of
from unmask.gateway.api.http import Terms
from unmask.gateway.api.schemas import RerankRequest
from unmask.text import SEPARATOR, Text


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a scorer says of documents.

    Attributes:
        values: ``[n]``, the higher the better.
        tokens: that were read.
        provider: that computed them, None for this server itself.
    """

    values: NDArray[np.float32]
    tokens: int
    provider: str | None = None


class Scorer(Protocol):
    """Says how well documents answer a query."""

    async def score(self, request: RerankRequest, terms: Terms) -> Scores:
        """Return the scores of the request's documents, in their order."""


class CosineScorer:
    """Scores by the cosine of the query's vector and the documents'."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    async def score(self, request: RerankRequest, terms: Terms) -> Scores:
        """Return the cosine of every document with the query; raises as :meth:`Embeddings.answer`."""
        # The query comes last: an error that names a text by its index names the document of this index.
        texts = [*(Text("", document) for document in request.documents), await self._query(request, terms)]
        model = self._embeddings.name(request.model)
        embedded = await self._embeddings.embed(model, texts, terms, truncate=request.truncate is not False)
        values = await asyncio.to_thread(_cosines, embedded.vectors)
        return Scores(values=values, tokens=sum(embedded.tokens), provider=embedded.provider)

    async def _query(self, request: RerankRequest, terms: Terms) -> Text:
        if request.instruction is not None:
            return Text(request.instruction, request.query)
        known = await self._embeddings.all_instructions(self._embeddings.name(request.model), terms)
        text = known.split(request.query)
        return text if text.instruction else Text(known.query or "", text.content)


def _cosines(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of each vector with the last one; 0 with a zero vector."""
    units_ND = normalized(vectors_ND)
    return np.asarray(np.clip(units_ND[:-1] @ units_ND[-1], -1, 1), dtype=np.float32)


class CrossEncoderScorer:
    """Scores by a model that reads the query and a document together.

    Args:
        pairs: over an engine of cross-encoders: see :mod:`unmask.engine.cross_encoders`.
    """

    def __init__(self, pairs: Embeddings) -> None:
        self._pairs = pairs

    async def score(self, request: RerankRequest, terms: Terms) -> Scores:
        """Return each document's relevance, from 0 to 1; raises as :meth:`Embeddings.answer`."""
        instruction = (request.instruction or "").strip()
        query = instruction + SEPARATOR + request.query if instruction else request.query
        texts = [Text(query, document) for document in request.documents]
        scored = await self._pairs.embed(
            self._pairs.name(request.model), texts, terms, truncate=request.truncate is not False
        )
        return Scores(values=scored.vectors[:, 0], tokens=sum(scored.tokens))


class Reranking:
    """Answers rerank requests.

    Args:
        cosine: scores for every model that embeds.
        scorers: by the names of rerankers.
        names: a model's name in a request → the one it is served under.
    """

    def __init__(self, cosine: Scorer, scorers: Mapping[str, Scorer], *, names: Callable[[str], str] = str) -> None:
        self._name = names
        self._cosine = cosine
        self._scorers = scorers

    async def answer(self, request: RerankRequest, terms: Terms) -> Reply:
        """Answer a request.

        Raises:
            RequestError: the documents, or the query, cannot be scored.
            UnmaskError: as its scorer.
        """
        try:
            scores = await self._scorers.get(self._name(request.model), self._cosine).score(request, terms)
        except InputError as error:
            raise RequestError(str(error), param="documents", code=rule_of(error).code) from error
        # Stable: of documents with the same score the first comes first.
        order = np.argsort(-scores.values, kind="stable")[: request.top_n]
        results = [_result(request.documents, int(index), scores, bool(request.return_documents)) for index in order]
        usage = {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens}
        body = orjson.dumps({"object": "list", "model": request.model, "results": results, "usage": usage})
        return Reply(body=body, model=self._name(request.model), tokens=scores.tokens, provider=scores.provider)


def _result(documents: Sequence[str], index: int, scores: Scores, with_document: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"index": index, "relevance_score": float(scores.values[index])}
    return result | {"document": {"text": documents[index]}} if with_document else result
