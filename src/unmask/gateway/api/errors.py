"""What a request can be refused for, and the one table that turns exceptions into HTTP.

    UnmaskError
    └── GatewayError                what only a server can run into
        ├── RequestError            the body, a header or a parameter of the query is not as the API wants it
        │   ├── BodyTooLargeError   more bytes than a body may have
        │   └── MediaTypeError      the body is of another type
        ├── SlowBodyError           the body does not arrive
        ├── SlowAnswerError         the answer took longer than a request may take
        ├── AuthenticationError     no key, or an unknown one
        ├── NotFoundError           no such path, file or batch
        ├── MethodError             the path has no such method
        ├── RateLimitError          a key has used up what it may ask for
        └── StorageFullError        the disk holds no more

What accounts refuse has a tree of its own (``accounts/errors.py``), and so has their database (``db/errors.py``).
Every refusal has OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``, all four keys.
"""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass, field
from typing import Final

import orjson

from unmask.errors import (
    BackboneError,
    CheckpointError,
    EncodingFailedError,
    InputError,
    ModelColdError,
    ModelUnavailableError,
    QueueFullError,
    ServingError,
    StoppingError,
    TooManyTokensError,
    UnknownModelError,
    UnmaskError,
)
from unmask.gateway.accounts.errors import (
    AccountError,
    InProgressError,
    KeyModelError,
    KeyRefusedError,
    LimitError,
    OutOfCreditError,
    RequestMismatchError,
    TooLargeError,
    UserDisabledError,
)
from unmask.gateway.db.errors import DatabaseError


class GatewayError(UnmaskError):
    """A request is refused by the server itself, not by the engine.

    Attributes:
        param: the parameter it is about, None if about none.
        code: says more than the table's, None for that one.
        headers: to answer with.
    """

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.headers = headers or {}


class RequestError(GatewayError):
    """A request is not as the API wants it."""


class BodyTooLargeError(RequestError):
    """A body has more bytes than one may have."""


class MediaTypeError(RequestError):
    """A body is of a type that the path does not take."""


class SlowBodyError(GatewayError):
    """A body does not arrive."""


class SlowAnswerError(GatewayError):
    """An answer took longer than a request may take."""


class AuthenticationError(GatewayError):
    """No key was given, or one that is not known."""


class NotFoundError(GatewayError):
    """There is no such path, file or batch."""


class MethodError(GatewayError):
    """The path has no such method."""


class RateLimitError(GatewayError):
    """A key has used up the requests or tokens it may ask for.

    Attributes:
        kind: ``requests`` or ``tokens``.
        retry_after: seconds after which another try may succeed.
    """

    def __init__(self, message: str, *, kind: str, retry_after: float) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


class StorageFullError(GatewayError):
    """The disk of the data folder holds no more."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How an exception is told to a client.

    Attributes:
        status: of the response.
        type: the error's type.
        code: the error's code, None for none.
        param: the parameter it is about, unless the exception says another.
        message: said instead of the exception's own, which may name what is the operator's business.
        retry: False tells OpenAI's clients, which try again after 408, 409, 429 and from 500 on, not to.
        close: whether the connection ends with the response.
    """

    status: int
    type: str
    code: str | None = None
    param: str | None = None
    message: str | None = None
    retry: bool = True
    close: bool = False


_INVALID: Final = "invalid_request_error"
_SERVER: Final = "server_error"

#: The one table: the row of an exception is that of the nearest of its classes.
RULES: Final[dict[type[BaseException], Rule]] = {
    InputError: Rule(status=400, type=_INVALID, param="input"),
    TooManyTokensError: Rule(status=400, type="max_tokens_per_request", code="max_tokens_per_request", param="input"),
    RequestError: Rule(status=400, type=_INVALID),
    AuthenticationError: Rule(status=401, type=_INVALID, code="invalid_api_key"),
    KeyRefusedError: Rule(status=401, type=_INVALID, code="invalid_api_key"),
    OutOfCreditError: Rule(status=402, type="insufficient_quota", code="insufficient_credit", retry=False),
    AccountError: Rule(status=403, type=_INVALID, code="account_refused"),
    UserDisabledError: Rule(status=403, type=_INVALID, code="account_disabled"),
    KeyModelError: Rule(status=403, type=_INVALID, code="model_not_allowed", param="model"),
    NotFoundError: Rule(status=404, type=_INVALID, code="not_found"),
    UnknownModelError: Rule(status=404, type=_INVALID, code="model_not_found", param="model"),
    MethodError: Rule(status=405, type=_INVALID, code="method_not_allowed"),
    InProgressError: Rule(status=409, type=_INVALID, code="idempotency_in_progress"),
    # Half of the body may still be on its way, so the connection is of no use for another request.
    SlowBodyError: Rule(status=408, type=_INVALID, code="request_timeout", close=True),
    BodyTooLargeError: Rule(status=413, type=_INVALID, code="body_too_large", close=True),
    MediaTypeError: Rule(status=415, type=_INVALID, code="unsupported_media_type", close=True),
    RequestMismatchError: Rule(status=422, type=_INVALID, code="idempotency_mismatch"),
    LimitError: Rule(status=429, type="requests", code="rate_limit_exceeded"),
    TooLargeError: Rule(status=429, type="tokens", code="rate_limit_exceeded", retry=False),
    RateLimitError: Rule(status=429, type="requests", code="rate_limit_exceeded"),
    QueueFullError: Rule(status=429, type="engine_overloaded", code="rate_limit_exceeded"),
    DatabaseError: Rule(
        status=503,
        type=_SERVER,
        code="accounts_unavailable",
        message="Accounts cannot be looked up now. Nothing was computed or charged; try again soon.",
    ),
    EncodingFailedError: Rule(status=500, type=_SERVER, code="encoding_failed", retry=False),
    ModelColdError: Rule(status=503, type=_SERVER, code="model_cold"),
    ModelUnavailableError: Rule(status=503, type=_SERVER, code="model_unavailable", param="model", retry=False),
    StoppingError: Rule(status=503, type=_SERVER, code="stopping", close=True),
    ServingError: Rule(status=503, type=_SERVER, code="unavailable"),
    CheckpointError: Rule(
        status=503,
        type=_SERVER,
        code="model_unavailable",
        param="model",
        message="The model cannot be loaded. The operator's log says why.",
        retry=False,
    ),
    BackboneError: Rule(
        status=503,
        type=_SERVER,
        code="model_unavailable",
        param="model",
        message="The model cannot be served. The operator's log says why.",
        retry=False,
    ),
    SlowAnswerError: Rule(status=504, type=_SERVER, code="timeout"),
    StorageFullError: Rule(status=507, type=_SERVER, code="storage_full", retry=False),
    Exception: Rule(
        status=500,
        type=_SERVER,
        code="internal_error",
        message="The server failed on this request. Tell its operator the x-request-id of this response.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An exception as HTTP.

    Attributes:
        status: of the response.
        error: the object under ``error``.
        headers: besides those of every response.
        close: whether the connection ends with the response.
    """

    status: int
    error: dict[str, str | None]
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False

    @property
    def body(self) -> bytes:
        """The response's body."""
        return orjson.dumps({"error": self.error})


def rule_of(error: BaseException) -> Rule:
    """Return the row of the table for an exception."""
    return next(RULES[kind] for kind in type(error).__mro__ if kind in RULES)


def is_full_disk(error: BaseException) -> bool:
    """Return whether an error is that of a disk without space."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def refusal_of(error: Exception) -> Refusal:
    """Return what a client is told of an exception."""
    if is_full_disk(error):
        error = StorageFullError("The server's disk is full. Try again later, or tell its operator.")
    rule = rule_of(error)
    retry_after = getattr(error, "retry_after", None)
    headers = dict(getattr(error, "headers", {}))
    if retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_after)))
        headers["retry-after-ms"] = str(max(1, math.ceil(retry_after * 1000)))
    if not rule.retry:
        headers["x-should-retry"] = "false"
    details: dict[str, str | None] = {
        "message": rule.message or str(error),
        "type": getattr(error, "kind", None) or rule.type,
        "param": getattr(error, "param", None) or rule.param,
        "code": getattr(error, "code", None) or rule.code,
    }
    return Refusal(status=rule.status, error=details, headers=headers, close=rule.close)
