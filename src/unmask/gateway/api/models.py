"""``/v1/models``: what is served."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from unmask.engine.contract import Served
from unmask.errors import UnknownModelError
from unmask.gateway.api.embeddings import Embeddings
from unmask.gateway.api.http import Answer, Call, Operation, answer_json
from unmask.gateway.api.schemas import ModelDetail, ModelList

_OWNER: Final = "unmask"


class Models:
    """Answers requests about models."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
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
        served = self._embeddings.engine.served()
        return answer_json({"object": "list", "data": [self._describe(model) for model in served]})

    async def get(self, call: Call) -> Answer:
        """Answer with one model and its instructions."""
        name = call.path["model"]
        served = self._embeddings.served(name)
        if served is None:
            raise UnknownModelError(f"Model {name[:256]!r} is not served here. GET /v1/models lists those that are.")
        known = self._embeddings.instructions(name)
        details = {"query_instruction": known.query, "instructions": list(known.known)}
        return answer_json(self._describe(served) | details)

    def _describe(self, model: Served) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": self._created,
            "owned_by": _OWNER,
            "status": model.state,
            "dimensions": model.dimension,
            "max_length": model.max_length,
        }
