"""Snapshot of everything that is known about one object, from which status and causes are derived."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from raystack.job_context import RUN_FOLDER
from raystack.kuberay.api.kinds import Object
from raystack.plan.kuberay.facts import KUEUE_QUEUE, RayKind
from raystack.status import ObjectKind

KINDS: Mapping[ObjectKind, RayKind] = {
    "rayjob": "RayJob",
    "rayservice": "RayService",
    "raycluster": "RayCluster",
    "raycronjob": "RayCronJob",
}
"""Kinds as Kubernetes writes them."""

SUBMITTER = "ray-job-submitter"
"""Container that submits, in the submitter's pod or beside the head."""


@dataclass(frozen=True)
class Snapshot:
    """State of an object and everything that belongs to it, at one moment."""

    kind: ObjectKind
    name: str
    namespace: str
    thing: Object | None = None
    """The RayJob, RayService, RayCluster or RayCronJob; None if it does not exist."""
    cluster: Object | None = None
    """The RayCluster it runs on; for a service the active one, else the pending one."""
    coming: Object | None = None
    """The RayCluster that a service moves to."""
    pods: tuple[Object, ...] = ()
    """Pods of the clusters and of the submitter, the head first."""
    submitter: Object | None = None
    """The Kubernetes Job that submits."""
    workload: Object | None = None
    """Workload that Kueue created for it."""
    place: int | None = None
    """Position in Kueue's queue, from 1; None if Kueue does not report it."""
    rival: str | None = None
    """What preempted it in Kueue, e.g. `rayjob/urgent`."""
    group: Object | None = None
    """PodGroup that Volcano or KAI created for its pods."""
    room: Object | None = None
    """Queue of Volcano that holds the group."""
    roomless: bool = False
    """Whether that Queue does not exist."""
    quotas: tuple[Object, ...] = ()
    """ResourceQuotas of the namespace, if an event names one."""
    children: tuple[Object, ...] = ()
    """RayJobs of a RayCronJob, oldest first."""
    events: tuple[Object, ...] = ()
    """Events of all these objects, oldest first."""
    driver: tuple[str, ...] = ()
    """Last lines of a failed driver's log."""
    unread: tuple[str, ...] = ()
    """Objects that could not be read, and why."""
    home: str = "default"
    """Namespace of commands that name none."""

    @property
    def spec(self) -> Object:
        """Spec of the object."""
        return at(self.thing, "spec") or {}

    @property
    def status(self) -> Object:
        """Status that the operator wrote."""
        return at(self.thing, "status") or {}

    @property
    def reference(self) -> str:
        """Name as on the command line, e.g. `rayjob/digits-7f3a`; with a namespace if it is not `home`."""
        return f"{self.kind}/{self.name}" + ("" if self.namespace == self.home else f" -n {self.namespace}")

    @property
    def folder(self) -> str | None:
        """Folder of the run, which its manifest names."""
        named = at(self.thing, "metadata", "annotations", RUN_FOLDER)
        return None if named is None else str(named)

    @property
    def queue(self) -> str | None:
        """Name of Kueue's LocalQueue."""
        name = at(self.thing, "metadata", "labels", KUEUE_QUEUE)
        return None if name is None else str(name)

    @property
    def newest(self) -> Object | None:
        """The RayCluster that is to stay: for a service, the one that it moves to."""
        parts = (
            at(self.status, part, "rayClusterName")
            for part in ("pendingServiceStatus", "activeServiceStatus")
        )
        name = (
            next((name for name in parts if name), None)
            if self.kind == "rayservice"
            else at(self.cluster, "metadata", "name")
        )
        return next(
            (each for each in (self.coming, self.cluster) if name and at(each, "metadata", "name") == name),
            None,
        )

    @property
    def owner(self) -> str | None:
        """Job or service that owns the object, e.g. `rayjob/digits`."""
        owners = at(self.thing, "metadata", "ownerReferences") or ()
        return next(
            (
                f"{each['kind'].lower()}/{each['name']}"
                for each in owners
                if each.get("kind") in ("RayJob", "RayService")
            ),
            None,
        )

    def pods_of(self, cluster: Object | None) -> tuple[Object, ...]:
        """Return heads and workers of a RayCluster that are not being deleted."""
        if cluster is None:
            return ()
        name = at(cluster, "metadata", "name")
        own = (
            pod
            for pod in self.pods
            if role(pod) != "submitter" and at(pod, "metadata", "labels", "ray.io/cluster") in (None, name)
        )
        return tuple(pod for pod in own if not goes(pod))

    def events_of(self, thing: Object) -> tuple[Object, ...]:
        """Return the events of an object, oldest first."""
        kind, name = thing.get("kind"), at(thing, "metadata", "name")
        return tuple(
            event
            for event in self.events
            if at(event, "involvedObject", "name") == name
            and kind in (None, at(event, "involvedObject", "kind"))
        )


def at(value: Any, *path: str) -> Any:
    """Return the value at a path of an object, or None if part of the path is missing."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def seconds(text: str | None) -> float | None:
    """Return a time of Kubernetes in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp() if text else None


def age(thing: Object | None, now: float) -> float:
    """Return the seconds since the object was created."""
    created = seconds(at(thing, "metadata", "creationTimestamp"))
    return 0.0 if created is None else now - created


def condition(thing: Object | None, name: str) -> Object:
    """Return a condition of an object's status, empty if there is none of that name."""
    return next((entry for entry in at(thing, "status", "conditions") or () if entry.get("type") == name), {})


def holds(thing: Object | None, name: str) -> bool:
    """Return whether a condition is True."""
    return condition(thing, name).get("status") == "True"


def role(pod: Object) -> str:
    """Return `head`, `worker` or `submitter`."""
    return at(pod, "metadata", "labels", "ray.io/node-type") or "submitter"


def is_ready(pod: Object) -> bool:
    """Return whether all containers are ready, or have completed."""
    return holds(pod, "Ready") or at(pod, "status", "phase") == "Succeeded"


def driver_pod(pods: list[Object] | tuple[Object, ...]) -> Object | None:
    """Return the newest pod with a submitter container, whose log is the driver's.

    None if the operator or a person submits.
    """
    submitting = [
        pod
        for pod in pods
        if any(container.get("name") == SUBMITTER for container in at(pod, "spec", "containers") or ())
    ]
    return max(submitting, key=created, default=None)


def head(pods: tuple[Object, ...]) -> Object | None:
    """Return the head's pod, of the first cluster if there are two, preferring one not being deleted."""
    heads = [pod for pod in pods if role(pod) == "head"]
    return next((pod for pod in heads if not goes(pod)), heads[0] if heads else None)


def goes(pod: Object) -> bool:
    """Return whether an object is being deleted."""
    return at(pod, "metadata", "deletionTimestamp") is not None


def created(thing: Object) -> str:
    """Return when it was created, as text that sorts by time."""
    return at(thing, "metadata", "creationTimestamp") or ""
