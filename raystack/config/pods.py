"""Pods on Kubernetes: their size, their nodes, what runs in them, and groups of workers."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from raystack.config.kubernetes import (
    Amount,
    Labels,
    Name,
    PartName,
    Path,
    Quantity,
    ResourceName,
    Seconds,
    SecretKey,
)
from raystack.config.machines import Gpu, Spot, Tpu
from raystack.config.names import VariableName
from raystack.config.placement import Neighbour, NodeMatch, Spread, Toleration
from raystack.config.section import ConflictError, Pattern, Section, Text

Words = Annotated[tuple[Text, ...], Field(strict=False)]
Value = str | int | float | bool

OWN_PARAMS = {
    "num-cpus": "cpus",
    "num-gpus": "resources.gpus_per_worker",
    "resources": "resources.custom",
    "labels": "ray_labels",
    "redis-password": "target.high_availability.redis_password",
    "redis-username": "target.high_availability.redis",
    "head": "the head",
    "address": "the head",
    "block": "KubeRay, which sets it",
}
"""Parameters of `ray start` that something else decides, with its key."""


class PodResource(Section):
    """A resource of Kubernetes of which Ray is told as well."""

    amount: Amount
    """Amount of the pod."""

    ray: Text
    """Ray's name of it, e.g. `efa`, by which tasks and actors can ask for it."""


class Requests(Section):
    """Requests of Ray's container. Not set: its limits."""

    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPU cores."""

    memory: Quantity | None = None
    """Memory."""

    ephemeral_storage: Quantity | None = None
    """Local disk."""


class Container(Section):
    """A container beside Ray's, or one that has to end before Ray starts."""

    image: Text | None = None
    """Image. Not set: that of the pod."""

    command: Words = ()
    """Command as words. Not set: the image's."""

    args: Words = ()
    """Arguments as words. Not set: the image's."""

    env: dict[VariableName, str] = Field(default={})
    """Environment variables. Those of `target` are Ray's alone."""

    secrets: dict[VariableName, SecretKey] = Field(default={})
    """Environment variables from Secrets."""

    cpus: Annotated[float, Field(gt=0)] = 0.5
    """CPU cores."""

    memory: Quantity = "256Mi"
    """Memory."""

    ports: dict[PartName, Annotated[int, Field(ge=1, le=65535)]] = Field(default={})
    """Ports by name."""

    mounts: Annotated[tuple[Path, ...], Field(strict=False)] | None = None
    """Mounts of `target.storage.volumes` that it has. Not set: all of the pod's."""


def _of_ray_start(params: dict[str, Value]) -> dict[str, Value]:
    for name in params:
        if name in OWN_PARAMS:
            raise ValueError(f"should not hold {name}, which is set by {OWN_PARAMS[name]}")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise ValueError(f"should hold options of `ray start` without their dashes; {name!r} is none")
    return params


class Pod(Section):
    """Pods of one kind."""

    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPU cores of the pod. Not set: 2 for the head, the cores in `resources` for a worker."""

    memory: Quantity = "8Gi"
    """Memory of the pod. Request and limit are equal, so that no other pod can claim it."""

    ephemeral_storage: Quantity | None = None
    """Local disk of the pod, to which Ray spills objects."""

    requests: Requests = Requests()
    """Requests that are lower than the limits. Nodes are chosen by requests: a pod that uses more may be
    slowed down, and is evicted first.
    """

    cpu_limit: bool = True
    """Limit the CPU to `cpus`. false: idle cores of the node may be used as well."""

    resources: dict[ResourceName, Amount | PodResource] = Field(default={})
    """Further resources of the pod's container: `{vpc.amazonaws.com/efa: 1, hugepages-2Mi: 5Gi}`. Only the
    pod has them; with `{amount: 4, ray: tpu}` Ray is told of them as well. KubeRay itself tells Ray of
    google.com/tpu as TPU and of aws.amazon.com/neuroncore as neuron_cores.
    """

    capabilities: Annotated[
        tuple[Annotated[str, Pattern(r"^[A-Z][A-Z0-9_]*$", "should be a capability, e.g. IPC_LOCK")], ...],
        Field(strict=False),
    ] = ()
    """Linux capabilities of Ray's container, e.g. IPC_LOCK for RDMA. All others are dropped."""

    ray_start: Annotated[dict[Text, Value], AfterValidator(_of_ray_start)] = Field(default={})
    """Options of `ray start`, e.g. `{object-store-memory: 2000000000}` (`rayStartParams`)."""

    ray_labels: Labels = Field(default={})
    """Labels of Ray's nodes, by which tasks and actors choose them. The pods have them, too."""

    node_selector: Labels = Field(default={})
    """Labels of the nodes that the pods may run on."""

    tolerations: Annotated[tuple[Toleration, ...], Field(strict=False)] = ()
    """Taints that the pods tolerate."""

    nodes: Annotated[tuple[NodeMatch, ...], Field(strict=False)] = ()
    """Further conditions on the nodes, all of which hold (node affinity)."""

    neighbours: Annotated[tuple[Neighbour, ...], Field(strict=False)] = ()
    """Other pods to run beside, or apart from (pod affinity)."""

    spread: Annotated[tuple[Spread, ...], Field(strict=False)] = ()
    """Even numbers of these pods by zone, rack or node (topology spread)."""

    labels: Labels = Field(default={})
    """Additional labels of the pods."""

    annotations: Labels = Field(default={})
    """Additional annotations of the pods."""

    priority_class: Text | None = None
    """PriorityClass of the pods."""

    runtime_class: Name | None = None
    """RuntimeClass of the pods, e.g. `nvidia` or `gvisor`."""

    scheduler: Text | None = None
    """Name of the scheduler. Not set: the cluster's, or that of `target.queue.scheduler`."""

    host_network: bool = False
    """Use the node's network. Two pods with the same ports then never share a node."""

    read_only_root: bool = False
    """Make the root file system read-only. /tmp is a folder of the pod then, and HOME lies in it."""

    pre_stop: Words = ()
    """Command that runs before the container is stopped, e.g. `[ray, stop]`."""

    post_start: Words = ()
    """Command that runs beside the container when it has started."""

    grace_s: Annotated[int, Field(ge=0)] | None = None
    """Seconds between SIGTERM and SIGKILL, which include `pre_stop`. Not set: Kubernetes' 30."""

    init: dict[PartName, Container] = Field(default={})
    """Containers that have to end before Ray starts, in this order."""

    sidecars: dict[PartName, Container] = Field(default={})
    """Containers beside Ray's."""


class Workers(Pod):
    """Pods of workers."""

    tpu: Tpu | None = None
    """TPUs of the pods: how many, on which nodes, and the `hosts` of a slice."""

    hosts: PositiveInt | None = None
    """Pods that are made and deleted together (`numOfHosts`). The number of workers is a multiple of it. Not
    set: the hosts of a slice of `tpu`, else 1.
    """

    priority: int | None = None
    """Priority for Ray's autoscaler, which adds pods of a higher one first (KubeRay 1.7, Ray 2.56)."""

    idle_timeout_s: Seconds | None = None
    """Seconds after which the autoscaler removes an idle pod. Not set: as `target.autoscaling` says."""


LIKE_HEAD = (
    "node_selector",
    "tolerations",
    "annotations",
    "priority_class",
    "runtime_class",
    "scheduler",
    "read_only_root",
)
"""Keys of the submitter that are the head's where they are not set."""


class Submitter(Pod):
    """The pod that submits a job and follows its log. It runs where the head may, with its annotations, where
    nothing else is set.
    """

    memory: Quantity = "512Mi"
    """Memory of the pod."""


class WorkerGroup(Workers):
    """A further group of workers. A key that is not set is that of `target.worker`."""

    workers: (
        Annotated[int, Field(ge=0)]
        | Annotated[tuple[Annotated[int, Field(ge=0)], PositiveInt], Field(strict=False)]
    )
    """Number of pods, a multiple of `hosts`; `[min, max]` for the autoscaler."""

    image: Text | None = None
    """Image, with the same Ray and raystack. Not set: `target.image`."""

    gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs of each pod. Not set: as many as the other workers have."""

    custom: dict[Text, Annotated[float, Field(ge=0)]] | None = None
    """Resources that only Ray counts, of each pod. Not set: those of `resources.custom`."""

    gpu: Gpu | None = None
    """Kubernetes resource of the GPUs. Not set: `target.gpu`."""

    spot: Spot | None = None
    """Spot machines. Not set: `target.spot`."""

    @model_validator(mode="after")
    def _least_first(self) -> Self:
        if isinstance(self.workers, tuple) and self.workers[0] > self.workers[1]:
            raise ConflictError("should be [min, max] with min at most max", "workers")
        return self
