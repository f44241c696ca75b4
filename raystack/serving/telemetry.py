"""The observers of a replica, as the config has them."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from raystack.config.secret import resolve
from raystack.config.serving import Serving
from raystack.config.telemetry import Payloads, Telemetry
from raystack.errors import ConfigError, Problem, nearest
from raystack.serving.drift import DriftWatch
from raystack.serving.front import Front
from raystack.serving.metrics import Metrics, RayMetrics, Source
from raystack.serving.observers import Watcher
from raystack.serving.payloads import PayloadLog
from raystack.serving.server import Server
from raystack.serving.sinks import Delivery, FileSink, HttpSink, Sink

logger = logging.getLogger(__name__)


def observers(
    serving: Serving, server: Server, replica: str, sources: Sequence[Source] = ()
) -> list[Watcher]:
    """Return the observers for `server.observers`, which whoever made them ends.

    `replica` is a name that no other replica has; `sources` have further samples for Prometheus. Raises
    ConfigError if a secret is missing, or the package that traces need, or if what is to be left out of
    payloads is nothing that the models have.
    """
    payloads, drift, telemetry = serving.payloads, serving.drift, serving.telemetry
    _check_excluded(payloads.exclude, server)
    file, about_drift = f"{serving.name}-{replica}", drift.to or payloads.to
    logged = _sink(payloads.to, payloads, file) if payloads.to is not None else None
    told = _sink(about_drift, payloads, f"{file}.drift") if about_drift is not None else None
    traces = _traces(telemetry, replica) if telemetry.otlp is not None else None
    # Nothing raises from here on: each has a thread that would be left.
    watchers: list[Watcher] = [] if traces is None else [traces()]
    metered = list(sources)
    if logged is not None:
        log = PayloadLog(payloads, logged)
        metered.append(log.samples)
        watchers.append(log)
    if drift.enabled:
        watch = DriftWatch(drift, server, Delivery(told, "drift") if told is not None else None)
        metered.append(watch.samples)
        watchers.append(watch)
    if telemetry.metrics:
        watchers.append(Metrics(server, RayMetrics(lambda: Front.mounted), metered))
    return watchers


def watched(
    before: Sequence[Watcher],
    serving: Serving,
    server: Server,
    replica: str,
    *,
    first: bool,
    sources: Sequence[Source] = (),
) -> list[Watcher]:
    """Have a server's requests observed as the settings say now; return the observers, in place of `before`.

    Later settings that cannot be met are logged, and what was observed before still is. Raises ConfigError as
    `observers` does if they are the first.
    """
    try:
        watchers = observers(serving, server, replica, sources)
    except ConfigError as error:
        if first:
            raise
        logger.error("%s; requests are observed as before", error)
        return list(before)
    server.observers = list(watchers)
    for watcher in before:
        watcher.end()
    return watchers


def end(watchers: Iterable[Watcher]) -> None:
    """End all of them; what is left is done within some seconds, in which they work side by side."""
    watchers = list(watchers)
    for watcher in watchers:
        watcher.end()
    for watcher in watchers:
        watcher.close()


def _traces(telemetry: Telemetry, replica: str) -> Callable[[], Watcher]:
    """Return what begins to trace."""
    from raystack.serving.tracing import Tracing, otlp  # the libraries take time that a start has not

    assert telemetry.otlp is not None
    return partial(Tracing, otlp(telemetry.otlp), telemetry.trace_ratio, replica)


def _check_excluded(names: Iterable[str], server: Server) -> None:
    """Raise ConfigError for names that are none of an input or output: their values would be logged."""
    contracts = [version.contract for model in server.models.values() for version in model.versions.values()]
    known = sorted({name for contract in contracts for name in (*contract.inputs, *contract.outputs)})
    problems = []
    for name in names:
        if name not in known:
            close = nearest(name, known)
            remedy = f"did you mean '{close}'?" if close else f"there are: {', '.join(known)}"
            rule = "the model has no input or output of this name"
            problems.append(Problem("serving.payloads.exclude", rule=rule, got=name, remedy=remedy))
    if problems:
        raise ConfigError(problems)


def _sink(to: str, config: Payloads, name: str) -> Sink:
    """Return the sink at a URL, or for a file `name` in a folder."""
    if "://" in to:
        token = resolve(config.token) if config.token is not None else None
        return HttpSink(to, config.mode, token)
    file = re.sub(r"[^\w.-]", "-", name) + ".jsonl"
    return FileSink(Path(to, file), int(config.rotate_mb * 1e6), config.keep)
