"""Volumes of the pods: shared file systems, Secrets and ConfigMaps as files, and disks of a pod's own."""

from typing import Annotated, Literal

from pydantic import Field

from raystack.config.kubernetes import Name, Path, Quantity
from raystack.config.section import Pattern, Section, Text

Node = Literal["head", "workers", "submitter"]


class Mounted(Section):
    """What all volumes have."""

    mount: Path
    """Mount path."""

    sub_path: Annotated[str, Pattern(r"^(?!/)(?!.*\.\.).+$", "should be a path inside the volume")] | None = (
        None
    )
    """Folder or file of the volume to mount. Not set: all of it."""

    read_only: bool = False
    """Mount the volume read-only."""

    pods: Annotated[tuple[Node, ...], Field(strict=False)] = ("head", "workers")
    """Pods that mount it: `head`, `workers`, `submitter`."""


class Claim(Mounted):
    """An existing PersistentVolumeClaim."""

    kind: Literal["pvc"]
    """The kind of volume. `experiment.storage` may lie below its mount if it is ReadWriteMany."""

    name: Annotated[
        str, Pattern(r"^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$", "should be the name of a claim or a bucket")
    ]
    """Name of the claim."""


class Nfs(Mounted):
    """An NFS export."""

    kind: Literal["nfs"]
    """The kind of volume. `experiment.storage` may lie below its mount."""

    name: Annotated[
        str, Pattern(r"^[^:/\s]+:/\S*$", "an NFS export is server:/export, e.g. nfs.example.com:/runs")
    ]
    """`server:/export`."""


class GcsFuse(Mounted):
    """A bucket, through GKE's CSI driver."""

    kind: Literal["gcsfuse"]
    """The kind of volume. `experiment.storage` may lie below its mount."""

    name: Annotated[
        str, Pattern(r"^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$", "should be the name of a claim or a bucket")
    ]
    """Name of the bucket."""


class Files(Mounted):
    """Files of a Secret or a ConfigMap."""

    kind: Literal["secret", "configmap"]
    """The kind of volume."""

    name: Name
    """Name of the Secret or ConfigMap."""

    items: dict[Text, Text] = Field(default={})
    """Path of each key's file. Not set: a file for every key, with its name."""

    mode: (
        Annotated[str, Pattern(r"^0?[0-7]{3}$", "should be an octal mode in quotes, e.g. '0400'")] | None
    ) = None
    """Mode of the files. Not set: 0644."""

    optional: bool = False
    """Start also without the object."""


class EmptyDir(Mounted):
    """An empty folder that ends with the pod; also an own /dev/shm."""

    kind: Literal["emptydir"]
    """The kind of volume."""

    medium: Literal["disk", "memory"] = "disk"
    """`memory`: of the pod's own memory, as /dev/shm has to be. KubeRay mounts one there if none is named."""

    size: Quantity | None = None
    """Limit of its content; a pod that writes more is evicted."""


class HostPath(Mounted):
    """A path of the node, such as its local disk or a file system that all nodes mount."""

    kind: Literal["hostpath"]
    """The kind of volume."""

    path: Path
    """Path on the node."""

    type: Literal["", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket", "CharDevice"] = ""
    """What has to be there, or is created. Empty: no check."""


class Csi(Mounted):
    """A volume of a CSI driver that belongs to the pod."""

    kind: Literal["csi"]
    """The kind of volume. `experiment.storage` may lie below its mount."""

    driver: Text
    """Name of the driver, e.g. `secrets-store.csi.k8s.io`."""

    attributes: dict[Text, str] = Field(default={})
    """Attributes that the driver reads."""

    secret: Name | None = None
    """Secret that the driver reads to publish the volume."""


class Ephemeral(Mounted):
    """A claim of the pod's own, made and deleted with it: a disk to spill to."""

    kind: Literal["ephemeral"]
    """The kind of volume."""

    size: Quantity
    """Size of the disk."""

    storage_class: Name | None = None
    """StorageClass. Not set: the cluster's default."""

    access: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] = "ReadWriteOnce"
    """Access mode."""


Volume = Annotated[
    Claim | Nfs | GcsFuse | Files | EmptyDir | HostPath | Csi | Ephemeral, Field(discriminator="kind")
]
LASTING = (Claim, Nfs, GcsFuse, HostPath, Csi)
"""Kinds whose content may outlive a pod and be seen by others."""


class Storage(Section):
    """Volumes of the pods, and their identity for object stores."""

    volumes: Annotated[tuple[Volume, ...], Field(strict=False)] = ()
    """Volumes to mount."""

    s3_secret: Name | None = None
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Not set: the service account's role (IRSA), if
    it has one.
    """

    s3_endpoint: Text | None = None
    """Endpoint of an S3-compatible object store other than AWS, e.g. MinIO."""

    aws_role: Text | None = None
    """ARN of the role that the service account assumes (IRSA)."""

    gcp_service_account: Text | None = None
    """Google service account that the pods' service account impersonates (workload identity)."""
