"""Spans of the requests for an OpenTelemetry collector, in the trace that the client names.

The W3C's `traceparent` and `tracestate` say which trace, and whether it is sampled; a request without them
begins a trace, sampled by a ratio. A request's span has two others in it: its wait and its computation. They
are made after the answer, in a thread, and sent in batches.

Ray Serve has spans of its own, `TracingConfig`: they are made on its request path, which a request to
raystack's endpoint does not take, and by a provider that is the whole process's.
"""

import logging
import re
from random import random
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from raystack import __version__
from raystack.errors import ConfigError, Problem
from raystack.serving.background import Background, Waiting
from raystack.serving.observers import Observed
from raystack.serving.sinks import TELL_S

PERIOD_S = 0.5
"""Seconds between two looks at the requests."""
MOST = 2048
"""Most requests that wait."""
SPANS = 3
"""Spans of a request."""

_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f](?P<flag>[0-9a-f])(-.*)?"
)
"""A valid `traceparent`. With any other a request begins a trace, as the W3C says."""
_SAMPLED = frozenset("13579bdf")
"""Last digits of the flags of which the first bit is set."""


class _Traced(NamedTuple):
    """What is kept of a request, without its tensors."""

    seen: Observed
    carrier: dict[str, str]
    """Its headers of trace context."""


class Tracing:
    """Observer that makes spans of the requests that are sampled."""

    def __init__(self, exporter: SpanExporter, ratio: float, replica: str) -> None:
        self._ratio = ratio
        resource = Resource.create(
            {"service.name": "raystack", "service.version": __version__, "service.instance.id": replica}
        )
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=SPANS * MOST))
        self._tracer = self._provider.get_tracer("raystack", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._waiting: Waiting[_Traced] = Waiting(MOST, MOST)
        self._background = Background("traces", self._work, PERIOD_S)

    def observed(self, seen: Observed) -> None:
        """Trace a request if its client does, or if it is one of the sample."""
        parent = _PARENT.fullmatch(seen.trace) if seen.trace is not None else None
        if (parent["flag"] not in _SAMPLED) if parent is not None else (random() >= self._ratio):
            return
        carrier = {} if seen.trace is None else {"traceparent": seen.trace}
        if seen.headers is not None and "tracestate" in seen.headers:
            carrier["tracestate"] = seen.headers["tracestate"]
        self._waiting.put(_Traced(seen._replace(request=None, outputs=None, headers=None), carrier), 1)

    def end(self) -> None:
        """Send what waits, and return at once."""
        self._background.end()

    def close(self) -> None:
        """Send what waits, within some seconds."""
        self._background.close()

    def _work(self) -> None:
        while (traced := self._waiting.take()) is not None:
            self._make(traced.seen, traced.carrier)
        if self._background.ending.is_set():
            self._provider.shutdown()

    def _make(self, seen: Observed, carrier: dict[str, str]) -> None:
        began, ended = _ns(seen.started), _ns(seen.started + seen.total_s)
        attributes: dict[str, str | int] = {
            "raystack.model": seen.model,
            "raystack.version": seen.version,
            "raystack.protocol": seen.protocol,
            "http.response.status_code": seen.status,
        }
        if seen.id:
            attributes["raystack.request.id"] = seen.id
        if seen.batch:
            attributes["raystack.batch_size"] = seen.batch
        span = self._tracer.start_span(
            f"infer {seen.model}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=began,
        )
        inside, computes = trace.set_span_in_context(span), ended - _ns(seen.compute_s)
        if seen.compute_s:
            waits = max(began, computes - _ns(seen.wait_s))
            self._tracer.start_span("queue", context=inside, start_time=waits).end(computes)
            self._tracer.start_span("compute", context=inside, start_time=computes).end(ended)
        if seen.status >= 500:
            span.set_status(Status(StatusCode.ERROR, seen.error))
        span.end(ended)


def otlp(url: str) -> SpanExporter:
    """Return what sends spans to a collector, by OTLP over HTTP; it reads OTEL_EXPORTER_OTLP_HEADERS.

    Raises ConfigError if the package for it is missing.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigError(
            Problem(
                "serving.telemetry.otlp",
                rule="it needs the package opentelemetry-exporter-otlp-proto-http",
                remedy="pip install 'raystack-ml[otlp]'",
            )
        ) from None
    # A collector that is away would be told of four times with each batch.
    logging.getLogger(OTLPSpanExporter.__module__).addFilter(_Seldom())
    return OTLPSpanExporter(url)


class _Seldom:
    """Lets a message pass once in a minute."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record passes."""
        passes = record.created - self._last >= TELL_S
        if passes:
            self._last = record.created
        return passes


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
