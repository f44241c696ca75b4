"""Events of CloudEvents 1.0: their attributes, their form as JSON, and their form over HTTP.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, with its JSON format and HTTP binding.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

JSON = "application/json"
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"

DRIFT_DETECTED, DRIFT_ENDED = "io.raystack.drift.detected", "io.raystack.drift.ended"
"""Types of the events of an input or output that has drifted, and is back."""

_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""Characters that stand for themselves in a header's value."""


class Event(NamedTuple):
    """One event."""

    attributes: Mapping[str, str]
    data: bytes
    """As JSON."""
    json: bytes
    """The whole event, without a line break."""


def event(
    kind: str, source: str, identity: str, at: float, data: Any, extensions: Mapping[str, str | None]
) -> Event:
    """Return an event of type `kind` at `at`, in seconds since the epoch.

    `source` and `identity` together are the event's own. `data` is JSON-ready or holds arrays; floats that
    are no numbers become null. Extensions without a value are left out. Raises TypeError for what is no JSON.
    """
    time = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    attributes = {
        "specversion": "1.0",
        "id": identity,
        "source": source,
        "type": kind,
        "time": time,
        "datacontenttype": JSON,
    }
    attributes |= {name: value for name, value in extensions.items() if value}
    body = orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)
    return Event(attributes, body, orjson.dumps({**attributes, "data": orjson.Fragment(body)}))


def to_batch(events: Iterable[Event]) -> bytes:
    """Return a JSON array of events."""
    return b"[" + b",".join(event.json for event in events) + b"]"


def to_headers(event: Event) -> dict[str, str]:
    """Return the headers of an event whose body is its data alone."""
    headers = {
        f"ce-{name}": quote(value, safe=_PLAIN)
        for name, value in event.attributes.items()
        if name != "datacontenttype"
    }
    return {**headers, "content-type": event.attributes["datacontenttype"]}
