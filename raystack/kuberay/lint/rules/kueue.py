"""Rules on Kueue, which admits objects by suspending and resuming them.

Its webhooks reject objects for which that does not work.
"""

from collections.abc import Iterator

from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject, JobSubject, ObjectSubject, Subject
from raystack.plan.kuberay.facts import KUEUE_ELASTIC, KUEUE_QUEUE, MULTIKUEUE, amount

ELASTIC_GATE = "ElasticJobsViaWorkloadSlices"
CLEANUP_GATE = "DeferRayServiceFinalizationForRedisCleanup"
"""Kueue's feature gate, on since 0.18, with which it lets the job run that removes state from Redis."""
TOPOLOGY = tuple(
    f"kueue.x-k8s.io/podset-{which}-topology" for which in ("required", "preferred", "unconstrained")
)
PODSETS = 18
"""Largest number of pod sets in a Workload; older versions of Kueue allow 8."""
CLEANUP = {"cpu": "200m", "memory": "256Mi"}
"""What the job asks for by which KubeRay removes a cluster's state from Redis."""
REFUSED = "Kueue refuses the object"


@rule(
    "RS811",
    on=JobSubject,
    says="a job in Kueue's queue has shutdownAfterJobFinishes, and so no deletionRules",
    why=REFUSED,
    remedy="set shutdownAfterJobFinishes: true, and ttlSecondsAfterFinished instead of deletionStrategy",
)
def shuts_down(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if _queued(job) and not job.shuts_down:
        yield Breach(job.node["shutdownAfterJobFinishes"])


@rule(
    "RS812",
    on=JobSubject,
    says="a job in Kueue's queue does not have a cluster of its own and select another",
    why=REFUSED,
    remedy="drop clusterSelector",
)
def one_cluster(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if _queued(job) and job.selector.fields and job.cluster.node.present:
        yield Breach(job.selector)


@rule(
    "RS813",
    on=ClusterSubject,
    says=(
        f"Ray's autoscaler in Kueue's queue needs the annotation {KUEUE_ELASTIC}: \"true\" on a RayCluster or"
        " RayJob"
    ),
    why=REFUSED,
    remedy="add the annotation, or drop enableInTreeAutoscaling",
)
def elastic(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    fits = cluster.kind in ("RayCluster", "RayJob") and cluster.annotations[KUEUE_ELASTIC].text == "true"
    if _queued(cluster) and cluster.autoscaling and not fits:
        yield Breach(cluster.node["enableInTreeAutoscaling"])


@rule(
    "RS814",
    on=ClusterSubject,
    says="a cluster that Kueue runs elsewhere has no autoscaler",
    why=REFUSED,
    remedy="drop enableInTreeAutoscaling, or managedBy",
)
def elastic_elsewhere(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    if cluster.autoscaling and _manager(cluster).text == MULTIKUEUE:
        yield Breach(cluster.node["enableInTreeAutoscaling"])


@rule(
    "RS815",
    on=ClusterSubject,
    says=f"a workload has at most {PODSETS} kinds of pods: the head's, each group's, and the submitter's",
    why=REFUSED,
    remedy="merge worker groups",
)
def podsets(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    mode = cluster.document.root.at("spec", "submissionMode").text or "K8sJobMode"
    submitter = cluster.kind == "RayJob" and mode == "K8sJobMode"
    if _queued(cluster) and 1 + len(cluster.workers) + submitter > PODSETS:
        yield Breach(cluster.node["workerGroupSpecs"])


@rule(
    "RS816",
    on=ClusterSubject,
    says="no worker group in Kueue's queue is called head",
    why=REFUSED,
    remedy="rename the group",
)
def head_is_taken(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.workers:
        if _queued(cluster) and group.name == "head":
            yield Breach(group.node["groupName"])


@rule(
    "RS817",
    on=ClusterSubject,
    says="a pod template asks Kueue for one kind of topology",
    why=REFUSED,
    remedy="keep one of the annotations",
)
def one_topology(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        annotations = group.node.at("template", "metadata", "annotations")
        given = [annotations[name] for name in TOPOLOGY if annotations[name].present]
        yield from map(Breach, given[1:])


@rule(
    "RS818",
    on=ObjectSubject,
    says="what Kueue manages in place of the operator is in one of its queues",
    why="the operator leaves the object alone, and so does Kueue",
    remedy=f"add the label {KUEUE_QUEUE}, or drop managedBy",
)
def managed_by_somebody(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    if _manager(resource).text == MULTIKUEUE and not _queued(resource):
        yield Breach(_manager(resource))


@rule(
    "RS820",
    on=ClusterSubject,
    says=f"an elastic job needs Kueue's feature gate {ELASTIC_GATE}",
    why=REFUSED,
    remedy=f"start Kueue with it, or drop the annotation {KUEUE_ELASTIC}",
    level="warning",
)
def elastic_gate(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    config = _queued(cluster) and cluster.autoscaling and cluster.annotations[KUEUE_ELASTIC].text == "true"
    if config and not operator.has(ELASTIC_GATE):
        yield Breach(
            cluster.annotations[KUEUE_ELASTIC], level="error" if operator.has(ELASTIC_GATE) is False else None
        )


@rule(
    "RS821",
    on=ClusterSubject,
    says="with fault tolerance in Kueue's queue the head's requests cover the job that cleans Redis up",
    why="Kueue raises the head's requests to 200m of cpu and 256Mi of memory for that job",
    remedy="give the head requests and limits of at least 200m and 256Mi",
)
def redis_cleanup(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    if not (_queued(cluster) and cluster.fault_tolerant):
        return
    resources = cluster.head.ray["resources"]
    for key, least in CLEANUP.items():
        request, limit = resources["requests"][key], resources["limits"][key]
        if not limit.present:
            continue
        if amount(limit.value) < amount(least):
            says = f"the head's limit of {key}, {limit.value}, is below {least}"
            yield Breach(limit, f"{says}, and Kueue never admits requests above limits")
        elif not request.present:
            says = f"the head has no request of {key}, and Kueue takes {least} in place of its limit"
            yield Breach(limit, says, f"request {limit.value}, as much as the limit", level="warning")


@rule(
    "RS822",
    on=ClusterSubject,
    says="what keeps its state in Redis can be deleted in Kueue's queue",
    why=(
        "its deletion waits for a job that removes the state, and an older Kueue, or one that manages jobs"
        " without a queue, holds that job back while the pods run on"
    ),
    remedy=f"use Kueue 0.18 or newer and say so with --gate {CLEANUP_GATE}, or drop the fault tolerance",
    level="warning",
)
def redis_deleted(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    options = cluster.node["gcsFaultToleranceOptions"]
    redis = cluster.fault_tolerant and options["backend"].text != "rocksdb"
    if _queued(cluster) and redis and not operator.has(CLEANUP_GATE):
        yield Breach(options if options.present else cluster.inherited["ray.io/ft-enabled"])


def _queued(subject: Subject) -> bool:
    """Return whether the object is in a queue."""
    # The jobs of a RayCronJob do not get its labels.
    return subject.kind != "RayCronJob" and bool(subject.labels[KUEUE_QUEUE].text)


def _manager(subject: Subject) -> Node:
    return subject.document.root.at("spec", "managedBy")
