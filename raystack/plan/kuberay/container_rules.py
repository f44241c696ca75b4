"""Rules on what runs in pods: containers, further resources, groups of workers, the runtime environment."""

from collections.abc import Iterator, Mapping

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.pods import Pod, PodResource, Workers
from raystack.config.volumes import EmptyDir, Mounted, Node
from raystack.errors import Problem
from raystack.plan.kuberay.facts import GPU, PRIORITY_RAY, TOLD, amount, at_least, exact, ray_name
from raystack.plan.kuberay.pods import GROUP, plan_devices
from raystack.plan.kuberay.shape import DRIVEN, Form
from raystack.plan.kuberay.slices import TPU

TAKEN = (
    "ray-head",
    "ray-worker",
    "ray-job-submitter",
    "fetch-code",
    "wait-gcs-ready",
    "wait-for-tls-ip-san",
    "autoscaler",
    "ray-history-collector",
)
"""Names of containers that raystack or KubeRay adds."""
BY_SHELL = ("K8sJobMode", "SidecarMode")
"""Modes in which a shell of the submitter reads the runtime environment."""


def container_problems(config: RunConfig, target: KubeRay, form: Form) -> Iterator[Problem]:
    """Yield what cannot start, and what is requested without effect."""
    if form != "service":
        yield from _custom_problems(config.resources.custom, target)
    for key, (pod, node) in pods(target).items():
        own = getattr(pod, "custom", None)
        custom = own if own is not None else config.resources.custom if node == "workers" else {}
        yield from _resource_problems(f"target.{key}", pod, target, custom)
        yield from _beside_problems(f"target.{key}", pod, node, target)
        yield from _memory_problems(f"target.{key}", pod, node, target)
    yield from _group_problems(target)
    yield from _submitter_problems(target, form)
    yield from _runtime_problems(target, form)


def _custom_problems(custom: Mapping[str, float], target: KubeRay) -> Iterator[Problem]:
    """Yield custom resources that are Kubernetes', or that the pods do not have."""
    own = {
        "cpu": "resources.cpus_per_worker",
        "ephemeral-storage": "target.worker.ephemeral_storage",
        # Ray Train reserves chips only for a training in JAX.
        "tpu": "target.worker.tpu",
    }
    devices = {plan_devices(target.gpu, 1).key: "resources.gpus_per_worker", TPU: "target.worker.tpu"}
    for name, number in custom.items():
        if "/" in name or name.startswith("hugepages-"):
            rule = "this is a resource of Kubernetes, and custom ones are counted by Ray alone"
            key = devices.get(name)
            remedy = f"set {key}" if key is not None else "ask for it in target.worker.resources"
            yield Problem("resources.custom", rule=rule, got=name, remedy=remedy)
        elif name.lower() in own:
            rule, remedy = "this is no custom resource", f"set {own[name.lower()]}"
            yield Problem("resources.custom", rule=rule, got=name, remedy=remedy)
        elif name == "memory" and number > amount(target.worker.memory):
            rule = f"is more than the pod has, target.worker.memory={target.worker.memory}"
            yield Problem("resources.custom.memory", rule=rule, got=exact(number), remedy="raise that")


def pods(target: KubeRay) -> Mapping[str, tuple[Pod, Node]]:
    """Return the configs of all kinds of pods by their key below `target`."""
    found: dict[str, tuple[Pod, Node]] = {"head": (target.head, "head"), "worker": (target.worker, "workers")}
    found |= {f"groups.{name}": (group, "workers") for name, group in target.groups.items()}
    return found if target.submitter is None else {**found, "submitter": (target.submitter, "submitter")}


def mounted(target: KubeRay, node: Node) -> list[Mounted]:
    """Return the volumes that pods of a kind mount."""
    return [volume for volume in target.storage.volumes if node in volume.pods]


def _resource_problems(key: str, pod: Pod, target: KubeRay, custom: Mapping[str, float]) -> Iterator[Problem]:
    gpu = plan_devices(getattr(pod, "gpu", None) or target.gpu, 1).key
    if gpu in pod.resources:
        rule, remedy = "are the GPUs, which have a number of their own", "set resources.gpus_per_worker"
        yield Problem(f"{key}.resources", rule=rule, got=gpu, remedy=remedy)
    for name, given in pod.resources.items():
        if isinstance(given, PodResource) and given.ray in ("CPU", "GPU", "memory"):
            rule = f"Ray counts {given.ray} by itself"
            yield Problem(f"{key}.resources", rule=rule, got=f"{name}: {given.ray}", remedy="drop ray")
        told = ray_name(name)
        if not isinstance(given, PodResource) and told not in (GPU, *custom) and name not in TOLD:
            rule = f"KubeRay does not tell Ray of it, which calls it {told}"
            remedy = f"write {{amount: {given}, ray: {told}}}"
            if told == "neuron_cores":
                remedy = "set resources.custom.neuron_cores, of which a device has several"
            yield Problem(f"{key}.resources", rule=rule, got=f"{name}: {given}", remedy=remedy)
    yield from _request_problems(key, pod)
    batch = target.queue.scheduler
    if pod.scheduler is not None and batch not in ("none", "kueue"):
        rule = f"{batch} schedules the pods, as target.queue.scheduler says"
        yield Problem(f"{key}.scheduler", rule=rule, got=pod.scheduler, remedy="drop it")


def _request_problems(key: str, pod: Pod) -> Iterator[Problem]:
    for name in ("cpus", "memory", "ephemeral_storage"):
        request, limit = getattr(pod.requests, name), getattr(pod, name)
        if request is None or (name == "cpus" and not pod.cpu_limit):
            continue
        where = f"{key}.requests.{name}"
        if limit is None and name == "ephemeral_storage":
            rule = "is lower than a limit, and there is none"
            yield Problem(where, rule=rule, got=request, remedy=f"set {key}.{name}")
        elif limit is not None and amount(request) > amount(limit):
            rule = f"should be at most the limit, {limit}"
            yield Problem(where, rule=rule, got=str(request), remedy="lower it")


def _beside_problems(key: str, pod: Pod, node: Node, target: KubeRay) -> Iterator[Problem]:
    """Yield problems of init containers and sidecars."""
    paths = {volume.mount for volume in mounted(target, node)}
    for part, containers in (("init", pod.init), ("sidecars", pod.sidecars)):
        for name, container in containers.items():
            where = f"{key}.{part}.{name}"
            if name in TAKEN or (part == "sidecars" and name in pod.init):
                yield Problem(where, rule="another container of the pod has this name", remedy="rename it")
            for mount in container.mounts or ():
                if mount not in paths:
                    rule = "is no mount of target.storage.volumes in this pod"
                    yield Problem(
                        f"{where}.mounts", rule=rule, got=mount, remedy="add the volume, or drop it"
                    )


def _memory_problems(key: str, pod: Pod, node: Node, target: KubeRay) -> Iterator[Problem]:
    store = pod.ray_start.get("object-store-memory")
    if store is not None and amount(store) > amount(pod.memory):
        rule = f"is more than the pod has, {key}.memory={pod.memory}"
        where = f"{key}.ray_start.object-store-memory"
        yield Problem(where, rule=rule, got=str(store), remedy=f"lower it, or raise {key}.memory")
    for index, volume in enumerate(target.storage.volumes):
        if not isinstance(volume, EmptyDir) or volume.medium != "memory" or node not in volume.pods:
            continue
        if volume.size is not None and amount(volume.size) > amount(pod.memory):
            rule = f"its content counts as memory of the pod, and {key}.memory is {pod.memory}"
            where = f"target.storage.volumes.{index}.size"
            yield Problem(where, rule=rule, got=volume.size, remedy=f"lower it, or raise {key}.memory")


def _group_problems(target: KubeRay) -> Iterator[Problem]:
    scaled = target.autoscaling.enabled
    for name, group in target.groups.items():
        where = f"target.groups.{name}"
        if name in (GROUP, "head", "headgroup"):
            yield Problem(where, rule="this name is taken", remedy="rename it")
        if isinstance(group.workers, tuple) and not scaled:
            rule = "[min, max] takes effect only with the autoscaler"
            got = f"[{group.workers[0]}, {group.workers[1]}]"
            remedy = "give one number, or set target.autoscaling.enabled=true"
            yield Problem(f"{where}.workers", rule=rule, got=got, remedy=remedy)
    kinds: dict[str, Workers] = {
        "worker": target.worker,
        **{f"groups.{name}": group for name, group in target.groups.items()},
    }
    for key, workers in kinds.items():
        for field in ("priority", "idle_timeout_s"):
            if getattr(workers, field) is not None and not scaled:
                rule = "takes effect only with the autoscaler"
                remedy = "drop it, or set target.autoscaling.enabled=true"
                yield Problem(f"target.{key}.{field}", rule=rule, remedy=remedy)
        if workers.priority and not at_least(target.ray_version, PRIORITY_RAY):
            rule = f"Ray's autoscaler knows priorities since {PRIORITY_RAY}"
            remedy = "use a newer image, or drop it"
            yield Problem(f"target.{key}.priority", rule=rule, got=target.ray_version, remedy=remedy)


def _submitter_problems(target: KubeRay, form: Form) -> Iterator[Problem]:
    if target.submitter is None or form not in DRIVEN:
        return
    if target.submission.mode != "K8sJobMode":
        rule = f"only K8sJobMode has a pod that submits, and the mode is {target.submission.mode}"
        yield Problem("target.submitter", rule=rule, remedy="drop it")
    for field in ("ray_start", "ray_labels"):
        if getattr(target.submitter, field):
            yield Problem(f"target.submitter.{field}", rule="this pod starts no Ray", remedy="drop it")
    if target.submitter.spread:
        yield Problem("target.submitter.spread", rule="there is one such pod", remedy="drop it")


def _runtime_problems(target: KubeRay, form: Form) -> Iterator[Problem]:
    if form in DRIVEN and target.submission.mode in BY_SHELL:
        for text in _texts(target.runtime_env):
            if "$" in text or "`" in text:
                rule = f"in {target.submission.mode} a shell of the submitter would expand it"
                remedy = "set target.submission.mode=HTTPMode, or use target.env"
                yield Problem("target.runtime_env", rule=rule, got=text, remedy=remedy)


def _texts(value: object) -> Iterator[str]:
    """Yield all text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from (str(name), *_texts(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
