"""``/v1/batches``: files of requests, answered in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from unmask.gateway.api.access import Visit
from unmask.gateway.api.batch_runner import BatchRunner
from unmask.gateway.api.batch_schemas import BatchList, BatchObject, BatchRequest
from unmask.gateway.api.http import Answer, Call, Operation, answer_model
from unmask.gateway.api.pages import page, page_parameters
from unmask.gateway.api.parsing import parse

_LIST: Final[dict[str, Any]] = page_parameters(default=20, most=100)
_TAG: Final = "Batches"


class Batches:
    """Answers requests about batches."""

    def __init__(self, runner: BatchRunner) -> None:
        self._runner = runner
        self._store = runner.store

    def operations(self) -> Sequence[Operation]:
        """Return what can be asked for."""
        return (
            Operation(
                method="POST", path="/v1/batches", handler=self.create, summary="Start a batch", tag=_TAG,
                request=BatchRequest, response=BatchObject, statuses=(404, 507),
            ),
            Operation(
                method="GET", path="/v1/batches", handler=self.list, summary="List batches", tag=_TAG,
                response=BatchList, query=_LIST,
            ),
            Operation(
                method="GET", path="/v1/batches/{id}", handler=self.get, summary="Describe a batch", tag=_TAG,
                response=BatchObject, statuses=(404,),
            ),
            Operation(
                method="POST", path="/v1/batches/{id}/cancel", handler=self.cancel, summary="Cancel a batch", tag=_TAG,
                response=BatchObject, statuses=(404, 507),
            ),
        )  # fmt: skip

    async def create(self, call: Call) -> Answer:
        """Keep a batch, and begin with it."""
        request = parse(BatchRequest, call.body)
        assert call.visit is not None, "a batch is somebody's"
        # To the end even if the client hangs up: a batch on the disk is one that runs.
        return answer_model(await asyncio.shield(asyncio.ensure_future(self._begin(request, call.visit))))

    async def _begin(self, request: BatchRequest, visit: Visit) -> BatchObject:
        batch = await asyncio.to_thread(self._store.add, request, visit.caller, visit.payer)
        self._runner.submit(batch.id)
        return batch

    async def list(self, call: Call) -> Answer:
        """Answer with a page of the caller's batches."""
        return page(self._store.of(call.caller), call.query(), _LIST)

    async def get(self, call: Call) -> Answer:
        """Describe a batch."""
        return answer_model(self._store.get(call.path["id"], call.caller))

    async def cancel(self, call: Call) -> Answer:
        """Cancel a batch."""
        return answer_model(await self._runner.cancel(self._store.get(call.path["id"], call.caller)))
