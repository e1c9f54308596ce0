"""One HTTP request and its answer; and the operations of the API, as data."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel

from unmask.engine.contract import Priority
from unmask.gateway.api.access import Visit
from unmask.gateway.api.errors import MethodError, NotFoundError, RequestError
from unmask.gateway.api.limits import Receive

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?=$|[,;\s])")
_TIERS: Final[dict[str, Priority]] = {"batch": "batch", "realtime": "realtime"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is sent back.

    Attributes:
        body: the whole of it, unless it is a file.
        status: of the response.
        type: media type.
        headers: besides those of every response.
        file: sent instead of ``body``.
        close: end the connection.
    """

    body: bytes = b""
    status: int = 200
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    close: bool = False


def answer_json(value: Any, status: int = 200) -> Answer:
    """Return an answer of JSON."""
    return Answer(body=orjson.dumps(value), status=status)


def answer_model(value: BaseModel) -> Answer:
    """Return an answer of a model's JSON."""
    return Answer(body=value.model_dump_json().encode())


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On which terms the engine works for a request.

    Attributes:
        visit: whose it is, and who pays.
        priority: of it.
        wait: seconds to wait for a cold model.
    """

    visit: Visit
    priority: Priority
    wait: float


class Call:
    """A request while it is answered.

    Attributes:
        operation: what is asked for, None until that is known.
        body: the whole of it, where the operation takes JSON.
        path: what stands for the names in the operation's path.
        visit: the caller's, None until a key is known, and where none is needed.
        request_id: by which the logs know it.
        model: that answered, None if none did.
        tokens: that it took.
        provider: that computed it, None for this server itself.
        status: of the response.
        answered: the body that a caller may have to pay for, once it is sent.
    """

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = ""
        self.started = time.perf_counter()
        self.operation: Operation | None = None
        self.body = b""
        self.path: Mapping[str, str] = {}
        self.visit: Visit | None = None
        self.model: str | None = None
        self.tokens = 0
        self.provider: str | None = None
        self.status = 0
        self.answered: bytes | None = None

    @property
    def caller(self) -> str:
        """Who asks; nobody where no key is needed."""
        return self.visit.caller if self.visit else ""

    @property
    def seconds(self) -> float:
        """Since it came."""
        return time.perf_counter() - self.started

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header, by its name in lower case; None without one."""
        return self._headers.get(name)

    def query(self) -> dict[str, str]:
        """Return the parameters behind the path's question mark."""
        return dict(parse_qsl(self.scope["query_string"].decode("latin-1"), keep_blank_values=True))

    def terms(self, longest_wait: float) -> Terms:
        """Return on which terms it asks, as its headers say.

        Raises:
            RequestError: there is no such tier.
        """
        wait, tier = self.header(b"prefer"), self.header(b"x-tier")
        found = _WAIT.search(wait.decode("latin-1").lower()) if wait else None
        priority = _TIERS["realtime"] if tier is None else _TIERS.get(tier.decode("latin-1").strip().lower())
        if priority is None:
            raise RequestError(f"The header X-Tier is unknown; expected one of {', '.join(_TIERS)}.")
        seconds = min(float(found[1]), longest_wait) if found else 0.0
        assert self.visit is not None, "only operations that need a key have terms"
        return Terms(visit=self.visit, priority=priority, wait=seconds)


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """Something that can be asked for.

    Attributes:
        method: of HTTP.
        path: with names in braces for what varies.
        handler: answers it.
        summary: one line for the documents.
        tag: under which the documents list it.
        request: schema of its body, None without one.
        response: schema of its success, None if that is no JSON.
        type: media type of its success.
        upload: whether its body is a form with a file.
        open: whether it needs no key.
        query: parameters behind the question mark: schemas by name.
        terms: whether its headers say how long it may wait, and with which priority.
        statuses: of refusals that not every operation has.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    request: type[BaseModel] | None = None
    response: type[BaseModel] | None = None
    type: str = "application/json"
    upload: bool = False
    open: bool = False
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    terms: bool = False
    statuses: Sequence[int] = ()


class Routes:
    """Finds the operation for a method and a path.

    Args:
        operations: all of them. A name in a path stands for one part, but ``{model}`` for any number: names of models
            may have slashes.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)
        self._fixed: dict[str, dict[str, Operation]] = {}
        self._varying: dict[re.Pattern[str], dict[str, Operation]] = {}
        for operation in operations:
            if "{" in operation.path:
                pattern = operation.path.replace("{model}", "(?P<model>.+)")
                self._varying.setdefault(re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)), {})[
                    operation.method
                ] = operation
            else:
                self._fixed.setdefault(operation.path, {})[operation.method] = operation

    def find(self, method: str, path: str) -> tuple[Operation, Mapping[str, str]]:
        """Return the operation, and what stands for the names in its path.

        Raises:
            NotFoundError: there is no such path.
            MethodError: it has no such method.
        """
        found, names = self._fixed.get(path), {}
        if found is None:
            for pattern, methods in self._varying.items():
                if match := pattern.fullmatch(path):
                    found, names = methods, match.groupdict()
                    break
            else:
                raise NotFoundError("There is no such path. See /docs for those there are.", code="unknown_url")
        operation = found.get("GET" if method == "HEAD" else method)
        if operation is None:
            allowed = ", ".join(sorted(found))
            raise MethodError(f"This path takes {allowed} only.", headers={"allow": allowed})
        return operation, names
