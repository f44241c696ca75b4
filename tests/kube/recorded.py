"""What a real cluster said, played back. In: all changes in a namespace. Out: moments, each a client that
reads it as it was.

A recording has a line for each change: `{"t": seconds, "object": {...}}`, or `{"t": seconds, "gone": uid}`.
It has no logs. stories.yaml has small ones, which are written by hand: `told` makes recordings of them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import yaml

from raystack.errors import LaunchError, Problem
from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import event_time

Object = dict[str, Any]
Objects = list[Object]

STORIES = Path(__file__).with_name("stories.yaml")
BEGAN = 1772366400.0
"""When stories begin, in seconds since 1970."""
TIMES = ("lastTransitionTime", "lastTimestamp")
"""Written as seconds in a story."""


@dataclass(frozen=True)
class Moment:
    """The namespace at one time; answers what a Client answers."""

    t: float
    """Seconds since the recording began."""
    now: float
    """Seconds since 1970."""
    objects: Mapping[str, Object]
    """By uid."""
    namespace: str = "default"
    home: str = "default"

    @property
    def client(self) -> Client:
        """Itself, for what asks a Client."""
        return cast("Client", self)

    def get(self, kind: str, name: str) -> Object | None:
        """One object, or None."""
        return next((found for found in self.list(kind) if found["metadata"]["name"] == name), None)

    def list(self, kind: str, *, labels: Mapping[str, str] = {}) -> Objects:
        """All objects with these labels."""
        return [
            found
            for found in self.objects.values()
            if found["kind"] == kind and labels.items() <= (found["metadata"].get("labels") or {}).items()
        ]

    def events(self, kind: str, name: str) -> Objects:
        """Events of one object, oldest first."""
        wanted = {"kind": kind, "name": name}
        return sorted(
            (each for each in self.list("Event") if wanted.items() <= each["involvedObject"].items()),
            key=event_time,
        )

    def logs(self, pod: str, container: str | None = None, **_: Any) -> Iterator[str]:
        """None was recorded."""
        raise LaunchError(Problem(f"pod/{pod}", rule="its log was not recorded"))


def play(recording: Path) -> Iterator[Moment]:
    """The namespace after each change; changes that were seen at once are one."""
    changes = [json.loads(line) for line in recording.read_text(encoding="utf-8").splitlines()]
    began = max(_newest(change["object"]) - change["t"] for change in changes if "object" in change)
    objects: dict[str, Object] = {}
    for change, following in zip(changes, [*changes[1:], None], strict=True):
        if "gone" in change:
            objects.pop(change["gone"], None)
        else:
            objects[change["object"]["metadata"]["uid"]] = change["object"]
        if following is None or following["t"] > change["t"]:
            yield Moment(change["t"], began + change["t"], dict(objects))


def told(story: str, folder: Path) -> Path:
    """A story as a recording: whole objects, with names, uids and times."""
    objects: dict[str, Object] = {}
    lines = []
    for t, reference, change in yaml.safe_load(STORIES.read_text(encoding="utf-8"))[story]:
        if change == "gone":
            lines.append({"t": t, "gone": reference})
            continue
        kind, _, name = reference.partition("/")
        made = {"name": name, "namespace": "default", "uid": reference, "generation": 1}
        new: Object = {"kind": kind, "metadata": {**made, "creationTimestamp": _time(t)}}
        objects[reference] = _merged(objects.get(reference, new), change)
        lines.append({"t": t, "object": objects[reference]})
    recording = folder / f"{story}.jsonl"
    recording.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return recording


def _merged(value: Any, change: Any) -> Any:
    """By a merge patch, with times."""
    if isinstance(change, list):
        return [_merged({}, item) for item in change]
    if not isinstance(change, dict):
        return change
    whole = dict(value) if isinstance(value, dict) else {}
    for key, inner in change.items():
        whole[key] = _time(inner) if key in TIMES else _merged(whole.get(key), inner)
    return {key: inner for key, inner in whole.items() if inner is not None}


def _time(t: float) -> str:
    return datetime.fromtimestamp(BEGAN + t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _newest(thing: Object) -> float:
    """The time of its last change, as far as it has one: what was seen then was not seen before."""
    fields = [entry.get("time") for entry in thing["metadata"].get("managedFields", ())]
    return max(
        datetime.fromisoformat(time).timestamp()
        for time in (*fields, thing["metadata"]["creationTimestamp"])
        if time
    )
