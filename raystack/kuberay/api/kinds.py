"""Paths of the Kubernetes API, by kind of object.

In: a kind as written in YAML. Out: a Resource, and paths to it.
"""

from dataclasses import dataclass
from typing import Any

from raystack.plan.kuberay.facts import RAY_KINDS

Object = dict[str, Any]
"""An object as the API sends it, or a manifest: plain JSON values."""


@dataclass(frozen=True)
class ApiResource:
    """Kind of object and its place in the API."""

    kind: str
    api: str
    """`v1`, or `group/version`."""
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """Return the path of one object, or of all in a namespace; None is all namespaces."""
        root = f"/api/{self.api}" if "/" not in self.api else f"/apis/{self.api}"
        within = f"/namespaces/{namespace}" if self.namespaced and namespace is not None else ""
        return f"{root}{within}/{self.plural}" + (f"/{name}" if name is not None else "")


# A table instead of discovery: the kinds are known, and discovering them takes longer than most commands.
_BY_API: dict[str, dict[str, str]] = {
    "v1": {
        "ConfigMap": "configmaps",
        "Event": "events",
        "LimitRange": "limitranges",
        "PersistentVolumeClaim": "persistentvolumeclaims",
        "Pod": "pods",
        "ResourceQuota": "resourcequotas",
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {"Deployment": "deployments"},
    "batch/v1": {"CronJob": "cronjobs", "Job": "jobs"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "rbac.authorization.k8s.io/v1": {"Role": "roles", "RoleBinding": "rolebindings"},
    "ray.io/v1": {kind: f"{kind.lower()}s" for kind in RAY_KINDS},
    "kueue.x-k8s.io/v1beta2": {"LocalQueue": "localqueues", "Workload": "workloads"},
    "monitoring.coreos.com/v1": {"PodMonitor": "podmonitors"},
    "resource.k8s.io/v1": {"ResourceClaimTemplate": "resourceclaimtemplates"},
    "scheduling.run.ai/v2alpha2": {"PodGroup.scheduling.run.ai": "podgroups"},
    "scheduling.volcano.sh/v1beta1": {"PodGroup": "podgroups"},
    "visibility.kueue.x-k8s.io/v1beta1": {"PendingWorkloadsSummary": "localqueues"},
}
_CLUSTER_WIDE: dict[str, dict[str, str]] = {
    "v1": {"Namespace": "namespaces", "Node": "nodes"},
    "apiextensions.k8s.io/v1": {"CustomResourceDefinition": "customresourcedefinitions"},
    "kueue.x-k8s.io/v1beta2": {
        "ClusterQueue": "clusterqueues",
        "WorkloadPriorityClass": "workloadpriorityclasses",
    },
    "node.k8s.io/v1": {"RuntimeClass": "runtimeclasses"},
    "scheduling.k8s.io/v1": {"PriorityClass": "priorityclasses"},
    "scheduling.run.ai/v2": {"Queue.scheduling.run.ai": "queues"},
    "scheduling.volcano.sh/v1beta1": {"Queue": "queues"},
}

RESOURCES: dict[str, ApiResource] = {
    kind: ApiResource(kind.partition(".")[0], api, plural, namespaced)
    for namespaced, table in ((True, _BY_API), (False, _CLUSTER_WIDE))
    for api, kinds in table.items()
    for kind, plural in kinds.items()
}
"""Resources by kind; of two schedulers' kinds of one name, KAI's is followed by its group."""

MOVING = frozenset({"kueue.x-k8s.io", "resource.k8s.io", "visibility.kueue.x-k8s.io"})
"""API groups whose version differs between releases."""


def event_time(event: Object) -> str:
    """Return when an event was last seen, as UTC text that sorts by time to the second."""
    series = event.get("series") or {}
    moments = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        (event.get("metadata") or {}).get("creationTimestamp"),
    )
    return next((str(moment) for moment in moments if moment), "")
