"""Rules on names, which become names and labels of pods, services and jobs."""

import re
from collections.abc import Iterator

from raystack.kuberay.lint.forms import DNS_1035, DNS_1123, SUBDOMAIN
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import INVALID, REFUSED, Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject, ObjectSubject
from raystack.plan.kuberay.facts import LABEL, NAME_LIMITS
from raystack.plan.kuberay.schedule import DURATION

LONGEST = 253
FORM = "lower case, digits and dashes, from a letter on"
GENERATED = 5
"""Number of characters that the API server appends to generateName."""
NAMES_SINCE = "1.4.0"
"""First KubeRay that refuses names; older ones cut them off."""
POD_PREFIX = 50
"""Number of characters of `cluster-group` that a worker pod's name keeps."""


@rule(
    "RS201",
    on=ObjectSubject,
    kinds=("RayCluster",),
    says=f"a RayCluster's name has at most {NAME_LIMITS['RayCluster']} characters: {FORM}",
    why=INVALID,
    remedy="shorten or rename it",
    since=NAMES_SINCE,
)
def cluster_name(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    yield from _bad_name(resource)


@rule(
    "RS202",
    on=ObjectSubject,
    kinds=("RayJob", "RayService"),
    says=f"the name of a RayJob or RayService has at most {NAME_LIMITS['RayJob']} characters: {FORM}",
    why=INVALID,
    remedy="shorten or rename it",
    since=NAMES_SINCE,
)
def job_name(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    yield from _bad_name(resource)


@rule(
    "RS203",
    on=ObjectSubject,
    kinds=("RayCronJob",),
    says=f"a RayCronJob's name has at most {NAME_LIMITS['RayCronJob']} characters: {FORM}",
    why="its jobs are named after it, and the operator refuses them",
    remedy="shorten or rename it",
)
def cron_name(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    yield from _bad_name(resource)


@rule(
    "RS204",
    on=ClusterSubject,
    says="worker groups have different names",
    why="without the operator's webhook nobody refuses it, and the groups delete each other's pods",
    remedy="rename one of them",
)
def group_names(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    seen: set[str] = set()
    for group in cluster.workers:
        if group.name and group.name in seen:
            yield Breach(group.node["groupName"])
        seen.add(group.name)


@rule(
    "RS205",
    on=ClusterSubject,
    says="with a network policy a group's name is lower case, digits and dashes",
    why=INVALID,
    remedy="rename the group",
    since="1.7.0",
)
def policy_group_names(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.workers if cluster.node["networkPolicy"].present else []:
        label = not group.name or LABEL.fullmatch(group.name)
        if group.node["groupName"].present and label and not DNS_1123.fullmatch(group.name):
            yield Breach(group.node["groupName"])


@rule(
    "RS206",
    on=ObjectSubject,
    kinds=("RayService",),
    says="ray.io/initializing-timeout is a duration such as 5m, or seconds, above zero",
    why=INVALID,
    remedy='write it as "5m" or "300"',
    since="1.5.0",
)
def initializing_timeout(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    timeout = resource.annotations["ray.io/initializing-timeout"]
    form = DURATION.fullmatch(timeout.text) or re.fullmatch(r"\+?\d+", timeout.text)
    # An empty value is ignored; one that is no text is the schema's to report.
    if timeout.text and not (form and re.search(r"[1-9]", timeout.text)):
        yield Breach(timeout)


@rule(
    "RS207",
    on=ObjectSubject,
    says="an object has a name or a generateName",
    why=REFUSED,
    remedy="give metadata.name",
)
def named(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    metadata = resource.node["metadata"]
    if not metadata["name"].present and not metadata["generateName"].present:
        yield Breach(metadata["name"])


@rule(
    "RS210",
    on=ObjectSubject,
    says="a name is lower case, digits, dashes and dots",
    why=REFUSED,
    remedy="rename it",
)
def any_name(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    name = resource.node.at("metadata", "name")
    stricter = resource.kind == "RayCronJob" or operator.at_least(NAMES_SINCE)
    if name.text and not stricter and not (SUBDOMAIN.fullmatch(name.text) and len(name.text) <= LONGEST):
        yield Breach(name)


@rule(
    "RS208",
    on=ClusterSubject,
    says=(
        "a group's name can be the value of a label: at most 63 letters, digits, dashes, dots and underscores"
    ),
    why="the group's pods carry it as a label and cannot be made",
    remedy="rename the group",
)
def group_label(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.workers:
        if group.name and not LABEL.fullmatch(group.name):
            yield Breach(group.node["groupName"])


@rule(
    "RS209",
    on=ClusterSubject,
    says=f"the first {POD_PREFIX} characters of `cluster-group` tell worker groups apart",
    why="the rest is cut off in the names of pods, so that nobody sees which group a pod is of",
    remedy="shorten the name of the object or of its groups",
    level="warning",
)
def pod_names(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    suffix = {"RayCluster": 0, "RayCronJob": GENERATED + 10}.get(cluster.kind, GENERATED + 1)
    name = cluster.document.name + "x" * suffix
    seen: dict[str, str] = {}
    for group in cluster.workers:
        prefix = f"{name}-{group.name}"[:POD_PREFIX]
        if seen.setdefault(prefix, group.name) != group.name:
            yield Breach(group.node["groupName"])


def _bad_name(resource: ObjectSubject) -> Iterator[Breach]:
    longest, metadata = NAME_LIMITS[resource.kind], resource.node["metadata"]
    name, generated = metadata["name"], metadata["generateName"]
    if name.present:
        if not (DNS_1035.fullmatch(name.text) and len(name.text) <= longest):
            yield Breach(name)
    elif generated.present and not (
        DNS_1035.fullmatch(generated.text + "x") and len(generated.text) + GENERATED <= longest
    ):
        yield Breach(generated)
