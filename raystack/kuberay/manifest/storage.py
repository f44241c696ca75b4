"""Volumes and mounts of pods, from the config's volumes."""

from collections.abc import Collection
from typing import Any

from raystack.config.volumes import (
    Claim,
    Csi,
    EmptyDir,
    Ephemeral,
    Files,
    GcsFuse,
    HostPath,
    Mounted,
    Nfs,
    Node,
    Volume,
)
from raystack.kuberay.manifest.parts import given
from raystack.plan import KubePlan
from raystack.plan.kuberay.shape import PodPlan

TMP = "/tmp"
"""Where Ray keeps its sessions, and all programs what they need for a while."""


def volumes(plan: KubePlan, node: Node, pod: PodPlan) -> list[dict[str, Any]]:
    """Return the volumes of a kind of pod."""
    own = [{"name": name, **_source(volume, plan)} for name, volume in _of(plan, node)]
    return [*own, *([] if _has_tmp(plan, node) else tmp_volume(pod))]


def mounts(
    plan: KubePlan, node: Node, pod: PodPlan, only: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """Return the mounts of a container; `only` names those it has."""
    own = [
        {
            "name": name,
            "mountPath": volume.mount,
            **given(subPath=volume.sub_path),
            **({"readOnly": True} if volume.read_only else {}),
        }
        for name, volume in _of(plan, node)
        if only is None or volume.mount in only
    ]
    return [*own, *([] if _has_tmp(plan, node) else tmp(pod))]


def tmp(pod: PodPlan) -> list[dict[str, Any]]:
    """Return the writable mount beside a read-only root."""
    return [{"name": "tmp", "mountPath": TMP}] if pod.config.read_only_root else []


def tmp_volume(pod: PodPlan) -> list[dict[str, Any]]:
    """Return the volume of `tmp`."""
    return [{"name": "tmp", "emptyDir": {}}] if pod.config.read_only_root else []


def annotations(plan: KubePlan, node: Node) -> dict[str, str]:
    """Return annotations for pods, on which GKE adds the sidecar that mounts buckets."""
    buckets = any(isinstance(volume, GcsFuse) for _, volume in _of(plan, node))
    return {"gke-gcsfuse/volumes": "true"} if buckets else {}


def _of(plan: KubePlan, node: Node) -> list[tuple[str, Volume]]:
    """Return the volumes of a kind of pod, with their names."""
    every = enumerate(plan.target.storage.volumes)
    return [(f"storage-{index}", volume) for index, volume in every if node in volume.pods]


def _has_tmp(plan: KubePlan, node: Node) -> bool:
    return any(volume.mount.rstrip("/") == TMP for _, volume in _of(plan, node))


def _source(volume: Mounted, plan: KubePlan) -> dict[str, Any]:
    """Return the source of a volume."""
    read_only = {"readOnly": True} if volume.read_only else {}
    match volume:
        case Claim():
            return {"persistentVolumeClaim": {"claimName": volume.name, **read_only}}
        case Nfs():
            server, _, path = volume.name.partition(":")
            return {"nfs": {"server": server, "path": path, **read_only}}
        case GcsFuse():
            owner = plan.target.security.run_as
            options = "implicit-dirs" if owner is None else f"implicit-dirs,uid={owner},gid={owner}"
            attributes = {"bucketName": volume.name, "mountOptions": options}
            driver = "gcsfuse.csi.storage.gke.io"
            return {"csi": {"driver": driver, **read_only, "volumeAttributes": attributes}}
        case Files():
            return _files(volume)
        case EmptyDir():
            medium = "Memory" if volume.medium == "memory" else None
            return {"emptyDir": given(medium=medium, sizeLimit=volume.size)}
        case HostPath():
            return {"hostPath": {"path": volume.path, **given(type=volume.type or None)}}
        case Csi():
            secret = {"name": volume.secret} if volume.secret else None
            more = given(volumeAttributes=dict(volume.attributes), nodePublishSecretRef=secret)
            return {"csi": {"driver": volume.driver, **read_only, **more}}
        case Ephemeral():
            claim = {
                "accessModes": [volume.access],
                **given(storageClassName=volume.storage_class),
                "resources": {"requests": {"storage": volume.size}},
            }
            return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}
    raise AssertionError(f"a volume of kind {type(volume).__name__}")


def _files(volume: Files) -> dict[str, Any]:
    more = given(
        items=[{"key": key, "path": path} for key, path in volume.items.items()],
        defaultMode=int(volume.mode, 8) if volume.mode else None,
        optional=volume.optional or None,
    )
    if volume.kind == "secret":
        return {"secret": {"secretName": volume.name, **more}}
    return {"configMap": {"name": volume.name, **more}}
