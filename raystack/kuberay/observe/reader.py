"""Reading of one object and everything that belongs to it.

In: a Client, a kind and a name. Out: a Snapshot.

Only the object itself has to be readable; anything else that cannot be read is recorded in `unread`.
"""

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from raystack.errors import LaunchError
from raystack.kuberay.api.kinds import Object, event_time
from raystack.kuberay.observe.snapshot import (
    KINDS,
    SUBMITTER,
    Snapshot,
    at,
    condition,
    created,
    driver_pod,
    holds,
    is_ready,
    role,
)
from raystack.kuberay.observe.submitter import of_driver
from raystack.plan.kuberay.facts import KUEUE_QUEUE
from raystack.status import ObjectKind

if TYPE_CHECKING:
    from raystack.kuberay.api.client import Client

GROUPS: Mapping[str, str] = {
    "scheduling.k8s.io/group-name": "PodGroup",
    "pod-group-name": "PodGroup.scheduling.run.ai",
}
"""Annotations with the name of the PodGroup that Volcano or KAI schedules together, and its kind."""
TAIL = 200
"""Number of lines kept of a failed driver's log."""

MOST_PODS = 8
"""Pods whose events are read: those that are not ready, the head first. A thousand workers wait for the same
thing.
"""


def observe(client: "Client", kind: ObjectKind, name: str, thing: Object | None = None) -> Snapshot:
    """Read an object and what belongs to it.

    `thing` is the object if it was already read. Raises LaunchError if it cannot be read.
    """
    thing = thing or client.get(KINDS[kind], name)
    reader = _Reader(client)
    if thing is None:
        return Snapshot(
            kind,
            name,
            client.namespace,
            home=client.home,
            events=reader.events([{"kind": KINDS[kind], "metadata": {"name": name}}]),
        )
    thing = {"kind": KINDS[kind], **thing}
    cluster, coming = reader.clusters(kind, thing)
    submits = kind == "rayjob" and _mode(thing) == "K8sJobMode"
    submitter = reader.get("Job", name) if submits else None
    pods = reader.pods([cluster, coming], name if submits else None)
    children = reader.all("RayJob", {"ray.io/cronjob-name": name}) if kind == "raycronjob" else []
    queue = at(thing, "metadata", "labels", KUEUE_QUEUE)
    workload, rival = reader.workload(thing) if queue else (None, None)
    group = reader.group([*pods, *(part for part in (cluster, coming) if part is not None)])
    room, roomless = reader.room(group)
    waiting = [pod for pod in pods if not is_ready(pod)][:MOST_PODS]
    events = reader.events(
        [part for part in (thing, cluster, coming, submitter, group, *waiting) if part is not None]
    )
    short = any("exceeded quota" in event.get("message", "") for event in events)
    return Snapshot(
        kind,
        name,
        client.namespace,
        home=client.home,
        thing=thing,
        cluster=cluster or coming,
        coming=coming if cluster else None,
        pods=tuple(pods),
        submitter=submitter,
        workload=workload,
        place=None if workload is None or holds(workload, "QuotaReserved") else reader.place(queue, workload),
        rival=rival,
        group=group,
        room=room,
        roomless=roomless,
        quotas=tuple(reader.all("ResourceQuota", {})) if short else (),
        children=tuple(sorted(children, key=created)),
        events=events,
        driver=reader.tail(pods) if kind == "rayjob" and _driver_failed(thing) else (),
        unread=tuple(reader.refused),
    )


class _Reader:
    """Reads related objects; those that this user may not read are recorded and treated as absent."""

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

    def clusters(self, kind: ObjectKind, thing: Object) -> tuple[Object | None, Object | None]:
        """Return the current RayCluster, and the one that a service moves to."""
        if kind == "raycluster":
            return thing, None
        if kind == "rayjob":
            names = (
                at(thing, "status", "rayClusterName")
                or at(thing, "spec", "clusterSelector", "ray.io/cluster"),
                None,
            )
        else:
            names = tuple(
                at(thing, "status", part, "rayClusterName")
                for part in ("activeServiceStatus", "pendingServiceStatus")
            )
        first, second = (self.get("RayCluster", name) if name else None for name in names)
        return first, second

    def pods(self, clusters: list[Object | None], job: str | None) -> list[Object]:
        """Return the pods, heads first because all others wait for them; without redis-cleanup pods."""
        names = [at(cluster, "metadata", "name") for cluster in clusters if cluster is not None]
        found = [pod for name in names for pod in self.all("Pod", {"ray.io/cluster": name})]
        if job is not None:
            found += [pod for pod in self.all("Pod", {"job-name": job}) if role(pod) == "submitter"]
        order = ("head", "worker", "submitter")
        return sorted(
            (pod for pod in found if role(pod) in order),
            key=lambda pod: (order.index(role(pod)), at(pod, "metadata", "name")),
        )

    def workload(self, thing: Object) -> tuple[Object | None, str | None]:
        """Return the newest Workload that the object owns, and what preempted it."""
        every, uid = self.all("Workload", {}), at(thing, "metadata", "uid")
        owned = [
            workload for workload in every if any(owner.get("uid") == uid for owner in _owners(workload))
        ]
        newest = max(owned, key=created, default=None)
        # The preempting Workload is named only in the text of the condition, by its UID.
        words = condition(newest, "Evicted").get("message") or ""
        rivals = (
            owner
            for other in every
            if f"(UID: {at(other, 'metadata', 'uid')}," in words
            for owner in _owners(other)
        )
        return newest, next((f"{owner['kind'].lower()}/{owner['name']}" for owner in rivals), None)

    def place(self, queue: str, workload: Object) -> int | None:
        """Return a pending Workload's position; None if Kueue's visibility API is missing or forbidden."""
        try:
            summary = self._client.get("PendingWorkloadsSummary", f"{queue}/pendingworkloads")
        except LaunchError:
            return None
        name = at(workload, "metadata", "name")
        places = (
            each.get("positionInLocalQueue")
            for each in (summary or {}).get("items") or ()
            if at(each, "metadata", "name") == name
        )
        place = next(places, None)
        # Kueue counts from 0.
        return None if place is None else place + 1

    def group(self, parts: list[Object]) -> Object | None:
        """Return the PodGroup that the pods, or else their cluster, name."""
        named = (
            (kind, name)
            for part in parts
            for annotation, kind in GROUPS.items()
            if (name := at(part, "metadata", "annotations", annotation))
        )
        first = next(named, None)
        return None if first is None else self.get(*first)

    def room(self, group: Object | None) -> tuple[Object | None, bool]:
        """Return the Queue of a PodGroup that waits in Volcano, and whether there is none of that name."""
        if at(group, "status", "phase") != "Pending" or "volcano" not in (at(group, "apiVersion") or ""):
            return None, False
        try:
            found = self._client.get("Queue", at(group, "spec", "queue") or "default")
        except LaunchError:
            return None, False
        return found, found is None

    def events(self, things: list[Object]) -> tuple[Object, ...]:
        """Return the events of these objects, without those of earlier objects of the same names."""
        found: list[Object] = []
        try:
            for thing in things:
                uid = at(thing, "metadata", "uid")
                events = self._client.events(thing["kind"], at(thing, "metadata", "name"))
                found += [
                    event
                    for event in events
                    # An object that was recreated under the same name has another uid.
                    if uid is None or at(event, "involvedObject", "uid") in (uid, None)
                ]
        except LaunchError as error:
            self.refused.append(str(error))
        return tuple(sorted(found, key=event_time))

    def tail(self, pods: list[Object]) -> tuple[str, ...]:
        """Return the end of the driver's log, if a pod has it."""
        pod = driver_pod(pods)
        if pod is None:
            return ()
        try:
            return tuple(
                deque(of_driver(self._client.logs(at(pod, "metadata", "name"), SUBMITTER)), maxlen=TAIL)
            )
        except LaunchError as error:
            self.refused.append(str(error))
            return ()


def _mode(thing: Object) -> str:
    return at(thing, "spec", "submissionMode") or "K8sJobMode"


def _driver_failed(thing: Object) -> bool:
    return at(thing, "status", "jobStatus") == "FAILED" or at(thing, "status", "jobDeploymentStatus") in (
        "Failed",
        "Retrying",
    )


def _owners(thing: Object) -> list[Object]:
    return at(thing, "metadata", "ownerReferences") or []
