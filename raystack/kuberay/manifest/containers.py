"""Containers: Ray's own, the one that fetches code, and those of the config beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

from raystack.config.pods import Container, PodResource
from raystack.config.volumes import Node
from raystack.kuberay.manifest import code, security, storage
from raystack.kuberay.manifest.parts import given
from raystack.plan import KubePlan
from raystack.plan.kuberay.pods import cores
from raystack.plan.kuberay.shape import PodPlan, Variable

CLAIM = "gpu"


def ray(
    plan: KubePlan,
    node: Node,
    pod: PodPlan,
    name: str,
    ports: Mapping[str, int],
    *,
    ready: Sequence[str],
    live: Sequence[str],
    image: str | None = None,
) -> dict[str, Any]:
    """Return the container in which Ray runs."""
    return {
        "name": name,
        "image": image or plan.target.image,
        "imagePullPolicy": plan.target.pull_policy,
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        **variables(plan, pod),
        "resources": resources(pod),
        **given(volumeMounts=storage.mounts(plan, node, pod), lifecycle=lifecycle(pod)),
        "readinessProbe": _probe(ready, delay_s=10, failures=12),
        "livenessProbe": _probe(live, delay_s=30, failures=60),
        "securityContext": security.container_context(pod.config, ray=True),
    }


def beside(
    plan: KubePlan, node: Node, pod: PodPlan, containers: Mapping[str, Container], image: str | None = None
) -> list[dict[str, Any]]:
    """Return init containers or sidecars of the config."""
    return [
        {
            "name": name,
            "image": each.image or image or plan.target.image,
            "imagePullPolicy": plan.target.pull_policy,
            **given(
                command=[literal(word) for word in each.command],
                args=[literal(word) for word in each.args],
                ports=[{"name": port, "containerPort": number} for port, number in each.ports.items()],
                **own_variables(pod, each),
            ),
            "resources": same({"cpu": cores(each.cpus), "memory": each.memory}),
            **given(volumeMounts=storage.mounts(plan, node, pod, each.mounts)),
            "securityContext": security.container_context(pod.config),
        }
        for name, each in containers.items()
    ]


def fetch(plan: KubePlan, pod: PodPlan, url: str) -> dict[str, Any]:
    """Return the container that fetches the run's code before Ray starts."""
    return {
        "name": "fetch-code",
        "image": plan.target.image,
        "imagePullPolicy": plan.target.pull_policy,
        "command": [literal(word) for word in code.fetch_command(url)],
        **variables(plan, pod),
        "resources": same({"cpu": "500m", "memory": "1Gi"}),
        "volumeMounts": [code.mount(writable=True), *storage.mounts(plan, "head", pod)],
        "securityContext": security.container_context(pod.config),
    }


def variables(plan: KubePlan, pod: PodPlan) -> dict[str, Any]:
    """Return the environment of a container of raystack's: values, Secrets and fields of the pod."""
    found = {**_home(pod), **{variable.name: _value(variable) for variable in plan.variables}}
    return given(env=_listed(found), envFrom=_from_objects(plan))


def own_variables(pod: PodPlan, container: Container) -> dict[str, Any]:
    """Return the environment of a container of the config, which may be anybody's image."""
    values = [Variable(name, value=value) for name, value in container.env.items()]
    secrets = [
        Variable(name, secret=(secret, key))
        for name, reference in container.secrets.items()
        for secret, _, key in (reference.partition("/"),)
    ]
    return given(env=_listed({**_home(pod), **{each.name: _value(each) for each in (*values, *secrets)}}))


def home(pod: PodPlan) -> dict[str, Any]:
    """Return the environment of a container that needs nothing of the config."""
    return given(env=_listed(_home(pod)))


def _home(pod: PodPlan) -> dict[str, dict[str, Any]]:
    """Return the variable of a home that can be written to, where the root cannot."""
    return {"HOME": {"value": storage.TMP}} if pod.config.read_only_root else {}


def _listed(variables: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": name, **value} for name, value in variables.items()]


def _value(variable: Variable) -> dict[str, Any]:
    if variable.secret is not None:
        name, key = variable.secret
        return {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
    if variable.of_pod is None:
        return {"value": literal(variable.value or "")}
    if variable.of_pod.startswith(("limits.", "requests.")):
        return {"valueFrom": {"resourceFieldRef": {"resource": variable.of_pod}}}
    return {"valueFrom": {"fieldRef": {"fieldPath": variable.of_pod}}}


def _from_objects(plan: KubePlan) -> list[dict[str, Any]]:
    """Return the objects of which every key is a variable."""
    kinds = {"secret": "secretRef", "configmap": "configMapRef"}
    return [
        {
            **given(prefix=each.prefix or None),
            kinds[each.kind]: {"name": each.name, **given(optional=each.optional or None)},
        }
        for each in plan.target.env_from
    ]


def resources(pod: PodPlan) -> dict[str, Any]:
    """Return limits and requests, which are equal where the config says nothing else.

    So nobody else's pod takes what Ray counts on, and the pod is the last to be evicted.
    """
    config, devices = pod.config, pod.devices
    further = {
        key: str(each.amount if isinstance(each, PodResource) else each)
        for key, each in config.resources.items()
    }
    counted = {devices.key: str(devices.count)} if devices.key is not None else {}
    sizes = given(cpu=pod.cpus, memory=pod.memory, **{"ephemeral-storage": pod.ephemeral_storage})
    amounts = {**sizes, **counted, **further}
    limits = amounts if config.cpu_limit else {key: each for key, each in amounts.items() if key != "cpu"}
    claims = {"claims": [{"name": CLAIM}]} if devices.claim else {}
    asked = config.requests
    requests = given(
        cpu=cores(asked.cpus) if asked.cpus else None,
        memory=asked.memory,
        **{"ephemeral-storage": asked.ephemeral_storage},
    )
    return {"requests": {**amounts, **requests}, "limits": dict(limits), **claims}


def lifecycle(pod: PodPlan) -> dict[str, Any]:
    """Return the hooks of the container."""
    hooks = {"postStart": pod.config.post_start, "preStop": pod.config.pre_stop}
    return {name: {"exec": {"command": list(words)}} for name, words in hooks.items() if words}


def same(amounts: Mapping[str, str]) -> dict[str, Any]:
    """Return requests that equal the limits."""
    return {"requests": dict(amounts), "limits": dict(amounts)}


def literal(text: str) -> str:
    """Return a value of the environment, a command or an argument in which Kubernetes expands nothing."""
    return text.replace("$", "$$")


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
