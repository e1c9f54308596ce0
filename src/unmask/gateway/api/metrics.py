"""Metrics for Prometheus: of the requests as they end, of the engine when asked."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from unmask.engine.contract import EmbeddingEngine, Load

#: Media type of what :meth:`Metrics.render` returns.
TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BOUNDS: Final = (*map(str, _SECONDS), "+Inf")
#: What is said of each engine: name, text, and the value from its load.
_OF_LOADS: Final[tuple[tuple[type[Any], str, str, Callable[[Load], float]], ...]] = (
    (GaugeMetricFamily, "unmask_queue_limit_tokens", "Most tokens that may wait.", lambda load: load.queue_limit),
    (GaugeMetricFamily, "unmask_running_tokens", "Tokens that workers have.", lambda load: load.running_tokens),
    (CounterMetricFamily, "unmask_engine_batches", "Batches that workers did.", lambda load: load.batches),
    (CounterMetricFamily, "unmask_engine_tokens", "Tokens that workers did.", lambda load: load.batch_tokens),
    (CounterMetricFamily, "unmask_worker_restarts", "Workers that were started again.", lambda load: load.restarts),
)


class _Times:
    """How long the requests of a path took."""

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.total += seconds


class Metrics(Collector):
    """The metrics of one server; nothing of them is global.

    Counted in plain numbers, for only the event loop counts, and made Prometheus's when somebody asks.

    Args:
        engines: what computes, by what it is for.
        batches: returns how many batches have not ended.

    Attributes:
        in_flight: requests that are being answered.
    """

    def __init__(self, engines: Mapping[str, EmbeddingEngine], batches: Callable[[], int]) -> None:
        self.in_flight = 0
        self._engines = engines
        self._batches = batches
        self._requests: dict[tuple[str, int], int] = {}
        self._times: dict[str, _Times] = {}
        self._tokens: dict[str, int] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def observe(self, path: str, status: int, seconds: float, *, model: str | None, tokens: int) -> None:
        """Count a request.

        Args:
            path: of the operation, so that there are as many as operations.
            status: of the response; 499 if the client hung up.
            seconds: it took.
            model: that answered.
            tokens: it took.
        """
        self._requests[path, status] = self._requests.get((path, status), 0) + 1
        times = self._times.get(path)
        if times is None:
            times = self._times[path] = _Times()
        times.add(seconds)
        if model is not None:
            self._tokens[model] = self._tokens.get(model, 0) + tokens

    def render(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics as they are now."""
        yield from self._of_requests()
        yield from self._of_engines()

    def _of_requests(self) -> Iterable[Metric]:
        requests = CounterMetricFamily("unmask_requests", "Requests that ended.", labels=["path", "status"])
        for (path, status), count in self._requests.items():
            requests.add_metric([path, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily("unmask_request_seconds", "Time to the end of an answer.", labels=["path"])
        for path, times in self._times.items():
            buckets = list(zip(_BOUNDS, accumulate(times.counts), strict=True))
            seconds.add_metric([path], buckets=buckets, sum_value=times.total)
        yield seconds
        tokens = CounterMetricFamily("unmask_tokens", "Tokens of answers.", labels=["model"])
        for model, count in self._tokens.items():
            tokens.add_metric([model], count)
        yield tokens
        yield GaugeMetricFamily("unmask_requests_in_flight", "Requests being answered.", value=self.in_flight)

    def _of_engines(self) -> Iterable[Metric]:
        loads = {name: engine.load() for name, engine in self._engines.items()}
        waiting = GaugeMetricFamily("unmask_queued_tokens", "Tokens that wait.", labels=["engine", "priority"])
        for name, load in loads.items():
            for priority, tokens in load.queued_tokens.items():
                waiting.add_metric([name, priority], tokens)
        yield waiting
        state = GaugeMetricFamily("unmask_model_ready", "1 where a model can answer at once.", labels=["model"])
        for engine in self._engines.values():
            for model in engine.served():
                state.add_metric([model.name], model.state == "ready")
        yield state
        for kind, name, about, value in _OF_LOADS:
            family = kind(name, about, labels=["engine"])
            for engine_name, load in loads.items():
                family.add_metric([engine_name], value(load))
            yield family
        yield GaugeMetricFamily("unmask_batch_jobs", "Batch jobs that have not ended.", value=self._batches())
