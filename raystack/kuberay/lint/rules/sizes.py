"""Rules on what Ray is told that a pod has: the group's resources, and those in rayStartParams.

Of the group's resources the operator makes num-cpus, num-gpus, memory, and for all others `resources`. It
rounds the first three up to whole numbers.
"""

from collections.abc import Iterator
from typing import Any

from raystack.kuberay.lint.devices import after_shell
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.quantity import exactly
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject
from raystack.plan.kuberay.facts import GPU, counted_as_gpu, is_accelerator, ray_name

DEFAULT = {
    "CPU": "num-cpus",
    "GPU": "num-gpus",
    "memory": "memory",
    "object_store_memory": "object-store-memory",
}
"""Resources that Ray has without being told, with the option that sets them."""
LIKE = {
    **{name.upper(): name for name in ("TPU", "HPU", "NPU", "neuron_cores")},
    "OBJECT-STORE-MEMORY": "rayStartParams.object-store-memory",
    "CPUS": "CPU",
    "GPUS": "GPU",
    "NUM-CPUS": "CPU",
    "NUM-GPUS": "GPU",
    "NUM_CPUS": "CPU",
    "NUM_GPUS": "GPU",
    "MEM": "memory",
}
"""Names in capitals with the one that is meant."""
LEAST_MEMORY = 1024 * 1024


@rule(
    "RS737",
    on=ClusterSubject,
    says="the group's resources are amounts",
    why="the operator drops what it cannot read, and says so only in its log",
    remedy='write it as Kubernetes does, e.g. "4" or "16Gi"',
    since="1.5.0",
)
def amounts(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        for name, value in group.resources.items():
            if isinstance(value.value, str) and exactly(value.text) is None:
                yield Breach(value, says=f"{name} is an amount (got {value.text!r})")


@rule(
    "RS738",
    on=ClusterSubject,
    says="a resource of the group reaches Ray as it is written",
    why="the operator makes another one of it",
    remedy="write it so",
    since="1.5.0",
)
def changed(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        seen: dict[str, str] = {}
        for name, value in group.resources.items():
            number = exactly(value.text)
            target = _target(name)
            if target in seen:
                says = f"{seen[target]} and {name} both become {target}, and either may win"
                yield Breach(value, says=says, remedy="keep one of them")
            elif target is not None:
                seen[target] = name
                if target == "num-gpus" and name.lower() != "gpu" and "/" not in name:
                    says = f"{name} ends in gpu and becomes the number of GPUs"
                    yield Breach(value, says=says, remedy="write GPU, or rename it")
                elif number is not None and number < 0:
                    yield Breach(value, says=f"{name} is at least 0")
                elif target == "memory" and number is not None and 0 < number < LEAST_MEMORY:
                    says, remedy = f"{name} {value.text} is bytes", "give it with its unit, e.g. 16Gi"
                    yield Breach(value, says=says, remedy=remedy, level="warning")
                elif number is not None and number % 1 and target != "memory":
                    says = f"{name} {value.text} becomes {int(number) + 1}, a whole number"
                    yield Breach(value, says=says, remedy="write a whole number", level="warning")
            elif (meant := _meant(name)) is not None:
                says = f"{name} becomes a resource of that name, beside Ray's own {meant}"
                yield Breach(value, says=says, remedy=f"did you mean {meant}?")


@rule(
    "RS740",
    on=ClusterSubject,
    says="resources of Ray are whole numbers and none of its own",
    why="`ray start` refuses them, and the pod restarts again and again",
    remedy="write a whole number",
)
def of_ray(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        place = group.params["resources"]
        told: dict[str, tuple[Node, Any]] = {
            name: (value, exactly(value.text))
            for name, value in group.resources.items()
            if _target(name) is None
        }
        if not told and cluster.started_by_operator(group):
            told = {name: (place, number) for name, number in (after_shell(place.text) or {}).items()}
        for name, (node, number) in told.items():
            if name in DEFAULT:
                remedy = f"set rayStartParams.{DEFAULT[name]}"
                yield Breach(node, says=f"{name} is a resource of Ray's own", remedy=remedy)
            elif isinstance(number, str | bool) or (number is not None and (number < 0 or number % 1)):
                yield Breach(node, says=f"{name} is a whole number, at least 0")


def _meant(name: str) -> str | None:
    """Return Ray's own name of what a resource of the group seems to be; None if it is another."""
    meant = ray_name(name) if "/" in name and is_accelerator(name) else LIKE.get(name.upper())
    return None if meant in (name, GPU) else meant


def _target(name: str) -> str | None:
    """Return the option that the operator makes of a group's resource; None if it stays what it is."""
    lower = name.lower()
    if lower in ("cpu", "memory"):
        return "num-cpus" if lower == "cpu" else "memory"
    return "num-gpus" if counted_as_gpu(lower) else None
