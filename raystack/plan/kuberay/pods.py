"""Pods for the resources of a run or a service: the head, the groups of workers and the submitter."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace

from raystack.config.kuberay import KubeRay
from raystack.config.machines import Gpu, Spot
from raystack.config.placement import Toleration
from raystack.config.pods import LIKE_HEAD, Pod, PodResource, Submitter, Value, WorkerGroup, Workers
from raystack.plan.accelerators import ACCELERATORS
from raystack.plan.costs import HEAD_CPUS
from raystack.plan.kuberay.asked import Asked
from raystack.plan.kuberay.facts import amount, counted_as_gpu, exact
from raystack.plan.kuberay.shape import Admission, Devices, Group, Match, PodPlan, Together
from raystack.plan.kuberay.slices import TOLERATION, hosts, tpu_devices, tpu_nodes

GROUP = "workers"
"""Name of the run's own worker group. Kueue reserves `head`."""

SPOT: Mapping[str, tuple[str, str, bool]] = {
    "gke": ("cloud.google.com/gke-spot", "true", True),
    "eks": ("eks.amazonaws.com/capacityType", "SPOT", False),
    "karpenter": ("karpenter.sh/capacity-type", "spot", False),
    "aks": ("kubernetes.azure.com/scalesetpriority", "spot", True),
}
"""Label of spot nodes by provider, its value, and whether it is a taint as well."""

PRODUCT = "nvidia.com/gpu.product"
"""Label that NVIDIA's GPU feature discovery sets on nodes."""


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
        HEAD_CPUS if target.head.cpus is None else target.head.cpus,
        admission.priority_class,
        required=away,
    )


def head_start(target: KubeRay) -> dict[str, str]:
    """Return the head's parameters of `ray start`; it runs no task that could starve the driver."""
    told = _told(target.head)
    gpus = {"num-gpus": "0"} if any(map(counted_as_gpu, target.head.resources)) else {}
    resources = {"resources": _quoted(told)} if told else {}
    return {"num-cpus": "0", **gpus, **resources, **_options(target.head.ray_start)}


def plan_submitter(target: KubeRay, admission: Admission) -> PodPlan:
    """Return the submitter: that of the config, or one that runs where the head may."""
    like_head = {key: getattr(target.head, key) for key in LIKE_HEAD}
    config = target.submitter or Submitter(**like_head)
    return _pod(config, 0.5 if config.cpus is None else config.cpus, admission.priority_class)


def plan_group(target: KubeRay, wanted: Asked, admission: Admission) -> Group:
    """Return the group of the run's or service's own workers."""
    devices = plan_devices(target.gpu, wanted.gpus)
    pod = _worker(target.worker, target.gpu, target.spot, wanted, devices, admission)
    resources, start = _ray(wanted, devices, target.worker)
    each = hosts(target.worker)
    fewest = target.autoscaling.min_workers
    least = math.ceil((wanted.least if fewest is None else fewest) / each)
    most = math.ceil(wanted.most / each)
    return Group(
        config=target.worker,
        name=GROUP,
        least=least,
        most=most,
        replicas=None if target.autoscaling.enabled else most,
        pod=pod,
        ray=resources,
        start=start,
        hosts=each,
    )


def plan_further(target: KubeRay, wanted: Asked, admission: Admission) -> tuple[Group, ...]:
    """Return the further groups of workers, in the order of the config."""
    return tuple(_further(name, group, target, wanted, admission) for name, group in target.groups.items())


def _further(name: str, config: WorkerGroup, target: KubeRay, wanted: Asked, admission: Admission) -> Group:
    each = hosts(config)
    least, most = (
        math.ceil(number / each)
        for number in (config.workers if isinstance(config.workers, tuple) else (config.workers,) * 2)
    )
    inherited = 0 if config.tpu is not None else wanted.gpus
    gpus = inherited if config.gpus is None else config.gpus
    own = replace(
        wanted,
        gpus=gpus,
        custom=wanted.custom if config.custom is None else config.custom,
        accelerator=wanted.accelerator if gpus else None,
        together=wanted.together if most * each > 1 else None,
    )
    gpu = config.gpu or target.gpu
    devices = plan_devices(gpu, gpus)
    pod = _worker(config, gpu, config.spot or target.spot, own, devices, admission)
    resources, start = _ray(own, devices, config)
    return Group(
        config=config,
        name=name,
        least=least if target.autoscaling.enabled else most,
        most=max(most, 1),
        replicas=None if target.autoscaling.enabled else most,
        pod=pod,
        ray=resources,
        start=start,
        image=config.image,
        hosts=each,
    )


def _worker(
    config: Workers, gpu: Gpu, spot: Spot, wanted: Asked, devices: Devices, admission: Admission
) -> PodPlan:
    """Return a worker's pod, on nodes with its GPUs."""
    required, preferred, tolerations = _spot(spot)
    selector = {PRODUCT: gpu.model} if gpu.model and wanted.gpus else {}
    if config.tpu is not None:
        selector, tolerations = tpu_nodes(config.tpu), (*tolerations, TOLERATION)
        devices = tpu_devices(config.tpu)
    if (
        wanted.accelerator is not None
        and wanted.accelerator in ACCELERATORS
        and gpu == Gpu()
        and not config.node_selector
    ):
        required = (*required, Match(PRODUCT, "In", ACCELERATORS[wanted.accelerator].products))
    return _pod(
        config,
        wanted.cpus if config.cpus is None else config.cpus,
        admission.priority_class,
        devices=devices,
        selector=selector,
        tolerations=tolerations,
        required=required,
        preferred=preferred,
        together=wanted.together,
        annotations=admission.worker_annotations,
    )


def _ray(wanted: Asked, devices: Devices, config: Pod) -> tuple[dict[str, str], dict[str, str]]:
    """Return the Ray resources of a worker that KubeRay does not find by itself, and its `ray start`.

    These are custom ones, what the config tells Ray of, the accelerator, and undetected GPUs.
    """
    # The autoscaler has to know all resources of a pod that does not exist yet.
    accelerator = {f"accelerator_type:{wanted.accelerator}": 1.0} if wanted.accelerator else {}
    # Of a node, Ray takes whole numbers alone.
    custom = {name: math.ceil(number) for name, number in wanted.custom.items()}
    own = {**accelerator, **custom, **_told(config)}
    # KubeRay counts every resource of a pod as a GPU whose name ends so.
    mistaken = any(counted_as_gpu(key) and key != devices.key for key in config.resources)
    gpus = {"GPU": str(devices.count)} if mistaken or (devices.count and not devices.seen) else {}
    # Without a limit KubeRay goes by the request.
    count = math.ceil(wanted.cpus if config.cpus is None else config.cpus)
    cpus = {} if config.cpu_limit or config.requests.cpus is None else {"CPU": str(count)}
    options = _options(config.ray_start)
    if any(counted_as_gpu(name.lower()) for name in own):
        # In the group's resources, too: there such a name would set the number of GPUs.
        memory = {"memory": exact(own.pop("memory"))} if "memory" in own else {}
        sizes = {"num-cpus": str(count), "num-gpus": str(devices.count), **memory}
        return {}, {**sizes, "resources": _quoted(own), **options}
    return {**cpus, **gpus, **{name: exact(number) for name, number in own.items()}}, options


def _told(pod: Pod) -> dict[str, float]:
    """Return the pod's further resources of which Ray is told, by Ray's name."""
    return {each.ray: amount(each.amount) for each in pod.resources.values() if isinstance(each, PodResource)}


def _quoted(resources: Mapping[str, float]) -> str:
    """Return resources for `ray start`: JSON, quoted for the shell that KubeRay has it read by."""
    numbers = {name: int(number) if number == int(number) else number for name, number in resources.items()}
    return json.dumps(json.dumps(numbers))


def _options(given: Mapping[str, Value]) -> dict[str, str]:
    """Return options of `ray start` as text."""
    found = {}
    for name, value in given.items():
        match value:
            case bool():
                found[name] = str(value).lower()
            case float():
                found[name] = exact(value)
            case _:
                found[name] = str(value)
    return found


def _spot(spot: Spot) -> tuple[tuple[Match, ...], tuple[Match, ...], tuple[Toleration, ...]]:
    """Return required nodes, preferred nodes and tolerations."""
    if not spot.enabled:
        return (), (), ()
    label, value, taint = SPOT[spot.provider]
    match = (Match(label, "In", (value,)),)
    tolerations = (
        (Toleration(key=label, operator="Equal", value=value, effect="NoSchedule"),) if taint else ()
    )
    return ((), match, tolerations) if spot.fallback else (match, (), tolerations)


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
        cpus=cores(cpus),
        memory=pod.memory,
        ephemeral_storage=pod.ephemeral_storage,
        config=pod,
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


def cores(cpus: float) -> str:
    """Return a quantity: 4 -> `4`, 0.5 -> `500m`."""
    return str(int(cpus)) if cpus == int(cpus) else f"{round(cpus * 1000)}m"
