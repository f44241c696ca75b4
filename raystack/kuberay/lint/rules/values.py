"""Rules of the API server beyond the CRDs' schemas: versions, and rules in CEL."""

from collections import Counter
from collections.abc import Iterator

from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import REFUSED, Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject, ObjectSubject, Subject
from raystack.plan.kuberay.facts import MULTIKUEUE

MANAGERS = ("ray.io/kuberay-operator", MULTIKUEUE)


@rule(
    "RS101",
    on=ObjectSubject,
    says="the API version is ray.io/v1",
    why="v1alpha1 is deprecated and goes away, and others do not exist",
    remedy="write apiVersion: ray.io/v1",
)
def api_version(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
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
    service = isinstance(subject, ObjectSubject) and subject.kind == "RayService"
    managed = subject.node.at("spec", "managedBy") if service else subject.node["managedBy"]
    if managed.present and managed.value not in MANAGERS:
        yield Breach(managed)


@rule(
    "RS109",
    on=ClusterSubject,
    says="networkPolicy.workerGroups names every group once",
    why=REFUSED,
    remedy="merge the entries of the group",
    since="1.7.0",
)
def policy_groups_once(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    entries = cluster.node.at("networkPolicy", "workerGroups").items
    count = Counter(entry["groupName"].text for entry in entries)
    for index, entry in enumerate(entries):
        if count[entry["groupName"].text] > 1 and any(
            entry["groupName"].text == other["groupName"].text for other in entries[:index]
        ):
            yield Breach(entry["groupName"])


@rule(
    "RS110",
    on=ObjectSubject,
    says="the object has a spec",
    why="the API server takes it, and the operator can make nothing of it",
    remedy="give it",
)
def spec(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    if not resource.spec.present:
        yield Breach(resource.spec)
