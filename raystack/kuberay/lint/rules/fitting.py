"""Rules on what drivers and replicas ask Ray for: one node has to have all of it."""

import math
from collections.abc import Iterator, Mapping

from raystack.kuberay.lint.devices import Devices
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.serve_config import ServeConfig
from raystack.kuberay.lint.subject import ClusterSubject, GroupSubject, JobSubject
from raystack.plan.kuberay.facts import GPU, amount

CPU = "CPU"
WAITS = "no group's pods have as many, so that it waits for ever"


@rule(
    "RS743",
    on=JobSubject,
    says="the entrypoint fits on a node",
    why=WAITS,
    remedy="ask for less, or give a group more",
    level="warning",
)
def entrypoint(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if job.cluster.node.present:
        asked = {CPU: job.node["entrypointNumCpus"], GPU: job.node["entrypointNumGpus"]}
        yield from _beyond(job.cluster, asked, "the entrypoint")


@rule(
    "RS911",
    on=ClusterSubject,
    kinds=("RayService",),
    says="a replica fits on a node",
    why=WAITS,
    remedy="ask for less, or give a group more",
    level="warning",
)
def replica(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    config = ServeConfig.of(cluster.document.root.at("spec", "serveConfigV2"))
    for deployment in config.deployments:
        options = deployment["ray_actor_options"]
        yield from _beyond(cluster, {CPU: options["num_cpus"], GPU: options["num_gpus"]}, "a replica")
        for bundle in deployment["placement_group_bundles"].items:
            yield from _beyond(cluster, {CPU: bundle[CPU], GPU: bundle[GPU]}, "a bundle")


def _beyond(cluster: ClusterSubject, asked: Mapping[str, Node], who: str) -> Iterator[Breach]:
    """Yield the numbers that are above those of every group; where one has no known number, none is."""
    for name, node in asked.items():
        number = node.value
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        having = [_has(cluster, group, name) for group in cluster.groups]
        known = [each for each in having if each is not None]
        if len(known) == len(having) and number > max(known):
            yield Breach(node, f"{who} asks for {number:g} {name}s, and a node has {max(known):g} at most")


def _has(cluster: ClusterSubject, group: GroupSubject, name: str) -> float | None:
    """Return how many CPUs or GPUs Ray is told of on a group's nodes, or None if that is not known."""
    limits, devices = group.ray.at("resources", "limits"), Devices(group)
    if not cluster.started_by_operator(group):
        return None
    for said in (group.resources.get(name), group.params["num-cpus" if name == CPU else "num-gpus"]):
        if said is not None and said.present:
            return float(said.text) if said.text.isdecimal() else None
    if name == CPU:
        return math.ceil(amount(limits["cpu"].value)) if limits["cpu"].present else None
    if group.ray.at("resources", "claims").items or devices.uncounted:
        return None
    return devices.numbers.get(GPU, 0)
