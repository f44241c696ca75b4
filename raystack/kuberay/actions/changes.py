"""Effects of applying a manifest.

In: the live object, and the object as it would be. Out: Changes.

The object as it would be is the result of the server's dry run: it includes defaults and fields of other
managers. KubeRay acts on some fields at once, on some by starting a second cluster, and on most of them
never; nothing but this table shows which.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.api.owners import APPLIED
from raystack.plan.kuberay.facts import QUEUES

Effect = Literal["in place", "new cluster", "recreate", "ignored", "refused"]
"""`recreate`: only by deleting and recreating the object or its pods. `refused`: another manager has set the
field.
"""

Path = tuple[str, ...]
Verdict = tuple[Effect, str]

HIDDEN = "(hidden)"
ABSENT = object()
_SERVERS_OWN = (
    "managedFields",
    "resourceVersion",
    "generation",
    "uid",
    "creationTimestamp",
    "selfLink",
    "deletionTimestamp",
    "finalizers",
)
_NAMED_BY = ("groupName", "name", "mountPath", "containerPort", "key")
"""Keys that identify the items of a list; the first that all items have is used."""
_SCALE = re.compile(r"replicas|minReplicas|maxReplicas|scaleStrategy")
_KEYED = re.compile(r'\[\w+="([^"]*)"\]')
"""Item of a list as the server writes it: `[name="ray-head"]`."""
_FIXED = (("managedBy",), ("gcsFaultToleranceOptions", "backend"))
"""Fields that the API declares immutable."""
_ENDED = ("Complete", "Failed", "ValidationFailed")


@dataclass(frozen=True)
class Change:
    """Field that differs."""

    path: str
    """Path, e.g. `spec.workerGroupSpecs[gpu].replicas`; empty for the object itself."""
    before: Any
    after: Any
    """None if the field is removed."""
    effect: Effect
    why: str
    """Explanation in one line."""


def changes(live: Object | None, after: Object, contested: Mapping[str, str] = {}) -> list[Change]:
    """Return the changes in the order of the fields, or the creation if there is no live object.

    `contested` maps fields, as the server writes them, to reasons why they cannot be changed. Contested
    fields that do not differ come last.
    """
    if live is None:
        return [Change("", None, f"{after['kind']}/{after['metadata']['name']}", "in place", "it is made")]
    judge = _JUDGES.get(after["kind"], _plain)
    hidden = after["kind"] == "Secret"
    found = [
        Change(_written(part), _shown(old, hidden), _shown(new, hidden), *judge(live, after, path))
        for path, before, value in _differences(_own(live), _own(after))
        for part, old, new in ([(path, before, value)] if hidden else _within_text(path, before, value))
    ]
    refusals = {_KEYED.sub(r"[\1]", field.removeprefix(".")): why for field, why in contested.items()}
    left = {field: Change(field, None, None, "refused", why) for field, why in refusals.items()}
    for index, change in enumerate(found):
        for field, why in refusals.items():
            if change.path == field or change.path.startswith((f"{field}.", f"{field}[")):
                found[index] = replace(change, effect="refused", why=why)
                left.pop(field, None)
    return [*found, *left.values()]


def _own(obj: Object) -> Object:
    """Return the object without fields that the server and the operator write."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _SERVERS_OWN}
    metadata["annotations"] = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if key != APPLIED
    }
    return {
        **{key: value for key, value in obj.items() if key not in ("status", "apiVersion", "kind")},
        "metadata": metadata,
    }


def _differences(before: Any, after: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Yield the deepest fields that differ.

    Lists of named items are compared by their names, other lists as a whole.
    """
    if before == after or (_is_empty(before) and _is_empty(after)):
        return
    left, right = _by_name(before, after)
    if left is None or right is None:
        yield path, before, after
        return
    for key in [*left, *(key for key in right if key not in left)]:
        yield from _differences(left.get(key, ABSENT), right.get(key, ABSENT), (*path, key))


def _within_text(path: Path, before: Any, after: Any) -> Iterator[tuple[Path, Any, Any]]:
    """Yield the fields that differ inside texts of YAML, such as `serveConfigV2`, or else the values."""
    old, new = _parsed(before), _parsed(after)
    inside = list(_differences(old, new, path)) if old is not None and new is not None else []
    yield from inside or [(path, before, after)]


def _parsed(text: Any) -> Any:
    """Return the mapping or list in a text of several lines of YAML, or None."""
    if not isinstance(text, str) or "\n" not in text.strip():
        return None
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return value if isinstance(value, dict | list) else None


def _is_empty(value: Any) -> bool:
    """Return whether a value counts as not set: the operator writes empty fields back."""
    return value is ABSENT or value is None or value in ({}, [])


def _by_name(before: Any, after: Any) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return both values as mappings if they are mappings or keyed lists, whose keys are in brackets."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before, after
    if isinstance(before, list) and isinstance(after, list):
        items = [*before, *after]
        name = next(
            (
                key
                for key in _NAMED_BY
                if items and all(isinstance(item, dict) and key in item for item in items)
            ),
            None,
        )
        if name is not None:
            left, right = ({f"[{item[name]}]": item for item in side} for side in (before, after))
            if len(left) == len(before) and len(right) == len(after):
                return left, right
    return None, None


def _written(path: Path) -> str:
    return "".join(
        step if step.startswith("[") or not index else f".{step}" for index, step in enumerate(path)
    )


def _shown(value: Any, hidden: bool) -> Any:
    if value is ABSENT:
        return None
    return HIDDEN if hidden else value


# What KubeRay makes of a change, by kind


def _raycluster(live: Object, after: Object, path: Path) -> Verdict:
    spec = after["spec"]
    match path:
        case ("metadata", *_):
            return _metadata(live, path)
        case ("spec", *rest) if tuple(rest) in _FIXED:
            return _IMMUTABLE
        case ("spec", "suspend"):
            return "in place", "its pods are deleted while it is suspended"
        case ("spec", "upgradeStrategy" | "networkPolicy", *_):
            return "in place", "the operator follows it"
        case ("spec", "autoscalerOptions", "idleTimeoutSeconds" | "upscalingMode"):
            return "in place", "the autoscaler reads it in each round"
        case ("spec", "workerGroupSpecs", group, *rest) if rest and _SCALE.fullmatch(rest[0]):
            if rest[0] in ("replicas", "scaleStrategy") and spec.get("enableInTreeAutoscaling"):
                return "ignored", "the autoscaler sets it; change minReplicas or maxReplicas"
            return "in place", f"pods of {group[1:-1]} are added or deleted"
        case ("spec", "workerGroupSpecs", _, "idleTimeoutSeconds"):
            return "in place", "the autoscaler reads it in each round"
        case ("spec", "workerGroupSpecs", group) if _is_new_group(live["spec"], group):
            return "in place", "its pods are added"
    if (spec.get("upgradeStrategy") or {}).get("type") == "Recreate":
        return "recreate", "upgradeStrategy is Recreate: all pods are deleted and made again"
    return (
        "ignored",
        "running pods stay as they are; delete the cluster, or set upgradeStrategy.type to Recreate",
    )


def _rayjob(live: Object, after: Object, path: Path) -> Verdict:
    state = (live.get("status") or {}).get("jobDeploymentStatus") or ""
    spec = after["spec"]
    if state == "ValidationFailed":
        return "recreate", "the operator never looks again at a RayJob that it found invalid"
    match path:
        case ("metadata", *_):
            return _metadata(live, path)
        case ("spec", *rest) if tuple(rest) in _FIXED or (
            rest[0] == "rayClusterSpec" and tuple(rest[1:]) in _FIXED
        ):
            return _IMMUTABLE
        case ("spec", "ttlSecondsAfterFinished" | "deletionStrategy" | "shutdownAfterJobFinishes", *_):
            return "in place", "it is looked at when the job has ended"
    if state in _ENDED:
        return "recreate", f"the job has ended ({state})"
    match path:
        case ("spec", "suspend") if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
            return (
                "recreate",
                "without shutdownAfterJobFinishes the operator finds it invalid, which ends it for good",
            )
        case ("spec", "suspend"):
            return "in place", "its cluster is deleted, or made again"
        case ("spec", "backoffLimit" | "activeDeadlineSeconds" | "preRunningDeadlineSeconds"):
            return "in place", "the operator looks at it in each round"
        case ("spec", "jobId") if state == "Waiting":
            return "in place", "it was waited for"
        case _ if state == "Suspended":
            return "new cluster", "it takes effect when the job is resumed"
    return "ignored", "the job was submitted as it was; delete it and submit it again"


def _rayservice(live: Object, after: Object, path: Path) -> Verdict:
    spec = after["spec"]
    conditions = (live.get("status") or {}).get("conditions") or []
    if any(condition.get("reason") == "InitializingTimeout" for condition in conditions):
        return "recreate", "the operator has given up on it (InitializingTimeout)"
    match path:
        case ("metadata", *_):
            return _metadata(live, path)
        case ("spec", *rest) if tuple(rest) in _FIXED or (
            rest[0] == "rayClusterConfig" and tuple(rest[1:]) in _FIXED
        ):
            return _IMMUTABLE
        case ("spec", "serveConfigV2"):
            return "in place", "Serve updates its applications"
        case ("spec", "serveService", *_) if _upgrade(spec) == "NewClusterWithIncrementalUpgrade":
            return "ignored", "an incremental upgrade has a gateway and no serveService"
        case ("spec", step, *_) if step != "rayClusterConfig":
            return "in place", "the operator follows it"
        case ("spec", "rayClusterConfig", *rest) if _outside_hash(tuple(rest)):
            if (
                any(not _outside_hash(other[2:]) for other in _cluster_paths(live, after))
                and _upgrade(spec) != "None"
            ):
                return "new cluster", "it goes along with the other changes"
            return "ignored", "the operator makes no new cluster for it alone"
        case ("spec", "rayClusterConfig", "workerGroupSpecs", group) if _is_new_group(
            live["spec"]["rayClusterConfig"], group
        ):
            if _appended(live["spec"]["rayClusterConfig"], spec["rayClusterConfig"]):
                return "in place", "its pods are added"
    if _upgrade(spec) == "None":
        return "ignored", "upgradeStrategy is None: the running cluster stays as it is"
    steps = "in steps" if _upgrade(spec) == "NewClusterWithIncrementalUpgrade" else "all at once"
    return "new cluster", f"a second cluster is made, and traffic moves to it {steps}"


def _raycronjob(live: Object, after: Object, path: Path) -> Verdict:
    if path[0] == "metadata":
        return _metadata(live, path)
    return "in place", "from the next time on" if path[:2] == (
        "spec",
        "jobTemplate",
    ) else "the operator follows it"


def _cronjob(live: Object, after: Object, path: Path) -> Verdict:
    return "in place", "from the next time on" if path[:2] == (
        "spec",
        "jobTemplate",
    ) else "Kubernetes follows it"


def _configmap(live: Object, after: Object, path: Path) -> Verdict:
    if live.get("immutable") and path[0] in ("data", "binaryData", "immutable"):
        return "recreate", "it is immutable"
    return (
        "in place",
        "files change in the pods that mount it; a process reads them again when it starts again",
    )


def _job(live: Object, after: Object, path: Path) -> Verdict:
    return _IMMUTABLE if path[:2] == ("spec", "template") else ("in place", "Kubernetes follows it")


def _binding(live: Object, after: Object, path: Path) -> Verdict:
    return _IMMUTABLE if path[0] == "roleRef" else ("in place", "Kubernetes follows it")


def _plain(live: Object, after: Object, path: Path) -> Verdict:
    return "in place", "Kubernetes follows it"


_IMMUTABLE: Verdict = ("recreate", "it cannot be changed")
_JUDGES: Mapping[str, Callable[[Object, Object, Path], Verdict]] = {
    "RayCluster": _raycluster,
    "RayJob": _rayjob,
    "RayService": _rayservice,
    "RayCronJob": _raycronjob,
    "CronJob": _cronjob,
    "ConfigMap": _configmap,
    "Secret": _configmap,
    "Job": _job,
    "RoleBinding": _binding,
}


def _metadata(live: Object, path: Path) -> Verdict:
    if len(path) > 2 and path[1] == "labels" and path[2] in QUEUES and not live["spec"].get("suspend"):
        return "recreate", "a queue is chosen when it is queued"
    return "in place", "of the object itself; what it has made already keeps its own"


def _upgrade(spec: Mapping[str, Any]) -> str:
    return (spec.get("upgradeStrategy") or {}).get("type") or "NewCluster"


def _outside_hash(path: Path) -> bool:
    """Return whether the operator ignores a field when it compares clusters of a RayService.

    It ignores the number of pods, tolerations and gates.
    """
    match path:
        case ("suspend" | "upgradeStrategy", *_):
            return True
        case ("workerGroupSpecs", _, field, *_) if _SCALE.fullmatch(field):
            return True
        case (*_, "template", "spec", "tolerations" | "schedulingGates"):
            return True
        case _:
            return any(step in ("tolerations", "schedulingGates") for step in path)


def _cluster_paths(live: Object, after: Object) -> list[Path]:
    return [
        path
        for path, _, _ in _differences(_own(live), _own(after))
        if path[:2] == ("spec", "rayClusterConfig")
    ]


def _groups(cluster: Mapping[str, Any]) -> list[str]:
    return [group["groupName"] for group in cluster.get("workerGroupSpecs") or []]


def _is_new_group(live: Mapping[str, Any], step: str) -> bool:
    return step.startswith("[") and step[1:-1] not in _groups(live)


def _appended(live: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether new groups come after all existing ones."""
    return _groups(after)[: len(_groups(live))] == _groups(live)
