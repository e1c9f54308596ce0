"""The OpenAPI document, made from the operations themselves; ``docs/openapi.json`` is a copy of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from unmask.gateway.api.http import Operation
from unmask.gateway.api.schemas import ErrorResponse

#: Of the API, not of the package.
VERSION: Final = "1"
_ABOUT: Final = "Embeddings, reranking, files and batches, as OpenAI's clients know them."
_JSON: Final = "application/json"
_REF: Final = "#/components/schemas/{model}"
_REFUSALS: Final[dict[int, str]] = {
    400: "The request is not as it should be.",
    401: "No API key, or an unknown one.",
    402: "The balance does not cover the request; where requests are paid for.",
    403: "The key is not for this model; where keys are.",
    404: "There is nothing of this name.",
    408: "The body did not arrive in time.",
    409: "The first request with this Idempotency-Key is still being answered.",
    413: "The body is too large.",
    415: "The body is of another type.",
    422: "The Idempotency-Key came with another request before.",
    429: "A rate limit is reached, or the queue is full. See retry-after.",
    500: "The server failed.",
    503: "The model is being loaded, or the server stops. See retry-after.",
    504: "The answer took too long.",
    507: "The server's disk is full.",
}
_ALWAYS: Final = (400, 401, 429, 500, 503)
_WITH_BODY: Final = (408, 413, 415)
_PAID: Final = (402, 403, 409, 422)
_HEADERS: Final[dict[str, str]] = {
    "x-request-id": "By which the server's logs know the request.",
    "openai-processing-ms": "Milliseconds that the server took.",
}
_TERMS: Final = (
    {"name": "X-Tier", "in": "header", "schema": {"type": "string", "enum": ["realtime", "batch"]},
     "description": "`batch`: answered from what others leave."},
    {"name": "Prefer", "in": "header", "schema": {"type": "string"},
     "description": "`wait=N`: wait up to N seconds for a model that is being loaded. Other preferences are ignored."},
    {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"},
     "description": "Where requests are paid for: the same request with the same key is answered again, free."},
)  # fmt: skip
#: Where a response holds the id of what was made.
_ID: Final = "$response.body#/id"
#: A file that was uploaded is there for a batch.
_BATCH_OF_FILE: Final = {
    "post_batches": {
        "operationId": "post_batches",
        "requestBody": {"input_file_id": _ID, "endpoint": "/v1/embeddings", "completion_window": "24h"},
    }
}


def openapi(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document.

    Args:
        operations: those under ``/v1``, in their order.
    """
    models: dict[type[BaseModel], None] = {ErrorResponse: None}
    for operation in operations:
        models |= {model: None for model in (operation.request, operation.response) if model is not None}
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation)
        if links := _links(operation, operations):
            described["responses"]["200"]["links"] = links
    return {
        "openapi": "3.1.0",
        "info": {"title": "Unmask", "version": VERSION, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _describe(operation: Operation) -> dict[str, Any]:
    statuses = {*_ALWAYS, *operation.statuses, *(_WITH_BODY if operation.request or operation.upload else ())}
    statuses |= {*_PAID} if operation.terms else set()
    success: dict[str, Any] = {"description": "Done.", "headers": _headers()}
    schema = {"$ref": _REF.format(model=operation.response.__name__)} if operation.response else {"type": "string"}
    success["content"] = {operation.type: {"schema": schema}}
    described: dict[str, Any] = {
        "operationId": _name(operation),
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {"200": success} | {str(status): _refusal(status) for status in sorted(statuses)},
    }
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.request:
        schema = {"$ref": _REF.format(model=operation.request.__name__)}
        described["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    elif operation.upload:
        described["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _upload()}}}
    return described


def _links(operation: Operation, operations: Sequence[Operation]) -> dict[str, Any]:
    """Return what can be done next with what an operation made: all that is under its path and takes its id."""
    if operation.method != "POST":
        return {}
    under = f"{operation.path}/{{id}}"
    links: dict[str, Any] = {
        _name(each): {"operationId": _name(each), "parameters": {"id": _ID}}
        for each in operations
        if each.path == under or each.path.startswith(f"{under}/")
    }
    return links | (_BATCH_OF_FILE if operation.upload else {})


def _name(operation: Operation) -> str:
    words = re.findall(r"[a-z]+", operation.path.removeprefix("/v1"))
    return "_".join([operation.method.lower(), *words])


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", operation.path)
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    found += [{"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()]
    return found + (list(_TERMS) if operation.terms else [])


def _refusal(status: int) -> dict[str, Any]:
    return {
        "description": _REFUSALS[status],
        "headers": _headers(),
        "content": {_JSON: {"schema": {"$ref": _REF.format(model=ErrorResponse.__name__)}}},
    }


def _headers() -> dict[str, Any]:
    return {name: {"description": about, "schema": {"type": "string"}} for name, about in _HEADERS.items()}


def _upload() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["file", "purpose"],
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "JSONL: a request a line."},
            "purpose": {"type": "string", "enum": ["batch"]},
        },
    }
