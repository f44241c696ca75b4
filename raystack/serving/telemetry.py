"""The observers of a replica, as the config has them."""

import re
from collections.abc import Iterable
from pathlib import Path

from raystack.config.secret import resolve
from raystack.config.serving import Serving
from raystack.config.telemetry import Payloads
from raystack.serving.drift import DriftWatch
from raystack.serving.metrics import Metrics, RayMetrics
from raystack.serving.observers import Watcher
from raystack.serving.payloads import PayloadLog
from raystack.serving.server import Server
from raystack.serving.sinks import Delivery, FileSink, HttpSink, Sink


def observers(serving: Serving, server: Server, replica: str) -> list[Watcher]:
    """Return the observers for `server.observers`, which whoever made them ends.

    `replica` is a name that no other replica has. Raises ConfigError if a secret is missing, or the package
    that traces need.
    """
    metered, watchers = [], list[Watcher]()
    payloads, drift, telemetry = serving.payloads, serving.drift, serving.telemetry
    if payloads.to is not None:
        log = PayloadLog(payloads, _sink(payloads.to, payloads, f"{serving.name}-{replica}"))
        metered.append(log.samples)
        watchers.append(log)
    if drift.enabled:
        to = drift.to or payloads.to
        sink = _sink(to, payloads, f"{serving.name}-{replica}.drift") if to is not None else None
        watch = DriftWatch(drift, server, Delivery(sink, "drift") if sink is not None else None)
        metered.append(watch.samples)
        watchers.append(watch)
    if telemetry.metrics:
        watchers.append(Metrics(server, RayMetrics(replica), metered))
    if telemetry.otlp is not None:
        from raystack.serving.tracing import Tracing, otlp  # the libraries take time that a start has not

        watchers.append(Tracing(otlp(telemetry.otlp), telemetry.trace_ratio, replica))
    return watchers


def end(watchers: Iterable[Watcher]) -> None:
    """End all of them; what is left is done within some seconds, in which they work side by side."""
    watchers = list(watchers)
    for watcher in watchers:
        watcher.end()
    for watcher in watchers:
        watcher.close()


def _sink(to: str, config: Payloads, name: str) -> Sink:
    """Return the sink at a URL, or for a file `name` in a folder."""
    if "://" in to:
        token = resolve(config.token) if config.token is not None else None
        return HttpSink(to, config.mode, token)
    file = re.sub(r"[^\w.-]", "-", name) + ".jsonl"
    return FileSink(Path(to, file), int(config.rotate_mb * 1e6), config.keep)
