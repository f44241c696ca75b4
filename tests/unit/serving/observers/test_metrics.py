"""Metrics of requests: what is counted, what it costs, and what Prometheus makes of it."""

import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from observing import answered, failed, server, until

from raystack.serving import metrics as metrics_module
from raystack.serving.metrics import DESCRIPTIONS, SECONDS, Metrics, RayMetrics, Sample
from raystack.serving.server import Server

NAME = re.compile(r"ray_(raystack_\w+)")


class Published:
    """Keeps the last publication."""

    def __init__(self) -> None:
        self.times = 0
        self.samples: list[Sample] = []

    def __call__(self, samples: Iterable[Sample]) -> None:
        self.samples = list(samples)
        self.times += 1

    def value(self, name: str, **labels: str) -> float:
        """The only number under a name with these labels."""
        (found,) = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return found


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def serving() -> Server:
    return server()


@pytest.fixture
def metrics(serving: Server, published: Published) -> Iterator[Metrics]:
    made = Metrics(serving, published)
    yield made
    made.close()


def test_requests_are_counted_by_protocol_and_status_and_failures_by_class(
    metrics: Metrics, published: Published
) -> None:
    for seen in (answered(), answered(), answered(protocol="grpc"), failed(400), failed(429), failed(500)):
        metrics.observed(seen)
    metrics.close()
    count = published.value
    assert count("raystack_requests_total", model="demo", version="3", protocol="rest", status="200") == 2
    assert count("raystack_requests_total", protocol="grpc") == 1
    assert count("raystack_request_errors_total", **{"class": "4xx"}) == 2
    assert count("raystack_request_errors_total", **{"class": "5xx"}) == 1
    assert count("raystack_samples_total") == 3


def test_a_histogram_is_what_prometheus_makes_of_one(metrics: Metrics, published: Published) -> None:
    for milliseconds in range(1, 101):
        metrics.observed(answered(total_s=milliseconds / 1000))
    metrics.observed(answered(total_s=31.0))
    metrics.observed(failed(429, total_s=0.0001))
    metrics.close()
    name = "raystack_request_latency_seconds"
    assert published.value(f"{name}_bucket", le="0.05") == 50, "a bound is in its bucket"
    assert published.value(f"{name}_bucket", le="30.0") == 100
    assert published.value(f"{name}_bucket", le="+Inf") == published.value(f"{name}_count") == 101
    assert published.value(f"{name}_sum") == pytest.approx(5.05 + 31)
    buckets = [sample for sample in published.samples if sample.name == f"{name}_bucket"]
    assert [bucket.labels["le"] for bucket in buckets] == [*map(repr, SECONDS), "+Inf"]
    assert [bucket.value for bucket in buckets] == sorted(bucket.value for bucket in buckets)


def test_queue_compute_and_batch_are_those_of_answered_requests(
    metrics: Metrics, published: Published
) -> None:
    metrics.observed(answered(wait_s=0.3, compute_s=0.7, batch=8))
    metrics.observed(failed(400))
    metrics.close()
    assert published.value("raystack_queue_seconds_sum") == 0.3
    assert published.value("raystack_compute_seconds_count") == 1
    assert published.value("raystack_batch_size_bucket", le="8.0") == 1
    assert published.value("raystack_batch_size_bucket", le="4.0") == 0


def test_what_is_in_flight_and_queued_is_read_from_the_server(
    metrics: Metrics, published: Published, serving: Server
) -> None:
    with serving.models["demo"].versions["3"]:
        until(lambda: published.times)
        metrics.close()
    assert published.value("raystack_in_flight", model="demo", version="3") == 1
    assert published.value("raystack_queued", model="demo") == 0
    assert published.value("raystack_ready", version="3") == 1


def test_a_publication_that_fails_is_told_once_and_the_next_one_comes(
    serving: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raystack.serving.metrics.FLUSH_S", 0.01)
    times = []

    def broken(samples: Iterable[Sample]) -> None:
        times.append(list(samples))
        raise RuntimeError("no agent")

    made = Metrics(serving, broken)
    until(lambda: len(times) > 3)
    made.close()
    assert [record.message for record in caplog.records] == ["metrics of the served model failed"]


def test_an_observed_request_costs_microseconds(metrics: Metrics) -> None:
    seen, best = answered(), 1.0
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(1000):
            metrics.observed(seen)
        best = min(best, (time.perf_counter() - began) / 1000)
    assert best < 20e-6, "some 1 microsecond on a machine that does nothing else"


Records = list[tuple[str, float, dict[str, str]]]


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Records:
    """What Ray's metrics are told: name, value and labels."""
    from ray.util import metrics as ray_metrics

    told: Records = []

    def record(self: ray_metrics.Metric, value: float, tags: dict[str, str]) -> None:
        told.append((self.info["name"], value, dict(tags)))

    monkeypatch.setattr(ray_metrics.Metric, "_record", record)
    return told


def test_ray_gets_what_a_counter_has_grown_by(records: Records) -> None:
    publish = RayMetrics()
    for total, waiting in ((3, 5), (3, 0), (7, 0)):
        publish(
            [
                Sample("counter", "raystack_samples_total", {"model": "demo"}, total),
                Sample("gauge", "raystack_queued", {"model": "demo"}, waiting),
            ]
        )
    labels = {"model": "demo"}
    assert [each for each in records if each[0] == "raystack_samples_total"] == [
        ("raystack_samples_total", 3, labels),
        ("raystack_samples_total", 4, labels),
    ]
    assert [value for name, value, _ in records if name == "raystack_queued"] == [5, 0, 0]


@pytest.mark.parametrize("beneath", [True, False])
def test_serves_own_counters_have_the_requests_that_serve_does_not_see(
    records: Records, beneath: bool
) -> None:
    publish = RayMetrics(lambda: beneath)
    labels = {"model": "demo", "version": "3"}
    publish(
        Sample("counter", "raystack_requests_total", {**labels, "protocol": protocol, "status": status}, 2)
        for protocol, status in (("rest", "200"), ("v1", "400"), ("rest", "500"), ("grpc", "200"))
    )
    requests = [value for name, value, _ in records if name == "serve_deployment_request_counter"]
    errors = [value for name, value, _ in records if name == "serve_deployment_error_counter"]
    assert (sum(requests), sum(errors)) == ((6, 2) if beneath else (0, 0))


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    panels = json.loads(Path(metrics_module.__file__).with_name("grafana.json").read_text())["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in NAME.findall(target["expr"])}
    ours = {name for name in DESCRIPTIONS if name.startswith("raystack_")} - {"raystack_samples_total"}
    assert {name.removesuffix("_bucket") for name in asked} == ours - {"raystack_ready"}
