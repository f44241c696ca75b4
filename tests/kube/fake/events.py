"""Events as Kubernetes 1.35 keeps them: in go an object and words about it, out comes an Event under both of
its addresses.

KubeRay's operator, the scheduler and Kueue write by the newer API: a moment to the microsecond, no source,
and a series where the same is told again. The kubelet and Kubernetes' own controllers write by the older one,
with a source, first and last times, and a count.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fake.kinds import Kind, Object
from fake.store import Store, now

_CONTROLLERS = {
    **{kind: f"{kind.lower()}-controller" for kind in ("RayCluster", "RayCronJob", "RayJob", "RayService")},
    "Workload": "kueue-admission",
}
_SCHEDULER = ("Scheduled", "FailedScheduling", "Preempted")
_OLDER = {"Job": "job-controller", "Pod": "kubelet", "PodGroup": "volcano"}


@dataclass(frozen=True)
class Told:
    """What is told, of which object."""

    about: Object
    reason: str
    message: str
    type: str
    namespace: str

    @property
    def fields(self) -> Object:
        """What an earlier event has in common with one that tells the same."""
        metadata = self.about["metadata"]
        about = {
            "kind": self.about["kind"],
            "apiVersion": self.about["apiVersion"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        if "namespace" in metadata:
            about["namespace"] = self.namespace
        return {"involvedObject": about, "reason": self.reason, "message": self.message, "type": self.type}

    @property
    def newer(self) -> str | None:
        """Who writes it by the newer API; None where it is written by the older one."""
        kind = self.about["kind"]
        if kind == "Pod" and self.reason in _SCHEDULER:
            return "default-scheduler"
        return _CONTROLLERS.get(kind)


def write(store: Store, told: Told) -> None:
    """Write the event, or count an earlier one up."""
    earlier = next(
        (event for event in store.all(_kind(store, "v1"), told.namespace) if _same(event, told)), None
    )
    event = _again(earlier) if earlier is not None else _first(told)
    store.put(_kind(store, "v1"), event)
    store.put(_kind(store, "events.k8s.io/v1"), _newer(event))


def _same(event: Object, told: Told) -> bool:
    said = told.fields
    uid = said.pop("involvedObject")["uid"]
    return event["involvedObject"].get("uid") == uid and all(
        event.get(key) == value for key, value in said.items()
    )


def _first(told: Told) -> Object:
    metadata = {
        "name": f"{told.about['metadata']['name']}.{secrets.token_hex(8)}",
        "namespace": told.namespace,
    }
    about = {**told.fields["involvedObject"], "resourceVersion": told.about["metadata"]["resourceVersion"]}
    said = {"metadata": metadata, **told.fields, "involvedObject": about}
    if (controller := told.newer) is not None:
        times: Object = {"eventTime": _moment(), "firstTimestamp": None, "lastTimestamp": None, "source": {}}
        return {
            **said,
            **times,
            "action": told.reason,
            "reportingComponent": controller,
            "reportingInstance": f"{controller}-1",
        }
    component = _OLDER.get(told.about["kind"], "controllermanager")
    times = {"eventTime": None, "firstTimestamp": now(), "lastTimestamp": now(), "count": 1}
    return {
        **said,
        **times,
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
    }


def _again(event: Object) -> Object:
    if event.get("eventTime") is None:
        return {**event, "count": event["count"] + 1, "lastTimestamp": now()}
    count = event.get("series", {}).get("count", 1)
    return {**event, "series": {"count": count + 1, "lastObservedTime": _moment()}}


def _newer(event: Object) -> Object:
    """The same under the newer address, which has other names for it."""
    same: Object = {
        key: event[key]
        for key in ("metadata", "reason", "type", "eventTime", "action", "series", "reportingInstance")
        if key in event
    }
    renamed: dict[str, Any] = {
        "regarding": event["involvedObject"],
        "note": event["message"],
        "deprecatedSource": event["source"],
    }
    if "count" in event:
        renamed["deprecatedCount"] = event["count"]
    times = {
        f"deprecated{key[0].upper()}{key[1:]}": event[key] for key in ("firstTimestamp", "lastTimestamp")
    }
    return {**same, **renamed, **times, "reportingController": event["reportingComponent"]}


def _kind(store: Store, api_version: str) -> Kind:
    return store.kinds.named("Event", api_version)


def _moment() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
