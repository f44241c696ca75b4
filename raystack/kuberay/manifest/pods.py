"""Pod templates of the head, the workers and the submitter."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raystack.config.volumes import Node
from raystack.kuberay.manifest import code, containers, network, placement, security, storage
from raystack.kuberay.manifest.parts import given
from raystack.plan import KubePlan
from raystack.plan.kuberay.facts import PORTS
from raystack.plan.kuberay.shape import Group, PodPlan

if TYPE_CHECKING:
    from raystack.code.bundle import Bundle

RAYLET = "52365/api/local_raylet_healthz"
GCS = f"{PORTS['dashboard']}/api/gcs_healthz"
"""Health checks of a node and of the cluster's state, on the ports that KubeRay assigns."""


def head(plan: KubePlan, bundle: "Bundle") -> dict[str, Any]:
    """Return the head's template, the only one with the run's config and code."""
    # Only the head needs config and code, because the driver runs there.
    carries = bool(plan.entrypoint)
    ports = {
        **{name: PORTS[name] for name in ("gcs-server", "dashboard", "client")},
        **network.METRICS,
        **_serve(plan),
    }
    checks = (RAYLET, GCS)
    container = containers.ray(plan, "head", plan.head, "ray-head", ports, ready=checks, live=checks)
    if carries:
        container["volumeMounts"] = [code.mount(), *container.get("volumeMounts", [])]
    token = bool(plan.target.autoscaling.enabled)
    pod = _template(plan, "head", plan.head, placement.HEAD_GROUP, container, token=token)
    if carries:
        pod["spec"]["volumes"] = [code.volume(plan, bundle), *pod["spec"].get("volumes", [])]
        if (url := code.bundle_url(plan, bundle)) is not None:
            fetch = containers.fetch(plan, plan.head, url)
            pod["spec"]["initContainers"] = [fetch, *pod["spec"].get("initContainers", [])]
    return pod


def worker(plan: KubePlan, group: Group) -> dict[str, Any]:
    """Return a worker's template; a server is ready only once its Serve proxy answers."""
    ready = (RAYLET, *([f"{plan.serve.serving.port}/-/healthz"] if plan.serve is not None else []))
    ports = {"metrics": network.METRICS["metrics"], **_serve(plan)}
    container = containers.ray(
        plan, "workers", group.pod, "ray-worker", ports, ready=ready, live=(RAYLET,), image=group.image
    )
    return _template(plan, "workers", group.pod, group.name, container, image=group.image)


def submitter(plan: KubePlan) -> dict[str, Any]:
    """Return the template of the pod that submits and follows the log."""
    pod = plan.submitter
    container = {
        # KubeRay's default template is rejected by namespaces with the restricted Pod Security Standard.
        "name": "ray-job-submitter",
        "image": plan.target.image,
        "imagePullPolicy": plan.target.pull_policy,
        "resources": containers.resources(pod),
        # It submits and follows a log: what else it needs is said of it.
        **(containers.variables(plan, pod) if plan.target.submitter is not None else containers.home(pod)),
        **given(
            volumeMounts=storage.mounts(plan, "submitter", pod),
            lifecycle=containers.lifecycle(pod),
        ),
        "securityContext": security.container_context(pod.config, ray=True),
    }
    # A sidecar would keep the job from ending unless it restarts always, which only an init container does.
    beside = containers.beside(plan, "submitter", pod, pod.config.sidecars)
    first = [
        *containers.beside(plan, "submitter", pod, pod.config.init),
        *({**each, "restartPolicy": "Always"} for each in beside),
    ]
    volumes = storage.volumes(plan, "submitter", pod)
    template = bare(plan, container, account=plan.account, volumes=volumes)
    template["spec"] |= given(initContainers=first)
    return template


def bare(
    plan: KubePlan,
    container: Mapping[str, Any],
    *,
    account: str,
    token: bool = False,
    volumes: Sequence[Any] = (),
) -> dict[str, Any]:
    """Return a template for a pod outside of the Ray cluster, on the nodes of the submitter."""
    pod = plan.submitter
    spec = {
        "restartPolicy": "Never",
        **_account(plan, account, token=token),
        **given(terminationGracePeriodSeconds=pod.config.grace_s),
        "securityContext": security.pod_context(plan),
        **placement.placed(plan, pod, None),
        "containers": [dict(container)],
    }
    return {
        "metadata": _metadata(plan, "submitter", pod),
        "spec": {**spec, **given(volumes=list(volumes))},
    }


def _serve(plan: KubePlan) -> dict[str, int]:
    if plan.serve is None:
        return {}
    # KubeRay's Service has the port of this name alone.
    return {"serve": plan.serve.serving.port, **given(grpc=plan.serve.serving.grpc_port)}


def _template(
    plan: KubePlan,
    node: Node,
    pod: PodPlan,
    group: str,
    container: dict[str, Any],
    *,
    token: bool = False,
    image: str | None = None,
) -> dict[str, Any]:
    claim = pod.devices.claim
    claims = [{"name": containers.CLAIM, "resourceClaimTemplateName": claim}] if claim else []
    spec = {
        **_account(plan, plan.account, token=token),
        **given(terminationGracePeriodSeconds=pod.config.grace_s),
        "securityContext": security.pod_context(plan),
        **placement.placed(plan, pod, group),
        **given(
            resourceClaims=claims,
            initContainers=containers.beside(plan, node, pod, pod.config.init, image),
        ),
        "containers": [container, *containers.beside(plan, node, pod, pod.config.sidecars, image)],
        **given(volumes=storage.volumes(plan, node, pod)),
    }
    return {"metadata": _metadata(plan, node, pod), "spec": spec}


def _metadata(plan: KubePlan, node: Node, pod: PodPlan) -> dict[str, Any]:
    return given(
        labels={**pod.labels, **plan.labels},
        annotations={**storage.annotations(plan, node), **pod.annotations},
    )


def _account(plan: KubePlan, account: str, *, token: bool) -> dict[str, Any]:
    """Return the pod's account, with a token only for pods that use the API server."""
    secrets = given(imagePullSecrets=[{"name": name} for name in plan.target.pull_secrets])
    return {
        "serviceAccountName": account,
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        **secrets,
    }
