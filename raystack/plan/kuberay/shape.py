"""The decisions of a KubePlan: frozen values, in the words of Kubernetes and Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay, Toleration
from raystack.plan.serving import ServePlan

Form = Literal["job", "service", "cluster", "cron"]
"""RayJob, RayService, RayCluster, or a RayJob again and again."""

ManifestKind = Literal["RayJob", "RayService", "RayCluster", "RayCronJob", "CronJob"]
"""What the main object is."""

Together = Literal["PACK", "SPREAD", "STRICT_SPREAD"]
"""How the worker pods lie to one another: on few nodes, on many, each on its own."""


@dataclass(frozen=True)
class Requirement:
    """Something that has to be there before the manifests can work."""

    kind: Literal["version", "gate", "scheduler", "component", "object"]
    """`version`: of KubeRay, at least. `gate`: a feature gate of its operator. `scheduler`: its
    `batchScheduler.name`. `component`: something else that is installed. `object`: something in the namespace
    that raystack does not make.
    """
    name: str
    why: str
    """The dotted key that asks for it."""

    @property
    def line(self) -> str:
        """For people: `KubeRay 1.7.0 or later, for target.security.tls`."""
        what = {
            "version": f"KubeRay {self.name} or later",
            "gate": f"the operator's feature gate {self.name}=true",
            "scheduler": f"the operator's batchScheduler.name={self.name}",
        }
        return f"{what.get(self.kind, self.name)}, for {self.why}"


@dataclass(frozen=True)
class Match:
    """A condition on the labels of a node."""

    key: str
    operator: Literal["In", "NotIn"]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Devices:
    """The GPUs of a pod."""

    count: int = 0
    key: str | None = None
    """Resource of Kubernetes that is counted."""
    claim: str | None = None
    """ResourceClaimTemplate that they are claimed through instead."""
    seen: bool = True
    """Whether KubeRay tells Ray about them; otherwise the group has to."""


@dataclass(frozen=True)
class PodPlan:
    """One kind of pod."""

    cpus: str
    memory: str
    ephemeral_storage: str | None
    devices: Devices = Devices()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    required: tuple[Match, ...] = ()
    """Nodes that it has to run on."""
    preferred: tuple[Match, ...] = ()
    """Nodes that it should run on."""
    together: Together | None = None
    """How pods of the kind lie to one another; None: as they come."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    priority_class: str | None = None


@dataclass(frozen=True)
class Group:
    """A group of worker pods."""

    name: str
    least: int
    most: int
    replicas: int | None
    """None: the autoscaler decides, and nobody else may write it."""
    pod: PodPlan
    ray: Mapping[str, str]
    """Resources that Ray is told of because KubeRay does not see them."""


@dataclass(frozen=True)
class Variable:
    """An environment variable: a value, or a Secret's name and key."""

    name: str
    value: str | None = None
    secret: tuple[str, str] | None = None


@dataclass(frozen=True)
class Admission:
    """What is written on an object so that a queue takes it."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    worker_annotations: Mapping[str, str] = field(default_factory=dict)
    """On the worker pods."""
    priority_class: str | None = None
    """PriorityClass of the pods, where the queue has no priority of its own."""
    managed_by: str | None = None


@dataclass(frozen=True)
class KubePlan:
    """What is created on Kubernetes. Printed by `--dry-run`, and the very value that manifests are rendered
    from.
    """

    form: Form
    kind: ManifestKind
    name: str
    """Of the main object, and the beginning of the others' names."""
    namespace: str
    run_id: str | None
    """Of the run that a job starts; None: each start of it makes a run of its own."""
    account: str
    """ServiceAccount of the pods."""
    makes_account: bool
    """Whether it is rendered; otherwise it has to exist."""
    labels: Mapping[str, str]
    """Of every object and pod."""
    annotations: Mapping[str, str]
    """Of every object."""
    head: PodPlan
    group: Group
    variables: tuple[Variable, ...]
    """Environment of all pods."""
    entrypoint: tuple[str, ...]
    """Command of the driver, one word each; empty where there is none."""
    admission: Admission
    serve: ServePlan | None
    """What a service serves."""
    needs: tuple[Requirement, ...]
    target: KubeRay
    """What the config says and nothing had to be decided about: security, autoscaling, lifetime and so on."""
    config: RunConfig
