"""Slices: pods that are made and deleted together, such as the hosts of a slice of TPUs.

Everywhere else workers are counted as pods; only KubeRay counts replicas, of `hosts` pods each.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.machines import Tpu
from raystack.config.placement import Toleration
from raystack.config.pods import WorkerGroup, Workers
from raystack.errors import Problem
from raystack.plan.kuberay.asked import Asked
from raystack.plan.kuberay.shape import Devices, Form

TPU = "google.com/tpu"
"""Resource of Kubernetes, and taint of the nodes."""
ACCELERATOR = "cloud.google.com/gke-tpu-accelerator"
TOPOLOGY = "cloud.google.com/gke-tpu-topology"
FLAT = ("v5e", "v6e")
"""Generations whose slices have two sides, and up to 8 chips on one host."""
NODES: Mapping[str, str] = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
    "v7x": "tpu7x",
}
"""Values of the label `ACCELERATOR` of GKE's nodes."""
TOLERATION = Toleration(key=TPU, effect="NoSchedule")


@dataclass(frozen=True)
class Slice:
    """A slice of TPUs."""

    total: int
    """Chips of the slice."""
    chips: int
    """Chips of each host."""

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return max(self.total // self.chips, 1)


def plan_slice(tpu: Tpu) -> Slice:
    """Return the hosts of a slice, and the chips of each."""
    total = math.prod(map(int, tpu.topology.split("x")))
    alone = tpu.type in FLAT and total <= 8
    return Slice(total, tpu.chips or (total if alone else 4))


def hosts(workers: Workers) -> int:
    """Return the number of pods that come and go together."""
    return workers.hosts or (plan_slice(workers.tpu).hosts if workers.tpu is not None else 1)


def tpu_devices(tpu: Tpu) -> Devices:
    """Return the chips of a pod; KubeRay tells Ray of them as TPU."""
    return Devices(count=plan_slice(tpu).chips, key=TPU)


def tpu_nodes(tpu: Tpu) -> dict[str, str]:
    """Return the labels of the nodes of a slice."""
    return {ACCELERATOR: NODES[tpu.type], TOPOLOGY: tpu.topology}


def slice_problems(config: RunConfig, target: KubeRay, form: Form, wanted: Asked) -> Iterator[Problem]:
    """Yield numbers of workers that are no whole slices, and slices that there are not."""
    kinds = {"worker": target.worker, **{f"groups.{name}": group for name, group in target.groups.items()}}
    for key, workers in kinds.items():
        yield from _shape_problems(f"target.{key}", workers)
        gpus = workers.gpus if isinstance(workers, WorkerGroup) else wanted.gpus
        if workers.tpu is not None and gpus:
            rule, remedy = "a machine has GPUs or TPUs", "drop one of them"
            yield Problem(f"target.{key}.tpu", rule=rule, got=f"{gpus} GPUs as well", remedy=remedy)
        if isinstance(workers, WorkerGroup):
            yield from _whole(f"target.{key}.workers", workers.workers, hosts(workers))
    own = hosts(target.worker)
    if own == 1:
        return
    for key in ("min_workers", "max_workers"):
        yield from _whole(f"target.autoscaling.{key}", getattr(target.autoscaling, key) or 0, own)
    if form == "service":  # pods of a slice that have no replica wait for more of them
        return
    if config.resources.placement == "STRICT_PACK":
        rule = f"STRICT_PACK puts all workers into one pod, and a slice has {own}"
        remedy = "set resources.placement=STRICT_SPREAD"
        yield Problem("resources.placement", rule=rule, got="STRICT_PACK", remedy=remedy)
    elif form == "tune":
        yield from _whole("resources.workers", wanted.pods, own)
    elif not isinstance(config.resources.workers, str):
        yield from _whole("resources.workers", config.resources.workers, own)


def _shape_problems(where: str, workers: Workers) -> Iterator[Problem]:
    tpu = workers.tpu
    if tpu is None:
        return
    found, sides = plan_slice(tpu), tpu.topology.count("x") + 1
    wanted = 2 if tpu.type in FLAT else 3
    if sides != wanted:
        rule, example = f"a slice of {tpu.type} has {wanted} sides", "4x4" if wanted == 2 else "2x2x4"
        yield Problem(f"{where}.tpu.topology", rule=rule, got=tpu.topology, remedy=f"write e.g. {example}")
    elif found.total % found.chips:
        rule = f"its {found.total} chips are not whole hosts of {found.chips}"
        remedy = f"set {where}.tpu.chips, or another topology"
        yield Problem(f"{where}.tpu.topology", rule=rule, got=tpu.topology, remedy=remedy)
    elif workers.hosts is not None and workers.hosts != found.hosts:
        rule = f"a slice {tpu.topology} of hosts with {found.chips} chips has {found.hosts}"
        yield Problem(f"{where}.hosts", rule=rule, got=str(workers.hosts), remedy="drop it")
    if TPU in workers.resources:
        rule, remedy = "are the chips, which tpu says", "drop one of them"
        yield Problem(f"{where}.resources", rule=rule, got=TPU, remedy=remedy)


def _whole(where: str, numbers: int | tuple[int, int], size: int) -> Iterator[Problem]:
    given = numbers if isinstance(numbers, tuple) else (numbers,)
    if any(number % size for number in given):
        shown = f"[{given[0]}, {given[-1]}]" if len(given) > 1 else f"{given[0]}"
        near = [max(round(number / size), 1) * size for number in given]
        remedy = f"set it to [{near[0]},{near[-1]}]" if len(given) > 1 else f"set it to {near[0]}"
        rule = f"workers come in slices of {size} hosts"
        yield Problem(where, rule=rule, got=shown, remedy=remedy)
