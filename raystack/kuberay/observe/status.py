"""What is known of something on KubeRay, as the one Status. In: an Observed and the time. Out: a Status. Pure.

Success of a job is `jobStatus: SUCCEEDED` and nothing else: it is Complete when it was stopped, too. A cluster is up when the operator has
seen its last change, its head is ready and it has all its workers: `state: ready` and `RayClusterProvisioned` stay when it no longer is.
"""

from collections.abc import Callable, Mapping

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe import causes
from raystack.kuberay.observe.causes.ending import exit_code, paused
from raystack.kuberay.observe.causes.held import heeded
from raystack.kuberay.observe.causes.service import BROKEN, DEPLOYING, PARTS, apps, is_moving, is_silent, newest_apps, traffic
from raystack.kuberay.observe.snapshot import Snapshot, at, condition, head, holds, is_ready, seconds
from raystack.status import FINISHED, Kind, Phase, Status

Moment = tuple[Phase, str]
"""A phase, and why in it."""


def status(observed: Snapshot, now: float) -> Status:
    """The phase that it is in, and in one line why."""
    if observed.thing is None:
        reason = "it was deleted" if observed.events else ""
        return Status(observed.kind, observed.name, "gone", reason, namespace=observed.namespace)
    phase, reason = _PHASES[observed.kind](observed, now)
    ready, wanted = (None, None) if phase in FINISHED else _workers(observed)
    info = observed.status
    return Status(
        observed.kind,
        observed.name,
        phase,
        reason,
        namespace=observed.namespace,
        attempt=_attempt(info),
        ready=ready,
        wanted=wanted,
        started_at=seconds(info.get("startTime") or at(observed.thing, "metadata", "creationTimestamp")),
        finished_at=seconds(info.get("endTime")),
        cluster=at(observed.cluster, "metadata", "name") or info.get("rayClusterName") or None,
        links=_look(observed, phase),
        exit_code=exit_code(observed) if phase in FINISHED else None,
    )


def _rayjob(observed: Snapshot, now: float) -> Moment:
    deployment, job = observed.status.get("jobDeploymentStatus", ""), observed.status.get("jobStatus", "")
    again = deployment in ("Suspending", "Suspended", "Retrying")  # what jobStatus says is then of the attempt before
    if job == "SUCCEEDED" and not again:
        return "succeeded", ""
    if job == "STOPPED" and deployment != "Failed" and not again:
        return "stopped", "its driver was stopped"
    if deployment in ("Failed", "Complete"):
        return ("stopped" if paused(observed) else "failed"), _why(observed, now)
    before = _before(observed, now)
    if before is not None:
        return before
    if deployment == "Retrying":
        return "retrying", _why(observed, now)
    if job == "FAILED" and deployment == "Running":
        return "running", "its driver has failed, and KubeRay is ending the job"
    if deployment != "Running" or job in ("", "PENDING"):
        return "starting", _why(observed, now)
    full, why = _full(observed.cluster), _why(observed, now)
    return ("running" if observed.cluster is None or (_head_up(observed, observed.cluster) and full) else "degraded"), why


def _raycluster(observed: Snapshot, now: float) -> Moment:
    cluster = observed.thing
    before = _before(observed, now)
    if before is not None:
        up = before[0] == "invalid" and _head_up(observed, cluster)
        return ("degraded", f"its last change was refused: {before[1]}") if up else before
    if not heeded(cluster, now):
        provisioned = holds(cluster, "RayClusterProvisioned")
        return ("updating", "the operator has not seen its last change") if provisioned else ("starting", _why(observed, now))
    if _head_up(observed, cluster) and _full(cluster):
        return "running", ""
    return ("degraded" if holds(cluster, "RayClusterProvisioned") else "starting"), _why(observed, now)


def _rayservice(observed: Snapshot, now: float) -> Moment:
    before = _before(observed, now)
    if before is not None:
        return before
    answers = holds(observed.thing, "Ready")
    if not answers:
        over = condition(observed.thing, "Ready").get("reason") == "InitializingTimeout"
        if over or _has_failed(observed):
            return "failed", _why(observed, now)
        phase: Phase = "starting" if not is_silent(observed) else "updating" if _changes(observed, now) else "degraded"
        return phase, _why(observed, now)
    if holds(observed.thing, "RollbackInProgress"):
        return "updating", f"it goes back to cluster {_active(observed)}{traffic(observed, PARTS[1])}"
    if is_moving(observed):
        return "updating", _why(observed, now)
    if not heeded(observed.thing, now):
        return "updating", "the operator has not seen its last change"
    healthy = all(app.get("status") == "RUNNING" for _, app in apps(observed, PARTS[1]))
    if healthy and (observed.cluster is None or (_head_up(observed, observed.cluster) and _full(observed.cluster))):
        return "running", ""
    broken = any(app.get("status") in BROKEN for _, app in apps(observed, PARTS[1]))
    why = _why(observed, now)
    return ("degraded" if broken or healthy else "updating"), why


def _raycronjob(observed: Snapshot, now: float) -> Moment:
    before = _before(observed, now)
    if before is not None:
        return before
    last = observed.status.get("lastScheduleTime")
    if last is None or not observed.children:
        return "running", _why(observed, now) or f"last started {last}"
    child = observed.children[-1]
    ended = at(child, "status", "jobStatus") or at(child, "status", "jobDeploymentStatus") or "starting"
    return "running", f"its last job {at(child, 'metadata', 'name')} of {last} is {ended.lower()}"


_PHASES: Mapping[Kind, Callable[[Snapshot, float], Moment]] = {
    "rayjob": _rayjob,
    "raycluster": _raycluster,
    "rayservice": _rayservice,
    "raycronjob": _raycronjob,
}


def _before(observed: Snapshot, now: float) -> Moment | None:
    """What comes before anything runs, whichever kind it is."""
    refused = causes.invalid(observed, now)
    if refused is not None:
        return "invalid", refused.cause
    if at(observed.thing, "metadata", "deletionTimestamp") is not None:
        return "stopped", "it is being deleted"
    if causes.in_line(observed):
        return "queued", _why(observed, now)
    if observed.spec.get("suspend"):
        return "suspended", "" if _is_suspended(observed) else "its pods are being deleted"
    return None


def _is_suspended(observed: Snapshot) -> bool:
    if observed.kind == "rayjob":
        return observed.status.get("jobDeploymentStatus") == "Suspended"
    return observed.kind == "raycronjob" or holds(observed.thing, "RayClusterSuspended") or holds(observed.thing, "Suspended")


def _why(observed: Snapshot, now: float) -> str:
    found = causes.find(observed, now)
    return "" if found is None else found.cause


def _attempt(info: Object) -> int:
    """The counters hold the attempts that ended, and of a job that has ended so the last one, too."""
    counted = int(info.get("failed") or 0) + int(info.get("succeeded") or 0)
    return max(counted, 1) if info.get("jobDeploymentStatus") in ("Failed", "Complete") else counted + 1


def _workers(observed: Snapshot) -> tuple[int | None, int | None]:
    """Worker pods that are ready, and that there should be; unknown before there is a cluster."""
    info = at(observed.cluster, "status") or {}
    if "desiredWorkerReplicas" not in info:
        return None, None
    return info.get("readyWorkerReplicas") or 0, info["desiredWorkerReplicas"]


def _full(cluster: Object | None) -> bool:
    return (at(cluster, "status", "readyWorkerReplicas") or 0) >= (at(cluster, "status", "desiredWorkerReplicas") or 0)


def _head_up(observed: Snapshot, cluster: Object | None) -> bool:
    """By its condition; an operator that writes none leaves the pod."""
    ready = condition(cluster, "HeadPodReady")
    if ready:
        return ready.get("status") == "True"
    pod = head(observed.pods)
    return pod is not None and is_ready(pod)


def _has_failed(observed: Snapshot) -> bool:
    """Whether an application of a service that does not answer cannot be deployed where it is to stay: Serve does not try again."""
    return any(app.get("status") == "DEPLOY_FAILED" for app in newest_apps(observed).values())


def _changes(observed: Snapshot, now: float) -> bool:
    """Whether a service that does not answer is being changed, and will answer when that is done."""
    deploying = any(app.get("status") in DEPLOYING for part in PARTS for _, app in apps(observed, part))
    return deploying or observed.coming is not None or not heeded(observed.thing, now)


def _active(observed: Snapshot) -> str:
    return at(observed.status, PARTS[1], "rayClusterName") or "before"


def _look(observed: Snapshot, phase: Phase) -> dict[str, str]:
    """Commands to go on with."""
    name = observed.reference
    if phase == "gone":
        return {}
    if phase in ("failed", "invalid"):
        return {"why": f"raystack diagnose {name}", "logs": f"raystack logs {name}"}
    if phase in FINISHED:
        return {"logs": f"raystack logs {name}"}
    if phase == "suspended":
        return {"go on": f"raystack resume {name}"}
    logs, why = {"logs": f"raystack logs -f {name}"}, {"why": f"raystack diagnose {name}"}
    if phase in ("running", "updating", "degraded") and observed.kind != "raycronjob":
        return {**logs, **(why if phase == "degraded" else {}), "dashboard": f"raystack connect {name}"}
    return {**logs, **why}
