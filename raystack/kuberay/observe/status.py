"""Status of an object of KubeRay.

In: a Snapshot and the time. Out: a Status. Pure.

A job has succeeded only with `jobStatus: SUCCEEDED`: its deployment status is Complete when it was stopped,
too. A cluster is up when the operator has seen its last change, its head is ready and it has all its workers,
because `state: ready` and `RayClusterProvisioned` stay when it no longer is.
"""

from collections.abc import Callable, Mapping

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe import causes
from raystack.kuberay.observe.causes.ending import exit_code, paused
from raystack.kuberay.observe.causes.held import heeded
from raystack.kuberay.observe.causes.service import (
    BROKEN,
    DEPLOYING,
    PARTS,
    apps,
    is_moving,
    is_silent,
    newest_apps,
    traffic,
)
from raystack.kuberay.observe.snapshot import Snapshot, at, condition, head, holds, is_ready, seconds
from raystack.status import FINISHED, ObjectKind, Phase, Status

Moment = tuple[Phase, str]
"""Phase, and the reason for it."""


def status(snapshot: Snapshot, now: float) -> Status:
    """Return the status: the phase, and the reason in one line."""
    if snapshot.thing is None:
        reason = "it was deleted" if snapshot.events else ""
        return Status(snapshot.kind, snapshot.name, "gone", reason, namespace=snapshot.namespace)
    phase, reason = _PHASES[snapshot.kind](snapshot, now)
    ready, wanted = (None, None) if phase in FINISHED else _workers(snapshot)
    info = snapshot.status
    return Status(
        snapshot.kind,
        snapshot.name,
        phase,
        reason,
        namespace=snapshot.namespace,
        attempt=_attempt(info),
        ready=ready,
        wanted=wanted,
        started_at=seconds(info.get("startTime") or at(snapshot.thing, "metadata", "creationTimestamp")),
        finished_at=seconds(info.get("endTime")),
        cluster=at(snapshot.cluster, "metadata", "name") or info.get("rayClusterName") or None,
        links=_look(snapshot, phase),
        exit_code=exit_code(snapshot) if phase in FINISHED else None,
    )


def _rayjob(snapshot: Snapshot, now: float) -> Moment:
    deployment, job = snapshot.status.get("jobDeploymentStatus", ""), snapshot.status.get("jobStatus", "")
    again = deployment in (
        "Suspending",
        "Suspended",
        "Retrying",
    )  # what jobStatus says is then of the attempt before
    if job == "SUCCEEDED" and not again:
        return "succeeded", ""
    if job == "STOPPED" and deployment != "Failed" and not again:
        return "stopped", "its driver was stopped"
    if deployment in ("Failed", "Complete"):
        return ("stopped" if paused(snapshot) else "failed"), _why(snapshot, now)
    before = _before(snapshot, now)
    if before is not None:
        return before
    if deployment == "Retrying":
        return "retrying", _why(snapshot, now)
    if job == "FAILED" and deployment == "Running":
        return "running", "its driver has failed, and KubeRay is ending the job"
    if deployment != "Running" or job in ("", "PENDING"):
        return "starting", _why(snapshot, now)
    full, why = _full(snapshot.cluster), _why(snapshot, now)
    return (
        "running"
        if snapshot.cluster is None or (_head_up(snapshot, snapshot.cluster) and full)
        else "degraded"
    ), why


def _raycluster(snapshot: Snapshot, now: float) -> Moment:
    cluster = snapshot.thing
    before = _before(snapshot, now)
    if before is not None:
        up = before[0] == "invalid" and _head_up(snapshot, cluster)
        return ("degraded", f"its last change was refused: {before[1]}") if up else before
    if not heeded(cluster, now):
        provisioned = holds(cluster, "RayClusterProvisioned")
        return (
            ("updating", "the operator has not seen its last change")
            if provisioned
            else ("starting", _why(snapshot, now))
        )
    if _head_up(snapshot, cluster) and _full(cluster):
        return "running", ""
    return ("degraded" if holds(cluster, "RayClusterProvisioned") else "starting"), _why(snapshot, now)


def _rayservice(snapshot: Snapshot, now: float) -> Moment:
    before = _before(snapshot, now)
    if before is not None:
        return before
    answers = holds(snapshot.thing, "Ready")
    if not answers:
        over = condition(snapshot.thing, "Ready").get("reason") == "InitializingTimeout"
        if over or _has_failed(snapshot):
            return "failed", _why(snapshot, now)
        phase: Phase = (
            "starting" if not is_silent(snapshot) else "updating" if _changes(snapshot, now) else "degraded"
        )
        return phase, _why(snapshot, now)
    if holds(snapshot.thing, "RollbackInProgress"):
        return "updating", f"it goes back to cluster {_active(snapshot)}{traffic(snapshot, PARTS[1])}"
    if is_moving(snapshot):
        return "updating", _why(snapshot, now)
    if not heeded(snapshot.thing, now):
        return "updating", "the operator has not seen its last change"
    healthy = all(app.get("status") == "RUNNING" for _, app in apps(snapshot, PARTS[1]))
    if healthy and (
        snapshot.cluster is None or (_head_up(snapshot, snapshot.cluster) and _full(snapshot.cluster))
    ):
        return "running", ""
    broken = any(app.get("status") in BROKEN for _, app in apps(snapshot, PARTS[1]))
    why = _why(snapshot, now)
    return ("degraded" if broken or healthy else "updating"), why


def _raycronjob(snapshot: Snapshot, now: float) -> Moment:
    before = _before(snapshot, now)
    if before is not None:
        return before
    last = snapshot.status.get("lastScheduleTime")
    if last is None or not snapshot.children:
        return "running", _why(snapshot, now) or f"last started {last}"
    child = snapshot.children[-1]
    ended = at(child, "status", "jobStatus") or at(child, "status", "jobDeploymentStatus") or "starting"
    return "running", f"its last job {at(child, 'metadata', 'name')} of {last} is {ended.lower()}"


_PHASES: Mapping[ObjectKind, Callable[[Snapshot, float], Moment]] = {
    "rayjob": _rayjob,
    "raycluster": _raycluster,
    "rayservice": _rayservice,
    "raycronjob": _raycronjob,
}


def _before(snapshot: Snapshot, now: float) -> Moment | None:
    """Return the phase of any kind before anything runs."""
    refused = causes.invalid(snapshot, now)
    if refused is not None:
        return "invalid", refused.cause
    if at(snapshot.thing, "metadata", "deletionTimestamp") is not None:
        return "stopped", "it is being deleted"
    if causes.in_line(snapshot):
        return "queued", _why(snapshot, now)
    if snapshot.spec.get("suspend"):
        return "suspended", "" if _is_suspended(snapshot) else "its pods are being deleted"
    return None


def _is_suspended(snapshot: Snapshot) -> bool:
    if snapshot.kind == "rayjob":
        return snapshot.status.get("jobDeploymentStatus") == "Suspended"
    return (
        snapshot.kind == "raycronjob"
        or holds(snapshot.thing, "RayClusterSuspended")
        or holds(snapshot.thing, "Suspended")
    )


def _why(snapshot: Snapshot, now: float) -> str:
    found = causes.find(snapshot, now)
    return "" if found is None else found.cause


def _attempt(info: Object) -> int:
    """Return the number of the current or last attempt."""
    counted = int(info.get("failed") or 0) + int(info.get("succeeded") or 0)
    return max(counted, 1) if info.get("jobDeploymentStatus") in ("Failed", "Complete") else counted + 1


def _workers(snapshot: Snapshot) -> tuple[int | None, int | None]:
    """Return the numbers of ready and desired worker pods; unknown before there is a cluster."""
    info = at(snapshot.cluster, "status") or {}
    if "desiredWorkerReplicas" not in info:
        return None, None
    return info.get("readyWorkerReplicas") or 0, info["desiredWorkerReplicas"]


def _full(cluster: Object | None) -> bool:
    return (at(cluster, "status", "readyWorkerReplicas") or 0) >= (
        at(cluster, "status", "desiredWorkerReplicas") or 0
    )


def _head_up(snapshot: Snapshot, cluster: Object | None) -> bool:
    """Return whether the head is up, by its condition, or by the pod for operators without conditions."""
    ready = condition(cluster, "HeadPodReady")
    if ready:
        return ready.get("status") == "True"
    pod = head(snapshot.pods)
    return pod is not None and is_ready(pod)


def _has_failed(snapshot: Snapshot) -> bool:
    """Return whether a service without an answer has an application that failed to deploy for good."""
    # Serve does not retry a failed deployment.
    return any(app.get("status") == "DEPLOY_FAILED" for app in newest_apps(snapshot).values())


def _changes(snapshot: Snapshot, now: float) -> bool:
    """Return whether a service without an answer is being changed, and will answer afterwards."""
    deploying = any(app.get("status") in DEPLOYING for part in PARTS for _, app in apps(snapshot, part))
    return deploying or snapshot.coming is not None or not heeded(snapshot.thing, now)


def _active(snapshot: Snapshot) -> str:
    return at(snapshot.status, PARTS[1], "rayClusterName") or "before"


def _look(snapshot: Snapshot, phase: Phase) -> dict[str, str]:
    """Return commands for a closer look."""
    name = snapshot.reference
    if phase == "gone":
        return {}
    if phase in ("failed", "invalid"):
        return {"why": f"raystack diagnose {name}", "logs": f"raystack logs {name}"}
    if phase in FINISHED:
        return {"logs": f"raystack logs {name}"}
    if phase == "suspended":
        return {"go on": f"raystack resume {name}"}
    logs, why = {"logs": f"raystack logs -f {name}"}, {"why": f"raystack diagnose {name}"}
    if phase in ("running", "updating", "degraded") and snapshot.kind != "raycronjob":
        return {**logs, **(why if phase == "degraded" else {}), "dashboard": f"raystack connect {name}"}
    return {**logs, **why}
