"""What may begin a training: events of drift in files, its indices among metrics, a schedule, and data."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import requests

from raystack.config.automation import Automation, OnDrift
from raystack.errors import RaystackError
from raystack.plan.automation import last_firing
from raystack.rollout.automation.rounds import Drifted, Seen
from raystack.serving.cloudevents import DRIFT_DETECTED, DRIFT_ENDED
from raystack.storage import FileInfo, Storage

ANSWER_S = 5.0
"""Seconds that metrics may take to come."""
METRIC_BYTES = 32_000_000
"""Largest page of metrics that is read."""
FILE_BYTES = 256_000_000
"""Largest file of events that is read; `serving.payloads.rotate_mb` keeps them smaller."""

_KIND = re.compile(f"{re.escape(DRIFT_DETECTED)}|{re.escape(DRIFT_ENDED)}".encode())
_INDEX = re.compile(r"^(?:ray_)?raystack_drift\{(?P<labels>.*)\} (?P<value>[-+.\deE]+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ROTATED = re.compile(r"(\.jsonl)\.\d+$")

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class Change(NamedTuple):
    """Drift that was detected, or has ended."""

    at: float
    key: str
    """Version and tensor."""
    replica: str
    detected: bool
    what: str
    window_s: float
    """Seconds of requests that are compared."""


class Sources:
    """The sources of one automation. One that is away is reported once, and has nothing meanwhile."""

    def __init__(self, automation: Automation) -> None:
        self._triggers, self._timezone = automation.triggers, automation.timezone
        self._files: dict[str, tuple[FileInfo, list[Change]]] = {}
        self._away: dict[str, str] = {}

    def look(self, now: float) -> Seen:
        """Look at all of them."""
        drift, schedule, data = self._triggers.drift, self._triggers.schedule, self._triggers.data
        drifted: tuple[Drifted, ...] = ()
        if drift is not None:
            drifted = self._try("drift", lambda: tuple(self._drifted(drift)), ())
        fired = last_firing(schedule, self._timezone, now) if schedule is not None else None
        mark = None
        if data is not None:
            mark = self._try("data", lambda: fingerprint(Storage(data.url).found()), None)
        return Seen(drifted, fired, mark)

    def changes(self, url: str) -> list[Change]:
        """Return the events of drift in files, in the order of their times. A file is read if it changed."""
        found = Storage(url).found()
        for place, info in found.items():
            known = self._files.get(place)
            if (known is None or known[0] != info or not info.mark) and info.bytes <= FILE_BYTES:
                self._files[place] = info, list(read_changes(place))
        self._files = {place: each for place, each in self._files.items() if place in found}
        return sorted(change for _, changes in self._files.values() for change in changes)

    def _drifted(self, drift: OnDrift) -> Iterable[Drifted]:
        if drift.metrics is not None:
            return indices(_metrics(drift.metrics), drift.threshold)
        assert drift.events is not None
        return still_drifted(self.changes(drift.events))

    def _try(self, name: str, look: Callable[[], Result], otherwise: Result) -> Result:
        try:
            found = look()
        except (RaystackError, OSError) as error:  # of requests, too
            if self._away.get(name) != str(error):
                logger.warning("automation.triggers.%s: %s", name, error)
            self._away[name] = str(error)
            return otherwise
        self._away.pop(name, None)
        return found


def fingerprint(files: Mapping[str, FileInfo]) -> str:
    """Return a value that changes when a file comes, changes or goes."""
    digest = hashlib.sha256()
    for place, info in sorted(files.items()):
        digest.update(f"{place}\0{info.bytes}\0{info.mark}\n".encode())
    return digest.hexdigest()


def read_changes(place: str) -> Iterator[Change]:
    """Yield the events of drift in a file of JSON lines; other lines, and a torn last one, are left out."""
    replica = _ROTATED.sub(r"\1", place)
    with Storage(place).open() as file:
        for line in file:
            if _KIND.search(line) and (change := _change(line, replica)) is not None:
                yield change


def _change(line: bytes, replica: str) -> Change | None:
    try:
        event = json.loads(line)
        data: Mapping[str, Any] = event["data"]
        side = "input" if "input" in data else "output"
        tensor = f"{side} '{data[side]}'"
        what = f"{tensor} of {data['model']}, version {data['version']}: stability index {data['index']:.3g}"
        at = datetime.fromisoformat(event["time"]).timestamp()
        detected = event["type"] == DRIFT_DETECTED
        window_s = float(data.get("window_s", 0.0))
        return Change(at, f"{event['source']} {tensor}", replica, detected, what, window_s)
    except (ValueError, KeyError, TypeError):
        return None


def still_drifted(changes: Iterable[Change]) -> list[Drifted]:
    """Return what has drifted and not ended.

    Replicas see the same drift within the seconds that they compare: it has the time of the first of them.
    """
    last = {(change.replica, change.key): change for change in changes}
    found: dict[str, tuple[Drifted, float]] = {}
    for change in sorted(change for change in last.values() if change.detected):
        drifted = Drifted(change.key, change.at, change.what)
        known = found.get(change.key)
        if known is not None and change.at - known[1] <= change.window_s:
            drifted = known[0]
        found[change.key] = drifted, change.at
    return [drifted for drifted, _ in found.values()]


def indices(text: str, threshold: float) -> Iterator[Drifted]:
    """Yield the inputs and outputs whose index, in Prometheus' text format, is at or above a threshold."""
    for found in _INDEX.finditer(text):
        labels = dict(_LABEL.findall(found["labels"]))
        value = float(found["value"])
        if value >= threshold:
            names = [labels.get(name, "") for name in ("model", "version", "side", "tensor")]
            model, version, side, tensor = names
            what = f"{side} '{tensor}' of {model}, version {version}: stability index {value:.3g}"
            yield Drifted(" ".join(names), None, what)


def _metrics(url: str) -> str:
    with requests.get(url, timeout=ANSWER_S, stream=True) as answer:
        answer.raise_for_status()
        body: bytes = answer.raw.read(METRIC_BYTES, decode_content=True)
        return body.decode("utf-8", "replace")
