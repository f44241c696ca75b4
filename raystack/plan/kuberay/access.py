"""Rights that each verb of the command line needs in Kubernetes.

Roles are rendered from this table, and the doctor asks for each of its entries.
"""

from collections.abc import Iterator
from dataclasses import dataclass

RAY = ("rayjobs", "rayservices", "rayclusters", "raycronjobs")
READ = ("get", "list", "watch")
WRITE = ("get", "create", "patch", "delete")


@dataclass(frozen=True)
class Rule:
    """Rule of a Role."""

    group: str
    """API group; empty for Kubernetes' own."""
    resources: tuple[str, ...]
    """Plurals; a subresource follows a slash."""
    verbs: tuple[str, ...]
    """Verbs of the API."""
    when: str | None = None
    """Needed only for configs whose manifests have this resource."""


@dataclass(frozen=True)
class Access:
    """What some verbs need, beyond what those before them need."""

    name: str
    """Name of the Role."""
    verbs: tuple[str, ...]
    """Verbs of the command line."""
    rules: tuple[Rule, ...]
    everywhere: bool = False
    """True for a ClusterRole."""


ACCESS: tuple[Access, ...] = (
    Access(
        "raystack-look",
        ("status", "diagnose", "logs"),
        (
            Rule("ray.io", RAY, READ),
            Rule("", ("pods", "events"), ("get", "list")),
            Rule("", ("pods/log",), ("get",)),
            Rule("", ("resourcequotas",), ("list",)),
            Rule("batch", ("jobs",), ("get",)),
            Rule("kueue.x-k8s.io", ("workloads",), ("list",)),
            Rule("visibility.kueue.x-k8s.io", ("localqueues/pendingworkloads",), ("get",)),
            Rule("scheduling.volcano.sh", ("podgroups",), ("get",)),
            Rule("scheduling.run.ai", ("podgroups",), ("get",)),
        ),
    ),
    Access(
        "raystack-connect",
        ("connect", "logs of services", "gc of clusters"),
        (
            Rule("", ("pods/portforward",), ("create", "get")),
            Rule("", ("secrets", "services"), ("get",)),
        ),
    ),
    Access(
        "raystack-run",
        ("train", "tune", "serve", "render --diff"),
        (
            Rule("ray.io", RAY, ("get", "create", "patch")),
            Rule("", ("configmaps", "serviceaccounts"), WRITE),
            Rule("policy", ("poddisruptionbudgets",), WRITE, when="poddisruptionbudgets"),
            Rule("networking.k8s.io", ("networkpolicies",), WRITE, when="networkpolicies"),
            Rule("monitoring.coreos.com", ("podmonitors",), WRITE, when="podmonitors"),
            Rule("batch", ("cronjobs",), WRITE, when="cronjobs"),
            Rule("rbac.authorization.k8s.io", ("roles", "rolebindings"), WRITE, when="roles"),
            # Nobody may give a right that he does not have: the autoscaler's account gets this one.
            Rule("", ("pods",), ("get", "list", "watch", "patch"), when="roles"),
            # What a config refers to is looked for before anything is sent.
            Rule("", ("secrets", "persistentvolumeclaims"), ("get",)),
            Rule("kueue.x-k8s.io", ("localqueues",), ("get",)),
        ),
    ),
    Access(
        "raystack-change",
        ("suspend", "resume", "scale", "cancel", "gc"),
        (
            Rule("ray.io", RAY, ("patch", "delete")),
            Rule("kueue.x-k8s.io", ("workloads",), ("patch",)),
        ),
    ),
    Access(
        "raystack-doctor",
        ("doctor",),
        (
            Rule("", ("namespaces",), ("get",)),
            Rule("", ("nodes",), ("list",)),
            Rule("apps", ("deployments",), ("list",)),
            Rule("apiextensions.k8s.io", ("customresourcedefinitions",), ("get",)),
            Rule("scheduling.k8s.io", ("priorityclasses",), ("get",)),
            Rule("kueue.x-k8s.io", ("clusterqueues", "workloadpriorityclasses"), ("get",)),
            Rule("scheduling.volcano.sh", ("queues",), ("get",)),
            Rule("scheduling.run.ai", ("queues",), ("get",)),
        ),
        everywhere=True,
    ),
)
"""Rights by verbs."""


def rules(access: Access) -> Iterator[dict[str, list[str]]]:
    """Yield the rules as a Role has them."""
    for rule in access.rules:
        yield {"apiGroups": [rule.group], "resources": [*rule.resources], "verbs": [*rule.verbs]}
