"""``POST /v1/rerank``: a query and documents → how well each document answers.

By cosine over a served model's vectors. A cross-encoder is another :class:`Scorer` under the name of its own model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from unmask.gateway.api.embeddings import Embeddings, Reply
from unmask.gateway.api.forms import normalized
from unmask.gateway.api.http import Terms
from unmask.gateway.api.schemas import RerankRequest
from unmask.text import Text


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a scorer says of documents.

    Attributes:
        values: ``[n]``, the higher the better.
        tokens: that were read.
    """

    values: NDArray[np.float32]
    tokens: int


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
        query = self._query(request)
        texts = [query, *(Text("", document) for document in request.documents)]
        embedded = await self._embeddings.embed(request.model, texts, terms, truncate=request.truncate is not False)
        return Scores(values=await asyncio.to_thread(_cosines, embedded.vectors), tokens=sum(embedded.tokens))

    def _query(self, request: RerankRequest) -> Text:
        if request.instruction is not None:
            return Text(request.instruction, request.query)
        known = self._embeddings.instructions(request.model)
        text = known.split(request.query)
        return text if text.instruction else Text(known.query or "", text.content)


def _cosines(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of the first vector with each of the others; 0 with a zero vector."""
    units_ND = normalized(vectors_ND)
    return np.asarray(np.clip(units_ND[1:] @ units_ND[0], -1, 1), dtype=np.float32)


class Reranking:
    """Answers rerank requests.

    Args:
        cosine: scores for every model that embeds.
        scorers: by the names of models that score by themselves.
    """

    def __init__(self, cosine: Scorer, scorers: Mapping[str, Scorer]) -> None:
        self._cosine = cosine
        self._scorers = scorers

    async def answer(self, request: RerankRequest, terms: Terms) -> Reply:
        """Answer a request; raises as its scorer."""
        scores = await self._scorers.get(request.model, self._cosine).score(request, terms)
        # Stable: of documents with the same score the first comes first.
        order = np.argsort(-scores.values, kind="stable")[: request.top_n]
        results = [_result(request.documents, int(index), scores, bool(request.return_documents)) for index in order]
        usage = {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens}
        body = orjson.dumps({"object": "list", "model": request.model, "results": results, "usage": usage})
        return Reply(body=body, model=request.model, tokens=scores.tokens)


def _result(documents: Sequence[str], index: int, scores: Scores, with_document: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"index": index, "relevance_score": float(scores.values[index])}
    return result | {"document": {"text": documents[index]}} if with_document else result
