"""``/v1/models``: what is served."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from unmask.engine.contract import Served
from unmask.errors import UnknownModelError
from unmask.gateway.api.embeddings import Embeddings
from unmask.gateway.api.http import Answer, Call, Operation, answer_json
from unmask.gateway.api.schemas import ModelDetail, ModelList

Shown = Callable[[Mapping[str, dict[str, Any]]], dict[str, dict[str, Any]]]

_OWNER: Final = "unmask"
#: What models can be asked for.
_ENCODER: Final = ("/v1/embeddings", "/v1/rerank", "/v1/tokenize")
_RERANKER: Final = ("/v1/rerank",)


class Models:
    """Answers requests about models.

    Args:
        embeddings: of the encoders.
        pairs: of the rerankers, None where there are none.
        shown: what is served, by name → what is shown, by name; may add to it.
    """

    def __init__(self, embeddings: Embeddings, pairs: Embeddings | None = None, shown: Shown = dict) -> None:
        self._shown = shown
        self._embeddings = embeddings
        self._pairs = pairs
        self._created = int(time.time())

    def operations(self) -> Sequence[Operation]:
        """Return what can be asked for."""
        return (
            Operation(
                method="GET", path="/v1/models", handler=self.list, summary="List models", tag="Models",
                response=ModelList,
            ),
            Operation(
                method="GET", path="/v1/models/{model}", handler=self.get, summary="Describe a model", tag="Models",
                response=ModelDetail, statuses=(404,),
            ),
        )  # fmt: skip

    async def list(self, call: Call) -> Answer:
        """Answer with every model."""
        return answer_json({"object": "list", "data": list(self._all().values())})

    async def get(self, call: Call) -> Answer:
        """Answer with one model and its instructions."""
        given = call.path["model"]
        every = self._all()
        names = {name.casefold(): each["id"] for each in every.values() for name in each.get("names", ())}
        name = given if given in every else names.get(given.casefold(), given)
        found = every.get(name)
        if found is None:
            raise UnknownModelError(f"Model {given[:256]!r} is not served here. GET /v1/models lists those that are.")
        if self._embeddings.served(name) is None:
            return answer_json(found | {"query_instruction": None, "instructions": []})
        known = self._embeddings.instructions(name)
        return answer_json(found | {"query_instruction": known.query or None, "instructions": list(known.known)})

    def _all(self) -> dict[str, dict[str, Any]]:
        """Return what is said of each model in lists, by name."""
        found = {model.name: self._describe(model, _ENCODER) for model in self._embeddings.engine.served()}
        rerankers = self._pairs.engine.served() if self._pairs else ()
        # What an engine of pairs calls a dimension is the one score of each.
        found |= {model.name: self._describe(model, _RERANKER) | {"dimensions": None} for model in rerankers}
        return self._shown(found)

    def _describe(self, model: Served, endpoints: Sequence[str]) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": self._created,
            "owned_by": _OWNER,
            "status": model.state,
            "endpoints": endpoints,
            "dimensions": model.dimension,
            "max_length": model.max_length,
        }
