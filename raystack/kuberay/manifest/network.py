"""Rules of the network: who reaches the pods, and what they reach.

KubeRay makes the policies of them, in `spec.networkPolicy`, or they are objects beside the others.
"""

from typing import Any
from urllib.parse import urlsplit

from raystack.kuberay.manifest.parts import Manifest, given, manifest
from raystack.plan import KubePlan
from raystack.plan.kuberay.facts import PORTS

METRICS = {name: PORTS[name] for name in ("metrics", "as-metrics", "dash-metrics")}
"""Metrics ports of every pod, of the autoscaler and of the dashboard."""
Rules = list[dict[str, Any]]


def of_operator(plan: KubePlan) -> dict[str, Any] | None:
    """Return the field of a RayCluster of which KubeRay makes policies; it allows traffic inside."""
    security = plan.target.security
    if not security.network_policy or security.network_policy_by != "kuberay":
        return None
    return {
        "mode": "DenyAll",
        "head": {"ingressRules": _to_head(plan), "egressRules": _from_head(plan)},
        "worker": given(ingressRules=_clients(plan), egressRules=_egress(plan)),
    }


def policies(plan: KubePlan) -> list[Manifest]:
    """Return policies for head and workers that are objects of their own."""
    security = plan.target.security
    if not security.network_policy or security.network_policy_by != "manifest":
        return []
    # The submitter has this label, too.
    fellows = {"podSelector": {"matchLabels": {"app.kubernetes.io/instance": plan.name}}}
    rules = {"head": (_to_head(plan), _from_head(plan)), "worker": (_clients(plan), _egress(plan))}
    return [
        manifest(
            plan,
            "networking.k8s.io/v1",
            "NetworkPolicy",
            f"{plan.name}-{node}",
            spec={
                "podSelector": {
                    "matchLabels": {"app.kubernetes.io/instance": plan.name, "ray.io/node-type": node}
                },
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [fellows]}, *into],
                "egress": [{"to": [fellows]}, *out],
            },
        )
        for node, (into, out) in rules.items()
    ]


def _to_head(plan: KubePlan) -> Rules:
    """Return rules for the operator and for clients."""
    operator = {
        "namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": plan.target.security.operator_namespace}
        },
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    return [{"from": [operator], "ports": [_port(PORTS["dashboard"])]}, *_clients(plan)]


def _from_head(plan: KubePlan) -> Rules:
    """Return rules for what all pods reach, and for the API server if the autoscaler asks it."""
    api = [{"ports": [_port(443), _port(6443)]}] if plan.target.autoscaling.enabled else []
    return [*_egress(plan), *api]


def _clients(plan: KubePlan) -> Rules:
    """Return rules for callers of the service and Prometheus, from any namespace."""
    serving = [plan.serve.serving.port, plan.serve.serving.grpc_port] if plan.serve is not None else []
    ports = [port for port in serving if port is not None]
    ports += METRICS.values() if plan.target.pod_monitor else []
    return [{"from": [{"namespaceSelector": {}}], "ports": [_port(port) for port in ports]}] if ports else []


def _egress(plan: KubePlan) -> Rules:
    """Return rules for DNS, servers in this cluster that the config names, and allowed CIDRs."""
    dns = {"to": [{"namespaceSelector": {}}], "ports": [_port(53, "UDP"), _port(53)]}
    named = sorted({port for url in _servers(plan) if (port := _port_of(url)) is not None})
    servers = [{"to": [{"namespaceSelector": {}}], "ports": [_port(port) for port in named]}] if named else []
    blocks = [{"ipBlock": {"cidr": cidr}} for cidr in plan.target.security.allow]
    return [dns, *servers, *([{"to": blocks}] if blocks else [])]


def _servers(plan: KubePlan) -> list[str]:
    target, tracking = plan.target, plan.config.tracking
    urls = (
        tracking.uri if tracking.kind == "mlflow" else None,
        tracking.wandb.base_url if tracking.wandb is not None else None,
        target.storage.s3_endpoint,
        target.high_availability.redis,
    )
    return [url for url in urls if url is not None]


def _port_of(url: str) -> int | None:
    split = urlsplit(url)
    known = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}
    return split.port or known.get(split.scheme) if split.hostname else None


def _port(number: int, protocol: str = "TCP") -> dict[str, Any]:
    return {"protocol": protocol, "port": number}
