"""Spans: whose trace they are in, which requests have them, and that a collector reads them."""

from collections.abc import Callable, Iterator

import pytest
from observing import Noted, answered, failed, noting, until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from raystack.serving import tracing
from raystack.serving.observers import Observed
from raystack.serving.tracing import Tracing, otlp

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def collector() -> Iterator[Noted]:
    with noting() as found:
        yield found


@pytest.fixture
def exported(collector: Noted) -> Callable[..., list[Span]]:
    """Traces requests, and returns the spans that the collector has at the end."""

    def export(*seen: Observed, ratio: float = 0.0) -> list[Span]:
        made = Tracing(otlp(collector.url), ratio, "replica-1")
        for each in seen:
            made.observed(each)
        made.close()
        return spans(collector)

    return export


def spans(collector: Noted) -> list[Span]:
    requests = [ExportTraceServiceRequest.FromString(post.body) for post in collector.posts]
    return [
        span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def milliseconds(span: Span) -> tuple[float, float]:
    """Begin and end of a span, counted from the arrival of the request."""
    began = 1_700_000_000_250_000_000
    return (span.start_time_unix_nano - began) / 1e6, (span.end_time_unix_nano - began) / 1e6


def test_a_request_is_a_child_of_its_client_and_has_its_wait_and_its_computation(
    exported: Callable[..., list[Span]], collector: Noted
) -> None:
    seen = answered(trace=SAMPLED, headers={"tracestate": "vendor=7"})
    found = {span.name: span for span in exported(seen)}
    assert found.keys() == {"infer demo", "queue", "compute"}
    request, queue, compute = (found[name] for name in ("infer demo", "queue", "compute"))
    assert {span.trace_id.hex() for span in found.values()} == {TRACE}
    assert (request.parent_span_id.hex(), request.trace_state) == (PARENT, "vendor=7")
    assert {queue.parent_span_id, compute.parent_span_id} == {request.span_id}
    assert request.kind == Span.SPAN_KIND_SERVER
    began = 1_700_000_000_250_000_000
    times = [
        (span.start_time_unix_nano - began, span.end_time_unix_nano - began)
        for span in (request, queue, compute)
    ]
    expected = [(0, 8_000_000), (2_000_000, 4_000_000), (4_000_000, 8_000_000)]
    assert times == [pytest.approx(each, abs=1000) for each in expected]
    attributes = {each.key: each.value for each in request.attributes}
    assert attributes["raystack.version"].string_value == "3"
    assert attributes["http.response.status_code"].int_value == 200
    resource = ExportTraceServiceRequest.FromString(collector.posts[0].body).resource_spans[0].resource
    names = {each.key: each.value.string_value for each in resource.attributes}
    assert (names["service.name"], names["service.instance.id"]) == ("raystack", "replica-1")


@pytest.mark.parametrize(
    ("trace", "ratio", "count"),
    [
        (SAMPLED, 0.0, 1),
        (NOT_SAMPLED, 1.0, 0),
        (None, 0.0, 0),
        (None, 1.0, 1),
        ("nonsense-1", 0.0, 0),
        ("nonsense-1", 1.0, 1),
        (f"00-{'0' * 32}-{PARENT}-01", 0.0, 0),
        (f"01-{TRACE}-{PARENT}-03-more", 0.0, 1),
    ],
    ids=[
        "sampled",
        "not sampled",
        "none",
        "none, all",
        "nonsense",
        "nonsense, all",
        "no trace id",
        "later version",
    ],
)
def test_the_clients_flag_decides_and_else_the_ratio(
    exported: Callable[..., list[Span]], trace: str | None, ratio: float, count: int
) -> None:
    found = [span for span in exported(answered(trace=trace), ratio=ratio) if span.name == "infer demo"]
    assert len(found) == count


def test_a_request_without_a_trace_begins_one(exported: Callable[..., list[Span]]) -> None:
    found = exported(answered(), answered(), ratio=1.0)
    roots = [span for span in found if not span.parent_span_id]
    assert len(roots) == len({span.trace_id for span in roots}) == 2


def test_a_failure_of_the_model_is_an_error_and_a_refusal_is_none(
    exported: Callable[..., list[Span]],
) -> None:
    refused, broken = exported(failed(400), failed(500, error="the model failed, id 7"), ratio=1.0)
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert (broken.status.code, broken.status.message) == (Status.STATUS_CODE_ERROR, "the model failed, id 7")


def test_a_collector_that_fails_at_first_gets_the_spans_and_is_told_of_once(
    collector: Noted, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setattr(tracing, "PERIOD_S", 0.01)
    collector.statuses = [503] * 3
    made = Tracing(otlp(collector.url), 1.0, "replica-1")
    made.observed(answered())
    until(lambda: len(spans(collector)) == 3)
    made.close()
    assert len(caplog.records) == 1


def test_requests_that_wait_hold_no_tensors_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PERIOD_S", 3600.0)
    kept = InMemorySpanExporter()
    made = Tracing(kept, 1.0, "replica-1")
    for _ in range(3000):
        made.observed(answered())
    waiting = [each for each, _ in made._waiting._queue]
    assert len(waiting) == tracing.MOST
    assert waiting[0].seen.request is None
    assert waiting[0].seen.outputs is None
    made.close()
    assert len([span for span in kept.get_finished_spans() if span.name == "compute"]) == tracing.MOST


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from raystack.errors import ConfigError

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(
        ConfigError, match=r"serving.telemetry.otlp: it needs .*pip install 'raystack-ml\[otlp\]'"
    ):
        otlp("http://127.0.0.1:4318/v1/traces")
