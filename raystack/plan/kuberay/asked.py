"""Worker pods that a run or a service asks for: how many, and what each needs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.serving import Serving
from raystack.plan.kuberay.shape import Form, Together


@dataclass(frozen=True)
class Asked:
    """Worker pods that the form of the run requests."""

    least: int
    most: int
    pods: int
    """Number that the run or service itself can use; the autoscaler's limit may be higher."""
    cpus: float
    """Minimum for each pod."""
    gpus: int
    custom: Mapping[str, float]
    accelerator: str | None = None
    together: Together | None = None


def asked(config: RunConfig, target: KubeRay, form: Form) -> Asked:
    """Return the number of worker pods, and the resources of each."""
    return _of_service(config, target) if form == "service" else _of_run(config, target, form)


def _of_run(config: RunConfig, target: KubeRay, form: Form) -> Asked:
    """Return one pod per worker, or one pod for all workers with STRICT_PACK."""
    wanted = config.resources
    least, most = _workers(config)
    # STRICT_PACK means one node, which a single pod with all workers guarantees.
    one = wanted.placement == "STRICT_PACK"
    each = most if one else 1
    if one:
        least = most = 1
    pods = most
    if form == "cluster" and target.autoscaling.enabled:
        most = max(most, target.autoscaling.max_workers or most)
    return Asked(
        least=least,
        most=most,
        pods=pods,
        cpus=float(wanted.cpus_per_worker * each),
        gpus=math.ceil(wanted.gpus_per_worker * each),
        # Ray counts in steps of 0.0001.
        custom={name: round(number * each, 4) for name, number in wanted.custom.items()},
        accelerator=wanted.accelerator_type,
        together=None if wanted.placement == "STRICT_PACK" or most == 1 else wanted.placement,
    )


def _of_service(config: RunConfig, target: KubeRay) -> Asked:
    """Return one pod per replica, large enough for one of any model; those with less than a GPU share one."""
    scaling = target.autoscaling
    groups = _replicas(config.serving)
    shares = [min(_share(gpus), count) for count, _, gpus in groups]
    pods = sum(math.ceil(count / share) for (count, _, _), share in zip(groups, shares, strict=True))
    cpus = [each * share for (_, each, _), share in zip(groups, shares, strict=True)]
    return Asked(
        # The autoscaler adds pods as Serve asks for replicas.
        least=1 if scaling.enabled else pods,
        most=max(pods, scaling.max_workers or pods),
        pods=pods,
        cpus=max(1.0, *cpus),
        gpus=max(math.ceil(gpus) for _, _, gpus in groups),
        custom={},
        together="SPREAD" if pods > 1 else None,
    )


def _replicas(serving: Serving) -> list[tuple[int, float, float]]:
    """Return the most replicas of each group of equal ones, and the CPUs and GPUs of each replica."""
    models = tuple(serving.models.values()) or (() if serving.multiplexed else (serving,))
    found = []
    for each in models:
        own = each.autoscaling.max_replicas if each.autoscaling else each.replicas
        beside = len(each.split.references) if each.split else 0
        replicas = (each.split and each.split.replicas) or own
        counts = (own, *[replicas] * beside)
        found += [(count, each.cpus_per_replica, each.gpus_per_replica) for count in counts]
    if (shared := serving.multiplexed) is not None:
        found.append((shared.replicas, shared.cpus_per_replica, shared.gpus_per_replica))
    return found


def _share(gpus: float) -> int:
    """Return the number of replicas that share a GPU."""
    return int(1 / gpus + 1e-9) if 0 < gpus < 1 else 1


def _workers(config: RunConfig) -> tuple[int, int]:
    """Return the minimum and the maximum number of workers of a run."""
    match config.resources.workers:
        case (int(least), int(most)):
            return least, most
        case int(count):
            return count, count
    return 1, 1
