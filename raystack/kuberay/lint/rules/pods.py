"""Rules on a RayCluster's pods: what KubeRay silently changes, and what Ray then sees."""

import json
import re
import shlex
from collections.abc import Iterator

from raystack.kuberay.lint.finding import Level
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject, GroupSubject
from raystack.plan.kuberay.facts import is_accelerator, ray_of, seen_by_kuberay

RAY_LIKE = re.compile(r"(?:^|[/_-])ray(?:[-:@_]|$)")
PORTS = ("gcs-server", "client")


@rule(
    "RS703",
    on=ClusterSubject,
    says=(
        "a head that lists ports lists all that are needed: dashboard, gcs-server, client, and serve for a"
        " RayService"
    ),
    why="KubeRay adds its own only where none is listed, and waits for the missing one",
    remedy="list it with its name, or drop ports",
)
def ports(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    listed = cluster.head.ray["ports"]
    names = [port["name"].text for port in listed.items]
    if not names:
        return
    if "dashboard" not in names:
        level: Level = "warning" if cluster.kind == "RayCluster" else "error"
        yield Breach(listed, says="the head lists ports, and none is named dashboard", level=level)
    if cluster.kind == "RayService" and not any(
        name == "serve" or name.startswith("serve-") for name in names
    ):
        yield Breach(listed, says="the head lists ports, and none is named serve")
    for name in PORTS:
        if name not in names:
            yield Breach(listed, says=f"the head lists ports, and none is named {name}", level="warning")


@rule(
    "RS706",
    on=ClusterSubject,
    says="Ray's container is the first one",
    why="KubeRay starts Ray in the first, and takes resources and ports from it",
    remedy="move it to the top",
    level="warning",
)
def ray_first(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        first, *others = group.containers or [Node(None)]
        if not _of_ray(first) and any(_of_ray(container) for container in others):
            yield Breach(first)


@rule(
    "RS707",
    on=ClusterSubject,
    says="Ray is told of GPUs that KubeRay does not recognize",
    why="Ray sees none of them",
    remedy="set rayStartParams.num-gpus, or the group's resources",
)
def gpus_seen(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        resources = group.ray["resources"]
        for key, limit in {} if _told(group) else resources["limits"].fields.items():
            if is_accelerator(key) and not seen_by_kuberay(key):
                yield Breach(limit, says=f"KubeRay does not recognize {key} as a GPU")
        if resources["claims"].items and not _told(group):
            yield Breach(resources["claims"], says="KubeRay does not count what is claimed", level="warning")


@rule(
    "RS708",
    on=ClusterSubject,
    says="GPUs are limits",
    why="KubeRay reads limits alone, and Kubernetes takes no request of a GPU without its limit",
    remedy="give the same number in limits",
)
def gpus_limited(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        resources = group.ray["resources"]
        for key, request in resources["requests"].fields.items():
            if is_accelerator(key) and not resources["limits"][key].present:
                yield Breach(request)


@rule(
    "RS709",
    on=ClusterSubject,
    says="memory is a limit",
    why="KubeRay reads limits alone, so that Ray takes the memory of the whole node for its own",
    remedy="give the same amount in limits",
    level="warning",
)
def memory_limited(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        resources = group.ray["resources"]
        told = group.params["memory"].present or group.node["resources"]["memory"].present
        if resources["requests"]["memory"].present and not resources["limits"]["memory"].present and not told:
            yield Breach(resources["requests"]["memory"])


@rule(
    "RS714",
    on=ClusterSubject,
    says="replicas lies between minReplicas and maxReplicas",
    why="it is brought between them without a word",
    remedy="correct it",
    level="warning",
)
def replicas(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.workers:
        wanted, most = group.node["replicas"], group.node["maxReplicas"].number
        if wanted.number is not None and (
            wanted.number < (group.node["minReplicas"].number or 0)
            or (most is not None and wanted.number > most)
        ):
            yield Breach(wanted)


@rule(
    "RS716",
    on=ClusterSubject,
    says="a service account that the head names exists",
    why="with autoscaling the operator makes one only where none is named, and no pod starts without it",
    remedy="create it, or drop serviceAccountName",
    level="warning",
)
def service_account(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    account = cluster.head.pod["serviceAccountName"]
    known = {document.name for document in cluster.beside if document.kind == "ServiceAccount"}
    if cluster.autoscaling and account.text not in ("", "default", *known):
        yield Breach(account, says=f"the service account {account.text} is not among what was looked at")


@rule(
    "RS717",
    on=ClusterSubject,
    says="the image's Ray is that of rayVersion, in all groups",
    why="Ray refuses nodes of another version, and the operator goes by rayVersion",
    remedy="use one version",
    level="warning",
)
def ray_version(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    said = cluster.node["rayVersion"].text
    for group in cluster.groups:
        image = group.ray["image"]
        if (own := ray_of(image.text)) is not None:
            said = said or own
            if own != said:
                yield Breach(image, says=f"the image's Ray is {own}, and should be {said}")


@rule(
    "RS729",
    on=ClusterSubject,
    says="resources in rayStartParams are JSON, quoted for a shell",
    why="they are part of the command that starts Ray, which then fails",
    remedy="""write '"{\\"special\\": 1}"', or use the group's resources""",
)
def quoted_resources(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group in cluster.groups:
        text = group.params["resources"]
        if text.text and not _is_mapping(text.text):
            yield Breach(text)


def _told(group: GroupSubject) -> bool:
    """Return whether the group sets the resource for Ray explicitly."""
    return (
        group.params["num-gpus"].present
        or group.params["resources"].present
        or bool(group.node["resources"].fields)
    )


def _of_ray(container: Node) -> bool:
    """Return whether the container looks as if it were meant for Ray."""
    return bool(
        RAY_LIKE.search(container["image"].text)
        or container["name"].text in ("ray-head", "ray-worker", "ray-node")
    )


def _is_mapping(text: str) -> bool:
    """Return whether the text is one JSON mapping after a shell has read it."""
    try:
        words = shlex.split(text)
        return len(words) == 1 and isinstance(json.loads(words[0]), dict)
    except ValueError:
        return False
