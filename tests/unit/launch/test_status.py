"""What `status` promises: one meaning of finished, and the right phase and line in every state that KubeRay leaves a thing in."""

import pytest
from things import CREATED, NOW, Object, cluster, condition, cron, ends, event, observed, on, pod, rayjob, service, waits, workload

from raystack.launch.kuberay.observed import Observed
from raystack.launch.kuberay.status import status

SUSPENDED = {"suspend": True}
PENDING = condition("QuotaReserved", False, "Pending", "insufficient quota for cpu in flavor default, 2 more needed")
INVALID = rayjob("ValidationFailed", message="the rayjob is invalid: suspend needs shutdownAfterJobFinishes")
UNUSED = cluster(provisioned=False, head=None, seen=False)

RAYJOB: dict[str, tuple[Observed, str]] = {
    "just sent": (observed(rayjob(jobId="digits-1")), "starting: its cluster is being made"),
    "nobody sees it": (observed(rayjob()), "starting: no operator has taken notice of it"),
    "its cluster comes": (
        observed(rayjob("Initializing"), cluster=cluster(1, 2, provisioned=False), pods=(pod("head", ready=True), pod())),
        "starting, 1/2 workers: 1 of 2 pods are ready",
    ),
    "its image is missing": (
        observed(rayjob("Initializing"), cluster=cluster(0, 2, provisioned=False), pods=(waits("head", "ErrImagePull", "404 not found"),)),
        "starting, 0/2 workers: image registry/raystack:1 of the head cannot be pulled: there is no such image",
    ),
    "interactive": (observed(rayjob("Waiting", spec={"submissionMode": "InteractiveMode"})), "starting: it waits for you to submit"),
    "a mode that is none": (
        observed(rayjob("Initializing", spec={"submissionMode": "K8sjobMode"})),
        "starting: there is no submission mode K8sjobMode, so nobody submits it",
    ),
    "driver not started": (
        observed(rayjob("Running", "PENDING"), cluster=cluster()),
        "starting, 2/2 workers: its driver is not started yet",
    ),
    "running": (observed(rayjob("Running", "RUNNING"), cluster=cluster()), "running, 2/2 workers"),
    "second attempt": (observed(rayjob("Running", "RUNNING", failed=1), cluster=cluster()), "running, 2/2 workers, attempt 2"),
    "a worker is gone": (observed(rayjob("Running", "RUNNING"), cluster=cluster(1, 2)), "degraded, 1/2 workers"),
    "its head is gone": (
        observed(rayjob("Running", "RUNNING"), cluster=cluster(head=False)),
        "degraded, 2/2 workers: the head is lost: gone",
    ),
    "dashboard away": (
        observed(rayjob("Running", "RUNNING", jobStatusCheckFailureStartTime="2026-03-01T12:03:00Z"), cluster=cluster()),
        "running, 2/2 workers: the operator has not reached its dashboard since 2026-03-01T12:03:00Z",
    ),
    "succeeded": (observed(rayjob("Complete", "SUCCEEDED", succeeded=1), cluster=cluster()), "succeeded"),
    "succeeded, not yet complete": (observed(rayjob("Running", "SUCCEEDED"), cluster=cluster()), "succeeded"),
    "complete is not success": (observed(rayjob("Complete", "STOPPED")), "stopped: its driver was stopped"),
    "complete and nobody knows": (observed(rayjob("Complete", "")), "failed: it ended as unknown, and nobody says why"),
    "failed": (
        observed(rayjob("Failed", "FAILED", reason="AppFailed", failed=2), driver=("step 1", "error: training: loss is nan", "")),
        "failed, attempt 2: training: loss is nan",
    ),
    "paused": (
        observed(rayjob("Failed", "FAILED", reason="AppFailed", message="Job entrypoint command failed with exit code 75, last logs:\nx")),
        "stopped: it stopped on request, with a checkpoint",
    ),
    "paused, by its container": (
        observed(rayjob("Failed", "FAILED", reason="AppFailed"), pods=(ends("submitter", 75),)),
        "stopped: it stopped on request, with a checkpoint",
    ),
    "too long": (
        observed(rayjob("Failed", "RUNNING", spec={"activeDeadlineSeconds": 60}, reason="DeadlineExceeded")),
        "failed: it took longer than its deadline of 60 s",
    ),
    "too long to start": (
        observed(rayjob("Failed", "", spec={"preRunningDeadlineSeconds": 60}, reason="PreRunningDeadlineExceeded")),
        "failed: it did not run within 60 s",
    ),
    "not submitted": (
        observed(rayjob("Failed", "", reason="SubmissionFailed", message="401 Unauthorized")),
        "failed: it could not be submitted: 401 Unauthorized",
    ),
    "retrying": (
        observed(rayjob("Retrying", "FAILED", reason="AppFailed", failed=1), driver=("error: worker lost",)),
        "retrying, attempt 2: worker lost",
    ),
    "what the attempt before left": (observed(rayjob("Suspended", "SUCCEEDED", spec=SUSPENDED)), "suspended"),
    "suspending": (
        observed(rayjob("Suspending", "STOPPED", spec=SUSPENDED), cluster=cluster(0, 2)),
        "suspended, 0/2 workers: its pods are being deleted",
    ),
    "resumed": (observed(rayjob("Suspended", "")), "starting: its cluster is being made"),
    "queued": (
        observed(rayjob("Suspended", "", spec=SUSPENDED, queue="team"), workload=workload(PENDING)),
        "queued: queue team holds it: insufficient quota for cpu in flavor default, 2 more needed",
    ),
    "queued, and taken out by a person": (
        observed(rayjob("Suspended", "", spec=SUSPENDED, queue="team"), workload=workload(PENDING, active=False)),
        "suspended",
    ),
    "invalid": (observed(INVALID), "invalid: the operator refuses it: the rayjob is invalid: suspend needs shutdownAfterJobFinishes"),
    "invalid, by its event": (
        observed(rayjob(), events=(event(rayjob(), "InvalidRayJobMetadata", "name is too long"),)),
        "invalid: the operator refuses it: name is too long",
    ),
    "gone": (observed(None), "gone"),
}

REFUSED = event(cluster(), "InvalidRayClusterSpec", "headGroupSpec should have at least one container")
RAYCLUSTER: dict[str, tuple[Observed, str]] = {
    "up": (observed(cluster()), "running, 2/2 workers"),
    "no workers asked for": (observed(cluster(0, 0)), "running, 0/0 workers"),
    "state says ready, and the last change was not seen": (
        observed(cluster(seen=False)),
        "updating, 2/2 workers: the operator has not seen its last change",
    ),
    "state says ready, and a worker is gone": (observed(cluster(1, 2)), "degraded, 1/2 workers"),
    "state says ready, and the head is gone": (observed(cluster(head=False)), "degraded, 2/2 workers: the head is lost: gone"),
    "starting": (
        observed(cluster(0, 2, head=False, provisioned=False), pods=(pod("head"),)),
        "starting, 0/2 workers: 0 of 1 pods are ready",
    ),
    "an operator without conditions": (observed(cluster(head=None), pods=(pod("head", ready=True),)), "running, 2/2 workers"),
    "refused, with a status that is silent": (
        observed(UNUSED, events=(REFUSED,)),
        "invalid: the operator refuses it: headGroupSpec should have at least one container",
    ),
    "a change of a cluster that is up is refused": (
        observed(cluster(seen=False), events=(REFUSED,)),
        "degraded, 2/2 workers: its last change was refused: the operator refuses it: headGroupSpec should have at least one container",
    ),
    "a change that the operator had nothing to say about": (
        observed({**(old := cluster()), "metadata": {**old["metadata"], "generation": 2}}),
        "running, 2/2 workers",
    ),
    "refused, and changed back": (
        observed(cluster(seen=False), events=(event(cluster(), "InvalidRayClusterSpec", "no", at=CREATED),)),
        "updating, 2/2 workers: the operator has not seen its last change",
    ),
    "refused once and corrected": (observed(cluster(), events=(REFUSED,)), "running, 2/2 workers"),
    "suspended": (observed(cluster(0, 2, spec=SUSPENDED, conditions=(condition("RayClusterSuspended", True),))), "suspended, 0/2 workers"),
    "being deleted": (observed(cluster(deletionTimestamp="2026-03-01T12:04:00Z")), "stopped: it is being deleted"),
}

A, B = cluster(name="digits-a"), cluster(name="digits-b")
RAYSERVICE: dict[str, tuple[Observed, str]] = {
    "just sent": (observed(service(None)), "starting: its cluster is being made"),
    "answers": (observed(service(activeServiceStatus=on("digits-a")), cluster=A), "running, 2/2 workers"),
    "starts": (
        observed(service(False, "Initializing", pendingServiceStatus=on("digits-a", "DEPLOYING")), cluster=A, pods=(pod("head"),)),
        "starting, 2/2 workers: 0 of 1 pods are ready",
    ),
    "cannot be deployed": (
        observed(service(False, "ZeroServeEndpoints", pendingServiceStatus=on("digits-a", "DEPLOY_FAILED", "Trace\nValueError: no model"))),
        "failed: application model cannot be deployed: ValueError: no model",
    ),
    "its time to start is over": (
        observed(service(False, "InitializingTimeout")),
        "failed: it did not answer within the time it had to start, and will not go on",
    ),
    "refused": (observed(service(False, "ValidationFailed")), "invalid: the operator refuses it: ValidationFailed"),
    "moves on": (
        observed(
            service(activeServiceStatus=on("digits-a"), pendingServiceStatus=on("digits-b", trafficRoutedPercent=30)), cluster=A, coming=B
        ),
        "updating, 2/2 workers: it moves to digits-b, which has 30 % of the traffic",
    ),
    "cannot move on": (
        observed(
            service(activeServiceStatus=on("digits-a"), pendingServiceStatus=on("digits-b", "DEPLOY_FAILED", "no model")),
            cluster=A,
            coming=B,
        ),
        "updating, 2/2 workers: it moves to digits-b: application model cannot be deployed: no model",
    ),
    "goes back": (
        observed(service(activeServiceStatus=on("digits-a"), conditions=(condition("RollbackInProgress", True),)), cluster=A),
        "updating, 2/2 workers: it goes back to cluster digits-a",
    ),
    "ill": (
        observed(service(activeServiceStatus=on("digits-a", "UNHEALTHY", "replica died")), cluster=A),
        "degraded, 2/2 workers: application model is unhealthy: replica died",
    ),
    "answers with less": (observed(service(activeServiceStatus=on("digits-a")), cluster=cluster(1, 2)), "degraded, 1/2 workers"),
    "suspended": (observed(service(False, spec=SUSPENDED, conditions=(condition("Suspended", True),))), "suspended"),
}

CHILD = {**rayjob("Complete", "SUCCEEDED"), "metadata": {"name": "digits-29530000"}}
RAYCRONJOB: dict[str, tuple[Observed, str]] = {
    "never": (observed(cron()), "running: nothing was started yet by its schedule `0 3 * * *`"),
    "once": (
        observed(cron(lastScheduleTime="2026-03-01T03:00:00Z"), children=(CHILD,)),
        "running: its last job digits-29530000 of 2026-03-01T03:00:00Z is succeeded",
    ),
    "suspended": (observed(cron(SUSPENDED)), "suspended"),
    "refused": (
        observed(cron(), events=(event(cron(), "InvalidRayCronJobSpec", "schedule is not valid"),)),
        "invalid: the operator refuses it: schedule is not valid",
    ),
}

CASES = [
    pytest.param(*case, id=f"{kind}: {name}")
    for kind, table in (("rayjob", RAYJOB), ("raycluster", RAYCLUSTER), ("rayservice", RAYSERVICE), ("raycronjob", RAYCRONJOB))
    for name, case in table.items()
]


@pytest.mark.parametrize(("seen", "line"), CASES)
def test_each_state_has_its_line(seen: Observed, line: str) -> None:
    assert status(seen, NOW).line == f"{seen.kind}/digits is {line}"


@pytest.mark.parametrize("name", ["succeeded", "failed", "paused", "too long", "complete is not success", "invalid", "gone"])
def test_an_end_is_an_end(name: str) -> None:
    assert status(RAYJOB[name][0], NOW).finished


@pytest.mark.parametrize("name", ["retrying", "suspending", "queued", "its head is gone", "its image is missing", "resumed"])
def test_what_may_go_on_is_not_finished(name: str) -> None:
    assert not status(RAYJOB[name][0], NOW).finished


def test_one_attempt_that_has_ended_is_the_first() -> None:
    """The operator counts an attempt when it ends, so the counter is one ahead of a job that runs."""
    assert status(observed(rayjob("Failed", "FAILED", failed=1)), NOW).attempt == 1
    assert status(observed(rayjob("Running", "RUNNING", failed=1)), NOW).attempt == 2


def test_times_and_ways_on_are_told() -> None:
    job: Object = rayjob("Running", "RUNNING", startTime="2026-03-01T12:01:00Z")
    now = status(observed(job, cluster=cluster()), NOW)
    assert (now.began, now.ended, now.cluster) == (1772366460.0, None, "digits-x7k2p")
    assert now.look == {"logs": "raystack logs -f rayjob/digits", "dashboard": "raystack connect rayjob/digits"}
