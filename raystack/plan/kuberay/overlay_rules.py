"""Rules on the overlay: what it makes impossible, by the rules that hold for keys."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.errors import Problem, nearest
from raystack.plan.kuberay.asked import Asked
from raystack.plan.kuberay.connectivity import CODE
from raystack.plan.kuberay.environment import TAKEN
from raystack.plan.kuberay.facts import amount, exact
from raystack.plan.kuberay.overlay import HEAD, WORKERS, at, below, items, levels, walk
from raystack.plan.kuberay.pods import GROUP
from raystack.plan.kuberay.shape import Form, Group

PATCH = "$patch"
FLEETING = ("emptyDir", "secret", "configMap", "downwardAPI", "projected", "ephemeral")
"""Kinds of volumes that end with a pod, or that nobody writes to."""


def overlay_problems(
    config: RunConfig, target: KubeRay, form: Form, group: Group, wanted: Asked
) -> Iterator[Problem]:
    """Yield what the overlay makes impossible, by the rules that hold for keys."""
    where = f"target.overlay.{WORKERS}"
    there = 0 if _without_group(target) or at(target, f"{WORKERS}.suspend") is True else group.pods
    if there < wanted.pods:
        rule = f"the {'replicas need' if form == 'service' else 'run may use'} {wanted.pods} worker pods"
        remedy = "leave the number to resources.workers"
        yield Problem(where, rule=rule, got=str(there), remedy=remedy)
    if group.least > group.most:
        yield Problem(
            where, rule="minReplicas is above maxReplicas", got=str(group.least), remedy="correct it"
        )
    yield from _container_problems(target)
    yield from _told_problems(target, wanted)
    yield from _taint_problems(target, group)
    device = group.pod.devices.key
    given = at(target, f"{WORKERS}.template.spec.containers.ray-worker.resources.limits.{device}")
    if given is not None and amount(given) < group.pod.devices.count:
        rule = f"a worker pod needs {group.pod.devices.count} for what runs in it"
        yield Problem(f"{where}: {device}", rule=rule, got=str(given), remedy="drop it")
    names = (GROUP, *target.groups)
    for item in items(at(target, "workerGroupSpecs")):
        name = item.get("groupName")
        whole = any("image" in each for each in items(below(item, "template.spec.containers")))
        if name not in names and not whole and (close := nearest(str(name), names)) is not None:
            rule = "there is no group of this name"
            remedy = f"did you mean {close}? A new one is an entry of target.groups"
            yield Problem("target.overlay.workerGroupSpecs", rule=rule, got=str(name), remedy=remedy)
    storage = config.experiment.storage
    for path, node in walk(target.overlay, ()):
        yield from _env_problems(path, node)
        yield from _mount_problems(path, node, storage)


def _without_group(target: KubeRay) -> bool:
    """Return whether the overlay removes the run's own workers."""
    for level in levels(target):
        for each in items(level.get("workerGroupSpecs")):
            if each.get("groupName") == GROUP and each.get(PATCH) == "delete":
                return True
        if "workerGroupSpecs" in level and level["workerGroupSpecs"] is None:
            return True
    return False


def _container_problems(target: KubeRay) -> Iterator[Problem]:
    """Yield containers that are neither there nor whole, such as one whose name is misspelt."""
    pods: dict[str, tuple[str, Iterable[str]]] = {
        f"{HEAD}.template": ("ray-head", target.head.sidecars),
        f"{WORKERS}.template": ("ray-worker", target.worker.sidecars),
        "submitterPodTemplate": ("ray-job-submitter", ()),
        **{
            f"workerGroupSpecs.{name}.template": ("ray-worker", group.sidecars)
            for name, group in target.groups.items()
        },
    }
    for place, (main, beside) in pods.items():
        names = (main, *beside)
        for container in items(at(target, f"{place}.spec.containers")):
            name = str(container.get("name"))
            if name not in names and "image" not in container:
                rule = "there is no container of this name, and a new one has an image"
                close = nearest(name, names)
                remedy = f"did you mean {close}?" if close else f"Ray's is called {main}"
                where = f"target.overlay.{place}.spec.containers"
                yield Problem(where, rule=rule, got=name, remedy=remedy)


def _told_problems(target: KubeRay, wanted: Asked) -> Iterator[Problem]:
    """Yield what Ray would be told of the workers that is less than what runs in them."""
    least = {"num-cpus": wanted.cpus, "num-gpus": wanted.gpus, "CPU": wanted.cpus, "GPU": wanted.gpus}
    for name, number in least.items():
        path = f"{WORKERS}.{'rayStartParams' if name.startswith('num') else 'resources'}.{name}"
        given = at(target, path)
        if given is not None and amount(given) < number:
            rule = f"a worker pod needs {exact(number)} for what runs in it, and Ray would know of less"
            yield Problem(f"target.overlay.{path}", rule=rule, got=str(given), remedy="drop it")


def _taint_problems(target: KubeRay, group: Group) -> Iterator[Problem]:
    """Yield a list of tolerations in the place of those that the workers' nodes ask for."""
    path = f"{WORKERS}.template.spec.tolerations"
    given = at(target, path)
    kept = {each.get("key") for each in items(given)}
    own = {each.key for each in target.worker.tolerations}
    for needed in group.pod.tolerations:
        if given is not None and needed.key not in own and not {needed.key, None} & kept:
            rule = f"takes the place of the toleration of {needed.key}, which the pods' nodes ask for"
            remedy = "add it to the list, or use target.worker.tolerations"
            yield Problem(f"target.overlay.{path}", rule=rule, remedy=remedy)


def _env_problems(path: str, node: Mapping[str, Any]) -> Iterator[Problem]:
    for variable in items(node.get("env")):
        if (name := variable.get("name")) in TAKEN:
            where = f"target.overlay.{path}.env.{name}"
            yield Problem(where, rule="KubeRay sets it, or refuses it", remedy=f"use {TAKEN[str(name)]}")


def _mount_problems(path: str, node: Mapping[str, Any], storage: str) -> Iterator[Problem]:
    """Yield mounts that take the place of what a run needs."""
    fleeting = {
        volume.get("name"): kind
        for volume in items(node.get("volumes"))
        for kind in FLEETING
        if volume.get(kind) is not None
    }
    mounts = [
        (container.get("name"), mount)
        for container in (*items(node.get("containers")), *items(node.get("initContainers")))
        for mount in items(container.get("volumeMounts"))
    ]
    for container, mount in mounts:
        if container not in ("ray-head", "ray-worker"):
            continue
        place, name = str(mount.get("mountPath", "")).rstrip("/"), mount.get("name")
        where = f"target.overlay.{path}.containers.{container}.volumeMounts"
        if place == CODE and name != "code":
            yield Problem(
                where, rule="raystack mounts the run's config there", got=place, remedy="mount it elsewhere"
            )
        below = bool(place) and "://" not in storage and f"{storage}/".startswith(f"{place}/")
        if below and (name in fleeting or mount.get("readOnly") is True):
            rule = f"holds experiment.storage={storage}, which has to last and to be written"
            got = f"{place}: {fleeting.get(name, 'read-only')}"
            yield Problem(where, rule=rule, got=got, remedy="mount it elsewhere")
