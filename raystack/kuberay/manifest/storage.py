"""Volumes and mounts of pods, from the config's volumes."""

from typing import Any

from raystack.config.kuberay import Volume
from raystack.plan import KubePlan


def volumes(plan: KubePlan) -> list[dict[str, Any]]:
    return [
        {"name": _name(index), **_source(volume, plan)}
        for index, volume in enumerate(plan.target.storage.volumes)
    ]


def mounts(plan: KubePlan) -> list[dict[str, Any]]:
    return [
        {"name": _name(index), "mountPath": volume.mount, **({"readOnly": True} if volume.read_only else {})}
        for index, volume in enumerate(plan.target.storage.volumes)
    ]


def annotations(plan: KubePlan) -> dict[str, str]:
    """Return annotations for pods, on which GKE adds the sidecar that mounts buckets."""
    return (
        {"gke-gcsfuse/volumes": "true"}
        if any(volume.kind == "gcsfuse" for volume in plan.target.storage.volumes)
        else {}
    )


def _name(index: int) -> str:
    return f"storage-{index}"


def _source(volume: Volume, plan: KubePlan) -> dict[str, Any]:
    read_only = {"readOnly": True} if volume.read_only else {}
    match volume.kind:
        case "pvc":
            return {"persistentVolumeClaim": {"claimName": volume.name, **read_only}}
        case "nfs":
            server, _, path = volume.name.partition(":")
            return {"nfs": {"server": server, "path": path, **read_only}}
        case "gcsfuse":
            owner = plan.target.security.run_as
            options = "implicit-dirs" if owner is None else f"implicit-dirs,uid={owner},gid={owner}"
            attributes = {"bucketName": volume.name, "mountOptions": options}
            return {
                "csi": {"driver": "gcsfuse.csi.storage.gke.io", **read_only, "volumeAttributes": attributes}
            }
