"""Steps of an automation -> CloudEvents for a file, a URL such as a Knative broker's, and Dapr's pub/sub.

A receiver that is away gets them later, also from a later process; one step has the same id each time.
"""

from pathlib import Path

from raystack.config.automation import Events
from raystack.config.secret import resolve
from raystack.rollout.automation.record import Entry, Record
from raystack.serving import cloudevents
from raystack.serving.cloudevents import Event
from raystack.serving.sinks import Delivery, FileSink, HttpSink, Sink

KIND = "io.raystack.automation"
"""Type of an event, before a dot and the step."""
FILE_BYTES, FILES = 10_000_000, 5
"""Size of a file of events, and how many full ones are kept. The audit has everything."""
FIRST = 1000
"""Most steps that a receiver gets at the start because it did not get them before."""


class Teller:
    """Tells all receivers of each step, in order."""

    def __init__(self, config: Events, name: str, record: Record) -> None:
        self._name, self._record = name, record
        self._deliveries = [Delivery(sink, "automation") for sink in _sinks(config, name)]
        self._told = self._last = record.told()
        if self._deliveries:
            for entry in record.entries(self._told)[-FIRST:]:
                self.tell(entry)

    def tell(self, entry: Entry) -> None:
        """Have a step be told."""
        event = to_event(self._name, entry)
        for delivery in self._deliveries:
            delivery.pending.append(event)
        self._last = max(self._last, entry.at)

    def deliver(self, *, last: bool = False) -> None:
        """Send what waits. After the `last` attempt a later process does."""
        there = [delivery.deliver() for delivery in self._deliveries]
        for delivery in self._deliveries:
            delivery.tell(last=last)
        if self._deliveries and all(there) and self._last > self._told:
            self._told = self._last
            self._record.tell(self._told)


def to_event(name: str, entry: Entry) -> Event:
    """Return the event of a step."""
    data = {"automation": name, "round": entry.round, "step": entry.step, "what": entry.what}
    source, subject = f"/automation/{name}", {"subject": entry.round}
    return cloudevents.event(
        f"{KIND}.{entry.step}", source, entry.id, entry.at, {**data, **entry.numbers}, subject
    )


def _sinks(config: Events, name: str) -> list[Sink]:
    sinks: list[Sink] = []
    if config.to is not None and "://" in config.to:
        token = resolve(config.token) if config.token is not None else None
        sinks.append(HttpSink(config.to, "structured", token))
    elif config.to is not None:
        sinks.append(FileSink(Path(config.to, f"{name}.automation.jsonl"), FILE_BYTES, FILES))
    if (dapr := config.dapr) is not None:
        url = f"{dapr.url.rstrip('/')}/v1.0/publish/{dapr.pubsub}/{dapr.topic}"
        sinks.append(HttpSink(url, "structured", None))
    return sinks
