"""Pods for the resources of a run or a service: the head and the group of workers."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from raystack.config import RunConfig
from raystack.config.kuberay import Gpu, KubeRay, Pod, Toleration
from raystack.config.serving import Serving
from raystack.errors import Problem
from raystack.plan.accelerators import ACCELERATORS
from raystack.plan.kuberay.facts import counted_as_gpu
from raystack.plan.kuberay.shape import Admission, Devices, Form, Group, Match, PodPlan, Together

GROUP = "workers"
"""Name of the only worker group. Kueue reserves `head`."""

SPOT: Mapping[str, tuple[str, str, bool]] = {
    "gke": ("cloud.google.com/gke-spot", "true", True),
    "eks": ("eks.amazonaws.com/capacityType", "SPOT", False),
    "karpenter": ("karpenter.sh/capacity-type", "spot", False),
    "aks": ("kubernetes.azure.com/scalesetpriority", "spot", True),
}
"""Label of spot nodes by provider, its value, and whether it is a taint as well."""

PRODUCT = "nvidia.com/gpu.product"
"""Label that NVIDIA's GPU feature discovery sets on nodes."""


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
        custom={name: amount * each for name, amount in wanted.custom.items()},
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


def pod_problems(config: RunConfig, target: KubeRay, form: Form, wanted: Asked) -> Iterator[Problem]:
    """Yield what cannot be placed, and what is requested without effect."""
    if form != "service" and config.resources.workers == "inline":
        rule = "inline trains in the driver's process, on the head pod, which keeps its cores for Ray"
        yield Problem("resources.workers", rule=rule, got="inline", remedy="set resources.workers=1")
    yield from core_problems(target, wanted)
    yield from _scaling_problems(config, target, form, wanted)
    yield from gpu_problems(target, form, wanted)


def core_problems(target: KubeRay, wanted: Asked) -> Iterator[Problem]:
    if target.worker.cpus is not None and target.worker.cpus < wanted.cpus:
        rule = f"a worker pod needs {wanted.cpus:g} cores for what runs in it"
        yield Problem(
            "target.worker.cpus",
            rule=rule,
            got=f"{target.worker.cpus:g}",
            remedy="leave it out, or ask for less in resources",
        )


def _scaling_problems(config: RunConfig, target: KubeRay, form: Form, wanted: Asked) -> Iterator[Problem]:
    scaling = target.autoscaling
    if not scaling.enabled:
        if scaling.max_workers is not None:
            rule = "takes effect only with the autoscaler"
            yield Problem(
                "target.autoscaling.max_workers", rule=rule, remedy="set target.autoscaling.enabled=true"
            )
        return
    if form != "service" and config.resources.placement == "STRICT_PACK":
        rule = "STRICT_PACK puts all workers into one pod, so that there is nothing to scale"
        yield Problem(
            "target.autoscaling.enabled",
            rule=rule,
            remedy="set resources.placement=PACK, or target.autoscaling.enabled=false",
        )
    elif form in ("job", "cron", "katib") and wanted.least == wanted.most:
        rule = (
            "a run with a fixed number of workers needs all of them from the start, so that there is nothing"
            " to scale"
        )
        remedy = f"set resources.workers=[1,{wanted.most}], or target.autoscaling.enabled=false"
        yield Problem(
            "target.autoscaling.enabled", rule=rule, got=f"resources.workers={wanted.most}", remedy=remedy
        )
    if scaling.max_workers is not None and scaling.max_workers < wanted.pods:
        rule = f"the {'replicas need' if form == 'service' else 'run may use'} {wanted.pods} worker pods"
        yield Problem(
            "target.autoscaling.max_workers",
            rule=rule,
            got=str(scaling.max_workers),
            remedy=f"set it to at least {wanted.pods}",
        )


def gpu_problems(target: KubeRay, form: Form, wanted: Asked) -> Iterator[Problem]:
    gpu = target.gpu
    amount = "serving.gpus_per_replica" if form == "service" else "resources.gpus_per_worker"
    if not wanted.gpus:
        if gpu != Gpu():
            rule = f"takes effect only with GPUs, and {amount} is 0"
            yield Problem("target.gpu", rule=rule, remedy=f"set {amount}=1, or drop the section")
        if wanted.accelerator is not None:
            rule = "is the type of a GPU, and the workers have none"
            yield Problem(
                "resources.accelerator_type", rule=rule, got=wanted.accelerator, remedy=f"set {amount}=1"
            )
        return
    if gpu.share in ("time-slice", "mps") and wanted.gpus > 1:
        rule = f"NVIDIA's device plugin gives a pod one shared GPU, and a worker pod needs {wanted.gpus}"
        yield Problem(
            "target.gpu.share",
            rule=rule,
            got=gpu.share,
            remedy="set resources.placement=PACK, which is a pod for each worker",
        )
    named = gpu.model or target.worker.node_selector or gpu != Gpu()
    if wanted.accelerator is not None and wanted.accelerator not in ACCELERATORS and not named:
        rule = "no node label is known for it, so that pods could start beside other GPUs"
        remedy = "set target.gpu.model or target.worker.node_selector"
        yield Problem("resources.accelerator_type", rule=rule, got=wanted.accelerator, remedy=remedy)


def plan_devices(gpu: Gpu, count: int) -> Devices:
    """Return the resource that Kubernetes counts as GPUs, and whether KubeRay recognises it."""
    if not count:
        return Devices()
    if gpu.dra is not None:
        return Devices(count=count, claim=gpu.dra, seen=False)
    by_share = {
        "none": "nvidia.com/gpu",
        "time-slice": "nvidia.com/gpu.shared",
        "mps": "nvidia.com/gpu.shared",
    }
    key = gpu.key or by_share.get(gpu.share) or f"nvidia.com/{gpu.share.replace(':', '-')}"
    return Devices(count=count, key=key, seen=counted_as_gpu(key))


def plan_head(target: KubeRay, admission: Admission) -> PodPlan:
    """Return the head, which runs no tasks and avoids machines that may be reclaimed."""
    # Of all providers: NotIn also matches nodes without the label.
    away = tuple(Match(label, "NotIn", (value,)) for label, value, _ in SPOT.values())
    return _pod(
        target.head,
        2.0 if target.head.cpus is None else target.head.cpus,
        admission.priority_class,
        required=away,
    )


def plan_group(target: KubeRay, wanted: Asked, admission: Admission) -> Group:
    """Return the group of workers."""
    devices = plan_devices(target.gpu, wanted.gpus)
    required, preferred, tolerations = _spot(target)
    selector = {PRODUCT: target.gpu.model} if target.gpu.model and wanted.gpus else {}
    if (
        wanted.accelerator is not None
        and wanted.accelerator in ACCELERATORS
        and target.gpu == Gpu()
        and not target.worker.node_selector
    ):
        required = (*required, Match(PRODUCT, "In", ACCELERATORS[wanted.accelerator].products))
    pod = _pod(
        target.worker,
        wanted.cpus if target.worker.cpus is None else target.worker.cpus,
        admission.priority_class,
        devices=devices,
        selector=selector,
        tolerations=tolerations,
        required=required,
        preferred=preferred,
        together=wanted.together,
        annotations=admission.worker_annotations,
    )
    return Group(
        name=GROUP,
        least=wanted.least,
        most=wanted.most,
        replicas=None if target.autoscaling.enabled else wanted.most,
        pod=pod,
        ray=_ray(wanted, devices),
    )


def _ray(wanted: Asked, devices: Devices) -> dict[str, str]:
    """Return the Ray resources of a worker: custom ones, the accelerator, and undetected GPUs."""
    # The autoscaler has to know all resources of a pod that does not exist yet.
    gpus = {"GPU": str(devices.count)} if devices.count and not devices.seen else {}
    accelerator = {f"accelerator_type:{wanted.accelerator}": "1"} if wanted.accelerator else {}
    return {**gpus, **accelerator, **{name: f"{amount:g}" for name, amount in wanted.custom.items()}}


def _spot(target: KubeRay) -> tuple[tuple[Match, ...], tuple[Match, ...], tuple[Toleration, ...]]:
    """Return required nodes, preferred nodes and tolerations."""
    if not target.spot.enabled:
        return (), (), ()
    label, value, taint = SPOT[target.spot.provider]
    match = (Match(label, "In", (value,)),)
    tolerations = (
        (Toleration(key=label, operator="Equal", value=value, effect="NoSchedule"),) if taint else ()
    )
    return ((), match, tolerations) if target.spot.fallback else (match, (), tolerations)


def _pod(
    pod: Pod,
    cpus: float,
    priority_class: str | None,
    *,
    devices: Devices | None = None,
    selector: Mapping[str, str] | None = None,
    tolerations: tuple[Toleration, ...] = (),
    required: tuple[Match, ...] = (),
    preferred: tuple[Match, ...] = (),
    together: Together | None = None,
    annotations: Mapping[str, str] | None = None,
) -> PodPlan:
    return PodPlan(
        cpus=_cores(cpus),
        memory=pod.memory,
        ephemeral_storage=pod.ephemeral_storage,
        devices=devices or Devices(),
        node_selector={**(selector or {}), **pod.node_selector},
        tolerations=(*tolerations, *pod.tolerations),
        required=required,
        preferred=preferred,
        together=together,
        labels=pod.labels,
        annotations={**(annotations or {}), **pod.annotations},
        priority_class=pod.priority_class or priority_class,
    )


def _cores(cpus: float) -> str:
    """Return a quantity: 4 -> `4`, 0.5 -> `500m`."""
    return str(int(cpus)) if cpus == int(cpus) else f"{round(cpus * 1000)}m"
