"""Logs of an object of KubeRay.

In: a Client, a kind and a name. Out: LogLines, as they are or as they arrive.

The driver's log is that of the submitter's container. If the operator or a person submits there is no such
container, and Ray's dashboard has the log, as it has those of a service's replicas.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

from raystack.errors import LaunchError, Problem
from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe import driver_log
from raystack.kuberay.observe.reader import observe
from raystack.kuberay.observe.snapshot import SUBMITTER, Snapshot, at, driver_pod, head, is_ready
from raystack.kuberay.observe.status import status
from raystack.kuberay.observe.submitter import of_driver
from raystack.status import LogLine, ObjectKind

LOOK_S = 2.0
"""Interval at which new pods are looked for."""
REST_S = 3.0
"""Time for the rest of the logs after the object is finished, because pods that stay up keep writing."""

DRIVER = "driver"


@dataclass(frozen=True)
class Source:
    """One log."""

    label: str
    """`driver`, or pod and container."""
    key: tuple[str, ...]
    """Identity that distinguishes it from the log of a later container of the same name."""
    lines: Callable[[bool], Iterator[str]]
    """Function that yields the lines, with True until the log ends."""


def read(client: Client, kind: ObjectKind, name: str, *, everything: bool) -> Iterator[LogLine]:
    """Yield all current lines. Raises LaunchError if there are none."""
    snapshot = observe(client, kind, name)
    found = sources(client, snapshot, everything=everything)
    if not found:
        raise LaunchError(
            Problem(
                f"{kind}/{name}",
                rule="it has no log",
                remedy=f"see why: raystack diagnose {snapshot.reference}",
            )
        )
    for source in found:
        for line in source.lines(False):
            yield LogLine(source.label, line)


def follow(client: Client, kind: ObjectKind, name: str, *, everything: bool) -> Iterator[LogLine]:
    """Yield lines as they arrive, from later pods, too, until the object is finished."""
    lines: SimpleQueue[LogLine] = SimpleQueue()
    reading: dict[tuple[str, ...], Thread] = {}
    until: float | None = None
    away = ""
    while True:
        snapshot = observe(client, kind, name)
        try:
            found, away = sources(client, snapshot, everything=everything), ""
        except LaunchError as error:  # of a dashboard: it is asked again
            if str(error) != away:
                yield LogLine("dashboard", f"({error})")
            found, away = [], str(error)
        for source in found:
            if source.key not in reading:
                if source.label == DRIVER and reading and not everything:
                    place = next(part for part in source.key if part != DRIVER)
                    lines.put(LogLine(DRIVER, f"(the driver is started again, as {place})"))
                reading[source.key] = Thread(
                    target=_pump, args=(source, lines), name=f"raystack-log-{source.label}", daemon=True
                )
                reading[source.key].start()
        if until is None and status(snapshot, time.time()).finished:
            until = time.monotonic() + REST_S
        look = time.monotonic() + LOOK_S
        while (left := look - time.monotonic()) > 0:
            try:
                yield lines.get(timeout=min(left, 0.1))
            except Empty:
                if until is not None and not any(thread.is_alive() for thread in reading.values()):
                    break
        if until is not None and (
            time.monotonic() > until or not any(thread.is_alive() for thread in reading.values())
        ):
            while not lines.empty():
                yield lines.get()
            return


def sources(client: Client, snapshot: Snapshot, *, everything: bool) -> list[Source]:
    """Return the current logs: of the driver, or of all started containers."""
    driver = driver_pod(snapshot.pods)
    if everything:
        return [
            _container(client, pod, entry, DRIVER if pod is driver and entry["name"] == SUBMITTER else None)
            for pod in snapshot.pods
            for entry in _started(pod)
        ]
    if snapshot.kind == "raycronjob":
        return _of_last_job(client, snapshot)
    if snapshot.kind == "rayservice":
        return _of_replicas(client, snapshot)
    if snapshot.kind != "rayjob":
        first = head(snapshot.pods)
        return (
            [] if first is None else [_container(client, first, entry, None) for entry in _started(first)[:1]]
        )
    if driver is not None:
        return [
            _container(client, driver, entry, DRIVER)
            for entry in _started(driver)
            if entry["name"] == SUBMITTER
        ]
    if snapshot.spec.get("submissionMode", "K8sJobMode") != "K8sJobMode" and driver_log.has_driver(snapshot):
        key = (DRIVER, str(snapshot.status.get("jobId")))
        return [
            Source(DRIVER, key, lambda following: driver_log.driver(client, snapshot, following=following))
        ]
    return []


def _of_last_job(client: Client, snapshot: Snapshot) -> list[Source]:
    if not snapshot.children:
        return []
    name = at(snapshot.children[-1], "metadata", "name")
    return sources(client, observe(client, "rayjob", name), everything=False)


def _of_replicas(client: Client, snapshot: Snapshot) -> list[Source]:
    """Return logs of replicas on the active and the pending cluster."""
    found = []
    for cluster in (snapshot.cluster, snapshot.coming):
        # The heads' own logs are only those of `ray start`, which --all shows.
        first = head(snapshot.pods_of(cluster))
        if first is None or not is_ready(first):
            continue
        found += [
            _replica(client, replica)
            for replica in driver_log.replicas(client, at(cluster, "metadata", "name"))
        ]
    return found


def _replica(client: Client, replica: driver_log.Replica) -> Source:
    key = (replica.cluster, replica.node, replica.file)
    return Source(
        replica.label, key, lambda following: driver_log.replica_log(client, replica, following=following)
    )


def _container(client: Client, pod: Object, entry: Object, label: str | None) -> Source:
    name, container = at(pod, "metadata", "name"), entry["name"]
    key = (name, str(at(pod, "metadata", "uid")), container, str(entry.get("restartCount", 0)))
    if container == SUBMITTER:
        return Source(
            label or DRIVER, key, lambda following: of_driver(client.logs(name, container, follow=following))
        )
    return Source(
        label or f"{name}/{container}", key, lambda following: client.logs(name, container, follow=following)
    )


def _started(pod: Object) -> list[Object]:
    """Return containers that have a log, Ray's first."""
    status = at(pod, "status") or {}
    every = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    return [
        entry
        for entry in every
        if at(entry, "state", "running") is not None or at(entry, "state", "terminated") is not None
    ]


def _pump(source: Source, lines: SimpleQueue[LogLine]) -> None:
    """Read a log into the queue; a pod that goes away ends only its own log."""
    try:
        for line in source.lines(True):
            lines.put(LogLine(source.label, line))
    except LaunchError as error:
        lines.put(LogLine(source.label, f"(its log ends here: {error})"))
