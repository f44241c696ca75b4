"""What is not wrong yet, or can only be guessed: a head that is gone, and what a thing waits for while it starts."""

from raystack.launch.kuberay.causes.pod import PATIENCE_S, first_line, told
from raystack.launch.kuberay.observed import Observed, age, at, condition, head, holds, is_ready
from raystack.launch.status import Diagnosis

MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
RUNNING = ("Running", "Complete", "Failed")


def head_lost(observed: Observed, now: float) -> Diagnosis | None:
    """The cluster was up, and its head is not. `RayClusterProvisioned` stays True once it was."""
    cluster = observed.cluster
    ready = condition(cluster, "HeadPodReady")
    if not holds(cluster, "RayClusterProvisioned") or ready.get("status") != "False":
        return None
    why = first_line(ready.get("message")) or ready.get("reason") or "no pod"
    remedy = "wait for the new one; target.submission.retries starts a job again, target.high_availability.backend keeps a service up"
    return Diagnosis(f"the head is lost: {why}", remedy, told(observed.events))


def progress(observed: Observed, now: float) -> Diagnosis | None:
    """What it waits for."""
    if observed.kind == "raycronjob":
        return _cron(observed)
    mode = observed.spec.get("submissionMode", MODES[0])
    deployment = observed.status.get("jobDeploymentStatus", "")
    if observed.kind == "rayjob" and mode not in MODES:
        return Diagnosis(
            f"there is no submission mode {mode}, so nobody submits it", f"set target.submission.mode to one of {', '.join(MODES)}"
        )
    if deployment == "Waiting":
        return Diagnosis("it waits for you to submit", f"raystack connect {observed.reference}, `ray job submit`, then set spec.jobId")
    waiting = [pod for pod in observed.pods if not is_ready(pod)]
    if waiting:
        ready = len(observed.pods) - len(waiting)
        return Diagnosis(f"{ready} of {len(observed.pods)} pods are ready", "wait: images are pulled and Ray starts", told(observed.events))
    if observed.kind == "rayjob" and deployment == "Running":
        return _driver(observed)
    if observed.kind == "rayjob" and observed.pods and deployment not in RUNNING and age(head(observed.pods), now) > PATIENCE_S:
        remedy = "let the operator reach port 8265 of the head, named dashboard: target.security.network_policy, target.overlay"
        return Diagnosis("its cluster is ready and the job is not submitted", remedy, told(observed.events))
    if observed.cluster is None and observed.kind != "raycluster":
        return Diagnosis("its cluster is being made", "wait", told(observed.events))
    return None


def _driver(observed: Observed) -> Diagnosis | None:
    since = observed.status.get("jobStatusCheckFailureStartTime")
    if since is not None:
        return Diagnosis(
            f"the operator has not reached its dashboard since {since}", "see the head's log, and target.security.network_policy"
        )
    if observed.status.get("jobStatus") in (None, "", "PENDING"):
        keys = ("entrypointNumCpus", "entrypointNumGpus", "entrypointResources")
        wants = ", ".join(f"{key} {observed.spec[key]}" for key in keys if observed.spec.get(key))
        return Diagnosis(
            "its driver is not started yet" + (f": it asks for {wants}" if wants else ""), "wait; a head without CPUs gives none"
        )
    return None


def _cron(observed: Observed) -> Diagnosis | None:
    if observed.status.get("lastScheduleTime") is None:
        schedule = f"{observed.spec.get('schedule')} {observed.spec.get('timeZone') or ''}".rstrip()
        remedy = "wait for it; the operator needs the feature gate RayCronJob: raystack doctor"
        return Diagnosis(f"nothing was started yet by its schedule `{schedule}`", remedy)
    if observed.children and at(observed.children[-1], "status", "jobStatus") == "FAILED":
        name = at(observed.children[-1], "metadata", "name")
        return Diagnosis(f"its last job {name} failed", f"raystack diagnose rayjob/{name}")
    return None
