"""What `diagnose` promises: of all that is read, the one cause, and a remedy that names the key or the
command.
"""

from dataclasses import replace
from typing import Any

import pytest
from things import (
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

from raystack.kuberay.observe.causes import CAUSES
from raystack.kuberay.observe.diagnose import diagnose
from raystack.kuberay.observe.snapshot import Snapshot

COMING = cluster(0, 2, head=False, provisioned=False)


def job(*pods: Object, events: tuple[Object, ...] = (), spec: Object | None = None, **more: Any) -> Snapshot:
    """A job whose cluster comes up."""
    return snapshot(
        rayjob("Initializing", spec=spec), **{"cluster": COMING, "pods": pods, "events": events, **more}
    )


def failed(
    *pods: Object,
    reason: str = "AppFailed",
    driver: tuple[str, ...] = (),
    spec: Object | None = None,
    **status: Any,
) -> Snapshot:
    return snapshot(
        rayjob("Failed", "FAILED", spec=spec, reason=reason, **status),
        pods=pods,
        driver=driver,
        cluster=COMING,
    )


NOT_HELPFUL = (
    "no new claims to deallocate, preemption: 0/5 nodes are available: 5 Preemption is not helpful for"
    " scheduling."
)


def homeless(role: str, why: str, **more: Any) -> Object:
    waits = condition("PodScheduled", False, "Unschedulable", f"0/5 nodes are available: {why}")
    return pod(role, spec={"nodeName": None}, conditions=(waits,), **more)


LIMIT = "team quota has reached the allowable limit of GPUs. Limit is"
IN_USE = "currently 6 GPUs allocated and workload requested"


def kai(reason: str, message: str) -> Object:
    """The PodGroup that KAI makes of the pods."""
    reasons = [{"reason": reason, "message": message, "details": {"queueDetails": {"name": "team"}}}]
    unfit = {"type": "UnschedulableOnNodePool", "status": "True", "reasons": reasons}
    return {
        "apiVersion": "scheduling.run.ai/v2alpha2",
        "kind": "PodGroup",
        "metadata": {"name": "pg-digits"},
        "spec": {"queue": "team"},
        "status": {"schedulingConditions": [unfit]},
    }


def skipped(message: str) -> Object:
    """A pod that YuniKorn leaves in its queue."""
    waits = condition("PodScheduled", False, "SchedulingSkipped", message)
    return pod("head", spec={"nodeName": None, "schedulerName": "yunikorn"}, conditions=(waits,))


def not_made(reason: str, message: str, **more: Any) -> Snapshot:
    head = () if "Head" in reason else (pod("head", ready=True),)
    return job(*head, events=(event(COMING, reason, message),), **more)


UNUSED = [
    f"couldn't assign flavors to pod set {pods}: insufficient unused quota for cpu in flavor any, {lack} more"
    " needed"
    for pods, lack in (("head", "1500m"), ("workers", "4"))
]
TOO_MUCH = (
    "couldn't assign flavors to pod set workers: insufficient quota for cpu in flavor any, "
    "previously considered podsets requests (2) + current podset request (8) > maximum capacity (5)"
)


def queued(*conditions: Object, **status: Any) -> Snapshot:
    made = workload(*conditions)
    return snapshot(
        rayjob("Suspended", spec={"suspend": True}, queue="team"),
        workload={**made, "status": {**made["status"], **status}},
    )


HEAD, WORKER = pod("head", ready=True), pod("worker")
NO_PEER: dict[str, Any] = {"initContainerStatuses": [{"name": "wait-gcs-ready", "state": {"running": {}}}]}
CREATING = waits("head", "ContainerCreating")
ROOT = "container has runAsNonRoot and image will run as root"
WEBHOOK = 'admission webhook "policy.example" denied the request: label team is missing'

TABLE: dict[str, tuple[Snapshot, str, str]] = {
    # An image
    "no such image": (
        job(waits("head", "ImagePullBackOff", "not found")),
        "cannot be pulled: there is no such image",
        "target.image",
    ),
    "no access to the image": (
        job(waits("head", "ErrImagePull", "401 Unauthorized")),
        "cannot be pulled: the registry refuses access",
        "target.pull_secrets",
    ),
    "another architecture": (
        job(waits("head", "ErrImagePull", "no match for platform in manifest")),
        "there is none for the node's architecture",
        "target.image",
    ),
    "too many pulls": (
        job(waits("head", "ErrImagePull", "429 toomanyrequests")),
        "limits the rate",
        "target.pull_secrets",
    ),
    "an image that must not be pulled": (
        job(waits("head", "ErrImageNeverPull")),
        "may not be pulled",
        "target.pull_policy",
    ),
    "no name of an image": (
        job(waits("head", "InvalidImageName")),
        "that is no name of an image",
        "target.image",
    ),
    "the registry is away": (
        job(waits("head", "ErrImagePull", "dial tcp: no such host")),
        "does not answer",
        "target.image",
    ),
    "the event says why": (
        job(
            waits("head", "ImagePullBackOff", "Back-off"),
            events=(event(HEAD, "Failed", "Failed to pull image: manifest unknown"),),
        ),
        "there is no such image",
        "target.image",
    ),
    # A node
    "no GPU left": (
        job(
            HEAD,
            homeless(
                "worker",
                "3 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint {a: b}. preemption: 0/5",
            ),
        ),
        (
            "a worker finds no node: 0/5 nodes are available: 3 Insufficient nvidia.com/gpu, 2 node(s) had"
            " untolerated taint {a: b}"
        ),
        "resources.gpus_per_worker",
    ),
    "no CPU left for a worker": (
        job(HEAD, homeless("worker", "5 Insufficient cpu.")),
        "5 Insufficient cpu",
        "resources.cpus_per_worker",
    ),
    "no CPU left for the head": (
        job(homeless("head", "5 Insufficient cpu.")),
        "the head finds no node",
        "target.head.cpus",
    ),
    "no memory left": (
        job(homeless("head", "5 Insufficient memory.")),
        "Insufficient memory",
        "target.head.memory",
    ),
    "no memory left, in the scheduler's words": (
        job(HEAD, homeless("worker", f"5 Insufficient memory. {NOT_HELPFUL}")),
        "a worker finds no node: 0/5 nodes are available: 5 Insufficient memory",
        "lower target.worker.memory",
    ),
    "nothing left": (
        job(homeless("head", f"3 Insufficient cpu, 5 Insufficient memory. {NOT_HELPFUL}")),
        "3 Insufficient cpu, 5 Insufficient memory",
        "lower target.head.cpus and target.head.memory",
    ),
    "no such thing on a node": (
        job(HEAD, homeless("worker", f"5 Insufficient vpc.amazonaws.com/efa. {NOT_HELPFUL}")),
        "5 Insufficient vpc.amazonaws.com/efa",
        "what asks for vpc.amazonaws.com/efa",
    ),
    "a taint": (
        job(homeless("head", "5 node(s) had untolerated taint {team: ml}.")),
        "untolerated taint",
        "tolerate the taint team: add it to target.head.tolerations",
    ),
    "no such label": (
        job(HEAD, homeless("worker", "5 node(s) didn't match Pod's node affinity/selector.")),
        "selector",
        "target.worker.node_selector",
    ),
    "no claim": (
        job(homeless("head", 'persistentvolumeclaim "data" not found.')),
        '"data" not found',
        "target.storage.volumes",
    ),
    "the event of the scheduler": (
        job(
            pod("head", spec={"nodeName": None}),
            events=(event(HEAD, "FailedScheduling", "5 Insufficient cpu"),),
        ),
        "5 Insufficient cpu",
        "target.head.cpus",
    ),
    "no such scheduler": (
        job(pod("head", spec={"nodeName": None, "schedulerName": "volcano"})),
        "no scheduler looks at the head, which asks for volcano",
        "see that volcano runs and knows its queue: raystack doctor; or set target.queue.scheduler",
    ),
    "a scheduler that may still look": (
        job(pod("head", spec={"nodeName": None, "schedulerName": "volcano"}, made=JUST_NOW)),
        "0 of 1 pods are ready",
        "wait: nodes are found",
    ),
    "Ray starts": (
        job(
            pod("head", containerStatuses=state("head", running={})), pod("worker", made=JUST_NOW, **NO_PEER)
        ),
        "0 of 2 pods are ready",
        "wait: Ray starts and workers look for the head",
    ),
    "a gate": (
        job(pod("head", conditions=(condition("PodScheduled", False, "SchedulingGated"),))),
        "scheduling gate",
        "kubectl get workloads",
    ),
    # A pod that is not even made
    "a quota": (
        not_made(
            "FailedToCreateWorkerPod",
            'Failed: pods "w" is forbidden: exceeded quota: team, requested: limits.cpu=8, used:'
            " limits.cpu=8, limited: limits.cpu=8",
            quotas=(
                {
                    "metadata": {"name": "team"},
                    "status": {"hard": {"limits.cpu": "8"}, "used": {"limits.cpu": "8"}},
                },
            ),
        ),
        (
            "a worker cannot be made: quota team is used up, requested: limits.cpu=8, used: limits.cpu=8,"
            " limited: limits.cpu=8"
        ),
        "resources.workers",
    ),
    "a policy": (
        not_made("FailedToCreateHeadPod", 'violates PodSecurity "restricted:latest": x'),
        "the head cannot be made: violates",
        "run_as",
    ),
    "no account": (
        not_made("FailedToCreateHeadPod", 'serviceaccount "ml" not found'),
        '"ml" not found',
        "target.service_account",
    ),
    "a webhook": (not_made("FailedToCreateHeadPod", f"error: {WEBHOOK}"), WEBHOOK, "target.labels"),
    "a limit range": (
        not_made("FailedToCreateWorkerPod", "maximum memory usage per Pod is 4Gi, but limit is 8Gi"),
        "maximum memory usage per Pod",
        "LimitRange",
    ),
    "no class": (
        not_made("FailedToCreateHeadPod", "no PriorityClass with name high was found"),
        "high",
        "target.head.priority_class",
    ),
    "no submitter": (
        job(
            HEAD,
            pod("worker", ready=True),
            submitter={"kind": "Job", "metadata": {"name": "digits"}, "status": {}},
            cluster=cluster(1, 1),
            events=(
                event({**rayjob(), "kind": "Job"}, "FailedCreate", "exceeded quota: team, requested: pods=1"),
            ),
        ),
        "the submitter cannot be made: quota team is used up",
        "raystack gc",
    ),
    "nobody looks": (snapshot(rayjob()), "no operator has taken notice of it", "raystack doctor"),
    # A start
    "no secret": (
        job(waits("head", "CreateContainerConfigError", 'secret "hugging-face" not found')),
        'secret "hugging-face" not found',
        "target.secrets",
    ),
    "root": (job(waits("head", "CreateContainerConfigError", ROOT)), ROOT, "target.security.run_as"),
    "no shell": (
        job(waits("head", "RunContainerError", "exec: bash: not found")),
        "exec: bash",
        "target.image",
    ),
    "a volume": (
        job(CREATING, events=(event(CREATING, "FailedMount", "mount failed: exit status 32"),)),
        "a volume of the head cannot be mounted: mount failed",
        "target.storage.volumes",
    ),
    "no code": (
        job(CREATING, events=(event(CREATING, "FailedMount", 'configmap "digits-code" not found'),)),
        "digits-code",
        "submit it again",
    ),
    "memory of the head": (
        job(ends("head", 137, "OOMKilled")),
        "the head took more memory than its limit of 8Gi",
        "target.head.memory",
    ),
    "memory of a worker": (
        job(HEAD, ends("worker", 137, "OOMKilled")),
        "a worker took more memory",
        "training.batch.micro",
    ),
    "a crash": (
        job(ends("head", 1)),
        "container ray-head of the head crashes: exit code 1",
        "kubectl logs digits-head -c ray-head -n default",
    ),
    "a crash before": (
        job(
            pod(
                "head",
                containerStatuses=[
                    {**state("head", running={})[0], "lastState": {"terminated": {"exitCode": 1}}}
                ],
            )
        ),
        "container ray-head of the head crashes: exit code 1",
        "kubectl logs --previous digits-head -c ray-head -n default",
    ),
    "no way to the head": (
        job(HEAD, pod("worker", **NO_PEER)),
        "a worker does not reach the head",
        "target.security.network_policy",
    ),
    "a spot machine": (
        job(HEAD, pod("worker", conditions=(condition("DisruptionTarget", True, "DeletionByTaintManager"),))),
        "a worker was taken from its node (DeletionByTaintManager)",
        "target.spot.fallback",
    ),
    "disk": (
        job(
            HEAD, pod("worker", reason="Evicted", message="The node was low on resource: ephemeral-storage.")
        ),
        "Evicted",
        "target.worker.ephemeral_storage",
    ),
    "the head comes first": (
        job(waits("head", "ErrImagePull", "not found"), homeless("worker", "Insufficient cpu")),
        "of the head",
        "target.image",
    ),
    "a head that is gone": (
        snapshot(rayjob("Running", "RUNNING"), cluster=cluster(head=False)),
        "the head is lost: gone",
        (
            "its submitter starts it again on the new head, and it goes on from its newest checkpoint;"
            " target.submission.retries"
        ),
    ),
    "a head that is gone, and nobody submits again": (
        snapshot(
            rayjob("Running", "RUNNING", spec={"submissionMode": "HTTPMode"}), cluster=cluster(head=False)
        ),
        "the head is lost: gone",
        "target.submission.retries starts a job again",
    ),
    "the head of a service": (
        snapshot(service(activeServiceStatus=on("digits-x7k2p")), cluster=cluster(head=False)),
        "the head is lost: gone",
        "target.high_availability.backend",
    ),
    "the head of a job's cluster": (
        snapshot(cluster(head=False, ownerReferences=[{"kind": "RayJob", "name": "digits"}])),
        "the head is lost: gone",
        "raystack diagnose rayjob/digits",
    ),
    "a port that is closed": (
        job(HEAD, cluster=cluster(0, 0)),
        "its cluster is ready and the job is not submitted",
        "target.security.network_policy",
    ),
    # A queue
    "quota of the queue": (
        queued(condition("QuotaReserved", False, "Pending", "insufficient quota")),
        "team holds it: insufficient",
        "priority",
    ),
    "no such queue": (
        queued(condition("QuotaReserved", False, "Inadmissible", "LocalQueue team doesn't exist")),
        "cannot take it",
        "target.queue.name",
    ),
    "a more important one": (
        queued(
            condition("QuotaReserved", False, "Pending", "x"),
            condition("Evicted", True, "Preempted", "for another"),
        ),
        "took its place away (Preempted: for another), and holds it: x",
        "target.queue.priority",
    ),
    "all that the pods lack": (
        queued(condition("QuotaReserved", False, "Pending", f"{UNUSED[0]}; {UNUSED[1]}")),
        "team holds it: insufficient unused quota for cpu in flavor any, 4 more needed",
        "wait, ask for less",
    ),
    "a queue that is too small": (
        queued(condition("QuotaReserved", False, "Pending", TOO_MUCH)),
        (
            "queue team is too small for it: insufficient quota for cpu in flavor any, 2 + 8 asked for, 5 at"
            " most"
        ),
        (
            "waiting does not help: lower resources.workers, resources.cpus_per_worker, target.head.cpus, or"
            " have"
        ),
    ),
    "a queue that is too small, in the words of an older Kueue": (
        queued(
            condition(
                "QuotaReserved",
                False,
                "Pending",
                f"{TOO_MUCH.split(', ')[0]}, request > maximum capacity (8 > 5)",
            )
        ),
        "insufficient quota for cpu in flavor any, 8 asked for, 5 at most",
        "waiting does not help",
    ),
    "Volcano's queue": (
        job(
            pod("head", spec={"nodeName": None}),
            group=podgroup(),
            events=(
                event(
                    podgroup(),
                    "Unschedulable",
                    "queue resource quota insufficient: insufficient cpu",
                    "Normal",
                ),
            ),
        ),
        "queue team holds it: queue resource quota insufficient: insufficient cpu",
        "kubectl get queue team -o yaml",
    ),
    "Volcano's queue that is too small": (
        job(
            pod("head", spec={"nodeName": None}),
            group={**podgroup(), "spec": {"queue": "team", "minResources": {"cpu": "8"}}},
            room={"spec": {"capability": {"cpu": "5"}}},
        ),
        "queue team is too small for it: 8 cpu asked for, 5 at most",
        "waiting does not help: lower resources.workers, resources.cpus_per_worker, target.head.cpus",
    ),
    "Volcano's queue that is not there": (
        job(pod("head", spec={"nodeName": None}), group=podgroup(), roomless=True),
        "queue team cannot take it: there is no Queue of that name",
        "correct target.queue.name",
    ),
    "Volcano's queue that is closed": (
        job(pod("head", spec={"nodeName": None}), group=podgroup(), room={"status": {"state": "Closed"}}),
        "queue team cannot take it: it is closed",
        "have the queue made and opened",
    ),
    "YuniKorn's queue": (
        job(
            skipped(
                "Request 'a' does not fit in queue 'root.team' (requested map[vcore:8000], available map[])"
            )
        ),
        "queue root.team holds it: requested vcore:8000, available ",
        "yunikorn-configs",
    ),
    "YuniKorn takes no such application": (
        job(
            pod(
                "head",
                spec={"nodeName": None},
                phase="Failed",
                reason="ApplicationRejected",
                message="failed to find queue root.other",
            )
        ),
        "YuniKorn refuses it: failed to find queue root.other",
        "correct target.queue.name",
    ),
    "KAI's queue": (
        job(pod("head", spec={"nodeName": None}), group=kai("OverLimit", f"{LIMIT} 8 GPUs, {IN_USE} 4 GPUs")),
        "queue team holds it: it is at its limit of GPUs. Limit is 8 GPUs, currently 6 GPUs allocated",
        "kubectl get queues.scheduling.run.ai team -o yaml",
    ),
    "KAI's queue that is too small": (
        job(pod("head", spec={"nodeName": None}), group=kai("OverLimit", f"{LIMIT} 8 GPUs, {IN_USE} 9 GPUs")),
        "queue team is too small for it",
        "waiting does not help",
    ),
    "KAI finds no node": (
        job(
            homeless("head", "3 Insufficient nvidia.com/gpu."),
            group=kai("PodSchedulingErrors", "0/3 nodes are available"),
        ),
        "the head finds no node: 0/5 nodes are available: 3 Insufficient nvidia.com/gpu",
        "resources.gpus_per_worker",
    ),
    "a gang of scheduler-plugins": (
        job(
            homeless("head", "pre-filter pod a cannot find enough sibling pods, current pods number: 1"),
        ),
        "cannot find enough sibling pods",
        "target.queue.gang=false",
    ),
    "a check of the queue": (
        queued(condition("QuotaReserved", True), admissionChecks=[{"name": "provision", "state": "Pending"}]),
        "waits for provision (Pending)",
        "admission check",
    ),
    "no Kueue": (
        snapshot(rayjob("Suspended", spec={"suspend": True}, queue="team")),
        "has not taken notice",
        "raystack doctor",
    ),
    "suspended": (
        snapshot(rayjob("Suspended", spec={"suspend": True})),
        "it was suspended",
        "raystack resume rayjob/digits",
    ),
    # An end
    "the driver's error": (
        failed(driver=("x", "error: a: first", "error: task: no data")),
        "task: no data",
        "raystack logs rayjob/digits",
    ),
    "somebody else's exception": (
        failed(driver=("Traceback", "KeyError: 'x'")),
        "KeyError: 'x'",
        "raystack logs",
    ),
    "Ray's message": (
        failed(message="Job failed with exit code 1, logs:\n\x1b[31merror: task: no data"),
        "task: no data",
        "raystack logs",
    ),
    "a worker that took the memory": (
        failed(ends("worker", 137, "OOMKilled"), driver=("error: training: a worker died",)),
        "a worker took more memory",
        "target.worker.memory",
    ),
    "memory long ago": (
        failed(ends("worker", 137, "OOMKilled"), driver=("error: task: no data",)),
        "task: no data",
        "raystack logs",
    ),
    "paused": (failed(message="failed with exit code 75."), "with a checkpoint", "submit it with --resume"),
    "a deadline": (
        failed(reason="DeadlineExceeded", spec={"activeDeadlineSeconds": 60}),
        "its deadline of 60 s",
        "target.submission.deadline_s",
    ),
    "what took the time to start": (
        failed(
            waits("head", "ErrImagePull", "not found"),
            reason="PreRunningDeadlineExceeded",
            spec={"preRunningDeadlineSeconds": 60},
        ),
        "it did not run within 60 s: image registry/raystack:1 of the head cannot be pulled",
        "target.image",
    ),
    "no way to the dashboard": (
        failed(reason="JobStatusCheckTimeoutExceeded"),
        "could not reach the dashboard",
        "operator_namespace",
    ),
    "a head that took the memory": (
        failed(ends("head", 137, "OOMKilled"), reason="JobStatusCheckTimeoutExceeded"),
        "the head took more memory",
        "target.head.memory",
    ),
    "a submitter that stays": (
        failed(reason="JobDeploymentStatusTransitionGracePeriodExceeded"),
        "its submitter did not",
        "target.submission.mode",
    ),
    "the last of two submitters": (
        snapshot(
            rayjob("Failed", "FAILED", reason="AppFailed"),
            pods=(ends("submitter", 1), ends("submitter", 75, made=JUST_NOW)),
        ),
        "with a checkpoint",
        "submit it with --resume",
    ),
    "refused": (
        snapshot(rayjob("ValidationFailed", message="no")),
        "the operator refuses it: no",
        "raystack cancel rayjob/digits",
    ),
    # A service, a schedule
    "an application": (
        snapshot(service(False, activeServiceStatus=on("a", "UNHEALTHY", "Trace\nRuntimeError: CUDA"))),
        "application model is unhealthy: RuntimeError: CUDA",
        "raystack logs rayservice/digits",
    ),
    "its time to start": (
        snapshot(service(False, "InitializingTimeout")),
        "within the time it had to start",
        "submit it again",
    ),
    "no schedule yet": (snapshot(cron()), "nothing was started yet", "raystack doctor"),
    # Nothing
    "it runs": (
        snapshot(rayjob("Running", "RUNNING"), cluster=cluster()),
        "nothing is wrong: it runs",
        "nothing",
    ),
    "it ran": (snapshot(rayjob("Complete", "SUCCEEDED")), "nothing is wrong: it has succeeded", "nothing"),
    "there is none": (snapshot(None), "there is no rayjob digits in namespace default", "raystack status"),
    "there was one": (
        snapshot(None, events=(event(rayjob(), "DeletedRayCluster", "Deleted cluster"),)),
        "rayjob digits was deleted in namespace default",
        "submit it with --resume to go on from its last checkpoint",
    ),
    "it goes away": (
        snapshot({**(gone := rayjob()), "metadata": {**gone["metadata"], "deletionTimestamp": JUST_NOW}}),
        "it is being deleted",
        "submitted again with --resume, it goes on",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_one_cause_and_one_remedy(name: str) -> None:
    seen, cause, remedy = TABLE[name]
    found = diagnose(seen, NOW)
    assert cause in found.cause
    assert remedy in found.remedy
    assert "\n" not in found.cause + found.remedy


def test_every_cause_is_found_by_a_case() -> None:
    """A cause that another one always hides would never be told."""
    first = {
        next((cause.__name__ for cause in CAUSES if cause(seen, NOW) is not None), None)
        for seen, _, _ in TABLE.values()
    }
    assert first - {None} == {cause.__name__ for cause in CAUSES}


def test_it_says_what_it_was_concluded_from_and_what_it_could_not_read() -> None:
    quota = TABLE["a quota"][0]
    assert "quota team: limits.cpu 8 of 8" in diagnose(quota, NOW).evidence
    blind = snapshot(rayjob("Initializing"), unread=("pods: forbidden",))
    assert diagnose(blind, NOW).evidence == ("not read: pods: forbidden",)


def test_a_remedy_names_the_namespace_where_commands_would_look_elsewhere() -> None:
    seen = snapshot(rayjob("Suspended", spec={"suspend": True}))
    assert diagnose(seen, NOW).remedy == "raystack resume rayjob/digits"
    assert diagnose(replace(seen, home="team"), NOW).remedy == "raystack resume rayjob/digits -n default"


def test_what_is_said_of_several_pods_is_said_once() -> None:
    lack = "0/5 nodes are available: 5 Insufficient cpu."
    workers = [
        homeless("worker", "5 Insufficient cpu.", name=f"digits-worker-{number}") for number in range(5)
    ]
    told = diagnose(
        job(pod("head"), events=tuple(event(worker, "FailedScheduling", lack) for worker in workers)), NOW
    ).evidence
    assert told == (f"digits-worker-4 and 4 more: FailedScheduling: {lack}",)


def test_what_is_over_and_what_goes_well_is_no_evidence() -> None:
    """A pod that was held and then placed tells where it is; Kueue's conditions are told once, without
    numbers of objects.
    """
    head = waits("head", "ContainerCreating")
    placed = event(head, "Scheduled", "Successfully assigned default/digits-head to node-1", "Normal")
    said = (event(head, "FailedScheduling", "no room"), placed)
    made = event(COMING, "CreatedHeadPod", "Created head Pod", "Normal")
    assert diagnose(job(head, events=(made, *said)), NOW).evidence == (
        "digits-head: Scheduled: Successfully assigned it to node-1",
    )
    why = (
        "Preempted to accommodate a workload (UID: 1, JobUID: 2) due to prioritization; preemptor path:"
        " /team; preemptee path: /team"
    )
    evicted = (condition(name, True, "Preempted", why) for name in ("Evicted", "Preempted", "Requeued"))
    assert diagnose(queued(condition("QuotaReserved", False, "Pending", "x"), *evicted), NOW).evidence == (
        "workload: QuotaReserved is False: x",
        "workload: Evicted is True: Preempted to accommodate a workload due to prioritization",
    )


def test_an_application_that_fails_shows_the_error_and_no_colors() -> None:
    model = {
        "status": "DEPLOY_FAILED",
        "message": "Error:\n\x1b[36mray::Replica\x1b[39m\nTraceback (most recent call last):\nValueError: 9",
    }
    seen = snapshot(service(False, activeServiceStatus=on("a", "DEPLOY_FAILED", "Failed to update", model)))
    found = diagnose(seen, NOW)
    assert found.cause.endswith("application model cannot be deployed: ValueError: 9")
    assert found.evidence == ("model: Error:", "model: ray::Replica", "model: ValueError: 9")


def test_of_what_is_gone_the_events_of_its_end_are_told() -> None:
    made, gone = (
        event(rayjob(), reason, reason, "Normal") for reason in ("CreatedService", "DeletedRayCluster")
    )
    assert diagnose(snapshot(None, events=(made,)), NOW).evidence == ()
    assert diagnose(snapshot(None, events=(gone, made)), NOW).evidence == (
        "digits: DeletedRayCluster: DeletedRayCluster",
    )


def test_a_pod_that_restarted_tells_why_it_did() -> None:
    entry = {
        "name": "ray-head",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 2}},
    }
    assert "crashes: exit code 2" in diagnose(job(pod("head", containerStatuses=[entry])), NOW).cause


def test_models_of_one_service_are_told_apart() -> None:
    def app(error: str | None) -> Object:
        message = f"Traceback:\nValueError: {error}"
        replica = {"model": {"status": "UNHEALTHY", "message": message}} if error else {}
        return {"status": "DEPLOY_FAILED" if error else "RUNNING", "serveDeploymentStatuses": replica}

    apps = {"small": app(None), "digits": app("no such file"), "large": app("out of memory")}
    part = {"rayClusterName": "a", "applicationStatuses": apps}
    found = diagnose(snapshot(service(False, activeServiceStatus=part)), NOW)
    assert found.cause == "application digits cannot be deployed: ValueError: no such file"
    assert found.evidence[-1] == "application large: ValueError: out of memory"
