"""Rules on slices: pods that are made together, such as the hosts of a slice of TPUs."""

import math
import re
from collections.abc import Iterator

from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject
from raystack.plan.kuberay.facts import amount
from raystack.plan.kuberay.slices import TOPOLOGY, TPU


@rule(
    "RS750",
    on=ClusterSubject,
    says="the hosts of a group have all chips of their slice of TPUs",
    why="the chips of a slice find each other only if all are there, and wait for those that are missing",
    remedy="set numOfHosts to the chips of the topology by those of a pod",
    level="warning",
)
def whole_slices(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.workers:
        topology = group.pod["nodeSelector"][TOPOLOGY].text
        chips = amount(group.ray["resources"]["limits"][TPU].value)
        if not chips or re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", topology) is None:
            continue
        wanted, hosts = math.prod(map(int, topology.split("x"))), group.node["numOfHosts"]
        have = chips * (hosts.number or 1)
        if have != wanted:
            at = hosts if hosts.present else group.ray["resources"]["limits"][TPU]
            yield Breach(at, says=f"a slice of {topology} has {wanted} chips, and the group {have:g}")
