"""Objects as KubeRay's operator, Kubernetes and Kueue leave them, in the few fields that are looked at."""

from typing import Any

from raystack.kuberay.observe.snapshot import KINDS, Snapshot
from raystack.plan.kuberay.facts import KUEUE_QUEUE

Object = dict[str, Any]

CREATED = "2026-03-01T12:00:00Z"
NOW = 1772366700.0
"""Five minutes later."""
JUST_NOW = "2026-03-01T12:04:50Z"


def meta(name: str, **more: Any) -> Object:
    return {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": CREATED,
        **more,
    }


def rayjob(
    deployment: str = "",
    job: str = "",
    *,
    spec: Object | None = None,
    queue: str | None = None,
    **status: Any,
) -> Object:
    told = {"jobDeploymentStatus": deployment, "jobStatus": job} if deployment else {}
    labels = {KUEUE_QUEUE: queue} if queue else {}
    return {
        "kind": "RayJob",
        "metadata": meta("digits", labels=labels),
        "spec": {"shutdownAfterJobFinishes": True, **(spec or {})},
        "status": {**told, **status},
    }


def cluster(
    ready: int = 2,
    wanted: int = 2,
    *,
    head: bool | None = True,
    provisioned: bool = True,
    seen: bool = True,
    conditions: tuple[Object, ...] = (),
    spec: Object | None = None,
    name: str = "digits-x7k2p",
    lost: str = "gone",
    **metadata: Any,
) -> Object:
    """`state: ready` always, as it stays once it was."""
    head_ready = (
        []
        if head is None
        else [condition("HeadPodReady", head, "HeadPodRunningAndReady" if head else "Unknown", lost)]
    )
    status = {
        "state": "ready",
        "observedGeneration": 1 if seen else 0,
        "readyWorkerReplicas": ready,
        "desiredWorkerReplicas": wanted,
        "conditions": [*head_ready, condition("RayClusterProvisioned", provisioned), *conditions],
    }
    changed = [] if seen else [{"manager": "raystack", "operation": "Apply", "time": JUST_NOW}]
    return {
        "kind": "RayCluster",
        "metadata": meta(name, managedFields=changed, **metadata),
        "spec": spec or {},
        "status": status,
    }


def service(
    ready: bool | None = True,
    reason: str = "",
    *,
    conditions: tuple[Object, ...] = (),
    spec: Object | None = None,
    **status: Any,
) -> Object:
    known = [] if ready is None else [condition("Ready", ready, reason, reason)]
    info = {"observedGeneration": 1, "conditions": [*known, *conditions], **status}
    return {"kind": "RayService", "metadata": meta("digits"), "spec": spec or {}, "status": info}


def on(
    name: str, app: str = "RUNNING", message: str = "", model: Object | None = None, **more: Any
) -> Object:
    """What a service's status says of one of its clusters; `model` of the application's one deployment."""
    told = {"status": app, "message": message, "serveDeploymentStatuses": {"model": model} if model else {}}
    return {"rayClusterName": name, "applicationStatuses": {"model": told}, **more}


def cron(spec: Object | None = None, **status: Any) -> Object:
    return {
        "kind": "RayCronJob",
        "metadata": meta("digits"),
        "spec": {"schedule": "0 3 * * *", **(spec or {})},
        "status": status,
    }


def condition(name: str, true: bool, reason: str = "", message: str = "", since: str = CREATED) -> Object:
    return {
        "type": name,
        "status": str(true),
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    }


def pod(
    role: str = "worker",
    *,
    ready: bool = False,
    conditions: tuple[Object, ...] = (),
    spec: Object | None = None,
    made: str = CREATED,
    changed: str = CREATED,
    name: str = "",
    annotations: Object | None = None,
    **status: Any,
) -> Object:
    """A pod of the cluster, or the one of the submitter; `changed`: when its readiness did."""
    labels = {"ray.io/node-type": role} if role != "submitter" else {"job-name": "digits"}
    container = "ray-job-submitter" if role == "submitter" else f"ray-{role}"
    containers = [
        {"name": container, "image": "registry/raystack:1", "resources": {"limits": {"memory": "8Gi"}}}
    ]
    return {
        "kind": "Pod",
        "metadata": meta(
            name or f"digits-{role}", labels=labels, annotations=annotations or {}, creationTimestamp=made
        ),
        "spec": {"containers": containers, "nodeName": "node-1", **(spec or {})},
        "status": {"conditions": [condition("Ready", ready, since=changed), *conditions], **status},
    }


def state(role: str, **now: Any) -> list[Object]:
    """`containerStatuses` of one container: `waiting`, `running` or `terminated`."""
    return [{"name": "ray-job-submitter" if role == "submitter" else f"ray-{role}", "state": now}]


def waits(role: str, reason: str, message: str = "") -> Object:
    return pod(role, containerStatuses=state(role, waiting={"reason": reason, "message": message}))


def ends(role: str, code: int, reason: str = "Error", **more: Any) -> Object:
    return pod(role, **more, containerStatuses=state(role, terminated={"reason": reason, "exitCode": code}))


def event(about: Object, reason: str, message: str, kind: str = "Warning", at: str = JUST_NOW) -> Object:
    who = {"kind": about["kind"], "name": about["metadata"]["name"]}
    return {"involvedObject": who, "reason": reason, "message": message, "type": kind, "lastTimestamp": at}


def workload(*conditions: Object, active: bool = True) -> Object:
    return {
        "kind": "Workload",
        "metadata": meta("rayjob-digits"),
        "spec": {"active": active},
        "status": {"conditions": list(conditions)},
    }


def podgroup(phase: str = "Pending") -> Object:
    """What Volcano makes of the pods."""
    waits = (
        "3/3 tasks in gang unschedulable: pod group is not ready, 3 Pending, 3 minAvailable; Pending: 3"
        " Unschedulable"
    )
    status = {"phase": phase, "conditions": [condition("Unschedulable", True, "NotEnoughResources", waits)]}
    return {
        "kind": "PodGroup",
        "metadata": meta("ray-digits-pg"),
        "spec": {"queue": "team"},
        "status": status,
    }


def snapshot(thing: Object | None, **parts: Any) -> Snapshot:
    kind = next(kind for kind, written in KINDS.items() if thing is None or written == thing["kind"])
    if kind == "raycluster":
        parts = {"cluster": thing, **parts}
    return Snapshot(kind, "digits", "default", thing=thing, **parts)
