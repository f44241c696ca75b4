"""What a cluster of KubeRay costs while nobody uses it. In: a RayCluster as Kubernetes has it. Out: amounts.

Pure. GPUs are counted by the pods' limits; money by the instance type that each group asks for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raystack.config.prices import Prices
from raystack.errors import PlanError
from raystack.plan.costs import HOUR_S, INSTANCE_TYPE, found_price, money, part
from raystack.plan.kuberay.facts import amount, counted_as_gpu

REGION = "topology.kubernetes.io/region"
SPOT = ("cloud.google.com/gke-spot", "eks.amazonaws.com/capacityType", "karpenter.sh/capacity-type")
"""Labels of nodes of the spot market, if their value is `true` or `spot`."""


@dataclass(frozen=True)
class Idle:
    """Amounts of an idle cluster."""

    seconds: float
    gpu_hours: float
    money: float | None
    """None: not all of its pods have a price."""
    currency: str

    @property
    def line(self) -> str:
        """Return text for people; empty if it used nothing that is counted."""
        gpus = f"{self.gpu_hours:.2f} GPU-hours" if self.gpu_hours else ""
        paid = f"{money(self.money)} {self.currency}" if self.money else ""
        return ", ".join(part for part in (gpus, paid) if part)


def idle(cluster: Mapping[str, Any], seconds: float, prices: Prices | None) -> Idle:
    """Return what the pods of a cluster cost in so many seconds; without `prices` there is no money."""
    hours, gpus = seconds / HOUR_S, 0.0
    hourly: float | None = 0.0 if prices is not None and prices.table else None
    for pods, template in _groups(cluster.get("spec") or {}):
        devices, cpus = _amounts(template)
        gpus += pods * devices
        each = _price(template, devices, cpus, prices)
        hourly = None if hourly is None or each is None else hourly + pods * each
    paid = None if hourly is None else hours * hourly
    return Idle(seconds, hours * gpus, paid, prices.currency if prices is not None else "USD")


def _groups(spec: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the number of pods and the pods' spec of the head and of each group."""
    yield 1, _pod(spec.get("headGroupSpec"))
    for group in spec.get("workerGroupSpecs") or ():
        if not group.get("suspend"):
            replicas = max(group.get("replicas") or 0, group.get("minReplicas") or 0)
            yield replicas * (group.get("numOfHosts") or 1), _pod(group)


def _pod(group: Mapping[str, Any] | None) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = ((group or {}).get("template") or {}).get("spec") or {}
    return spec


def _amounts(pod: Mapping[str, Any]) -> tuple[float, float]:
    """Return the GPUs and CPU cores of a pod."""
    gpus = cpus = 0.0
    for container in pod.get("containers") or ():
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        gpus += sum(amount(value) for key, value in asked.items() if counted_as_gpu(key))
        cpus += amount(asked.get("cpu", 0))
    return gpus, cpus


def _price(pod: Mapping[str, Any], gpus: float, cpus: float, prices: Prices | None) -> float | None:
    """Return the price of a pod per hour; None if its machine has none."""
    labels = pod.get("nodeSelector") or {}
    if prices is None or (machine := labels.get(INSTANCE_TYPE)) is None:
        return None
    try:
        price, _ = found_price(prices, machine, "nodeSelector", labels.get(REGION))
    except PlanError:
        return None
    spot = any(str(labels.get(key, "")).lower() in ("true", "spot") for key in SPOT)
    hourly = price.spot if spot and price.spot is not None else price.on_demand
    return hourly * part(price, gpus, cpus)
