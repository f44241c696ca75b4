"""Disruption budgets for the pods, and PodMonitors for Prometheus."""

from typing import Any

from raystack.kuberay.manifest.parts import Manifest, manifest
from raystack.plan import KubePlan


def budgets(plan: KubePlan) -> list[Manifest]:
    """Return budgets that keep the head, and all but one of several servers, from being drained."""
    found = [_budget(plan, "head", 1)] if plan.target.protect_head else []
    if plan.serve is not None and plan.group.most > 1:
        kept = max(1, (plan.group.replicas or plan.group.least) - 1) * plan.group.hosts
        found.append(_budget(plan, "worker", kept))
    return found


def _budget(plan: KubePlan, node: str, available: int) -> Manifest:
    """Return a budget of at least `available` pods, from which broken pods are exempt."""
    spec = {
        # Not maxUnavailable, because KubeRay does not tell Kubernetes how many pods there should be.
        "minAvailable": available,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": _selector(plan, node),
    }
    return manifest(plan, "policy/v1", "PodDisruptionBudget", f"{plan.name}-{node}", spec=spec)


def pod_monitors(plan: KubePlan) -> list[Manifest]:
    if not plan.target.pod_monitor:
        return []
    ports = {"head": ("metrics", "as-metrics", "dash-metrics"), "worker": ("metrics",)}
    return [_pod_monitor(plan, node, names) for node, names in ports.items()]


def _pod_monitor(plan: KubePlan, node: str, ports: tuple[str, ...]) -> Manifest:
    """Return a PodMonitor that adds Ray's cluster label to every series."""
    cluster = {
        "sourceLabels": ["__meta_kubernetes_pod_label_ray_io_cluster"],
        "targetLabel": "ray_io_cluster",
        "action": "replace",
    }
    endpoints: list[dict[str, Any]] = [{"port": port, "relabelings": [dict(cluster)]} for port in ports]
    spec = {"jobLabel": f"ray-{node}", "selector": _selector(plan, node), "podMetricsEndpoints": endpoints}
    # The label by which Prometheus' Helm chart selects monitors.
    labels = {"release": "prometheus"}
    return manifest(
        plan, "monitoring.coreos.com/v1", "PodMonitor", f"{plan.name}-{node}", labels=labels, spec=spec
    )


def _selector(plan: KubePlan, node: str) -> dict[str, Any]:
    return {"matchLabels": {"app.kubernetes.io/instance": plan.name, "ray.io/node-type": node}}
