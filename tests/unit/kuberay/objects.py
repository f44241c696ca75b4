"""Small objects of KubeRay that lint finds nothing in, and patches over them."""

from copy import deepcopy
from typing import Any

GROUP = {"template": {"spec": {"containers": [{"name": "ray", "image": "rayproject/ray:2.60.0"}]}}}
CLUSTER = {
    "rayVersion": "2.60.0",
    "headGroupSpec": GROUP,
    "workerGroupSpecs": [{"groupName": "workers", "minReplicas": 1, "maxReplicas": 4, **GROUP}],
}
JOB = {"entrypoint": "python train.py", "rayClusterSpec": CLUSTER}
SPECS: dict[str, dict[str, Any]] = {
    "RayCluster": CLUSTER,
    "RayJob": JOB,
    "RayService": {"serveConfigV2": "applications: []", "rayClusterConfig": CLUSTER},
    "RayCronJob": {"schedule": "0 3 * * *", "jobTemplate": JOB},
}


def good(kind: str) -> dict[str, Any]:
    """The smallest object of its kind that nothing can be said against."""
    return deepcopy(
        {"apiVersion": "ray.io/v1", "kind": kind, "metadata": {"name": "digits"}, "spec": SPECS[kind]}
    )


def merged(base: Any, patch: Any) -> Any:
    """The patch over the base: numbers are places in a list, and null removes."""
    if isinstance(base, list) and isinstance(patch, dict):
        items = dict(enumerate(base))
        return list(merged(items, patch).values())
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    whole = {
        key: merged(base.get(key), value) if base.get(key) is not None else _dense(value)
        for key, value in patch.items()
    }
    return {key: value for key, value in {**base, **whole}.items() if value is not None}


def _dense(value: Any) -> Any:
    return (
        {key: _dense(inner) for key, inner in value.items() if inner is not None}
        if isinstance(value, dict)
        else value
    )
