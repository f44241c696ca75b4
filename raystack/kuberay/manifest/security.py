"""Security contexts of the restricted Pod Security Standard, and service accounts."""

from typing import Any

from raystack.config.pods import Pod
from raystack.kuberay.manifest.parts import Manifest, given, manifest
from raystack.plan import KubePlan

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
