"""What KubeRay makes of a changed field, by kind.

In: the live object, the object as it would be, and the path of a field. Out: the effect, and why.

KubeRay acts on some fields at once, on some by starting a second cluster, and on most of them never; nothing
but this table shows which.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from raystack.kuberay.actions.differences import Path, differences, own
from raystack.kuberay.api.kinds import Object
from raystack.plan.kuberay.facts import QUEUES

Effect = Literal["in place", "new cluster", "recreate", "ignored", "refused"]
"""`recreate`: only by deleting and recreating the object or its pods. `refused`: another manager has set the
field.
"""
Verdict = tuple[Effect, str]

_SCALE = re.compile(r"replicas|minReplicas|maxReplicas|scaleStrategy")
_FIXED = (("managedBy",), ("gcsFaultToleranceOptions", "backend"))
"""Fields that the API declares immutable."""
_ENDED = ("Complete", "Failed", "ValidationFailed")


def effect(live: Object, after: Object, path: Path) -> Verdict:
    """Return what becomes of a change."""
    return _JUDGES.get(after["kind"], _plain)(live, after, path)


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
        path for path, _, _ in differences(own(live), own(after)) if path[:2] == ("spec", "rayClusterConfig")
    ]


def _groups(cluster: Mapping[str, Any]) -> list[str]:
    return [group["groupName"] for group in cluster.get("workerGroupSpecs") or []]


def _is_new_group(live: Mapping[str, Any], step: str) -> bool:
    return step.startswith("[") and step[1:-1] not in _groups(live)


def _appended(live: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether new groups come after all existing ones."""
    return _groups(after)[: len(_groups(live))] == _groups(live)
