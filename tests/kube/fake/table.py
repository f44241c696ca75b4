"""What `kubectl get` shows: in go objects, out comes a Table with the columns of their kind."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from fake.kinds import Column, Kind, Object

_AGE = Column("Age", "date", ".metadata.creationTimestamp")
_STEP = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]|\[\?\(@\.(\w+)==[\"'](.*?)[\"']\)\]")


def table(kind: Kind, objects: Sequence[Object], version: str, include: str = "Metadata") -> Object:
    """The Table; `include` says how much of each object comes along: None, Metadata or Object."""
    columns = _columns(kind)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [
            {
                "name": name,
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": priority,
            }
            for name, priority, _ in columns
        ],
        "rows": [
            {"cells": [cell(obj) for _, _, cell in columns], **_included(obj, include)} for obj in objects
        ],
    }


def _columns(kind: Kind) -> list[tuple[str, int, Callable[[Object], Any]]]:
    name = ("Name", 0, lambda obj: obj["metadata"]["name"])
    if kind.kind == "Pod":
        return [
            name,
            ("Ready", 0, _ready),
            ("Status", 0, _pod_status),
            (
                "Restarts",
                0,
                lambda obj: str(sum(status.get("restartCount", 0) for status in _containers(obj))),
            ),
            _column(_AGE),
            ("IP", 1, lambda obj: obj.get("status", {}).get("podIP", "<none>")),
            ("Node", 1, lambda obj: obj.get("spec", {}).get("nodeName", "<none>")),
        ]
    if kind.kind == "Event" and not kind.group:
        return [
            _column(Column("Last Seen", "date", ".lastTimestamp")),
            _column(Column("Type", "string", ".type")),
            _column(Column("Reason", "string", ".reason")),
            ("Object", 0, lambda obj: "{kind}/{name}".format(**obj["involvedObject"]).lower()),
            _column(Column("Message", "string", ".message")),
        ]
    return [name, *(_column(column) for column in kind.columns or (_AGE,))]


def _column(column: Column) -> tuple[str, int, Callable[[Object], Any]]:
    def cell(obj: Object) -> Any:
        value = at(obj, column.path)
        if column.type == "date":
            return "<unknown>" if value is None else age(value)
        return value

    return column.name, column.priority, cell


def at(obj: Any, path: str) -> Any:
    """What is at a JSONPath of the simple forms that columns use, or None."""
    for key, index, wanted, text in _STEP.findall(path):
        if key:
            obj = obj.get(key) if isinstance(obj, dict) else None
        elif index:
            obj = obj[int(index)] if isinstance(obj, list) and len(obj) > int(index) else None
        else:
            obj = next((item for item in obj or () if str(item.get(wanted)) == text), None)
    return obj


def age(time: str) -> str:
    """Time since then, as kubectl writes it: `12s`, `5m10s`, `3h`, `2d`."""
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 600:
        return f"{seconds // 60}m{seconds % 60}s" if seconds % 60 else f"{seconds // 60}m"
    if seconds < 3 * 3600:
        return f"{seconds // 60}m"
    if seconds < 48 * 3600:
        return f"{seconds // 3600}h"
    return f"{seconds // 86400}d"


def _containers(pod: Object) -> list[Any]:
    found: list[Any] = pod.get("status", {}).get("containerStatuses", [])
    return found


def _ready(pod: Object) -> str:
    ready = sum(bool(status.get("ready")) for status in _containers(pod))
    return f"{ready}/{len(pod.get('spec', {}).get('containers', ()))}"


def _pod_status(pod: Object) -> str:
    """The phase, or what a container waits for or ended with."""
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for status in _containers(pod):
        state = status.get("state", {})
        reason = state.get("waiting", {}).get("reason") or state.get("terminated", {}).get("reason")
        if reason:
            return str(reason)
    return str(pod.get("status", {}).get("phase", "Unknown"))


def _included(obj: Object, include: str) -> Object:
    if include == "None":
        return {}
    if include == "Object":
        return {"object": obj}
    return {
        "object": {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": obj["metadata"],
        }
    }
