"""Values that the CRDs allow, so far as they can be told without the CRDs."""

from collections import Counter
from collections.abc import Iterator, Mapping

from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import REFUSED, Breach, rule
from raystack.kuberay.lint.subject import Cluster, Job, Resource, Subject

MANAGERS = ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")
POLICIES = ("DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone")
ENUMS = {
    "autoscalerOptions.upscalingMode": ("Default", "Aggressive", "Conservative"),
    "autoscalerOptions.version": ("v1", "v2"),
    "authOptions.mode": ("disabled", "token"),
    "upgradeStrategy.type": ("Recreate", "None"),
    "networkPolicy.mode": ("DenyAll", "DenyAllIngress", "DenyAllEgress"),
    "headGroupSpec.ingressOptions.pathType": ("Exact", "Prefix", "ImplementationSpecific"),
}
RECOVERY = {
    "gcsFaultToleranceOptions.backend": ("redis", "rocksdb"),
    "gcsFaultToleranceOptions.storage.deletionPolicy": ("DeleteWithCluster", "Retain"),
}
DELETION = {
    "deletionStrategy.onSuccess.policy": POLICIES,
    "deletionStrategy.onFailure.policy": POLICIES,
    "deletionStrategy.deletionRules.*.policy": POLICIES,
    "deletionStrategy.deletionRules.*.condition.jobStatus": ("SUCCEEDED", "FAILED"),
    "deletionStrategy.deletionRules.*.condition.jobDeploymentStatus": ("Failed",),
}
REQUIRED = {
    "RayCluster": ("headGroupSpec",),
    "RayJob": (),
    "RayService": ("rayClusterConfig",),
    "RayCronJob": ("schedule", "jobTemplate"),
}


@rule(
    "RS101",
    on=Resource,
    says="the API version is ray.io/v1",
    why="v1alpha1 is deprecated and goes away, and others do not exist",
    remedy="write apiVersion: ray.io/v1",
)
def api_version(resource: Resource, operator: Operator) -> Iterator[Breach]:
    version = resource.node["apiVersion"]
    if version.text != "ray.io/v1":
        yield Breach(version, level="warning" if version.text == "ray.io/v1alpha1" else "error")


@rule(
    "RS102",
    on=Subject,
    says="managedBy is " + " or ".join(MANAGERS),
    why=REFUSED,
    remedy="drop managedBy, or name one of them; it cannot be changed later",
)
def manager(subject: Subject, operator: Operator) -> Iterator[Breach]:
    service = isinstance(subject, Resource) and subject.kind == "RayService"
    managed = subject.node.at("spec", "managedBy") if service else subject.node["managedBy"]
    if managed.present and managed.value not in MANAGERS:
        yield Breach(managed)


@rule(
    "RS103",
    on=Cluster,
    says="the backend is redis or rocksdb, and what becomes of its storage is DeleteWithCluster or Retain",
    why=REFUSED,
    remedy="choose one of them; the backend cannot be changed later",
)
def recovery_values(cluster: Cluster, operator: Operator) -> Iterator[Breach]:
    yield from _outside(cluster.node, RECOVERY)


@rule(
    "RS104",
    on=Job,
    says="deletionStrategy holds either deletionRules, at least one, or both of onSuccess and onFailure",
    why=REFUSED,
    remedy="give deletionRules alone",
)
def deletion_form(job: Job, operator: Operator) -> Iterator[Breach]:
    strategy = job.node["deletionStrategy"]
    if not strategy.present:
        return
    legacy = [strategy[name].present for name in ("onSuccess", "onFailure")]
    if (job.rules.present and (any(legacy) or not job.rules.items)) or (
        not job.rules.present and not all(legacy)
    ):
        yield Breach(strategy)


@rule(
    "RS105",
    on=Job,
    says="a deletion condition has either jobStatus or jobDeploymentStatus",
    why=REFUSED,
    remedy="give one of them",
)
def deletion_condition(job: Job, operator: Operator) -> Iterator[Breach]:
    for each in job.rules.items:
        condition = each["condition"]
        if condition["jobStatus"].present == condition["jobDeploymentStatus"].present:
            yield Breach(condition)


@rule(
    "RS106",
    on=Job,
    says="policies and states of deletionStrategy are those of the CRD",
    why=REFUSED,
    remedy="choose one of them",
)
def deletion_values(job: Job, operator: Operator) -> Iterator[Breach]:
    yield from _outside(job.node, DELETION)


@rule(
    "RS107",
    on=Cluster,
    says="the value is one of the CRD's",
    why=REFUSED,
    remedy="choose one of them",
)
def cluster_values(cluster: Cluster, operator: Operator) -> Iterator[Breach]:
    yield from _outside(cluster.node, ENUMS)


@rule(
    "RS109",
    on=Cluster,
    says="networkPolicy.workerGroups names every group once",
    why=REFUSED,
    remedy="merge the entries of the group",
    since="1.7.0",
)
def policy_groups_once(cluster: Cluster, operator: Operator) -> Iterator[Breach]:
    entries = cluster.node.at("networkPolicy", "workerGroups").items
    count = Counter(entry["groupName"].text for entry in entries)
    for index, entry in enumerate(entries):
        if count[entry["groupName"].text] > 1 and any(
            entry["groupName"].text == other["groupName"].text for other in entries[:index]
        ):
            yield Breach(entry["groupName"])


@rule(
    "RS110",
    on=Subject,
    says="the field is required",
    why=REFUSED,
    remedy="give it",
)
def required(subject: Subject, operator: Operator) -> Iterator[Breach]:
    if isinstance(subject, Resource):
        wanted = [subject.spec[name] for name in REQUIRED[subject.kind]]
    elif isinstance(subject, Cluster):
        head = [] if subject.kind == "RayCluster" else [subject.node["headGroupSpec"]]
        if subject.head.node.present:
            head = [subject.head.node["template"]]
        wanted = head + [group.node[name] for group in subject.workers for name in ("groupName", "template")]
    else:
        wanted = [
            each[name]
            for each in subject.node.find("deletionStrategy.deletionRules.*")
            for name in ("policy", "condition")
        ]
    for node in wanted:
        if not node.present:
            yield Breach(node)


@rule(
    "RS111",
    on=Cluster,
    says="every container has a name of its own",
    why=REFUSED + ", or the pods",
    remedy="name it",
)
def container_names(cluster: Cluster, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        seen: set[str] = set()
        for container in [*group.containers, *group.pod["initContainers"].items]:
            name = container["name"]
            if not name.text or name.text in seen:
                yield Breach(name)
            seen.add(name.text)


def _outside(node: Node, enums: Mapping[str, tuple[str, ...]]) -> Iterator[Breach]:
    for pattern, allowed in enums.items():
        for found in node.find(pattern):
            if found.value not in allowed:
                yield Breach(found, says=f"{found.keys[-1]} is one of {', '.join(allowed)}")
