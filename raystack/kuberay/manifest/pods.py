"""Pod templates of the head, the workers and the submitter."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raystack.kuberay.manifest import code, security, storage
from raystack.kuberay.manifest.parts import given
from raystack.plan import KubePlan
from raystack.plan.kuberay.facts import PORTS
from raystack.plan.kuberay.shape import Devices, Match, PodPlan

if TYPE_CHECKING:
    from raystack.code.bundle import Bundle

HOST = "kubernetes.io/hostname"
CLAIM = "gpu"

RAYLET = "52365/api/local_raylet_healthz"
GCS = f"{PORTS['dashboard']}/api/gcs_healthz"
"""Health checks of a node and of the cluster's state, on the ports that KubeRay assigns."""


def head(plan: KubePlan, bundle: "Bundle") -> dict[str, Any]:
    """Return the head's template, the only one with the run's config and code."""
    # Only the head needs config and code, because the driver runs there.
    carries = bool(plan.entrypoint)
    ports = {
        **{name: PORTS[name] for name in ("gcs-server", "dashboard", "client")},
        **security.METRICS,
        **_serve(plan),
    }
    container = _container(plan, plan.head, "ray-head", ports, (RAYLET, GCS), (RAYLET, GCS))
    if carries:
        container["volumeMounts"] = [code.mount(), *container.get("volumeMounts", [])]
    pod = _template(plan, plan.head, container, token=bool(plan.target.autoscaling.enabled))
    if carries:
        pod["spec"]["volumes"] = [code.volume(plan, bundle), *pod["spec"].get("volumes", [])]
        if (url := code.bundle_url(plan, bundle)) is not None:
            pod["spec"]["initContainers"] = [_fetch(plan, url)]
    return pod


def worker(plan: KubePlan) -> dict[str, Any]:
    """Return a worker's template; a server is ready only once its Serve proxy answers."""
    pod = plan.group.pod
    ready = (RAYLET, *([f"{plan.serve.serving.port}/-/healthz"] if plan.serve is not None else []))
    ports = {"metrics": security.METRICS["metrics"], **_serve(plan)}
    return _template(plan, pod, _container(plan, pod, "ray-worker", ports, ready, (RAYLET,)), token=False)


def submitter(plan: KubePlan) -> dict[str, Any]:
    """Return the template of the pod that submits and follows the log."""
    container = {
        # KubeRay's default template is rejected by namespaces with the restricted Pod Security Standard.
        "name": "ray-job-submitter",
        "image": plan.target.image,
        "imagePullPolicy": plan.target.pull_policy,
        "resources": _same({"cpu": "500m", "memory": "512Mi"}),
        "securityContext": security.container_context(),
    }
    return bare(plan, container, account=plan.account)


def bare(
    plan: KubePlan,
    container: Mapping[str, Any],
    *,
    account: str,
    token: bool = False,
    volumes: Sequence[Any] = (),
) -> dict[str, Any]:
    """Return a template for a pod outside of the Ray cluster, on the nodes allowed for the head."""
    spec = {
        "restartPolicy": "Never",
        **_account(plan, account, token=token),
        **given(priorityClassName=plan.head.priority_class),
        "securityContext": security.pod_context(plan),
        **_nodes(plan.head),
        "containers": [dict(container)],
    }
    return {"metadata": {"labels": dict(plan.labels)}, "spec": {**spec, **given(volumes=list(volumes))}}


def _serve(plan: KubePlan) -> dict[str, int]:
    if plan.serve is None:
        return {}
    # KubeRay's Service has the port of this name alone.
    return {"serve": plan.serve.serving.port, **given(grpc=plan.serve.serving.grpc_port)}


def _template(plan: KubePlan, pod: PodPlan, container: dict[str, Any], *, token: bool) -> dict[str, Any]:
    metadata = given(
        labels={**pod.labels, **plan.labels}, annotations={**storage.annotations(plan), **pod.annotations}
    )
    claims = [{"name": CLAIM, "resourceClaimTemplateName": pod.devices.claim}] if pod.devices.claim else []
    spec = {
        **_account(plan, plan.account, token=token),
        **given(priorityClassName=pod.priority_class),
        "securityContext": security.pod_context(plan),
        **_nodes(pod),
        **given(
            affinity=_affinity(plan, pod),
            topologySpreadConstraints=_spread(plan, pod),
            resourceClaims=claims,
        ),
        "containers": [container],
        **given(volumes=storage.volumes(plan)),
    }
    return {"metadata": metadata, "spec": spec}


def _nodes(pod: PodPlan) -> dict[str, Any]:
    tolerations = [toleration.model_dump(exclude_none=True) for toleration in pod.tolerations]
    return given(nodeSelector=dict(pod.node_selector), tolerations=tolerations)


def _account(plan: KubePlan, account: str, *, token: bool) -> dict[str, Any]:
    """Return the pod's account, with a token only for pods that use the API server."""
    secrets = given(imagePullSecrets=[{"name": name} for name in plan.target.pull_secrets])
    return {
        "serviceAccountName": account,
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        **secrets,
    }


def _container(
    plan: KubePlan,
    pod: PodPlan,
    name: str,
    ports: Mapping[str, int],
    ready: Sequence[str],
    live: Sequence[str],
) -> dict[str, Any]:
    amounts = given(cpu=pod.cpus, memory=pod.memory, **{"ephemeral-storage": pod.ephemeral_storage})
    return {
        "name": name,
        "image": plan.target.image,
        "imagePullPolicy": plan.target.pull_policy,
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        **given(env=environment(plan)),
        "resources": {
            **_same({**amounts, **_gpus(pod.devices)}),
            **({"claims": [{"name": CLAIM}]} if pod.devices.claim else {}),
        },
        **given(volumeMounts=storage.mounts(plan)),
        "readinessProbe": _probe(ready, delay_s=10, failures=12),
        "livenessProbe": _probe(live, delay_s=30, failures=60),
        "securityContext": security.container_context(),
    }


def environment(plan: KubePlan) -> list[dict[str, Any]]:
    """Values, and references to Secrets."""
    found: list[dict[str, Any]] = []
    for variable in plan.variables:
        if variable.secret is None:
            found.append({"name": variable.name, "value": variable.value or ""})
        else:
            name, key = variable.secret
            found.append({"name": variable.name, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}})
    return found


def _same(amounts: dict[str, str]) -> dict[str, Any]:
    """Requests equal limits: nobody else's pod takes what Ray counts on, and the pod is the last to be
    evicted.
    """
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _gpus(devices: Devices) -> dict[str, str]:
    return {devices.key: str(devices.count)} if devices.key is not None else {}


def _probe(places: Sequence[str], *, delay_s: int, failures: int) -> dict[str, Any]:
    """Return a probe that runs `raystack.kuberay.inpod.alive`."""
    return {
        "exec": {"command": ["python", "-m", "raystack.kuberay.inpod.alive", *places]},
        # Long timeouts: a node whose cores are all busy with training answers late, but is not dead.
        "initialDelaySeconds": delay_s,
        "periodSeconds": 10,
        "timeoutSeconds": 10,
        "failureThreshold": failures,
    }


def _fetch(plan: KubePlan, url: str) -> dict[str, Any]:
    return {
        "name": "fetch-code",
        "image": plan.target.image,
        "imagePullPolicy": plan.target.pull_policy,
        "command": code.fetch_command(url),
        **given(env=environment(plan)),
        "resources": _same({"cpu": "500m", "memory": "1Gi"}),
        "volumeMounts": [code.mount(writable=True)],
        "securityContext": security.container_context(),
    }


def _affinity(plan: KubePlan, pod: PodPlan) -> dict[str, Any]:
    required = (
        {"nodeSelectorTerms": [{"matchExpressions": [_expression(match) for match in pod.required]}]}
        if pod.required
        else None
    )
    preferred = [
        {"weight": 100, "preference": {"matchExpressions": [_expression(match)]}} for match in pod.preferred
    ]
    nodes = given(
        requiredDuringSchedulingIgnoredDuringExecution=required,
        preferredDuringSchedulingIgnoredDuringExecution=preferred,
    )
    term = {"labelSelector": {"matchLabels": _fellows(plan)}, "topologyKey": HOST}
    near = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 50, "podAffinityTerm": term}]}
    apart = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return given(
        nodeAffinity=nodes,
        podAffinity=near if pod.together == "PACK" else None,
        podAntiAffinity=apart if pod.together == "STRICT_SPREAD" else None,
    )


def _expression(match: Match) -> dict[str, Any]:
    return {"key": match.key, "operator": match.operator, "values": list(match.values)}


def _spread(plan: KubePlan, pod: PodPlan) -> list[dict[str, Any]]:
    selector = {"matchLabels": _fellows(plan)}
    even = {
        "maxSkew": 1,
        "topologyKey": HOST,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": selector,
    }
    return [even] if pod.together == "SPREAD" else []


def _fellows(plan: KubePlan) -> dict[str, str]:
    """Return the labels that select the other workers; KubeRay sets the second one."""
    return {"app.kubernetes.io/instance": plan.name, "ray.io/group": plan.group.name}
