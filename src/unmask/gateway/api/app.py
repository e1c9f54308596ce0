"""The application: every request comes in here, and every answer, good or bad, leaves here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final

from unmask.engine.contract import EmbeddingEngine
from unmask.errors import ModelColdError, ModelUnavailableError, StoppingError
from unmask.gateway.api import metrics
from unmask.gateway.api.access import Access, AnsweredBeforeError, ListedKeys
from unmask.gateway.api.batch_runner import BatchRunner
from unmask.gateway.api.batch_store import BatchStore
from unmask.gateway.api.batches import Batches
from unmask.gateway.api.docs_page import POLICY, docs_page
from unmask.gateway.api.embeddings import Embeddings
from unmask.gateway.api.errors import MediaTypeError, refusal_of
from unmask.gateway.api.file_store import FileStore
from unmask.gateway.api.files import Files
from unmask.gateway.api.http import Answer, Call, Operation, Routes, Send, answer_json
from unmask.gateway.api.limits import Body, ClientGoneError, Receive
from unmask.gateway.api.logs import describe, request_id, request_record
from unmask.gateway.api.models import Models, Shown
from unmask.gateway.api.openapi import openapi
from unmask.gateway.api.replying import drain, send_answer
from unmask.gateway.api.rerank import CosineScorer, CrossEncoderScorer, Reranking
from unmask.gateway.api.settings import Settings
from unmask.gateway.api.storing import own_folder
from unmask.gateway.api.texts import Texts
from unmask.gateway.api.tracing import Tracing
from unmask.gateway.api.watching import Watch

_log: Final = logging.getLogger("unmask.requests")

#: The share of the time for a shutdown in which answers are finished; the rest is the engine's.
ANSWERS: Final = 0.8
#: What a request is logged and counted as if its client hung up before the answer.
_GONE: Final = 499
#: Answers of 500 and more that are no failures of their request: the engine's log says what there is to say.
_EXPECTED: Final = (ModelColdError, ModelUnavailableError, StoppingError)


class Application:
    """An ASGI application over an engine.

    Args:
        settings: of the server.
        engine: what embeds; started and stopped with the application.
        rerankers: what scores pairs, likewise; None where no cross-encoder is served.
        access: lets callers in; None for the keys of the settings.
        names: a model's name in a request → the one it is served under.
        shown: what is served, by name → what ``/v1/models`` shows.
        observe: told of every request when it is over.

    Raises:
        InputError: the settings cannot be used, or another server owns the data folder.
    """

    def __init__(
        self,
        settings: Settings,
        engine: EmbeddingEngine,
        rerankers: EmbeddingEngine | None = None,
        *,
        access: Access | None = None,
        names: Callable[[str], str] = str,
        shown: Shown = dict,
        observe: Callable[[Call], None] | None = None,
    ) -> None:
        settings.check()
        self._settings = settings
        self._engines = {"embeddings": engine} | ({"rerankers": rerankers} if rerankers else {})
        self._access = access or ListedKeys(
            settings.keys(), requests=settings.requests_per_minute, tokens=settings.tokens_per_minute
        )
        self._preloaded = settings.preloaded()
        self._ready = False
        data = settings.folder
        self._owned = own_folder(data)
        self._names, self._shown, self._told = names, shown, observe
        self._pairs = Embeddings(rerankers, {}, names=names) if rerankers else None
        self._embeddings = Embeddings(
            engine, settings.instructions(), rerankers=frozenset(settings.rerankers), names=names
        )
        self._batches = BatchStore(data / "batches", FileStore(data / "files"))
        self._runner = BatchRunner(self._batches, self._embeddings, self._access)
        self._tracing = Tracing(settings.otel_endpoint) if settings.otel_endpoint else None
        self._metrics = metrics.Metrics(self._engines, self._runner.running)
        self.operations = self._operations()
        self._routes = Routes([*self.operations, *self._own_operations()])
        self._json_limits = settings.body_limits(upload=False)

    def _operations(self) -> Sequence[Operation]:
        scorer = CrossEncoderScorer(self._pairs) if self._pairs else None
        reranking = Reranking(
            CosineScorer(self._embeddings),
            dict.fromkeys(self._settings.rerankers, scorer) if scorer else {},
            names=self._names,
        )
        return (
            *Texts(self._embeddings, reranking, longest_wait=self._settings.wait_seconds).operations(),
            *Models(self._embeddings, self._pairs, self._shown).operations(),
            *Files(
                self._batches, self._settings.body_limits(upload=True), stored=self._settings.stored_bytes
            ).operations(),
            *Batches(self._runner).operations(),
        )

    def _own_operations(self) -> Sequence[Operation]:
        """Return what is about the server itself, and open to everybody who reaches it."""
        document = openapi(self.operations)
        page = docs_page(document)

        async def health(call: Call) -> Answer:
            return answer_json({"status": "ok"})

        async def ready(call: Call) -> Answer:
            return self._answer_ready()

        async def measured(call: Call) -> Answer:
            return Answer(body=self._metrics.render(), type=metrics.TYPE)

        async def described(call: Call) -> Answer:
            return answer_json(document)

        async def shown(call: Call) -> Answer:
            return Answer(body=page, type="text/html; charset=utf-8", headers={"content-security-policy": POLICY})

        handlers = {
            "/health": health,
            "/ready": ready,
            "/metrics": measured,
            "/v1/openapi.json": described,
            "/docs": shown,
        }
        return [
            Operation(method="GET", path=path, handler=handler, summary="", tag="Server", open=True)
            for path, handler in handlers.items()
        ]

    def _answer_ready(self) -> Answer:
        states = {model.name: model.state for engine in self._engines.values() for model in engine.served()}
        # A model that was loaded and had to make room since is cold, and the server is as ready as before.
        self._ready = self._ready or all(states.get(name) == "ready" for name in self._preloaded)
        return answer_json(
            {"status": "ready" if self._ready else "warming", "models": states}, 200 if self._ready else 503
        )

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or the server's word that it starts or stops."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert scope["type"] == "http", "the server is told to take no websockets"
        call = Call(scope, receive, send)
        call.request_id = request_id(call.header(b"x-request-id"))
        span = self._tracing.begin(call) if self._tracing else None
        self._metrics.in_flight += 1
        try:
            await self._serve(call)
        finally:
            self._metrics.in_flight -= 1
            if call.visit:
                call.visit.end(call.answered, call.tokens)
            self._observe(call)
            if self._tracing and span:
                self._tracing.end(span, call)

    async def _serve(self, call: Call) -> None:
        """Answer a request, whatever happens."""
        try:
            answer = await self._answer(call)
        except AnsweredBeforeError as before:
            answer = Answer(body=before.body, headers={"idempotent-replayed": "true"})
        except ClientGoneError:
            call.status = _GONE
            return
        except asyncio.CancelledError:
            call.status = _GONE
            raise
        except Exception as error:  # noqa: BLE001 - the table has a row for everything
            refusal = refusal_of(error)
            if refusal.status >= 500 and not isinstance(error, _EXPECTED):
                _log.error(
                    "request failed", extra={"fields": {"request_id": call.request_id, "failure": describe(error)}}
                )
            answer = Answer(body=refusal.body, status=refusal.status, headers=refusal.headers, close=refusal.close)
        call.status = answer.status
        await send_answer(call, answer)
        if answer.status < 400:
            call.answered = answer.body
        if answer.close:
            await drain(call)

    async def _answer(self, call: Call) -> Answer:
        operation, call.path = self._routes.find(call.scope["method"], call.scope["path"])
        call.operation = operation
        if operation.open:
            return await operation.handler(call)
        call.visit = await self._access.enter(call.header(b"authorization"))
        if operation.upload:
            return await operation.handler(call)
        body = None
        if operation.request is not None:
            _check_type(call)
            body = Body(call.receive, call.header(b"content-length"), self._json_limits)
        with Watch(call.receive, self._settings.request_seconds, body):
            if body is not None:
                call.body = await body.read()
            if operation.terms and (key := call.header(b"idempotency-key")) is not None:
                tier = call.header(b"x-tier") or b""
                call.visit.expect(key.decode("latin-1"), b"\0".join((operation.path.encode(), tier, call.body)))
            return await operation.handler(call)

    def _observe(self, call: Call) -> None:
        path = call.operation.path if call.operation else "unknown"
        self._metrics.observe(path, call.status, call.seconds, model=call.model, tokens=call.tokens)
        if self._told is not None:
            self._told(call)
        if self._settings.log_requests and _log.isEnabledFor(logging.INFO):
            fields = {
                "request_id": call.request_id,
                "method": call.scope["method"],
                "path": path,
                "status": call.status,
                "ms": round(call.seconds * 1000, 2),
                "caller": call.caller,
                "model": call.model,
                "tokens": call.tokens,
            }
            _log.handle(request_record(fields))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            for engine in self._engines.values():
                await engine.start()
            self._runner.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._runner.stop()
        grace = self._settings.shutdown_seconds * (1 - ANSWERS)
        await asyncio.gather(*(engine.stop(grace) for engine in self._engines.values()))
        await self._access.close()
        if self._tracing:
            self._tracing.stop()
        self._owned.close()
        await send({"type": "lifespan.shutdown.complete"})


def _check_type(call: Call) -> None:
    kind = (call.header(b"content-type") or b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise MediaTypeError("The body's type is not application/json. Send JSON, with the header Content-Type.")
    if (call.header(b"content-encoding") or b"identity").lower() != b"identity":
        raise MediaTypeError("The body is compressed. Send it as it is, without the header Content-Encoding.")
