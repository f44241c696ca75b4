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

_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""Characters that stand for themselves in a header's value."""


class Event(NamedTuple):
    """One event. `data` is JSON-ready or holds arrays; floats that are no numbers become null."""

    attributes: Mapping[str, str]
    data: Any


def event(
    kind: str, source: str, identity: str, at: float, data: Any, extensions: Mapping[str, str | None]
) -> Event:
    """Return an event of type `kind` at `at`, in seconds since the epoch.

    `source` and `identity` together are the event's own. Extensions without a value are left out.
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
    return Event({**attributes, **{name: value for name, value in extensions.items() if value}}, data)


def to_json(event: Event) -> bytes:
    """Return the event as one JSON object, without a line break."""
    return orjson.dumps({**event.attributes, "data": event.data}, option=orjson.OPT_SERIALIZE_NUMPY)


def to_body(event: Event) -> bytes:
    """Return the data alone as JSON."""
    return orjson.dumps(event.data, option=orjson.OPT_SERIALIZE_NUMPY)


def to_batch(events: Iterable[bytes]) -> bytes:
    """Return a JSON array of events that are JSON already."""
    return b"[" + b",".join(events) + b"]"


def to_headers(event: Event) -> dict[str, str]:
    """Return the headers of an event whose body is its data alone."""
    headers = {
        f"ce-{name}": quote(value, safe=_PLAIN)
        for name, value in event.attributes.items()
        if name != "datacontenttype"
    }
    return {**headers, "content-type": event.attributes["datacontenttype"]}
