"""Everything that is read about one thing. In: a Client, a kind and a name. Out: an Observed, from which status and causes are concluded.

Only the thing itself has to be readable; what else may not be read is noted in `unread`.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from raystack.errors import LaunchError
from raystack.launch.kuberay.kinds import Object
from raystack.launch.status import Kind

if TYPE_CHECKING:
    from raystack.launch.kuberay.client import Client

KINDS: Mapping[Kind, str] = {"rayjob": "RayJob", "rayservice": "RayService", "raycluster": "RayCluster", "raycronjob": "RayCronJob"}
"""The kinds as Kubernetes writes them."""

QUEUE = "kueue.x-k8s.io/queue-name"
SUBMITTER = "ray-job-submitter"
"""The container that submits, in the submitter's pod or beside the head."""

TAIL = 200
"""Lines that are kept of the log of a driver that failed."""

MOST_PODS = 8
"""Pods whose events are read: those that are not ready, the head first. A thousand workers wait for the same thing."""


@dataclass(frozen=True)
class Observed:
    """One moment of a thing and of what belongs to it."""

    kind: Kind
    name: str
    namespace: str
    thing: Object | None = None
    """The RayJob, RayService, RayCluster or RayCronJob; None where there is none."""
    cluster: Object | None = None
    """The RayCluster it runs on; of a service the one that answers, else the next one."""
    coming: Object | None = None
    """The RayCluster that a service moves to."""
    pods: tuple[Object, ...] = ()
    """Of the clusters and of the submitter: the head first."""
    submitter: Object | None = None
    """The Kubernetes Job that submits."""
    workload: Object | None = None
    """What Kueue made of it."""
    quotas: tuple[Object, ...] = ()
    """ResourceQuotas of the namespace, where an event names one."""
    children: tuple[Object, ...] = ()
    """RayJobs of a RayCronJob, oldest first."""
    events: tuple[Object, ...] = ()
    """Of all of them, oldest first."""
    driver: tuple[str, ...] = ()
    """The last lines of the log of a driver that failed."""
    unread: tuple[str, ...] = ()
    """What could not be read, and why."""

    @property
    def spec(self) -> Object:
        """What was asked."""
        return at(self.thing, "spec") or {}

    @property
    def status(self) -> Object:
        """What the operator wrote."""
        return at(self.thing, "status") or {}

    @property
    def reference(self) -> str:
        """How verbs name it: `rayjob/digits-7f3a`, with its namespace where that is not the default."""
        return f"{self.kind}/{self.name}" + ("" if self.namespace == "default" else f" -n {self.namespace}")

    @property
    def queue(self) -> str | None:
        """Kueue's LocalQueue."""
        name = at(self.thing, "metadata", "labels", QUEUE)
        return None if name is None else str(name)

    def events_of(self, thing: Object) -> tuple[Object, ...]:
        """Oldest first."""
        kind, name = thing.get("kind"), at(thing, "metadata", "name")
        return tuple(
            event
            for event in self.events
            if at(event, "involvedObject", "name") == name and kind in (None, at(event, "involvedObject", "kind"))
        )


def at(value: Any, *path: str) -> Any:
    """What lies at a path of an object; None where a part of it is missing."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def seconds(text: str | None) -> float | None:
    """A time of Kubernetes in seconds since 1970."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def age(thing: Object | None, now: float) -> float:
    """Seconds since it was created."""
    created = seconds(at(thing, "metadata", "creationTimestamp"))
    return 0.0 if created is None else now - created


def condition(thing: Object | None, name: str) -> Object:
    """A condition of an object's status; empty where it has none of that name."""
    return next((entry for entry in at(thing, "status", "conditions") or () if entry.get("type") == name), {})


def holds(thing: Object | None, name: str) -> bool:
    """Whether a condition is True."""
    return condition(thing, name).get("status") == "True"


def role(pod: Object) -> str:
    """`head`, `worker`, or `submitter`."""
    return at(pod, "metadata", "labels", "ray.io/node-type") or "submitter"


def is_ready(pod: Object) -> bool:
    """Whether all of its containers run, or have done what they were there for."""
    return holds(pod, "Ready") or at(pod, "status", "phase") == "Succeeded"


def observe(client: "Client", kind: Kind, name: str, thing: Object | None = None) -> Observed:
    """Read it and what belongs to it. `thing` is the object where it is known already. LaunchError where it cannot be read."""
    thing = thing or client.get(KINDS[kind], name)
    reader = _Reader(client)
    if thing is None:
        return Observed(kind, name, client.namespace, events=reader.events([{"kind": KINDS[kind], "metadata": {"name": name}}]))
    thing = {"kind": KINDS[kind], **thing}
    cluster, coming = reader.clusters(kind, thing)
    submitter = reader.get("Job", name) if kind == "rayjob" and _mode(thing) == "K8sJobMode" else None
    pods = reader.pods([cluster, coming], name if submitter else None)
    children = reader.all("RayJob", {"ray.io/cronjob-name": name}) if kind == "raycronjob" else []
    workload = reader.workload(thing) if at(thing, "metadata", "labels", QUEUE) else None
    waiting = [pod for pod in pods if not is_ready(pod)][:MOST_PODS]
    events = reader.events([part for part in (thing, cluster, coming, submitter, *waiting) if part is not None])
    short = any("exceeded quota" in event.get("message", "") for event in events)
    return Observed(
        kind,
        name,
        client.namespace,
        thing=thing,
        cluster=cluster or coming,
        coming=coming if cluster else None,
        pods=tuple(pods),
        submitter=submitter,
        workload=workload,
        quotas=tuple(reader.all("ResourceQuota", {})) if short else (),
        children=tuple(sorted(children, key=_created)),
        events=events,
        driver=reader.tail(pods) if kind == "rayjob" and _driver_failed(thing) else (),
        unread=tuple(reader.refused),
    )


def driver_pod(pods: list[Object] | tuple[Object, ...]) -> Object | None:
    """The newest pod with a container that submits, whose log is the driver's; None where the operator or a person submits."""
    submitting = [pod for pod in pods if any(container.get("name") == SUBMITTER for container in at(pod, "spec", "containers") or ())]
    return max(submitting, key=_created, default=None)


def head(pods: tuple[Object, ...]) -> Object | None:
    """The head's pod; of two clusters the first one's."""
    return next((pod for pod in pods if role(pod) == "head"), None)


class _Reader:
    """Reads what helps. What is refused is noted and taken for not there."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self.refused: list[str] = []

    def get(self, kind: str, name: str) -> Object | None:
        try:
            found = self._client.get(kind, name)
        except LaunchError as error:
            self.refused.append(str(error))
            return None
        return None if found is None else {"kind": kind, **found}

    def all(self, kind: str, labels: Mapping[str, str]) -> list[Object]:
        try:
            return [{"kind": kind, **found} for found in self._client.list(kind, labels=labels)]
        except LaunchError as error:
            self.refused.append(str(error))
            return []

    def clusters(self, kind: Kind, thing: Object) -> tuple[Object | None, Object | None]:
        """The RayCluster that it runs on, and the one that it moves to."""
        if kind == "raycluster":
            return thing, None
        if kind == "rayjob":
            names = (at(thing, "status", "rayClusterName") or at(thing, "spec", "clusterSelector", "ray.io/cluster"), None)
        else:
            names = tuple(at(thing, "status", part, "rayClusterName") for part in ("activeServiceStatus", "pendingServiceStatus"))
        first, second = (self.get("RayCluster", name) if name else None for name in names)
        return first, second

    def pods(self, clusters: list[Object | None], job: str | None) -> list[Object]:
        """Heads first, so that what everybody waits for is seen first; redis-cleanup pods are left out."""
        names = [at(cluster, "metadata", "name") for cluster in clusters if cluster is not None]
        found = [pod for name in names for pod in self.all("Pod", {"ray.io/cluster": name})]
        if job is not None:
            found += [pod for pod in self.all("Pod", {"job-name": job}) if role(pod) == "submitter"]
        order = ("head", "worker", "submitter")
        return sorted((pod for pod in found if role(pod) in order), key=lambda pod: (order.index(role(pod)), at(pod, "metadata", "name")))

    def workload(self, thing: Object) -> Object | None:
        """What Kueue made of the thing: the newest Workload that it owns."""
        uid = at(thing, "metadata", "uid")
        owned = [
            workload
            for workload in self.all("Workload", {})
            if any(owner.get("uid") == uid for owner in at(workload, "metadata", "ownerReferences") or ())
        ]
        return max(owned, key=_created, default=None)

    def events(self, things: list[Object]) -> tuple[Object, ...]:
        found: list[Object] = []
        try:
            for thing in things:
                found += self._client.events(thing["kind"], at(thing, "metadata", "name"))
        except LaunchError as error:
            self.refused.append(str(error))
        return tuple(sorted(found, key=seen_at))

    def tail(self, pods: list[Object]) -> tuple[str, ...]:
        """The end of the driver's log, where a pod has it."""
        pod = driver_pod(pods)
        if pod is None:
            return ()
        try:
            return tuple(deque(self._client.logs(at(pod, "metadata", "name"), SUBMITTER), maxlen=TAIL))
        except LaunchError as error:
            self.refused.append(str(error))
            return ()


def _mode(thing: Object) -> str:
    return at(thing, "spec", "submissionMode") or "K8sJobMode"


def _driver_failed(thing: Object) -> bool:
    return at(thing, "status", "jobStatus") == "FAILED" or at(thing, "status", "jobDeploymentStatus") in ("Failed", "Retrying")


def _created(thing: Object) -> str:
    return at(thing, "metadata", "creationTimestamp") or ""


def seen_at(event: Object) -> str:
    """When an event was seen last. Times are text in UTC: their order is that of the text, to the second."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or _created(event))
