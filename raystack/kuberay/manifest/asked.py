"""What manifests ask of a cluster: pods with their amounts, and objects that they refer to. Pure.

It is read from the manifests and not from the config, so that what an overlay adds counts, too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from raystack.kuberay.manifest.cron import FILE
from raystack.kuberay.manifest.parts import Manifest
from raystack.plan.kuberay.facts import (
    KAI_QUEUE,
    KUEUE_PRIORITY,
    KUEUE_QUEUE,
    VOLCANO_PRIORITY,
    VOLCANO_QUEUE,
    YUNIKORN_QUEUE,
    amount,
)

Role = Literal["head", "worker", "submitter"]
OWN = ("ConfigMap", "ServiceAccount", "Secret", "PersistentVolumeClaim")
"""Kinds that the manifests may bring themselves."""
LABELS: Mapping[str, str] = {
    KUEUE_QUEUE: "LocalQueue",
    KUEUE_PRIORITY: "WorkloadPriorityClass",
    VOLCANO_QUEUE: "Queue",
    VOLCANO_PRIORITY: "PriorityClass",
    KAI_QUEUE: "Queue.scheduling.run.ai",
    YUNIKORN_QUEUE: "YuniKorn's queue",
}
"""Kinds of the objects that labels name."""


@dataclass(frozen=True)
class PodGroup:
    """Pods of one kind."""

    role: Role
    name: str
    """Name for people, e.g. `the head` or `a worker of group gpu`."""
    count: int
    """Number of pods at the start."""
    amounts: Mapping[str, float]
    """Requests of one pod, by resource."""
    spec: Manifest = field(repr=False)


@dataclass(frozen=True)
class Reference:
    """Object that the manifests refer to and do not bring."""

    kind: str
    name: str
    path: str
    """Where it is named."""
    keys: frozenset[str] = frozenset()
    """Keys that it should have."""


def pods(manifests: Iterable[Manifest]) -> list[PodGroup]:
    """Return the pods that the manifests ask for, the head first."""
    found: list[PodGroup] = []
    for manifest in manifests:
        for kind, _, spec in _specs(manifest):
            cluster = _cluster(kind, spec)
            if head := (cluster.get("headGroupSpec") or {}).get("template"):
                found.append(_group("head", "the head", 1, head))
            for group in cluster.get("workerGroupSpecs") or ():
                count = group.get("replicas")
                count = group.get("minReplicas", 0) if count is None else count
                name = f"a worker of group {group['groupName']}"
                found.append(
                    _group("worker", name, count * (group.get("numOfHosts") or 1), group["template"])
                )
            if template := spec.get("submitterPodTemplate"):
                found.append(_group("submitter", "the submitter", 1, template))
    return found


def references(manifests: Sequence[Manifest]) -> list[Reference]:
    """Return the objects that have to be there, each once, with all keys that are asked for."""
    brought = {(each["kind"], each["metadata"]["name"]) for each in manifests if each["kind"] in OWN}
    found: dict[tuple[str, str], Reference] = {}
    for each in (reference for manifest in manifests for reference in _of(manifest)):
        known = found.get((each.kind, each.name), each)
        if (each.kind, each.name) not in brought:
            keys = known.keys | each.keys
            found[each.kind, each.name] = Reference(each.kind, each.name, known.path, keys)
    return list(found.values())


def _specs(manifest: Manifest) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Yield kind, metadata and spec of KubeRay's objects, also of those that a schedule or a study makes."""
    kind, metadata, spec = manifest["kind"], manifest["metadata"], manifest.get("spec") or {}
    match kind:
        case "RayCluster" | "RayJob" | "RayService":
            yield kind, metadata, spec
        case "RayCronJob":
            yield "RayJob", metadata, spec.get("jobTemplate") or {}
        case "ConfigMap" if FILE in (manifest.get("data") or {}):
            yield from _specs(yaml.safe_load(manifest["data"][FILE]))
        case "Experiment":
            yield from _specs({"metadata": {}, **(spec.get("trialTemplate") or {}).get("trialSpec", {})})


def _cluster(kind: str, spec: Manifest) -> Manifest:
    key = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}.get(kind)
    return spec if key is None else spec.get(key) or {}


def _group(role: Role, name: str, count: int, template: Manifest) -> PodGroup:
    spec = template.get("spec") or {}
    return PodGroup(role, name, count, requests(spec), spec)


def requests(spec: Manifest) -> dict[str, float]:
    """Return the amounts of a pod as the scheduler counts them."""
    inits = spec.get("initContainers") or []
    beside = [each for each in inits if each.get("restartPolicy") == "Always"]
    total = _sum([*spec.get("containers", []), *beside])
    for each in inits:
        if each not in beside:
            first = _sum([each])
            total = {key: max(total.get(key, 0.0), first.get(key, 0.0)) for key in {**total, **first}}
    overhead = {key: amount(value) for key, value in (spec.get("overhead") or {}).items()}
    return {key: total.get(key, 0.0) + overhead.get(key, 0.0) for key in {**total, **overhead}}


def _sum(containers: Iterable[Manifest]) -> dict[str, float]:
    total: dict[str, float] = {}
    for container in containers:
        resources = container.get("resources") or {}
        # A limit without a request is the request, too.
        wanted = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for key, value in wanted.items():
            total[key] = total.get(key, 0.0) + amount(value)
    return total


def _of(manifest: Manifest) -> Iterator[Reference]:
    for kind, metadata, spec in _specs(manifest):
        for label, name in (metadata.get("labels") or {}).items():
            if label in LABELS:
                yield Reference(LABELS[label], str(name), f"metadata.labels.{label}")
        cluster = _cluster(kind, spec)
        auth = cluster.get("authOptions") or {}
        if auth.get("mode") == "token" and auth.get("secretName"):
            path = "authOptions.secretName"
            yield Reference("Secret", auth["secretName"], path, frozenset({"auth_token"}))
        yield from _inside(cluster.get("gcsFaultToleranceOptions") or {}, "gcsFaultToleranceOptions")
        for group in (cluster.get("headGroupSpec") or {}, *(cluster.get("workerGroupSpecs") or ())):
            where = group.get("groupName", "headGroupSpec")
            yield from _of_pod((group.get("template") or {}).get("spec") or {}, where)
        yield from _of_pod((spec.get("submitterPodTemplate") or {}).get("spec") or {}, "submitterPodTemplate")


def _of_pod(spec: Manifest, where: str) -> Iterator[Reference]:
    """Yield the objects that a pod's spec names."""
    names = {
        "ServiceAccount": spec.get("serviceAccountName"),
        "PriorityClass": spec.get("priorityClassName"),
        "RuntimeClass": spec.get("runtimeClassName"),
    }
    for kind, name in names.items():
        if name and not (kind == "ServiceAccount" and name == "default"):
            yield Reference(kind, name, f"{where}.{kind[0].lower()}{kind[1:]}Name")
    for each in spec.get("imagePullSecrets") or ():
        yield Reference("Secret", each["name"], f"{where}.imagePullSecrets")
    for claim in spec.get("resourceClaims") or ():
        if name := claim.get("resourceClaimTemplateName"):
            yield Reference("ResourceClaimTemplate", name, f"{where}.resourceClaims")
    for part in ("volumes", "initContainers", "containers"):
        for each in spec.get(part) or ():
            yield from _inside(each, f"{where}.{part}[{each.get('name')}]")


def _inside(value: Any, path: str) -> Iterator[Reference]:
    """Yield the Secrets, ConfigMaps and claims of a volume or a container."""
    if isinstance(value, list):
        for each in value:
            yield from _inside(each, path)
    if not isinstance(value, dict) or value.get("optional"):
        return
    for key, inner in value.items():
        if isinstance(inner, list):
            yield from _inside(inner, path)
        elif isinstance(inner, dict) and not inner.get("optional"):
            named = _named(key, inner, path)
            yield from _inside(inner, path) if named is None else [named]


def _named(key: str, value: Manifest, path: str) -> Reference | None:
    """Return the object that a part such as `secretKeyRef` names, or None if it is no such part."""
    match key:
        case "secretKeyRef" | "configMapKeyRef":
            kind = "Secret" if key == "secretKeyRef" else "ConfigMap"
            return Reference(kind, value["name"], path, frozenset({value["key"]}))
        case "secretRef" | "configMapRef" | "secret" | "configMap" if (
            "secretName" in value or "name" in value
        ):
            kind = "ConfigMap" if key.startswith("configMap") else "Secret"
            keys = frozenset(item["key"] for item in value.get("items") or ())
            return Reference(kind, value.get("secretName") or value["name"], path, keys)
        case "persistentVolumeClaim":
            return Reference("PersistentVolumeClaim", value["claimName"], path)
    return None
