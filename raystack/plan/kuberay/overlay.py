"""The overlay, as far as it says what the plan decides.

In: the config's target. Out: the same target as if its keys had said so, what was taken over, and the objects
that the overlay refers to. The manifests merge the rest.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.point import with_values
from raystack.errors import ConfigError, Problem
from raystack.plan.kuberay.facts import amount
from raystack.plan.kuberay.pods import GROUP
from raystack.plan.kuberay.shape import Form, Group, Requirement, Taken

HEAD, WORKERS = "headGroupSpec", f"workerGroupSpecs.{GROUP}"
_SIZES = {"cpu": "cpus", "memory": "memory", "ephemeral-storage": "ephemeral_storage"}
KEYS: Mapping[str, str] = {
    "rayVersion": "ray_version",
    "enableInTreeAutoscaling": "autoscaling.enabled",
    "autoscalerOptions.idleTimeoutSeconds": "autoscaling.idle_timeout_s",
    "autoscalerOptions.upscalingMode": "autoscaling.upscaling",
    "authOptions.mode": "security.auth",
    "authOptions.secretName": "security.auth_secret",
    "tlsOptions.enabled": "security.tls",
    "submissionMode": "submission.mode",
    "backoffLimit": "submission.retries",
    "activeDeadlineSeconds": "submission.deadline_s",
    "preRunningDeadlineSeconds": "submission.start_deadline_s",
    "ttlSecondsAfterFinished": "lifetime.ttl_s",
    "schedule": "cron.schedule",
    "timeZone": "cron.time_zone",
    f"{WORKERS}.numOfHosts": "worker.hosts",
    f"{WORKERS}.priority": "worker.priority",
    f"{WORKERS}.idleTimeoutSeconds": "worker.idle_timeout_s",
    **{
        f"{place}.template.spec.containers.{name}.resources.limits.{size}": f"{pod}.{key}"
        for place, name, pod in ((HEAD, "ray-head", "head"), (WORKERS, "ray-worker", "worker"))
        for size, key in _SIZES.items()
    },
}
"""Fields that a key of the target decides, by their path in the overlay; items of a list by their name."""
SERVICE: Mapping[str, str] = {
    "upgradeStrategy.type": "upgrade.kind",
    "upgradeStrategy.clusterUpgradeOptions.gatewayClassName": "upgrade.gateway_class",
    "upgradeStrategy.clusterUpgradeOptions.stepSizePercent": "upgrade.step_percent",
    "upgradeStrategy.clusterUpgradeOptions.intervalSeconds": "upgrade.interval_s",
    "upgradeStrategy.clusterUpgradeOptions.maxSurgePercent": "upgrade.surge_percent",
}
"""Those of a RayService alone."""
INNER = ("jobTemplate", "rayClusterSpec", "rayClusterConfig")
"""Fields that hold a spec whose fields may also stand in the overlay itself."""


def adopt(config: RunConfig, target: KubeRay, form: Form) -> tuple[KubeRay, Mapping[str, str], list[Taken]]:
    """Return the target with what its overlay says, the places there of its keys, and what was taken over.

    Raises ConfigError if a value is none that the key may have.
    """
    paths = {**KEYS, **(SERVICE if form == "service" else {})}
    found = {key: (path, value) for path, key in paths.items() if (value := at(target, path)) is not None}
    values = {f"target.{key}": _as_key(key, value) for key, (_, value) in found.items()}
    places = {f"target.{key}": path for key, (path, _) in found.items()}
    if not values:
        return target, {}, []
    try:
        adopted = with_values(config, values).target
    except ConfigError as error:
        raise ConfigError(relocated(error.problems, places)) from None
    assert isinstance(adopted, KubeRay)
    pairs = [(path, key, _get(target, key), _get(adopted, key)) for key, (path, _) in found.items()]
    taken = [
        Taken(path, f"{_shown(before)} (target.{key})", _shown(after))
        for path, key, before, after in pairs
        if before is not None and before != after
    ]
    return adopted, places, taken


def relocated(problems: Iterable[Problem], places: Mapping[str, str]) -> list[Problem]:
    """Return the problems of keys that the overlay has set, with their place there."""
    return [
        replace(each, where=f"target.overlay.{places[each.where]}") if each.where in places else each
        for each in problems
    ]


def overlaid_group(group: Group, target: KubeRay) -> tuple[Group, list[Taken]]:
    """Return the group with the numbers of the overlay, as KubeRay reads them."""
    least, most, count = (
        value if isinstance(value := at(target, f"{WORKERS}.{name}"), int) else None
        for name in ("minReplicas", "maxReplicas", "replicas")
    )
    low, high = group.least if least is None else least, group.most if most is None else most
    wanted = group.replicas if count is None or target.autoscaling.enabled else count
    # KubeRay brings the number between the bounds without a word.
    replicas = None if wanted is None else max(low, min(wanted, high))
    changed = replace(group, least=low, most=high, replicas=replicas)
    before, after = _numbers(group), _numbers(changed)
    return changed, [Taken(f"{WORKERS}.replicas", before, after)] if before != after else []


def _numbers(group: Group) -> str:
    return f"{group.least} to {group.most}" if group.replicas is None else f"{group.replicas}"


def overlay_needs(target: KubeRay, account: str) -> Iterator[Requirement]:
    """Yield the objects that the overlay refers to."""
    why = "target.overlay"
    for _, node in walk(target.overlay, ()):
        for key, kind in (("serviceAccountName", "ServiceAccount"), ("priorityClassName", "PriorityClass")):
            if isinstance(name := node.get(key), str) and name != account:
                yield Requirement("object", f"{kind} {name}", why)
        for key, inner, kind in _REFERENCES:
            reference = node.get(key)
            if not isinstance(reference, dict) or reference.get("optional") is True:
                continue
            if isinstance(name := reference.get(inner), str):
                wanted = f" with {reference['key']}" if isinstance(reference.get("key"), str) else ""
                yield Requirement("object", f"{kind} {name}{wanted}", why)


_REFERENCES = (
    ("secret", "secretName", "Secret"),
    ("configMap", "name", "ConfigMap"),
    ("persistentVolumeClaim", "claimName", "PersistentVolumeClaim"),
    ("secretKeyRef", "name", "Secret"),
    ("configMapKeyRef", "name", "ConfigMap"),
    ("secretRef", "name", "Secret"),
    ("configMapRef", "name", "ConfigMap"),
)


def accounts(target: KubeRay, account: str) -> Iterator[Taken]:
    """Yield the accounts of pods that are not the plan's."""
    for path, node in walk(target.overlay, ()):
        name = node.get("serviceAccountName")
        if isinstance(name, str) and name != account:
            where = f"{path}.serviceAccountName".lstrip(".")
            yield Taken(where, account, f"{name}, which has to be there,")


def at(target: KubeRay, path: str) -> Any:
    """Return what the overlay has at a path, at any level that its fields may be of, or None."""
    return next((value for level in levels(target) if (value := below(level, path)) is not None), None)


def levels(target: KubeRay) -> list[Mapping[str, Any]]:
    """Return the overlay and the specs that stand in it."""
    found: list[Any] = [target.overlay]
    for level in found:
        found += [level[name] for name in INNER if isinstance(level.get(name), dict)]
    return found


def below(node: Any, path: str) -> Any:
    """Return what a value has at a path, whose lists are entered by name, or None."""
    while path:
        if isinstance(node, list):
            name, _, path = path.partition(".")
            node = next(
                (each for each in items(node) if name in (each.get("name"), each.get("groupName"))), None
            )
        elif isinstance(node, dict):
            if path in node:  # a resource has dots in its name
                return node[path]
            name, _, path = path.partition(".")
            node = node.get(name)
        else:
            return None
    return node


def walk(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every mapping with its path."""
    if isinstance(node, dict):
        yield ".".join(path), node
        for name, inner in node.items():
            yield from walk(inner, (*path, str(name)))
    elif isinstance(node, list | tuple):
        for index, inner in enumerate(node):
            named = inner.get("name", inner.get("groupName", index)) if isinstance(inner, dict) else index
            yield from walk(inner, (*path, str(named)))


def items(node: Any) -> list[dict[str, Any]]:
    """Return the mappings of a list."""
    return [each for each in node if isinstance(each, dict)] if isinstance(node, list | tuple) else []


def _as_key(key: str, value: Any) -> Any:
    """Return a value of the overlay as the key has it."""
    if key.endswith(".cpus"):
        return amount(value)
    if key.endswith((".memory", ".ephemeral_storage")):
        return str(value)
    return value


def _get(target: KubeRay, key: str) -> Any:
    node: Any = target
    for name in key.split("."):
        node = getattr(node, name)
    return node


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
