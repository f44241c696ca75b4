"""Rules on network policies and ingress of a RayCluster."""

from collections.abc import Iterator

from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import INVALID, Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject
from raystack.plan.kuberay.facts import PORTS

NO_INGRESS = ("DenyAll", "DenyAllIngress")
NO_EGRESS = ("DenyAll", "DenyAllEgress")
DASHBOARD: tuple[int | str, ...] = (PORTS["dashboard"], "dashboard")
DNS: tuple[int | str, ...] = (53, "dns")
API: tuple[int | str, ...] = (443, 6443, 8443, 16443, "https")
"""Usual ports of the API server."""


@rule(
    "RS324",
    on=ClusterSubject,
    says="rules fit the mode of the network policy and the groups of the cluster",
    why=INVALID,
    remedy="drop the rules, or change the mode or the group's name",
    since="1.7.0",
)
def policy_fits(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    policy = cluster.node["networkPolicy"]
    useless = {"DenyAllEgress": "ingressRules", "DenyAllIngress": "egressRules"}.get(_mode(policy))
    names = {group.name for group in cluster.workers}
    for part in [policy["head"], policy["worker"], *policy["workerGroups"].items]:
        if useless is not None and part[useless].items:
            yield Breach(part[useless], says=f"mode {_mode(policy)} has no {useless}")
    for entry in policy["workerGroups"].items:
        if entry["groupName"].present and entry["groupName"].text not in names:
            yield Breach(entry["groupName"], says="a group of the network policy is one of the cluster's")


@rule(
    "RS710",
    on=ClusterSubject,
    kinds=("RayJob", "RayService", "RayCronJob"),
    says="the network policy lets the operator reach the head's dashboard, port 8265",
    why="it cannot ask how the job or service is, and gives up",
    remedy=(
        "add an ingress rule for the operator's namespace to networkPolicy.head, or start the operator with"
        " --use-kubernetes-proxy"
    ),
    since="1.7.0",
)
def operator_gets_in(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    policy = cluster.node["networkPolicy"]
    rules = policy["head"]["ingressRules"]
    if (
        policy.present
        and _mode(policy) in NO_INGRESS
        and not _opens(rules, DASHBOARD)
        and not operator.setting("use-kubernetes-proxy")
    ):
        yield Breach(rules)


@rule(
    "RS711",
    on=ClusterSubject,
    says="the network policy lets pods ask the DNS, port 53",
    why="workers cannot find the head by its name",
    remedy="add an egress rule for port 53, UDP and TCP; an entry of workerGroups replaces worker",
    since="1.7.0",
)
def names_resolve(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    policy = cluster.node["networkPolicy"]
    if not policy.present or _mode(policy) not in NO_EGRESS:
        return
    own = {entry["groupName"].text: entry for entry in policy["workerGroups"].items}
    parts = [policy["head"], *(own.get(group.name, policy["worker"]) for group in cluster.workers)]
    for part in {part.keys: part for part in parts}.values():
        if not _opens(part["egressRules"], DNS):
            yield Breach(part["egressRules"])


@rule(
    "RS712",
    on=ClusterSubject,
    says="the network policy lets the autoscaler reach the API server, port 443 or 6443",
    why="the autoscaler adds and removes pods through it",
    remedy="add an egress rule for it to networkPolicy.head",
    level="warning",
    since="1.7.0",
)
def autoscaler_gets_out(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    policy = cluster.node["networkPolicy"]
    rules = policy["head"]["egressRules"]
    if cluster.autoscaling and policy.present and _mode(policy) in NO_EGRESS and not _opens(rules, API):
        yield Breach(rules)


@rule(
    "RS713",
    on=ClusterSubject,
    says="an ingress names its class, by ingressOptions or the annotation kubernetes.io/ingress.class",
    why="no controller may pick it up",
    remedy="add it",
    level="warning",
)
def ingress_class(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    head = cluster.head.node
    named = cluster.inherited["kubernetes.io/ingress.class"].present or head["ingressOptions"].present
    if head["enableIngress"].true and not named:
        yield Breach(head["enableIngress"])


def _mode(policy: Node) -> str:
    return policy["mode"].text or "DenyAll"


def _opens(rules: Node, ports: tuple[int | str, ...]) -> bool:
    """Return whether a rule covers one of the ports, or all."""
    return any(
        not rule["ports"].items or any(_covers(port, ports) for port in rule["ports"].items)
        for rule in rules.items
    )


def _covers(entry: Node, ports: tuple[int | str, ...]) -> bool:
    first, last = entry["port"], entry["endPort"].number
    if first.number is not None and last is not None:
        return any(isinstance(port, int) and first.number <= port <= last for port in ports)
    return not first.present or first.value in ports
