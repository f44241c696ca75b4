"""Subjects of rules: an object of KubeRay, and the specs of jobs, clusters and pods in it at any depth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from raystack.kuberay.lint.document import Document
from raystack.kuberay.lint.node import Node
from raystack.plan.kuberay.facts import RAY_KINDS, RayKind, at_least, version

OWN_COMMAND = "ray.io/overwrite-container-cmd"
"""Annotation that the container's command starts Ray, and the operator's is not used."""


@dataclass(frozen=True)
class Subject:
    """Part of a document."""

    document: Document
    node: Node
    """Node of the object or of the spec."""
    beside: Sequence[Document] = ()
    """All documents that are linted together."""

    @property
    def kind(self) -> RayKind:
        """Kind of the whole document."""
        return cast(RayKind, self.document.kind)

    @property
    def labels(self) -> Node:
        """Labels of the whole document."""
        return self.document.root.at("metadata", "labels")

    @property
    def annotations(self) -> Node:
        """Annotations of the whole document."""
        return self.document.root.at("metadata", "annotations")


@dataclass(frozen=True)
class ObjectSubject(Subject):
    """Whole object."""

    @property
    def spec(self) -> Node:
        """Spec of the object."""
        return self.node["spec"]


@dataclass(frozen=True)
class GroupSubject:
    """Head group or a worker group."""

    node: Node

    @property
    def pod(self) -> Node:
        """Spec of the group's pod."""
        return self.node.at("template", "spec")

    @property
    def containers(self) -> list[Node]:
        """Containers of the pod; Ray's is the first."""
        return self.pod["containers"].items

    @property
    def ray(self) -> Node:
        """Container of Ray."""
        return self.pod["containers"][0]

    @property
    def params(self) -> Node:
        """Parameters of `ray start`."""
        return self.node["rayStartParams"]

    @property
    def resources(self) -> dict[str, Node]:
        """What Ray is told to have in place of what the pod has."""
        return self.node["resources"].fields

    @property
    def name(self) -> str:
        """Name of the group; the head group has none."""
        return self.node["groupName"].text

    def env(self, *names: str) -> Iterator[Node]:
        """Environment variables of Ray's container with one of the names."""
        return (entry for entry in self.ray["env"].items if entry["name"].text in names)


@dataclass(frozen=True)
class ClusterSubject(Subject):
    """Spec of a RayCluster."""

    @cached_property
    def head(self) -> GroupSubject:
        """Head group."""
        return GroupSubject(self.node["headGroupSpec"])

    @cached_property
    def workers(self) -> list[GroupSubject]:
        """Worker groups."""
        return [GroupSubject(node) for node in self.node["workerGroupSpecs"].items]

    @property
    def groups(self) -> list[GroupSubject]:
        """Head group and worker groups."""
        return [self.head, *self.workers]

    @property
    def inherited(self) -> Node:
        """Annotations that the RayCluster will have; those of a RayCronJob do not reach it."""
        return Node(None) if self.kind == "RayCronJob" else self.annotations

    @property
    def autoscaling(self) -> bool:
        """True if Ray's autoscaler runs."""
        return self.node["enableInTreeAutoscaling"].true

    @property
    def v2_by_env(self) -> Node | None:
        """Variable of the head that turns autoscaler v2 on, if set."""
        return next(
            (env for env in self.head.env("RAY_enable_autoscaler_v2") if env["value"].text in ("1", "true")),
            None,
        )

    @property
    def v2_named(self) -> bool:
        """True if autoscalerOptions says that the autoscaler is of version 2."""
        return self.node.at("autoscalerOptions", "version").text == "v2"

    @property
    def v2(self) -> bool:
        """True if the operator can see that the autoscaler is of version 2."""
        return self.v2_named or self.v2_by_env is not None

    @property
    def fault_tolerant(self) -> bool:
        """True if the cluster's state outlives its head."""
        enabled = self.inherited["ray.io/ft-enabled"].text.lower() == "true"
        return enabled or self.node["gcsFaultToleranceOptions"].present

    def started_by_operator(self, group: GroupSubject) -> bool:
        """Return whether the group's parameters are used, and not a command of the container's own."""
        words = [word.text for key in ("command", "args") for word in group.ray[key].items]
        if any("KUBERAY_GEN_RAY_START_CMD" in word for word in words):
            return True
        places = (group.node.at("template", "metadata", "annotations"), self.inherited)
        own = any(place[OWN_COMMAND].text.lower() == "true" for place in places)
        return not own and not any("ray start" in word for word in words)

    def has_ray(self, wanted: str) -> bool:
        """Return whether `rayVersion` is at least this one; False if it is not set or cannot be parsed."""
        own = self.node["rayVersion"].text
        return version(own) is not None and at_least(own, wanted)


@dataclass(frozen=True)
class JobSubject(Subject):
    """Spec of a RayJob."""

    @property
    def mode(self) -> str:
        """Submission mode."""
        return self.node["submissionMode"].text or "K8sJobMode"

    @property
    def selector(self) -> Node:
        """Labels of the existing cluster to run on."""
        return self.node["clusterSelector"]

    @property
    def cluster(self) -> ClusterSubject:
        """Cluster of its own; empty if it selects one."""
        return ClusterSubject(self.document, self.node["rayClusterSpec"], self.beside)

    @property
    def rules(self) -> Node:
        """Deletion rules."""
        return self.node.at("deletionStrategy", "deletionRules")

    @property
    def shuts_down(self) -> bool:
        """True if its cluster is deleted after the job."""
        return self.node["shutdownAfterJobFinishes"].true


@dataclass(frozen=True)
class PodSubject(Subject):
    """Template of pods: of the head, of a worker group, or of a RayJob's submitter."""

    further: tuple[Node, ...] = ()
    """Options of containers that the operator adds: they have resources, variables and mounts."""
    added: frozenset[str] = frozenset()
    """Volumes that the operator adds."""
    taken: frozenset[str] = frozenset()
    """Names of containers that the operator adds."""

    @property
    def spec(self) -> Node:
        """Spec of the pods."""
        return self.node["spec"]

    @property
    def containers(self) -> list[Node]:
        """Containers, and those that run before."""
        return [*self.spec["containers"].items, *self.spec["initContainers"].items]


def subjects(document: Document, beside: Sequence[Document]) -> Iterator[Subject]:
    """Yield the subjects in a document; none if it is not KubeRay's."""
    root = document.root
    if document.kind not in RAY_KINDS or not root["apiVersion"].text.startswith("ray.io/"):
        return
    yield ObjectSubject(document, root, beside)
    spec = root["spec"]
    job = {"RayJob": spec, "RayCronJob": spec["jobTemplate"]}.get(document.kind)
    if job is not None and job.present:
        yield JobSubject(document, job, beside)
    cluster = {"RayCluster": spec, "RayService": spec["rayClusterConfig"]}.get(document.kind)
    if job is not None:
        cluster = job["rayClusterSpec"]
    if cluster is not None and cluster.present:
        whole = ClusterSubject(document, cluster, beside)
        yield whole
        sidecar = job is not None and job["submissionMode"].text == "SidecarMode"
        yield from _pods(whole, sidecar=sidecar)
    if job is not None and job["submitterPodTemplate"].present:
        yield PodSubject(document, job["submitterPodTemplate"], beside)


def _pods(cluster: ClusterSubject, *, sidecar: bool) -> Iterator[PodSubject]:
    """Yield the pods of a cluster, with what the operator adds to them."""
    collector = cluster.node.at("historyServerOptions", "collectorOptions")
    autoscaler = cluster.node["autoscalerOptions"]
    for group in cluster.groups:
        head = group.node.keys == cluster.head.node.keys
        added = {"shared-mem"}
        if collector.present or (head and cluster.autoscaling):
            added.add("ray-logs")
        if cluster.node.at("tlsOptions", "enabled").true:
            added.add("ray-tls")
        further = tuple(each for each in (autoscaler, collector) if head and each.present)
        containers = {
            "autoscaler": head and cluster.autoscaling,
            "ray-job-submitter": head and sidecar,
            "wait-for-tls-ip-san": "ray-tls" in added,
        }
        taken = frozenset(name for name, there in containers.items() if there)
        template = group.node["template"]
        yield PodSubject(cluster.document, template, cluster.beside, further, frozenset(added), taken)
