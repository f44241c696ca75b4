"""Spec of a RayCluster, which all kinds of objects contain."""

from typing import TYPE_CHECKING, Any

from raystack.kuberay.manifest import network, pods, security
from raystack.kuberay.manifest.overlay import overlaid
from raystack.kuberay.manifest.parts import Manifest, given, manifest
from raystack.plan import KubePlan
from raystack.plan.kuberay.pods import head_start
from raystack.plan.kuberay.shape import Group

if TYPE_CHECKING:
    from raystack.code.bundle import Bundle

START_TIMEOUT = "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"
"""Ray's variable for the seconds after which its autoscaler gives up a pod that has not started."""


def cluster(plan: KubePlan, bundle: "Bundle") -> Manifest:
    """Return a RayCluster that stays until it is deleted."""
    spec = {**given(managedBy=plan.admission.managed_by), **cluster_spec(plan, bundle)}
    labels, annotations = plan.admission.labels, plan.admission.annotations
    made = manifest(
        plan, "ray.io/v1", "RayCluster", plan.name, labels=labels, annotations=annotations, spec=spec
    )
    return overlaid(plan, made)


def cluster_spec(plan: KubePlan, bundle: "Bundle") -> dict[str, Any]:
    """Return the spec of a RayCluster."""
    security_of = plan.target.security
    return {
        "rayVersion": plan.target.ray_version,
        **_autoscaler(plan),
        **given(
            authOptions=(
                given(mode="token", secretName=security_of.auth_secret)
                if security_of.auth == "token"
                else None
            ),
            tlsOptions={"enabled": True} if security_of.tls else None,
            networkPolicy=network.of_operator(plan),
            gcsFaultToleranceOptions=_state(plan),
        ),
        "headGroupSpec": {
            "rayStartParams": head_start(plan.target),
            **given(labels=dict(plan.target.head.ray_labels)),
            "template": pods.head(plan, bundle),
        },
        "workerGroupSpecs": [_group(plan, group) for group in plan.groups],
    }


def _group(plan: KubePlan, group: Group) -> dict[str, Any]:
    """Return a worker group."""
    return {
        "groupName": group.name,
        # Not set with autoscaling: applying the manifest again would remove the autoscaler's workers.
        **given(replicas=group.replicas),
        "minReplicas": group.least,
        "maxReplicas": group.most,
        **given(
            numOfHosts=group.hosts if group.hosts > 1 else None,
            priority=group.config.priority,
            idleTimeoutSeconds=group.config.idle_timeout_s,
            labels=dict(group.config.ray_labels),
            resources=dict(group.ray),
        ),
        "rayStartParams": dict(group.start),
        # the operator adds it when it writes the object back, and would own the whole list by that
        "scaleStrategy": {},
        "template": pods.worker(plan, group),
    }


def _autoscaler(plan: KubePlan) -> dict[str, Any]:
    config = plan.target.autoscaling
    if not config.enabled:
        return {}
    timeout = config.start_timeout_s
    options = {
        "version": "v2",
        **given(env=[{"name": START_TIMEOUT, "value": str(timeout)}] if timeout is not None else None),
        "idleTimeoutSeconds": config.idle_timeout_s,
        "upscalingMode": config.upscaling,
        "imagePullPolicy": plan.target.pull_policy,
        "resources": {
            "requests": {"cpu": "500m", "memory": "512Mi"},
            "limits": {"cpu": "500m", "memory": "512Mi"},
        },
        "securityContext": security.container_context(),
    }
    return {"enableInTreeAutoscaling": True, "autoscalerOptions": options}


def _state(plan: KubePlan) -> dict[str, Any] | None:
    """Return the options for cluster state that outlives the head."""
    config = plan.target.high_availability
    if config.backend == "redis":
        return given(redisAddress=config.redis, redisPassword=_password(config.redis_password))
    if config.backend == "rocksdb":
        return {
            "backend": "rocksdb",
            "storage": {"claimName": config.claim} if config.claim else {"size": config.size},
        }
    return None


def _password(reference: str | None) -> dict[str, Any] | None:
    if reference is None:
        return None
    name, _, key = reference.partition("/")
    return {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
