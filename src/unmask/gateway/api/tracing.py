"""Traces for OpenTelemetry, where a collector is configured: a span a request, in the caller's trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.errors import InputError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from unmask.gateway.api.http import Call


class Tracing:
    """Traces requests.

    Args:
        endpoint: of a collector: OTLP over HTTP.

    Raises:
        InputError: OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise InputError(
                "Traces need OpenTelemetry, which is not installed. Install opentelemetry-sdk and "
                "opentelemetry-exporter-otlp-proto-http, or leave out otel_endpoint."
            ) from error
        self._provider = TracerProvider(resource=Resource.create({"service.name": "unmask"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("unmask.gateway.api")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, call: Call) -> Span:
        """Begin the span of a request."""
        from opentelemetry.trace import SpanKind

        carrier = {
            name: (call.header(name.encode()) or b"").decode("latin-1") for name in ("traceparent", "tracestate")
        }
        context = self._propagator.extract({name: value for name, value in carrier.items() if value})
        return self._tracer.start_span(call.scope["method"], context=context, kind=SpanKind.SERVER)

    def end(self, span: Span, call: Call) -> None:
        """End the span of a request, with what is known of it: never its texts."""
        from opentelemetry.trace import StatusCode

        path = call.operation.path if call.operation else "unknown"
        attributes: dict[str, Any] = {
            "http.request.method": call.scope["method"],
            "http.route": path,
            "http.response.status_code": call.status,
            "unmask.request_id": call.request_id,
            "unmask.tokens": call.tokens,
        }
        span.update_name(f"{call.scope['method']} {path}")
        span.set_attributes(attributes | ({"unmask.model": call.model} if call.model else {}))
        if call.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()

    def stop(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()
