"""Startup that is not wrong yet or whose trouble can only be guessed, and lost heads."""

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.causes.evidence import first_line, told
from raystack.kuberay.observe.causes.pod import PATIENCE_S, is_headless
from raystack.kuberay.observe.snapshot import (
    Snapshot,
    age,
    at,
    condition,
    driver_pod,
    head,
    holds,
    is_ready,
    role,
)
from raystack.status import Diagnosis

MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
RUNNING = ("Running", "Complete", "Failed")
STAGES = ("nodes are found", "images are pulled", "Ray starts", "workers look for the head")
"""Stages until a pod is ready, as words after `wait: `."""


def head_lost(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return the cause if the cluster was up and has lost its head."""
    if not is_headless(snapshot):
        return None
    ready, first = condition(snapshot.cluster, "HeadPodReady"), head(snapshot.pods_of(snapshot.cluster))
    why = first_line(ready.get("message"))
    if first is None:
        return Diagnosis(
            f"the head is lost{f': {why}' if why else ''}", _remedy_of_loss(snapshot), recent(snapshot)
        )
    if _is_later(first, snapshot.cluster):
        return Diagnosis(
            "the head was lost, and a new one starts", _remedy_of_loss(snapshot), recent(snapshot)
        )
    remedy = (
        "wait: Kubernetes starts it again where it does not recover; see its log: raystack logs --all"
        f" {snapshot.reference}"
    )
    return Diagnosis(f"the head runs and is not ready{f': {why}' if why else ''}", remedy, recent(snapshot))


def _remedy_of_loss(snapshot: Snapshot) -> str:
    if snapshot.kind == "rayjob" and _mode(snapshot) == MODES[0]:
        again = (
            "wait: its submitter starts it again on the new head, and it goes on from its newest checkpoint"
        )
        return f"{again}; target.submission.retries makes a new cluster where that fails, too"
    if snapshot.kind == "rayjob":
        return "wait for the new one; target.submission.retries starts a job again that has lost its head"
    if snapshot.kind == "rayservice":
        return "wait for the new one; target.high_availability.backend keeps a service up"
    if snapshot.owner is not None:
        return f"wait for the new one; see what runs on it: raystack diagnose {snapshot.owner}"
    return "wait for the new one; jobs that ran on it have to be submitted again"


def progress(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return what the object waits for."""
    if snapshot.kind == "raycronjob":
        return _cron(snapshot)
    deployment = snapshot.status.get("jobDeploymentStatus", "")
    if snapshot.kind == "rayjob" and _mode(snapshot) not in MODES:
        remedy = f"set target.submission.mode to one of {', '.join(MODES)}"
        return Diagnosis(f"there is no submission mode {_mode(snapshot)}, so nobody submits it", remedy)
    if deployment == "Waiting":
        return Diagnosis(
            "it waits for you to submit",
            f"raystack connect {snapshot.reference}, `ray job submit`, then set spec.jobId",
        )
    found = _cluster(snapshot)
    if found is not None or snapshot.kind != "rayjob":
        return found
    if deployment == "Running":
        return _driver(snapshot)
    first = head(snapshot.pods)
    if first is None or deployment in RUNNING:
        return None
    if age(first, now) > PATIENCE_S:
        remedy = (
            "let the operator reach port 8265 of the head, named dashboard: target.security.network_policy,"
            " target.overlay"
        )
        return Diagnosis("its cluster is ready and the job is not submitted", remedy, told(snapshot.events))
    return Diagnosis("its cluster is ready, and its driver is submitted next", "wait", recent(snapshot))


def recent(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the newest relevant event of each object.

    Any event counts for a pod that is not ready, otherwise only warnings. Events of a gang are shown with its
    queue.
    """
    waiting = {
        at(pod, "metadata", "name")
        for pod in snapshot.pods
        if not is_ready(pod) and at(pod, "status", "phase") != "Failed"
    }
    newest = {
        (at(event, "involvedObject", "kind"), at(event, "involvedObject", "name")): event
        for event in snapshot.events
    }
    others = {
        key: event for key, event in newest.items() if event.get("type") == "Warning" and key[0] != "PodGroup"
    }
    return told([event for key, event in newest.items() if key in others or key[1] in waiting])


def _cluster(snapshot: Snapshot) -> Diagnosis | None:
    """Return which pods of the cluster are missing or not ready."""
    cluster = snapshot.newest
    if cluster is None:
        return None if snapshot.unread else Diagnosis("its cluster is being made", "wait", recent(snapshot))
    pods = snapshot.pods_of(cluster)
    waiting = [pod for pod in pods if not is_ready(pod)]
    stages = [stage for stage in STAGES if stage in {_stage(pod) for pod in waiting}]
    remedy = f"wait: {' and '.join(stages)}"
    if waiting and not (
        holds(cluster, "RayClusterProvisioned") and all(role(pod) == "worker" for pod in waiting)
    ):
        return Diagnosis(
            f"{len(pods) - len(waiting)} of {len(pods)} pods are ready", remedy, recent(snapshot)
        )
    starting = [pod for pod in waiting if not _was_ready(pod)]
    if starting:
        text = "a worker starts" if len(starting) == 1 else f"{len(starting)} workers start"
        return Diagnosis(text, remedy, recent(snapshot))
    if waiting:
        text = (
            "a worker runs and is not ready"
            if len(waiting) == 1
            else f"{len(waiting)} workers run and are not ready"
        )
        remedy = (
            "wait: Kubernetes starts one again that does not recover; see its log: raystack logs --all"
            f" {snapshot.reference}"
        )
        return Diagnosis(text, remedy, recent(snapshot))
    short = (at(cluster, "status", "desiredWorkerReplicas") or 0) - (
        at(cluster, "status", "readyWorkerReplicas") or 0
    )
    if short > 0 and holds(cluster, "RayClusterProvisioned"):
        return Diagnosis(
            "a worker is missing" if short == 1 else f"{short} workers are missing",
            "wait: the operator makes pods for them",
        )
    return None


def _is_later(pod: Object, cluster: Object | None) -> bool:
    """Return whether a pod was created after its cluster was first up."""
    up = condition(cluster, "RayClusterProvisioned").get("lastTransitionTime")
    made = at(pod, "metadata", "creationTimestamp")
    return up is not None and made is not None and made > up


def _was_ready(pod: Object) -> bool:
    """Return whether a pod has lost its readiness since its container started."""
    changed = condition(pod, "Ready").get("lastTransitionTime")
    began = [
        at(entry, "state", "running", "startedAt") for entry in at(pod, "status", "containerStatuses") or ()
    ]
    return (
        changed is not None
        and all(moment is not None and changed > moment for moment in began)
        and bool(began)
    )


def _stage(pod: Object) -> str:
    status = at(pod, "status") or {}
    if not at(pod, "spec", "nodeName"):
        return STAGES[0]
    if any(at(entry, "state", "running") is not None for entry in status.get("initContainerStatuses") or ()):
        return STAGES[3]
    main = status.get("containerStatuses") or ()
    return STAGES[2] if main and not any(at(entry, "state", "waiting") for entry in main) else STAGES[1]


def _mode(snapshot: Snapshot) -> str:
    return str(snapshot.spec.get("submissionMode") or MODES[0])


def _driver(snapshot: Snapshot) -> Diagnosis | None:
    since = snapshot.status.get("jobStatusCheckFailureStartTime")
    if since is not None:
        return Diagnosis(
            f"the operator has not reached its dashboard since {since}",
            "see the head's log, and target.security.network_policy",
        )
    submitter, status = driver_pod(snapshot.pods), snapshot.status.get("jobStatus")
    if status in (None, ""):
        return Diagnosis("its driver is being submitted", "wait", recent(snapshot))
    if status == "PENDING":
        keys = ("entrypointNumCpus", "entrypointNumGpus", "entrypointResources")
        wants = ", ".join(f"{key} {snapshot.spec[key]}" for key in keys if snapshot.spec.get(key))
        if wants:
            remedy = "wait: a node has to have that free; a head without CPUs gives none"
            return Diagnosis(f"its driver is not started yet: it asks for {wants}", remedy)
        return Diagnosis("its driver is not started yet", "wait")
    if submitter is not None and role(submitter) == "submitter" and not is_ready(submitter):
        return Diagnosis(
            "its driver is submitted again", "wait: it goes on from its newest checkpoint", recent(snapshot)
        )
    return None


def _cron(snapshot: Snapshot) -> Diagnosis | None:
    if snapshot.status.get("lastScheduleTime") is None:
        schedule = f"{snapshot.spec.get('schedule')} {snapshot.spec.get('timeZone') or ''}".rstrip()
        remedy = "wait for it; the operator needs the feature gate RayCronJob: raystack doctor"
        return Diagnosis(f"nothing was started yet by its schedule `{schedule}`", remedy)
    if snapshot.children and at(snapshot.children[-1], "status", "jobStatus") == "FAILED":
        name = at(snapshot.children[-1], "metadata", "name")
        return Diagnosis(f"its last job {name} failed", f"raystack diagnose rayjob/{name}")
    return None
