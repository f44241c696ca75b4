"""Rules on accelerators: what Ray has to know of them."""

from collections.abc import Iterator

from raystack.kuberay.lint.devices import Devices, quoted
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject
from raystack.plan.kuberay.facts import GPU, is_accelerator, ray_name, seen_by_kuberay


@rule(
    "RS707",
    on=ClusterSubject,
    says="Ray is told of accelerators that KubeRay does not count",
    why="Ray's scheduler and autoscaler see none of them",
    remedy="set rayStartParams.num-gpus, or the group's resources",
)
def gpus_seen(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        devices = Devices(group)
        if devices.uncounted and not devices.readable:
            says = "KubeRay counts no accelerators beside resources in rayStartParams that it cannot read"
            yield Breach(group.params["resources"], says, quoted("special"), level="warning")
            continue
        for key, limit in devices.uncounted.items():
            name = ray_name(key)
            alone = f"KubeRay counts {' and '.join(devices.counted)} alone"
            unknown = f"KubeRay does not recognize {key} as {'a GPU' if name == GPU else name}"
            yield Breach(
                limit,
                alone if seen_by_kuberay(key) else unknown,
                None if name == GPU else f"{quoted(name)}, or the group's resources",
            )
        if devices.mistaken is not None:
            says = f"KubeRay counts {devices.mistaken.keys[-1]} as GPUs, since its name ends in gpu"
            yield Breach(devices.mistaken, says, level="warning")
        claims = group.ray["resources"]["claims"]
        # What is claimed beside accelerators that are counted may well be their network.
        if claims.items and not devices.counted and not devices.told(GPU):
            yield Breach(claims, says="KubeRay does not count what is claimed", level="warning")


@rule(
    "RS708",
    on=ClusterSubject,
    says="GPUs are limits",
    why="KubeRay reads limits alone, and Kubernetes takes no request of a GPU without its limit",
    remedy="give the same number in limits",
)
def gpus_limited(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        resources = group.ray["resources"]
        for key, request in resources["requests"].fields.items():
            if is_accelerator(key) and not resources["limits"][key].present:
                yield Breach(request)


@rule(
    "RS736",
    on=ClusterSubject,
    says="Ray is told of as many accelerators as the pod has",
    why="the others are idle, or tasks find none",
    remedy="drop it where KubeRay takes the number from the limit, or give the same one",
    level="warning",
)
def as_many(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        devices = Devices(group)
        for name, has in devices.numbers.items():
            for node, said in devices.said(name):
                if said not in (0, has):
                    of = f"{name}s" if name == GPU else name
                    yield Breach(node, says=f"Ray is told of {said:g} {of}, and the pod has {has:g}")
