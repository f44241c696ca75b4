"""The smallest objects that KubeRay's CRDs accept, for tests to change."""

from typing import Any

Object = dict[str, Any]


def pod_template(image: str = "ray:2.60.0") -> Object:
    return {"spec": {"containers": [{"name": "ray", "image": image}]}}


def cluster_spec(*, replicas: int | None = 1, autoscaling: bool = False, image: str = "ray:2.60.0") -> Object:
    """One group `workers` of at most 8."""
    group: Object = {
        "groupName": "workers",
        "minReplicas": 0,
        "maxReplicas": 8,
        "template": pod_template(image),
    }
    if replicas is not None:
        group["replicas"] = replicas
    spec: Object = {
        "rayVersion": "2.60.0",
        "headGroupSpec": {"template": pod_template(image)},
        "workerGroupSpecs": [group],
    }
    return {**spec, "enableInTreeAutoscaling": True} if autoscaling else spec


def raycluster(name: str = "one", **wanted: Any) -> Object:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": name},
        "spec": cluster_spec(**wanted),
    }


def rayjob(name: str = "digits", **spec: Any) -> Object:
    job = {
        "entrypoint": "python train.py",
        "shutdownAfterJobFinishes": True,
        "rayClusterSpec": cluster_spec(),
        **spec,
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": job}


def rayservice(name: str = "model", **spec: Any) -> Object:
    service = {"serveConfigV2": "applications: []\n", "rayClusterConfig": cluster_spec(), **spec}
    return {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": name}, "spec": service}


def configmap(name: str = "digits-code") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"config.yaml": "a: 1\n"},
    }


def pod(
    name: str,
    *,
    labels: dict[str, str] | None = None,
    phase: str = "Running",
    ports: dict[str, int] | None = None,
) -> Object:
    container = {
        "name": "ray",
        "image": "ray",
        "ports": [{"name": key, "containerPort": value} for key, value in (ports or {}).items()],
    }
    state = {"name": "ray", "restartCount": 0, "state": {"running": {}}}
    metadata = {"name": name, "labels": labels or {}}
    status = {"phase": phase, "containerStatuses": [state]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container]},
        "status": status,
    }
