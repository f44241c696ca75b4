"""Queues and schedulers: the labels that each reads, and what each cannot do."""

from collections.abc import Iterator, Mapping

from raystack.config.kuberay import KubeRay
from raystack.errors import Problem
from raystack.plan.kuberay.facts import (
    GANG,
    KAI_MODE,
    KAI_QUEUE,
    KAI_REFUSES,
    KUEUE_ELASTIC,
    KUEUE_PRIORITY,
    KUEUE_QUEUE,
    MULTIKUEUE,
    VOLCANO_MODE,
    VOLCANO_PRIORITY,
    VOLCANO_QUEUE,
    VOLCANO_TIER,
    YUNIKORN_APP,
    YUNIKORN_QUEUE,
)
from raystack.plan.kuberay.shape import DRIVEN, Admission, Form

ALWAYS_GANG = ("kueue", "volcano", "kai")

OPERATOR: Mapping[str, str] = {
    "volcano": "volcano",
    "yunikorn": "yunikorn",
    "kai": "kai-scheduler",
    "scheduler-plugins": "scheduler-plugins",
}
"""Names of the schedulers in the operator's `batchScheduler.name`."""


def plan_queue(target: KubeRay, name: str) -> Admission:
    """Return the labels and annotations of an object called `name`, for its queue."""
    queue = target.queue
    match queue.scheduler:
        case "kueue":
            return Admission(
                labels=_present({KUEUE_QUEUE: queue.name, KUEUE_PRIORITY: queue.priority}),
                annotations={KUEUE_ELASTIC: "true"} if target.autoscaling.enabled else {},
                worker_annotations=_present({"kueue.x-k8s.io/podset-required-topology": queue.topology}),
                managed_by=MULTIKUEUE if queue.multikueue else None,
            )
        case "volcano":
            tier = {
                VOLCANO_MODE: "hard",
                VOLCANO_TIER: queue.topology,
            }
            names = {VOLCANO_QUEUE: queue.name, VOLCANO_PRIORITY: queue.priority}
            return Admission(labels=_present({**names, **(tier if queue.topology else {})}))
        case "yunikorn":
            labels = {
                YUNIKORN_QUEUE: queue.name,
                YUNIKORN_APP: name,
                GANG: "true" if queue.gang else None,
            }
            return Admission(labels=_present(labels), priority_class=queue.priority)
        case "kai":
            return Admission(labels=_present({KAI_QUEUE: queue.name}), priority_class=queue.priority)
        case "scheduler-plugins":
            return Admission(labels={GANG: "true"} if queue.gang else {}, priority_class=queue.priority)
    return Admission(priority_class=queue.priority)


def _present(values: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in values.items() if value is not None}


def queue_problems(target: KubeRay, form: Form) -> Iterator[Problem]:
    """Yield what the scheduler cannot do, also with this submission mode and the autoscaler."""
    queue, run = target.queue, form in DRIVEN
    where, got = "target.queue.scheduler", queue.scheduler
    if queue.scheduler in ("none", "scheduler-plugins") and queue.name is not None:
        yield Problem(
            "target.queue.name",
            rule=f"{got} has no queues",
            got=queue.name,
            remedy="drop it, or set target.queue.scheduler",
        )
    if queue.topology is not None:
        yield from _topology_problems(queue.scheduler, queue.topology)
    if queue.scheduler in ALWAYS_GANG and not queue.gang:
        yield Problem(
            "target.queue.gang",
            rule=f"{got} always admits all pods at once or none",
            got="false",
            remedy="drop it",
        )
    if queue.scheduler == "kueue":
        yield from _kueue_problems(target, form)
    if queue.scheduler == "kai" and run and target.submission.mode == KAI_REFUSES:
        rule = f"KAI takes no RayJob in {KAI_REFUSES}: the submitter's pod would be outside the gang"
        yield Problem(where, rule=rule, got=got, remedy=f"set target.submission.mode={KAI_MODE}")
    if queue.scheduler == "yunikorn" and run and queue.gang and target.submission.mode != "K8sJobMode":
        rule = "YuniKorn gets the task groups of a RayJob in K8sJobMode only, so that there would be no gang"
        yield Problem(
            where,
            rule=rule,
            got=got,
            remedy="set target.submission.mode=K8sJobMode, or target.queue.gang=false",
        )
    if queue.scheduler == "scheduler-plugins" and run:
        rule = "KubeRay supports scheduler-plugins for a RayCluster, not for a RayJob"
        yield Problem(where, rule=rule, got=got, remedy="set target.queue.scheduler=volcano or kueue")


def _topology_problems(scheduler: str, topology: str) -> Iterator[Problem]:
    if scheduler not in ("kueue", "volcano"):
        rule = "only kueue and volcano place pods by topology"
        yield Problem(
            "target.queue.topology",
            rule=rule,
            got=topology,
            remedy="set target.queue.scheduler=kueue, or drop it",
        )
    elif scheduler == "volcano" and not topology.isdecimal():
        rule = "should be the highest tier as a number, for volcano"
        yield Problem("target.queue.topology", rule=rule, got=topology, remedy="set it to 1, 2 and so on")


def _kueue_problems(target: KubeRay, form: Form) -> Iterator[Problem]:
    where = "target.queue.scheduler"
    if form in DRIVEN and target.lifetime.rules:
        rule = (
            "kueue suspends jobs, which KubeRay allows only where the whole cluster is deleted after the end"
        )
        yield Problem("target.lifetime.rules", rule=rule, remedy="use target.lifetime.ttl_s")
    if target.autoscaling.enabled and target.queue.multikueue:
        rule = "a job that Kueue runs in another cluster cannot be scaled"
        yield Problem(
            "target.queue.multikueue", rule=rule, got="true", remedy="set target.autoscaling.enabled=false"
        )
    if target.autoscaling.enabled and form == "service":
        rule = "Kueue scales RayJob and RayCluster, not RayService"
        yield Problem(where, rule=rule, got="kueue", remedy="set target.autoscaling.enabled=false")
