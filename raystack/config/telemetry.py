"""What is observed of a served model: its metrics and traces, payloads, and drift of its data."""

import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from raystack.config.secret import Secret, no_password
from raystack.config.section import Fraction, Section, Text

_TRACES_PATH = "/v1/traces"
"""Where a collector takes spans, as OTLP says."""


def _collector(url: str) -> str:
    """Return the URL of a collector with the path for spans, unless it has one."""
    parts = urlsplit(http_url(url))
    return url if parts.path.strip("/") else parts._replace(path=_TRACES_PATH).geturl()


def http_url(url: str) -> str:
    """Return a URL of HTTP as it is. Raise ValueError if it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("should be a URL that begins with http:// or https://")
    return no_password(url)


def _sink(place: str) -> str:
    """Return a folder as an absolute path, and a URL as it is."""
    if "://" in place:
        return http_url(place)
    return os.path.abspath(os.path.expanduser(place))


Sink = Annotated[Text, AfterValidator(_sink)]
"""Folder, or URL of a sink for CloudEvents."""


class Telemetry(Section):
    """Metrics and traces of the requests."""

    metrics: bool = True
    """Metrics per model and version, at Ray's own endpoints for Prometheus."""

    otlp: Annotated[Text, AfterValidator(_collector)] | None = None
    """URL of an OpenTelemetry collector that takes OTLP over HTTP, e.g. `http://collector:4318`: it gets a
    span of each request that is traced. Needs the extra `otlp`. Not set: no spans.
    """

    trace_ratio: Fraction = 0.01
    """Fraction of the requests without a `traceparent` that are traced. With one, its flag decides."""


class Payloads(Section):
    """A log of requests and answers, as CloudEvents."""

    to: Sink | None = None
    """Folder for files of JSON lines, one per replica, or `http://` or `https://` URL of a sink. Not set: no
    log.
    """

    token: Secret | None = None
    """Reference to a bearer token for the sink."""

    mode: Literal["batch", "structured", "binary"] = "batch"
    """CloudEvents' way over HTTP: several events as one JSON array, an event as JSON, or an event as headers
    with its data as the body.
    """

    log: Literal["all", "request", "response"] = "all"
    """What is logged of a request."""

    sample: Fraction = 1.0
    """Fraction of the requests that are logged."""

    errors: bool = True
    """Log each request that fails, whatever `sample` is."""

    exclude: list[Text] = Field(default=[])
    """Names of inputs and outputs whose values are left out."""

    max_kb: PositiveFloat = 64.0
    """Kilobytes (10^3 bytes) of tensors in one payload; values of the largest ones beyond it are left out."""

    queue_mb: PositiveFloat = 64.0
    """Megabytes (10^6 bytes) of tensors that wait for the sink; more are dropped and counted."""

    rotate_mb: PositiveFloat = 100.0
    """Megabytes (10^6 bytes) of a file; then the next one is begun."""

    keep: PositiveInt = 5
    """Number of full files that are kept for each replica."""


class Drift(Section):
    """Comparison of a version's requests and answers with the data that it was evaluated on."""

    enabled: bool = True
    """Compare, if the version has statistics of its data."""

    sample: Fraction = 0.1
    """Fraction of the requests that are looked at, as far as their tensors come to 32 MB at a time."""

    window_s: PositiveFloat = 600.0
    """Seconds that are compared: a window that slides by a tenth of it."""

    min_samples: PositiveInt = 500
    """Number of samples in the window that are enough to compare."""

    threshold: PositiveFloat = 0.25
    """Population stability index of an input or output from which its data has drifted. 0.1 is usually called
    a small shift, 0.25 a large one.
    """

    to: Sink | None = None
    """Folder or URL for the events of drift. Not set: `payloads.to`, or only the log."""
