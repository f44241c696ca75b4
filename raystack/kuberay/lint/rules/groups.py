"""Rules on head and worker groups: containers, resources, labels, numbers of pods."""

from collections.abc import Iterator

from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import INVALID, Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject
from raystack.plan.kuberay.facts import LABEL, LABEL_KEY

SIZES = ("num-cpus", "num-gpus", "memory", "resources")


@rule(
    "RS301",
    on=ClusterSubject,
    says="the head has a container",
    why=INVALID,
    remedy="give headGroupSpec.template.spec.containers",
)
def head_container(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    if cluster.head.node["template"].present and not cluster.head.containers:
        yield Breach(cluster.head.pod["containers"])


@rule(
    "RS302",
    on=ClusterSubject,
    says="every worker group has a container",
    why=INVALID,
    remedy="give template.spec.containers",
)
def worker_container(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.workers:
        if group.node["template"].present and not group.containers:
            yield Breach(group.pod["containers"])


@rule(
    "RS303",
    on=ClusterSubject,
    says="sizes stand either in rayStartParams or in the group's resources",
    why=INVALID,
    remedy=f"drop {', '.join(SIZES)} from rayStartParams",
    since="1.5.0",
)
def sizes_once(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        given = [group.params[name] for name in SIZES if group.params[name].text]
        if group.node["resources"].fields and given:
            yield Breach(given[0])


@rule(
    "RS304",
    on=ClusterSubject,
    says="Ray's node labels do not stand in rayStartParams",
    why=INVALID,
    remedy="write them into the group's labels",
    since="1.5.0",
)
def labels_of_their_own(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        if group.params["labels"].present:
            yield Breach(group.params["labels"])


@rule(
    "RS305",
    on=ClusterSubject,
    says="a group's labels are Kubernetes labels: at most 63 characters, letters and digits at both ends",
    why=INVALID,
    remedy="rename the label or its value",
    since="1.5.0",
)
def group_labels(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        for key, value in group.node["labels"].fields.items():
            if not LABEL_KEY.fullmatch(key) or (value.text and not LABEL.fullmatch(value.text)):
                yield Breach(value)


@rule(
    "RS306",
    on=ClusterSubject,
    says="minReplicas and maxReplicas are given",
    why="left out they are 0 and 2147483647, so that an autoscaler has no limit",
    remedy="give both",
    level="warning",
)
def bounds(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.workers:
        for name in ("minReplicas", "maxReplicas"):
            if not group.node[name].present:
                yield Breach(group.node[name])


@rule(
    "RS307",
    on=ClusterSubject,
    says="0 <= minReplicas <= maxReplicas",
    why=INVALID,
    remedy="correct them",
    since="1.6.0",
)
def bounds_in_order(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.workers:
        least, most = group.node["minReplicas"], group.node["maxReplicas"]
        if (least.number or 0) < 0:
            yield Breach(least)
        elif most.number is not None and most.number < (least.number or 0):
            yield Breach(most)


@rule(
    "RS326",
    on=ClusterSubject,
    kinds=("RayJob", "RayService", "RayCronJob"),
    says="upgradeStrategy belongs to a RayCluster that stands alone",
    why=INVALID,
    remedy="drop it; a RayService has an upgradeStrategy of its own",
    since="1.6.0",
)
def upgrades_alone(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    if (strategy := cluster.node.at("upgradeStrategy", "type")).present:
        yield Breach(strategy)


@rule(
    "RS327",
    on=ClusterSubject,
    kinds=("RayCluster",),
    says="a RayCluster is not at once suspending and suspended",
    why=INVALID,
    remedy="delete it and create it again",
)
def one_suspension(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    conditions = cluster.document.root.at("status", "conditions")
    true = {each["type"].text for each in conditions.items if each["status"].text == "True"}
    if {"RayClusterSuspending", "RayClusterSuspended"} <= true:
        yield Breach(conditions)
