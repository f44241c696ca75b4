"""What `status` promises: one meaning of finished, and the right phase and line in every state that KubeRay
leaves a thing in.
"""

from typing import Any

import pytest
from things import (
    CREATED,
    JUST_NOW,
    NOW,
    Object,
    cluster,
    condition,
    cron,
    ends,
    event,
    on,
    pod,
    podgroup,
    rayjob,
    service,
    snapshot,
    state,
    waits,
    workload,
)

from raystack.kuberay.observe.snapshot import Snapshot
from raystack.kuberay.observe.status import status

SUSPENDED = {"suspend": True}
PENDING = condition(
    "QuotaReserved", False, "Pending", "insufficient quota for cpu in flavor default, 2 more needed"
)
RUNS = rayjob("Running", "RUNNING")
HEAD, SUBMITTER = pod("head", ready=True), pod("submitter", ready=True)
HELD = "queue resource quota insufficient: insufficient cpu"
"""Volcano's words; the pods only say that their group waits."""
STARTED = state("worker", running={"startedAt": CREATED})
UNREADY = pod(changed=JUST_NOW, containerStatuses=STARTED)
"""A worker that was ready."""
OUTLIVED = pod(
    "worker",
    containerStatuses=state("worker", terminated={"exitCode": 1, "startedAt": "2026-03-01T12:01:00Z"}),
)
INVALID = rayjob("ValidationFailed", message="the rayjob is invalid: suspend needs shutdownAfterJobFinishes")
UNUSED = cluster(provisioned=False, head=None, seen=False)

RAYJOB: dict[str, tuple[Snapshot, str]] = {
    "just sent": (snapshot(rayjob(jobId="digits-1")), "starting: its cluster is being made"),
    "nobody sees it": (snapshot(rayjob()), "starting: no operator has taken notice of it"),
    "its cluster comes": (
        snapshot(
            rayjob("Initializing"),
            cluster=cluster(1, 2, provisioned=False),
            pods=(pod("head", ready=True), pod()),
        ),
        "starting, 1/2 workers: 1 of 2 pods are ready",
    ),
    "its image is missing": (
        snapshot(
            rayjob("Initializing"),
            cluster=cluster(0, 2, provisioned=False),
            pods=(waits("head", "ErrImagePull", "404 not found"),),
        ),
        (
            "starting, 0/2 workers: image registry/raystack:1 of the head cannot be pulled: there is no such"
            " image"
        ),
    ),
    "interactive": (
        snapshot(rayjob("Waiting", spec={"submissionMode": "InteractiveMode"})),
        "starting: it waits for you to submit",
    ),
    "a mode that is none": (
        snapshot(rayjob("Initializing", spec={"submissionMode": "K8sjobMode"})),
        "starting: there is no submission mode K8sjobMode, so nobody submits it",
    ),
    "driver not started": (
        snapshot(rayjob("Running", "PENDING"), cluster=cluster()),
        "starting, 2/2 workers: its driver is not started yet",
    ),
    "its cluster is up": (
        snapshot(rayjob("Initializing"), cluster=cluster(), pods=(pod("head", ready=True, made=JUST_NOW),)),
        "starting, 2/2 workers: its cluster is ready, and its driver is submitted next",
    ),
    "driver submitted": (
        snapshot(rayjob("Running"), cluster=cluster(), pods=(HEAD, pod("submitter"))),
        "starting, 2/2 workers: its driver is being submitted",
    ),
    "running": (snapshot(RUNS, cluster=cluster()), "running, 2/2 workers"),
    "a submitter that failed, and the one after it": (
        snapshot(
            RUNS,
            cluster=cluster(),
            pods=(HEAD, pod("submitter", phase="Failed"), pod("submitter", ready=True, made=JUST_NOW)),
        ),
        "running, 2/2 workers",
    ),
    "a worker was replaced": (
        snapshot(RUNS, cluster=cluster(1, 2), pods=(HEAD, pod(ready=True), pod(made=JUST_NOW), SUBMITTER)),
        "degraded, 1/2 workers: a worker starts",
    ),
    "a worker has lost its readiness": (
        snapshot(RUNS, cluster=cluster(1, 2), pods=(HEAD, pod(ready=True), UNREADY, SUBMITTER)),
        "degraded, 1/2 workers: a worker runs and is not ready",
    ),
    "its head was replaced": (
        snapshot(
            RUNS,
            cluster=cluster(head=False, lost=""),
            pods=(pod("head", made=JUST_NOW), waits("worker", "CrashLoopBackOff")),
        ),
        "degraded, 2/2 workers: the head was lost, and a new one starts",
    ),
    "its head is not ready": (
        snapshot(RUNS, cluster=cluster(head=False, lost=""), pods=(pod("head"),)),
        "degraded, 2/2 workers: the head runs and is not ready",
    ),
    "a worker ended with its head": (
        snapshot(
            RUNS, cluster=cluster(1, 2), pods=(pod("head", ready=True, made="2026-03-01T12:03:00Z"), OUTLIVED)
        ),
        "degraded, 1/2 workers: a worker ended with the head that it belonged to, and starts again",
    ),
    "its submitter starts it again": (
        snapshot(RUNS, cluster=cluster(), pods=(HEAD, pod("submitter", made=JUST_NOW))),
        "running, 2/2 workers: its driver is submitted again",
    ),
    "second attempt": (
        snapshot(rayjob("Running", "RUNNING", failed=1), cluster=cluster()),
        "running, 2/2 workers, attempt 2",
    ),
    "a worker is gone": (snapshot(RUNS, cluster=cluster(1, 2)), "degraded, 1/2 workers: a worker is missing"),
    "its head is gone": (
        snapshot(rayjob("Running", "RUNNING"), cluster=cluster(head=False)),
        "degraded, 2/2 workers: the head is lost: gone",
    ),
    "dashboard away": (
        snapshot(
            rayjob("Running", "RUNNING", jobStatusCheckFailureStartTime="2026-03-01T12:03:00Z"),
            cluster=cluster(),
        ),
        "running, 2/2 workers: the operator has not reached its dashboard since 2026-03-01T12:03:00Z",
    ),
    "succeeded": (snapshot(rayjob("Complete", "SUCCEEDED", succeeded=1), cluster=cluster()), "succeeded"),
    "succeeded, not yet complete": (snapshot(rayjob("Running", "SUCCEEDED"), cluster=cluster()), "succeeded"),
    "complete is not success": (snapshot(rayjob("Complete", "STOPPED")), "stopped: its driver was stopped"),
    "complete and nobody knows": (
        snapshot(rayjob("Complete", "")),
        "failed: it ended as unknown, and nobody says why",
    ),
    "failed": (
        snapshot(
            rayjob("Failed", "FAILED", reason="AppFailed", failed=2),
            driver=("step 1", "error: training: loss is nan", ""),
        ),
        "failed, attempt 2: training: loss is nan",
    ),
    "paused": (
        snapshot(
            rayjob(
                "Failed",
                "FAILED",
                reason="AppFailed",
                message="Job entrypoint command failed with exit code 75, last logs:\nx",
            )
        ),
        "stopped: it stopped on request, with a checkpoint",
    ),
    "paused, by its container": (
        snapshot(rayjob("Failed", "FAILED", reason="AppFailed"), pods=(ends("submitter", 75),)),
        "stopped: it stopped on request, with a checkpoint",
    ),
    "too long": (
        snapshot(rayjob("Failed", "RUNNING", spec={"activeDeadlineSeconds": 60}, reason="DeadlineExceeded")),
        "failed: it took longer than its deadline of 60 s",
    ),
    "too long to start": (
        snapshot(
            rayjob("Failed", "", spec={"preRunningDeadlineSeconds": 60}, reason="PreRunningDeadlineExceeded")
        ),
        "failed: it did not run within 60 s",
    ),
    "not submitted": (
        snapshot(rayjob("Failed", "", reason="SubmissionFailed", message="401 Unauthorized")),
        "failed: it could not be submitted: 401 Unauthorized",
    ),
    "retrying": (
        snapshot(rayjob("Retrying", "FAILED", reason="AppFailed", failed=1), driver=("error: worker lost",)),
        "retrying, attempt 2: worker lost",
    ),
    "what the attempt before left": (snapshot(rayjob("Suspended", "SUCCEEDED", spec=SUSPENDED)), "suspended"),
    "suspending": (
        snapshot(rayjob("Suspending", "STOPPED", spec=SUSPENDED), cluster=cluster(0, 2)),
        "suspended, 0/2 workers: its pods are being deleted",
    ),
    "resumed": (snapshot(rayjob("Suspended", "")), "starting: its cluster is being made"),
    "queued": (
        snapshot(rayjob("Suspended", "", spec=SUSPENDED, queue="team"), workload=workload(PENDING)),
        "queued: queue team holds it: insufficient quota for cpu in flavor default, 2 more needed",
    ),
    "queued, third in line": (
        snapshot(rayjob("Suspended", "", spec=SUSPENDED, queue="team"), workload=workload(PENDING), place=3),
        (
            "queued: queue team holds it, as number 3 in line: insufficient quota for cpu in flavor default,"
            " 2 more needed"
        ),
    ),
    "queued, for another": (
        snapshot(
            rayjob("Suspended", "", spec=SUSPENDED, queue="team"),
            workload=workload(
                PENDING,
                condition(
                    "Evicted", True, "Preempted", "Preempted to accommodate a workload (UID: 1, JobUID: 2)"
                ),
            ),
            rival="rayjob/urgent",
        ),
        (
            "queued: queue team gave its place to rayjob/urgent, and holds it: insufficient quota for cpu in"
            " flavor default, 2 more needed"
        ),
    ),
    "queued by Volcano": (
        snapshot(
            rayjob("Initializing"),
            cluster=cluster(0, 2, head=False, provisioned=False),
            pods=(pod("head", spec={"nodeName": None}),),
            group=podgroup(),
            events=(
                event(podgroup(), "Unschedulable", HELD, "Normal"),
                event(podgroup(), "Unschedulable", "3/3 tasks in gang"),
            ),
        ),
        f"queued, 0/2 workers: queue team holds it: {HELD}",
    ),
    "let in by Volcano": (
        snapshot(
            rayjob("Initializing"),
            cluster=cluster(0, 2, provisioned=False),
            pods=(pod("head"),),
            group=podgroup("Running"),
        ),
        "starting, 0/2 workers: 0 of 1 pods are ready",
    ),
    "queued, and taken out by a person": (
        snapshot(
            rayjob("Suspended", "", spec=SUSPENDED, queue="team"), workload=workload(PENDING, active=False)
        ),
        "suspended",
    ),
    "invalid": (
        snapshot(INVALID),
        "invalid: the operator refuses it: the rayjob is invalid: suspend needs shutdownAfterJobFinishes",
    ),
    "invalid, by its event": (
        snapshot(rayjob(), events=(event(rayjob(), "InvalidRayJobMetadata", "name is too long"),)),
        "invalid: the operator refuses it: name is too long",
    ),
    "gone": (snapshot(None), "gone"),
    "cancelled": (
        snapshot(None, events=(event(rayjob(), "DeletedRayCluster", "Deleted cluster"),)),
        "gone: it was deleted",
    ),
    "being deleted": (
        snapshot(
            {**RUNS, "metadata": {**RUNS["metadata"], "deletionTimestamp": JUST_NOW}}, cluster=cluster()
        ),
        "stopped: it is being deleted",
    ),
}

REFUSED = event(cluster(), "InvalidRayClusterSpec", "headGroupSpec should have at least one container")
REPEATED = {"series": {"count": 8, "lastObservedTime": JUST_NOW}}
RAYCLUSTER: dict[str, tuple[Snapshot, str]] = {
    "up": (snapshot(cluster()), "running, 2/2 workers"),
    "no workers asked for": (snapshot(cluster(0, 0)), "running, 0/0 workers"),
    "state says ready, and the last change was not seen": (
        snapshot(cluster(seen=False)),
        "updating, 2/2 workers: the operator has not seen its last change",
    ),
    "state says ready, and a worker is gone": (
        snapshot(cluster(1, 2)),
        "degraded, 1/2 workers: a worker is missing",
    ),
    "state says ready, and the head is gone": (
        snapshot(cluster(head=False)),
        "degraded, 2/2 workers: the head is lost: gone",
    ),
    "starting": (
        snapshot(cluster(0, 2, head=False, provisioned=False), pods=(pod("head"),)),
        "starting, 0/2 workers: 0 of 1 pods are ready",
    ),
    "an operator without conditions": (
        snapshot(cluster(head=None), pods=(pod("head", ready=True),)),
        "running, 2/2 workers",
    ),
    "refused, with a status that is silent": (
        snapshot(UNUSED, events=(REFUSED,)),
        "invalid: the operator refuses it: headGroupSpec should have at least one container",
    ),
    "a change of a cluster that is up is refused": (
        snapshot(cluster(seen=False), events=(REFUSED,)),
        (
            "degraded, 2/2 workers: its last change was refused: the operator refuses it: headGroupSpec"
            " should have at least one container"
        ),
    ),
    "refused, again and again": (
        snapshot(
            cluster(seen=False),
            events=({**event(cluster(), "InvalidRayClusterSpec", "no", at=CREATED), **REPEATED},),
        ),
        "degraded, 2/2 workers: its last change was refused: the operator refuses it: no",
    ),
    "a change that the operator had nothing to say about": (
        snapshot({**(old := cluster()), "metadata": {**old["metadata"], "generation": 2}}),
        "running, 2/2 workers",
    ),
    "refused, and changed back": (
        snapshot(cluster(seen=False), events=(event(cluster(), "InvalidRayClusterSpec", "no", at=CREATED),)),
        "updating, 2/2 workers: the operator has not seen its last change",
    ),
    "refused once and corrected": (snapshot(cluster(), events=(REFUSED,)), "running, 2/2 workers"),
    "suspended": (
        snapshot(cluster(0, 2, spec=SUSPENDED, conditions=(condition("RayClusterSuspended", True),))),
        "suspended, 0/2 workers",
    ),
    "being deleted": (
        snapshot(cluster(deletionTimestamp="2026-03-01T12:04:00Z")),
        "stopped: it is being deleted",
    ),
}

A, B = cluster(name="digits-a"), cluster(name="digits-b")
UP = condition("UpgradeInProgress", True)
MOVES: Any = {
    "activeServiceStatus": {"rayClusterName": "digits-a"},
    "pendingServiceStatus": {"rayClusterName": "digits-b"},
}
UNSENT = (
    'Failed to update serve applications to the RayCluster default/digits-a: err: Put "http://digits-a":'
    " context deadline exceeded"
)
NAMES = "Failed to update the deployments ['model']."
"""All that Serve says of an application: the cause stands in its deployments."""
NONE = "models:/digits/99: there is no such version"
ERROR = (
    "\x1b[36mray::ServeReplica:digits:model.initialize_and_get_metadata()\x1b[39m (pid=9, ip=10.0.0.1)\n "
    ' File "replica.py", line 1928, in initialize\n    raise RuntimeError(traceback.format_exc()) from'
    f" None\nRuntimeError: Traceback (most recent call last):\nraystack.errors.ServingError: {NONE}"
)
FAILS = {
    "status": "DEPLOY_FAILED",
    "message": f"The deployment failed to start 3 times in a row. Error:\n{ERROR}",
}
RETRIES = {
    "status": "UPDATING",
    "message": f"A replica failed to start with exception. Retrying 2 more time(s). Error:\n{ERROR}",
}


def of(pod: Object, cluster: str) -> Object:
    """The pod as one of that cluster's."""
    labels = {**pod["metadata"]["labels"], "ray.io/cluster": cluster}
    return {
        **pod,
        "metadata": {**pod["metadata"], "name": f"{cluster}-{pod['metadata']['name']}", "labels": labels},
    }


RAYSERVICE: dict[str, tuple[Snapshot, str]] = {
    "just sent": (snapshot(service(None)), "starting: its cluster is being made"),
    "answers": (snapshot(service(activeServiceStatus=on("digits-a")), cluster=A), "running, 2/2 workers"),
    "starts": (
        snapshot(
            service(False, "Initializing", pendingServiceStatus=on("digits-a", "DEPLOYING")),
            cluster=A,
            pods=(pod("head"),),
        ),
        "starting, 2/2 workers: 0 of 1 pods are ready",
    ),
    "cannot be deployed": (
        snapshot(
            service(
                False,
                "Initializing",
                pendingServiceStatus=on("digits-a", "DEPLOY_FAILED", "Trace\nValueError: no model"),
            )
        ),
        "failed: application model cannot be deployed: ValueError: no model",
    ),
    "its head is up": (
        snapshot(
            service(False, "Initializing", pendingServiceStatus={"rayClusterName": "digits-a"}),
            cluster=A,
            pods=(HEAD, pod()),
        ),
        "starting, 2/2 workers: its head is ready, and its applications are sent there next",
    ),
    "its dashboard does not take it yet": (
        snapshot(
            service(False, "Initializing", pendingServiceStatus={"rayClusterName": "digits-a"}),
            cluster=A,
            pods=(HEAD, pod()),
            events=(event(service(), "FailedToUpdateServeApplications", UNSENT),),
        ),
        "starting, 2/2 workers: its applications could not be sent yet: context deadline exceeded",
    ),
    "loads": (
        snapshot(
            service(False, "Initializing", pendingServiceStatus=on("digits-a", "DEPLOYING")),
            cluster=A,
            pods=(HEAD, pod()),
        ),
        "starting, 2/2 workers: application model is being deployed",
    ),
    "loads, and fails, and tries again": (
        snapshot(
            service(False, "Initializing", pendingServiceStatus=on("digits-a", "DEPLOYING", model=RETRIES)),
            cluster=A,
            pods=(HEAD,),
        ),
        f"starting, 2/2 workers: application model is being deployed, and a replica failed to start: {NONE}",
    ),
    "has loaded, and its pods are checked": (
        snapshot(
            service(False, "Initializing", activeServiceStatus=on("digits-a")), cluster=A, pods=(HEAD, pod())
        ),
        "starting, 2/2 workers: its replicas are up, and their pods not ready yet",
    ),
    "is updated in place": (
        snapshot(service(activeServiceStatus=on("digits-a", "DEPLOYING")), cluster=A, pods=(HEAD, pod())),
        "updating, 2/2 workers: application model is being deployed",
    ),
    "is updated in place, without an answer": (
        snapshot(
            service(False, "ZeroServeEndpoints", activeServiceStatus=on("digits-a", "DEPLOYING")),
            cluster=A,
            pods=(HEAD, pod()),
        ),
        "updating, 2/2 workers: nothing answers: application model is being deployed",
    ),
    "is updated to what cannot be loaded": (
        snapshot(
            service(
                False,
                "ZeroServeEndpoints",
                activeServiceStatus=on("digits-a", "DEPLOY_FAILED", NAMES, model=FAILS),
            ),
            cluster=A,
        ),
        f"failed: nothing answers: application model cannot be deployed: {NONE}",
    ),
    "is updated to what cannot be loaded, and answers as before": (
        snapshot(service(activeServiceStatus=on("digits-a", "DEPLOY_FAILED", NAMES, model=FAILS)), cluster=A),
        (
            f"degraded, 2/2 workers: application model cannot be deployed: {NONE}; what was there before"
            " still answers"
        ),
    ),
    "its head does not answer": (
        snapshot(
            service(False, "ZeroServeEndpoints", activeServiceStatus={"rayClusterName": "digits-a"}),
            cluster=cluster(0, 1, head=False, lost="", name="digits-a"),
            pods=(pod("head"), pod()),
        ),
        "degraded, 0/1 workers: nothing answers: the head runs and is not ready",
    ),
    "its next cluster is not there yet": (
        snapshot(
            service(**MOVES, conditions=(UP,)),
            cluster=A,
            pods=(HEAD, pod(ready=True)),
        ),
        "updating, 2/2 workers: it moves to digits-b: its cluster is being made",
    ),
    "its next cluster starts": (
        snapshot(
            service(**MOVES, conditions=(UP,)),
            cluster=A,
            coming=cluster(0, 2, head=False, provisioned=False, name="digits-b"),
            pods=(
                *(of(each, "digits-a") for each in (HEAD, pod(ready=True))),
                *(of(each, "digits-b") for each in (pod("head"), pod())),
            ),
        ),
        "updating, 2/2 workers: it moves to digits-b: 0 of 2 pods are ready",
    ),
    "its time to start is over": (
        snapshot(service(False, "InitializingTimeout")),
        "failed: it did not answer within the time it had to start, and will not go on",
    ),
    "refused": (
        snapshot(service(False, "ValidationFailed")),
        "invalid: the operator refuses it: ValidationFailed",
    ),
    "moves on": (
        snapshot(
            service(
                activeServiceStatus=on("digits-a"),
                pendingServiceStatus=on("digits-b", trafficRoutedPercent=30),
            ),
            cluster=A,
            coming=B,
        ),
        "updating, 2/2 workers: it moves to digits-b, which has 30 % of the traffic",
    ),
    "cannot move on": (
        snapshot(
            service(
                activeServiceStatus=on("digits-a"),
                pendingServiceStatus=on("digits-b", "DEPLOY_FAILED", "no model"),
            ),
            cluster=A,
            coming=B,
        ),
        "updating, 2/2 workers: it moves to digits-b: application model cannot be deployed: no model",
    ),
    "goes back": (
        snapshot(
            service(activeServiceStatus=on("digits-a"), conditions=(condition("RollbackInProgress", True),)),
            cluster=A,
        ),
        "updating, 2/2 workers: it goes back to cluster digits-a",
    ),
    "ill": (
        snapshot(service(activeServiceStatus=on("digits-a", "UNHEALTHY", "replica died")), cluster=A),
        "degraded, 2/2 workers: application model is unhealthy: replica died",
    ),
    "answers with less": (
        snapshot(service(activeServiceStatus=on("digits-a")), cluster=cluster(1, 2, name="digits-a")),
        "degraded, 1/2 workers: a worker is missing",
    ),
    "suspended": (
        snapshot(service(False, spec=SUSPENDED, conditions=(condition("Suspended", True),))),
        "suspended",
    ),
}

CHILD = {**rayjob("Complete", "SUCCEEDED"), "metadata": {"name": "digits-29530000"}}
RAYCRONJOB: dict[str, tuple[Snapshot, str]] = {
    "never": (snapshot(cron()), "running: nothing was started yet by its schedule `0 3 * * *`"),
    "once": (
        snapshot(cron(lastScheduleTime="2026-03-01T03:00:00Z"), children=(CHILD,)),
        "running: its last job digits-29530000 of 2026-03-01T03:00:00Z is succeeded",
    ),
    "suspended": (snapshot(cron(SUSPENDED)), "suspended"),
    "refused": (
        snapshot(cron(), events=(event(cron(), "InvalidRayCronJobSpec", "schedule is not valid"),)),
        "invalid: the operator refuses it: schedule is not valid",
    ),
}

CASES = [
    pytest.param(*case, id=f"{kind}: {name}")
    for kind, table in (
        ("rayjob", RAYJOB),
        ("raycluster", RAYCLUSTER),
        ("rayservice", RAYSERVICE),
        ("raycronjob", RAYCRONJOB),
    )
    for name, case in table.items()
]


@pytest.mark.parametrize(("seen", "line"), CASES)
def test_each_state_has_its_line(seen: Snapshot, line: str) -> None:
    assert status(seen, NOW).line == f"{seen.kind}/digits is {line}"


@pytest.mark.parametrize(
    "name", ["succeeded", "failed", "paused", "too long", "complete is not success", "invalid", "gone"]
)
def test_an_end_is_an_end(name: str) -> None:
    assert status(RAYJOB[name][0], NOW).finished


@pytest.mark.parametrize(
    "name", ["retrying", "suspending", "queued", "its head is gone", "its image is missing", "resumed"]
)
def test_what_may_go_on_is_not_finished(name: str) -> None:
    assert not status(RAYJOB[name][0], NOW).finished


def test_one_attempt_that_has_ended_is_the_first() -> None:
    """The operator counts an attempt when it ends, so the counter is one ahead of a job that runs."""
    assert status(snapshot(rayjob("Failed", "FAILED", failed=1)), NOW).attempt == 1
    assert status(snapshot(rayjob("Running", "RUNNING", failed=1)), NOW).attempt == 2


def test_times_and_ways_on_are_told() -> None:
    job: Object = rayjob("Running", "RUNNING", startTime="2026-03-01T12:01:00Z")
    now = status(snapshot(job, cluster=cluster()), NOW)
    assert (now.started_at, now.finished_at, now.cluster) == (1772366460.0, None, "digits-x7k2p")
    assert now.links == {
        "logs": "raystack logs -f rayjob/digits",
        "dashboard": "raystack connect rayjob/digits",
    }
