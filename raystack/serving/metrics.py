"""Numbers of the requests per model and version, for Prometheus.

A request costs some additions on the event loop. A thread publishes the sums every second through Ray's
metrics, which have them at each node's endpoint for Prometheus.

The buckets of a histogram are published as what Prometheus makes of them, a series per bucket. Ray's own
Histogram takes single values, and has each recorded again by the node's agent, by the middle of its bucket:
at thousands of requests in a second that would cost more than their answers.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from raystack.serving.background import Background
from raystack.serving.observers import Observed
from raystack.serving.server import Server

FLUSH_S = 1.0
"""Seconds between publications: Ray forgets a gauge that is not set again within two of its reports."""

SECONDS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0),
)
SAMPLES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

REQUESTS = "raystack_requests_total"
SERVE_REQUESTS, SERVE_ERRORS = "serve_deployment_request_counter", "serve_deployment_error_counter"
ROUTE = "/"
"""Route of an application, as Serve labels its requests."""

DESCRIPTIONS = {
    REQUESTS: "Requests by protocol and HTTP status.",
    "raystack_request_errors_total": "Requests that failed, by class of their status, 4xx or 5xx.",
    "raystack_samples_total": "Samples that were answered.",
    "raystack_request_latency_seconds": "Time from a request's arrival to its answer, unless it was refused.",
    "raystack_queue_seconds": "Time that a request waited for its forward pass.",
    "raystack_compute_seconds": "Time of a request in forward passes.",
    "raystack_batch_size": "Samples in the forward pass of a request.",
    "raystack_in_flight": "Requests that a version works on.",
    "raystack_queued": "Requests that wait for one of the model's slots.",
    "raystack_ready": "1 if a version answers requests, else 0.",
    "raystack_drift": "Population stability index of an input or output, against the data of the evaluation.",
    "raystack_payload_events_total": "Events of the payload log, by what became of them.",
    "raystack_split_weight": "Share of the requests for a version that is beside the one that is served.",
    "raystack_shadow_compared_total": "Copies of requests whose answers were compared.",
    "raystack_shadow_different_total": "Copies whose answers differ, by output.",
    "raystack_shadow_dropped_total": "Copies that were not made, because too many were being answered.",
    SERVE_REQUESTS: "The number of queries that have been processed in this replica.",
    SERVE_ERRORS: "The number of exceptions that have occurred in this replica.",
}


class Sample(NamedTuple):
    """One number now; that of a counter has grown since the start."""

    kind: Literal["counter", "gauge"]
    name: str
    labels: Mapping[str, str]
    value: float


class Histogram:
    """Counts of values by the first bound that they do not exceed."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self, name: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        """Yield what Prometheus has of a histogram."""
        ups = accumulate(self.counts)
        for bound, up in zip([*map(repr, self.bounds), "+Inf"], ups, strict=True):
            yield Sample("gauge", f"{name}_bucket", {**labels, "le": bound}, up)
        yield Sample("gauge", f"{name}_count", labels, up)
        yield Sample("gauge", f"{name}_sum", labels, self.total)


class _Series:
    """The numbers of one version."""

    __slots__ = ("answers", "batch", "compute", "latency", "queue", "samples")

    def __init__(self) -> None:
        self.answers: dict[tuple[str, int], int] = {}
        """Requests by protocol and status."""
        self.samples = 0
        self.latency, self.queue, self.compute = Histogram(SECONDS), Histogram(SECONDS), Histogram(SECONDS)
        self.batch = Histogram(SAMPLES)


Publish = Callable[[Iterable[Sample]], None]
Source = Callable[[], Iterable[Sample]]


class Metrics:
    """Observer that counts, and publishes every second, together with the samples of other `sources`."""

    def __init__(
        self,
        server: Server,
        publish: Publish,
        sources: Sequence[Source] = (),
    ) -> None:
        self._server, self._sources = server, sources
        self._series: dict[tuple[str, str], _Series] = {}
        self._background = Background("metrics", lambda: publish(self.samples()), FLUSH_S)

    def observed(self, seen: Observed) -> None:
        """Count a request."""
        name = seen.model, seen.version
        series = self._series.get(name) or self._series.setdefault(name, _Series())
        answer = seen.protocol, seen.status
        series.answers[answer] = series.answers.get(answer, 0) + 1
        if seen.status < 400 or seen.status >= 500:
            series.latency.add(seen.total_s)
        if seen.request is not None and seen.outputs is not None:
            series.samples += seen.request.batch
            series.queue.add(seen.wait_s)
            series.compute.add(seen.compute_s)
            series.batch.add(seen.batch)

    def end(self) -> None:
        """Publish a last time, and return at once."""
        self._background.end()

    def close(self) -> None:
        """Publish a last time."""
        self._background.close()

    def samples(self) -> Iterator[Sample]:
        """Yield all numbers as they are now."""
        for (model, version), series in list(self._series.items()):
            yield from _of_requests(series, {"model": model, "version": version})
        for model_ in list(self._server.models.values()):
            yield Sample("gauge", "raystack_queued", {"model": model_.name}, model_.admission.waiting)
            for name, each in list(model_.present.items()):
                labels = {"model": model_.name, "version": name}
                yield Sample("gauge", "raystack_in_flight", labels, each.ongoing)
                yield Sample("gauge", "raystack_ready", labels, int(each.ready))
        for source in self._sources:
            yield from source()


def _of_requests(series: _Series, labels: Mapping[str, str]) -> Iterator[Sample]:
    errors = {"4xx": 0, "5xx": 0}
    for (protocol, status), count in list(series.answers.items()):
        answer = {**labels, "protocol": protocol, "status": str(status)}
        yield Sample("counter", REQUESTS, answer, count)
        if status >= 400:
            errors[f"{status // 100}xx"] += count
    for name, count in errors.items():
        yield Sample("counter", "raystack_request_errors_total", {**labels, "class": name}, count)
    yield Sample("counter", "raystack_samples_total", labels, series.samples)
    yield from series.latency.samples("raystack_request_latency_seconds", labels)
    yield from series.queue.samples("raystack_queue_seconds", labels)
    yield from series.compute.samples("raystack_compute_seconds", labels)
    yield from series.batch.samples("raystack_batch_size", labels)


class RayMetrics:
    """Publishes samples as metrics of Ray Serve, which adds labels for application, deployment and replica.

    Where requests over HTTP pass `beneath` Serve's request path, Serve's own counters, which the panels of
    Ray's dashboard read, have them from here.
    """

    def __init__(self, beneath: Callable[[], bool] = lambda: False) -> None:
        self._beneath = beneath
        self._metrics: dict[str, Any] = {}
        self._published: dict[tuple[str, tuple[str, ...]], float] = {}

    def __call__(self, samples: Iterable[Sample]) -> None:
        """Publish samples."""
        for sample in samples:
            labels = dict(sample.labels)
            metric = self._metric(sample.kind, sample.name, tuple(labels))
            if sample.kind == "gauge":
                metric.set(sample.value, labels)
                continue
            key = sample.name, tuple(labels.values())
            grown = sample.value - self._published.get(key, 0.0)
            if grown > 0:
                metric.inc(grown, labels)
                self._published[key] = sample.value
                if sample.name == REQUESTS and labels["protocol"] != "grpc" and self._beneath():
                    self._count_for_serve(grown, int(labels["status"]))

    def _count_for_serve(self, requests: float, status: int) -> None:
        route = {"route": ROUTE}
        self._metric("counter", SERVE_REQUESTS, tuple(route)).inc(requests, route)
        if status >= 500:
            error = {**route, "exception_type": "RequestError"}
            self._metric("counter", SERVE_ERRORS, tuple(error)).inc(requests, error)

    def _metric(self, kind: str, name: str, keys: tuple[str, ...]) -> Any:
        if name not in self._metrics:
            from ray.serve import metrics  # the rest of this room is used without Ray

            make: Any = metrics.Counter if kind == "counter" else metrics.Gauge
            family = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
            self._metrics[name] = make(name, DESCRIPTIONS[family], keys)
        return self._metrics[name]
