"""Rules on batch schedulers, of which the operator uses one for all of its clusters."""

from collections.abc import Iterator

from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject, JobSubject, ObjectSubject
from raystack.plan.kuberay.facts import (
    GANG,
    KAI_MODE,
    KAI_QUEUE,
    KAI_REFUSES,
    KUEUE_QUEUE,
    READ_BY,
    VOLCANO_MODE,
    VOLCANO_PRIORITY,
    VOLCANO_TIER,
)

WITH_GANG = ("yunikorn", "scheduler-plugins")


@rule(
    "RS801",
    on=ObjectSubject,
    says="the operator was started with the scheduler whose labels the object has",
    why="nobody reads the label, and Kubernetes' own scheduler places the pods one by one",
    remedy="set Helm's batchScheduler.name",
)
def scheduler_there(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    for label, names in _asked(resource, operator).values():
        if operator.scheduler in names:
            continue
        known, name = operator.scheduler is not None, " or ".join(names)
        got = f"is {operator.scheduler}" if known else "is not known"
        says = f"the label needs the operator's batchScheduler.name={name}, which {got}"
        yield Breach(
            label, says, f"set Helm's batchScheduler.name={name}", level="error" if known else "warning"
        )


@rule(
    "RS802",
    on=ObjectSubject,
    says="an object has labels of one batch scheduler",
    why="an operator has one of them, and the labels of the others do nothing",
    remedy="drop those of the others",
)
def one_scheduler(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    found = [label for label, names in _asked(resource, operator).values() if len(names) == 1]
    yield from map(Breach, found[1:])


@rule(
    "RS803",
    on=JobSubject,
    says="Volcano takes a RayJob with a cluster of its own",
    why="the operator fails again and again, and the job stays Initializing",
    remedy="give rayClusterSpec instead of clusterSelector",
)
def volcano_selector(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if _runs_on(job, operator, "volcano") and job.selector.fields:
        yield Breach(job.selector)


@rule(
    "RS804",
    on=JobSubject,
    says="YuniKorn gets a gang from a RayJob in K8sJobMode alone",
    why="in other modes no task groups are written, and pods are placed one by one",
    remedy=f"use K8sJobMode, or drop {GANG}",
    level="warning",
)
def yunikorn_mode(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if _runs_on(job, operator, "yunikorn") and job.labels[GANG].present and job.mode != "K8sJobMode":
        yield Breach(job.node["submissionMode"])


@rule(
    "RS805",
    on=JobSubject,
    says=f"KAI takes no RayJob in {KAI_REFUSES}",
    why="the submitter's pod is none of the gang, and the operator refuses it",
    remedy=f"set submissionMode: {KAI_MODE}",
)
def kai_mode(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if _runs_on(job, operator, "kai-scheduler") and job.mode == KAI_REFUSES:
        yield Breach(job.node["submissionMode"])


@rule(
    "RS806",
    on=ObjectSubject,
    kinds=("RayCluster", "RayJob", "RayService"),
    says=f"with KAI an object has the label {KAI_QUEUE}",
    why="its pods stay pending",
    remedy="add the label with the name of a queue",
)
def kai_queue(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    label = resource.labels[KAI_QUEUE]
    if operator.scheduler == "kai-scheduler" and label.value in (None, ""):
        yield Breach(label)


@rule(
    "RS807",
    on=JobSubject,
    says="scheduler-plugins takes a RayCluster and no RayJob",
    why="the operator fails again and again, and the job stays Initializing",
    remedy="use a RayCluster, or another scheduler",
)
def plugins_kind(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if operator.scheduler == "scheduler-plugins":
        yield Breach(job.document.root["kind"])


@rule(
    "RS808",
    on=ClusterSubject,
    says="a gang of Kubernetes' own scheduler does not grow",
    why="the operator refuses Ray's autoscaler with it",
    remedy=f"drop enableInTreeAutoscaling, or {GANG}",
    since="1.7.0",
)
def native_gang(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    if operator.has("KubernetesWAS") and cluster.labels[GANG].text == "true" and cluster.autoscaling:
        yield Breach(cluster.node["enableInTreeAutoscaling"])


@rule(
    "RS809",
    on=ObjectSubject,
    says="Volcano's topology has the mode hard or soft, and its highest tier is a number",
    why="Volcano refuses the group of pods",
    remedy='write the tier as "1", "2" and so on',
)
def volcano_topology(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    tier, mode = resource.labels[VOLCANO_TIER], resource.labels[VOLCANO_MODE]
    if tier.present and not tier.text.isdecimal():
        yield Breach(tier)
    if mode.present and mode.text not in ("hard", "soft"):
        yield Breach(mode)


@rule(
    "RS810",
    on=ObjectSubject,
    kinds=("RayCronJob",),
    says="a RayCronJob has no labels for a queue",
    why="its jobs do not get them, and run outside of the queue or not at all",
    remedy="use a CronJob that creates RayJobs with the labels",
)
def cron_labels(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    yield from (
        Breach(label)
        for key, label in resource.labels.fields.items()
        if key in READ_BY or key in (KUEUE_QUEUE, GANG)
    )


@rule(
    "RS819",
    on=ObjectSubject,
    says=f"the label {VOLCANO_PRIORITY} is Volcano's",
    why="with other schedulers the priority of pods is their priorityClassName",
    remedy="set priorityClassName in the pod templates",
    level="warning",
)
def priority(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    label = resource.labels[VOLCANO_PRIORITY]
    others = {name for key, name in READ_BY.items() if resource.labels[key].present} - {"volcano"}
    if label.present and (
        operator.scheduler not in (None, "volcano") or (operator.scheduler is None and others)
    ):
        yield Breach(label)


def _asked(resource: ObjectSubject, operator: Operator) -> dict[str, tuple[Node, tuple[str, ...]]]:
    """Return the first label of each scheduler, and the schedulers that read it."""
    if resource.kind == "RayCronJob":
        return {}
    labels = resource.labels.fields
    found: dict[str, tuple[Node, tuple[str, ...]]] = {}
    for key, name in READ_BY.items():
        if key in labels and labels[key].value != "" and key != VOLCANO_PRIORITY:
            found.setdefault(name, (labels[key], (name,)))
    gang = labels.get(GANG)
    if gang is not None and not operator.has("KubernetesWAS") and not set(found) & set(WITH_GANG):
        found["gang"] = (gang, WITH_GANG)
    return found


def _runs_on(job: JobSubject, operator: Operator, scheduler: str) -> bool:
    """Return whether the scheduler takes the job.

    If the operator's scheduler is not known, the labels decide.
    """
    if operator.scheduler is not None:
        return operator.scheduler == scheduler
    return job.kind == "RayJob" and any(
        READ_BY.get(key) == scheduler and key != VOLCANO_PRIORITY and value.value != ""
        for key, value in job.labels.fields.items()
    )
