"""Connections to services in the cluster.

In: the object, and which services. Out: an address and a token for each, for the duration of a block.

Ports are free local ones. The pod is looked up for every connection, so a replaced head is found again.
"""

import base64
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from raystack.errors import LaunchError, Problem
from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.snapshot import KINDS
from raystack.plan.kuberay.facts import PORTS
from raystack.status import ObjectKind

What = Literal["dashboard", "serve", "client", "mlflow"]
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opener for tunnels: they start on this machine, so no proxy may be used."""
MLFLOW = 5000
_CONNECTS = ("raycluster", "rayjob", "rayservice")


@dataclass(frozen=True)
class ForwardedPort:
    """Address on this machine."""

    what: What
    url: str
    token: str | None = field(default=None, repr=False)
    """Ray's token, sent to the dashboard as `Authorization: Bearer`; None without authentication."""


@contextmanager
def connect(
    client: Client,
    kind: ObjectKind,
    name: str,
    what: Sequence[What] = ("dashboard",),
    *,
    mlflow: str = "mlflow",
) -> Iterator[tuple[ForwardedPort, ...]]:
    """Yield the ports of a raycluster, rayjob or rayservice, in the requested order.

    `mlflow` names the Service of MLflow. Raises LaunchError if the object does not exist or nothing serves a
    port yet.
    """
    secret = token(client, cluster_of(client, kind, name)) if set(what) - {"mlflow"} else None
    with ExitStack() as stack:
        ports: list[ForwardedPort] = []
        for each in what:
            _, port = _behind(client, kind, name, each, mlflow)
            here = stack.enter_context(
                client.forward(partial(_pod_behind, client, kind, name, each, mlflow), port)
            )
            scheme = "ray" if each == "client" else "http"
            ports.append(
                ForwardedPort(
                    each, f"{scheme}://127.0.0.1:{here}", secret if each in ("dashboard", "client") else None
                )
            )
        yield tuple(ports)


def cluster_of(client: Client, kind: ObjectKind, name: str) -> Object:
    """Return the name of the RayCluster on which something runs now."""
    where = f"{kind}/{name}"
    if kind not in _CONNECTS:
        raise LaunchError(
            Problem(where, rule="it has no cluster to connect to", remedy=f"name a {', '.join(_CONNECTS)}")
        )
    found = client.get(KINDS[kind], name)
    if found is None:
        raise LaunchError(Problem(where, rule=f"there is none of that name in namespace {client.namespace}"))
    if kind == "raycluster":
        return found
    status = found.get("status") or {}
    cluster = (
        status.get("rayClusterName")
        if kind == "rayjob"
        else (status.get("activeServiceStatus") or {}).get("rayClusterName")
    )
    made = client.get("RayCluster", cluster) if cluster else None
    if made is None:
        raise LaunchError(
            Problem(where, rule="it has no cluster now", remedy=f"see `raystack status {where}`")
        )
    return made


def token(client: Client, cluster: Object) -> str | None:
    """Return a cluster's Ray token, or None if it has none. Raises LaunchError if it cannot be read."""
    options = cluster["spec"].get("authOptions") or {}
    if options.get("mode") != "token" or options.get("enableK8sTokenAuth"):
        return None
    name = options.get("secretName") or cluster["metadata"]["name"]
    secret = client.get("Secret", name)
    content = ((secret or {}).get("data") or {}).get("auth_token")
    if not content:
        rule = "should have the cluster's token under auth_token"
        raise LaunchError(Problem(f"secret/{name}", rule=rule, remedy="wait for the operator to make it"))
    return base64.b64decode(content).decode()


def _pod_behind(client: Client, kind: ObjectKind, name: str, what: What, mlflow: str) -> str:
    return _behind(client, kind, name, what, mlflow)[0]


def _behind(client: Client, kind: ObjectKind, name: str, what: What, mlflow: str) -> tuple[str, int]:
    """Return the pod and its port."""
    if what == "mlflow":
        return _service(client, mlflow, MLFLOW)
    cluster = cluster_of(client, kind, name)["metadata"]["name"]
    labels = {"ray.io/cluster": cluster, "ray.io/node-type": "head"}
    if what == "serve" and kind == "rayservice":
        labels = {"ray.io/cluster": cluster, "ray.io/serve": "true"}
    pod = _running(client, labels, f"{kind}/{name}", what)
    ports = {
        port.get("name"): port["containerPort"] for port in pod["spec"]["containers"][0].get("ports", [])
    }
    return pod["metadata"]["name"], int(ports.get(what, PORTS[what]))


def _service(client: Client, name: str, port: int) -> tuple[str, int]:
    """Return a pod of a Service, and the port that the Service targets."""
    found = client.get("Service", name)
    if found is None or not found["spec"].get("selector"):
        raise LaunchError(
            Problem(
                f"service/{name}",
                rule="there is no such Service that leads to pods",
                remedy="name the one of MLflow",
            )
        )
    pod = _running(client, found["spec"]["selector"], f"service/{name}", "mlflow")
    target = next((each.get("targetPort", each["port"]) for each in found["spec"].get("ports", [])), port)
    if isinstance(target, int):
        return pod["metadata"]["name"], target
    ports = [each for container in pod["spec"]["containers"] for each in container.get("ports", [])]
    return pod["metadata"]["name"], next(
        (int(each["containerPort"]) for each in ports if each.get("name") == target), port
    )


def _running(client: Client, labels: dict[str, str], where: str, what: str) -> Object:
    """Return the newest running pod with these labels; for a Service, only a ready one."""
    pods = [
        pod
        for pod in client.list("Pod", labels=labels)
        if (pod.get("status") or {}).get("phase") == "Running"
    ]
    if what in ("serve", "mlflow"):
        pods = [pod for pod in pods if _is_ready(pod)] or pods
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    if not alive:
        raise LaunchError(
            Problem(
                where, rule=f"no pod runs behind its {what} yet", remedy=f"see `raystack diagnose {where}`"
            )
        )
    return max(alive, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
