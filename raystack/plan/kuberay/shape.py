"""Types of a KubePlan: frozen values, in the terms of Kubernetes and Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.placement import Toleration
from raystack.config.pods import Pod, Workers
from raystack.plan.katib import KatibPlan
from raystack.plan.serving import ServePlan

Form = Literal["job", "service", "cluster", "cron", "tune", "katib"]
"""RayJob, RayService, RayCluster, scheduled RayJobs, a RayJob whose driver is a study, or a study of Katib
whose trials are RayJobs.
"""

DRIVEN: tuple[Form, ...] = ("job", "cron", "tune", "katib")
"""Forms with a driver, as opposed to what only stands there."""

ManifestKind = Literal["RayJob", "RayService", "RayCluster", "RayCronJob", "CronJob", "Experiment"]
"""Kind of the main object."""

Together = Literal["PACK", "SPREAD", "STRICT_SPREAD"]
"""Placement of worker pods: on few nodes, on many, or each on its own."""


@dataclass(frozen=True)
class Requirement:
    """Prerequisite of the manifests."""

    kind: Literal["version", "gate", "scheduler", "component", "object"]
    """`version`: of KubeRay, at least. `gate`: a feature gate of its operator. `scheduler`: its
    `batchScheduler.name`. `component`: another installed component. `object`: an object in the namespace
    that raystack does not create.
    """
    name: str
    why: str
    """Dotted key that requires it."""

    @property
    def line(self) -> str:
        """Text for people, e.g. `KubeRay 1.7.0 or later, for target.security.tls`."""
        what = {
            "version": f"KubeRay {self.name} or later",
            "gate": f"the operator's feature gate {self.name}=true",
            "scheduler": f"the operator's batchScheduler.name={self.name}",
        }
        return f"{what.get(self.kind, self.name)}, for {self.why}"


@dataclass(frozen=True)
class Match:
    """Condition on the labels of a node."""

    key: str
    operator: Literal["In", "NotIn"]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Devices:
    """GPUs of a pod."""

    count: int = 0
    key: str | None = None
    """Resource of Kubernetes by which the GPUs are requested."""
    claim: str | None = None
    """ResourceClaimTemplate that claims them instead."""
    seen: bool = True
    """True if KubeRay reports them to Ray; otherwise the group has to."""


@dataclass(frozen=True)
class PodPlan:
    """One kind of pod."""

    cpus: str
    memory: str
    ephemeral_storage: str | None
    config: Pod
    """Config of what needs no decision: hooks, sidecars, conditions on nodes and so on."""
    devices: Devices = Devices()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    required: tuple[Match, ...] = ()
    """Required properties of its node."""
    preferred: tuple[Match, ...] = ()
    """Preferred properties of its node."""
    together: Together | None = None
    """Placement of pods of this kind; None for no preference."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    priority_class: str | None = None


@dataclass(frozen=True)
class Group:
    """Group of worker pods."""

    config: Workers
    """Config of what needs no decision."""
    name: str
    least: int
    """Fewest replicas, of `hosts` pods each."""
    most: int
    replicas: int | None
    """Number of replicas; None if the autoscaler sets it, because no other manager may then."""
    pod: PodPlan
    ray: Mapping[str, str]
    """Resources reported to Ray here because KubeRay does not detect them."""
    start: Mapping[str, str] = field(default_factory=dict)
    """Parameters of `ray start`."""
    image: str | None = None
    """Image of its own."""
    hosts: int = 1
    """Pods of each replica."""

    @property
    def pods(self) -> int:
        """Number of pods, with the autoscaler the most."""
        return (self.most if self.replicas is None else self.replicas) * self.hosts


@dataclass(frozen=True)
class Variable:
    """Environment variable: a value, a Secret's name and key, or a field of the pod."""

    name: str
    value: str | None = None
    secret: tuple[str, str] | None = None
    of_pod: str | None = None


@dataclass(frozen=True)
class Admission:
    """Labels and annotations by which a queue admits an object."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    worker_annotations: Mapping[str, str] = field(default_factory=dict)
    """Annotations of the worker pods."""
    priority_class: str | None = None
    """PriorityClass of the pods, if the queue has no priorities of its own."""
    managed_by: str | None = None


@dataclass(frozen=True)
class Taken:
    """A decision of the plan that `target.overlay` changes."""

    path: str
    """Path in the object, e.g. `spec.rayClusterSpec.rayVersion`."""
    planned: str
    value: str

    @property
    def line(self) -> str:
        """Text for people."""
        return f"{self.path}: {self.value} instead of {self.planned}"


@dataclass(frozen=True)
class KubePlan:
    """Objects to create on Kubernetes; printed by `--dry-run`, and the input of the manifests."""

    form: Form
    kind: ManifestKind
    name: str
    """Name of the main object, and prefix of the others' names."""
    namespace: str
    run_id: str | None
    """Id of the job's run, or of the study's start; None if each start makes up its own."""
    account: str
    """ServiceAccount of the pods."""
    makes_account: bool
    """True if the account is rendered; otherwise it has to exist."""
    labels: Mapping[str, str]
    """Labels of every object and pod."""
    annotations: Mapping[str, str]
    """Annotations of every object."""
    head: PodPlan
    group: Group
    """Workers of the run or service itself."""
    further: tuple[Group, ...]
    """Further groups of workers."""
    submitter: PodPlan
    variables: tuple[Variable, ...]
    """Environment of all pods."""
    entrypoint: tuple[str, ...]
    """Command of the driver as words; empty if there is none."""
    admission: Admission
    serve: ServePlan | None
    """Plan of the service's application."""
    katib: KatibPlan | None
    """Plan of the study, if Katib runs it."""
    needs: tuple[Requirement, ...]
    target: KubeRay
    """Config of what needs no decision: security, autoscaling, lifetime and so on."""
    config: RunConfig
    taken: tuple[Taken, ...] = ()
    """What the overlay takes over from the plan."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups of workers."""
        return (self.group, *self.further)
