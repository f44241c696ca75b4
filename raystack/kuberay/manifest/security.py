"""Security contexts of the restricted Pod Security Standard, service accounts and network rules."""

from typing import Any
from urllib.parse import urlsplit

from raystack.config.pods import Pod
from raystack.kuberay.manifest.parts import Manifest, given, manifest
from raystack.plan import KubePlan
from raystack.plan.kuberay.facts import PORTS

METRICS = {name: PORTS[name] for name in ("metrics", "as-metrics", "dash-metrics")}
"""Metrics ports of every pod, of the autoscaler and of the dashboard."""

_AUTOSCALER = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get", "patch"]},
]
_CREATOR = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get", "patch"]}]


def container_context(pod: Pod | None = None, *, ray: bool = False) -> dict[str, Any]:
    """Return the context of a container of a pod; that of Ray has the capabilities of the config."""
    added = given(add=list(pod.capabilities)) if pod is not None and ray else {}
    read_only = {"readOnlyRootFilesystem": True} if pod is not None and pod.read_only_root else {}
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], **added}, **read_only}


def pod_context(plan: KubePlan) -> dict[str, Any]:
    """Return a context of a non-root user whose group owns the files of volumes."""
    user = plan.target.security.run_as
    owner = (
        {} if user is None else {"runAsUser": user, "fsGroup": user, "fsGroupChangePolicy": "OnRootMismatch"}
    )
    return {"runAsNonRoot": True, **owner, "seccompProfile": {"type": "RuntimeDefault"}}


def accounts(plan: KubePlan) -> list[Manifest]:
    """Return the pods' account with the autoscaler's rights, and the account for schedules."""
    found: list[Manifest] = []
    if plan.makes_account:
        identity = given(
            **{
                "eks.amazonaws.com/role-arn": plan.target.storage.aws_role,
                "iam.gke.io/gcp-service-account": plan.target.storage.gcp_service_account,
            }
        )
        found.append(
            manifest(
                plan,
                "v1",
                "ServiceAccount",
                plan.account,
                annotations=identity,
                automountServiceAccountToken=False,
            )
        )
        if plan.target.autoscaling.enabled:
            found += _role(plan, f"{plan.name}-autoscaler", plan.account, _AUTOSCALER)
    if plan.kind == "CronJob":
        name = creator(plan)
        found.append(manifest(plan, "v1", "ServiceAccount", name, automountServiceAccountToken=False))
        found += _role(plan, name, name, _CREATOR)
    return found


def creator(plan: KubePlan) -> str:
    """Return the name of the account that may create RayJobs and nothing else."""
    return f"{plan.name}-creator"


def _role(plan: KubePlan, name: str, account: str, rules: list[dict[str, Any]]) -> list[Manifest]:
    subject = {"kind": "ServiceAccount", "name": account, "namespace": plan.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    version = "rbac.authorization.k8s.io/v1"
    return [
        manifest(plan, version, "Role", name, rules=[dict(rule) for rule in rules]),
        manifest(plan, version, "RoleBinding", name, roleRef=reference, subjects=[subject]),
    ]


def network_policy(plan: KubePlan) -> dict[str, Any] | None:
    """Return rules for the operator, DNS, clients and servers; KubeRay allows traffic within a cluster."""
    if not plan.target.security.network_policy:
        return None
    out = _egress(plan)
    clients = _ingress(plan)
    operator = {
        "namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": plan.target.security.operator_namespace}
        },
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    head_in = [{"from": [operator], "ports": [_port(PORTS["dashboard"])]}, *clients]
    api = [{"ports": [_port(443), _port(6443)]}] if plan.target.autoscaling.enabled else []
    worker = given(ingressRules=clients, egressRules=out)
    return {
        "mode": "DenyAll",
        "head": {"ingressRules": head_in, "egressRules": [*out, *api]},
        "worker": worker,
    }


def _ingress(plan: KubePlan) -> list[dict[str, Any]]:
    """Return rules for callers of the service and Prometheus, from any namespace."""
    serving = [plan.serve.serving.port, plan.serve.serving.grpc_port] if plan.serve is not None else []
    ports = [port for port in serving if port is not None]
    ports += METRICS.values() if plan.target.pod_monitor else []
    return [{"from": [{"namespaceSelector": {}}], "ports": [_port(port) for port in ports]}] if ports else []


def _egress(plan: KubePlan) -> list[dict[str, Any]]:
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
