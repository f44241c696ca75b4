"""Rules on a RayCluster's pods: what KubeRay silently changes, and what Ray then sees."""

import re
from collections.abc import Iterator

from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.quantity import exactly
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject, PodSubject
from raystack.plan.kuberay.facts import PORTS, amount, ray_of

HEAD_MEMORY = amount("2Gi")
LEAST_MEMORY = amount("32Mi")
"""No Ray starts with less; such an amount lacks its unit."""
LEAST_OF_OTHERS = amount("1Mi")
RAY_LIKE = re.compile(r"(?:^|[/_-])ray(?:[-:@_]|$)")


@rule(
    "RS703",
    on=ClusterSubject,
    says="a head that lists ports lists the dashboard's, and for a RayService one named serve",
    why="KubeRay adds its own only where none is listed, and the head's service has no others",
    remedy="list it with its name, or drop ports",
)
def ports(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    listed = cluster.head.ray["ports"]
    names = {port["name"].text for port in listed.items}
    numbers = [str(port["containerPort"].value) for port in listed.items]
    if not listed.items:
        return
    if cluster.kind != "RayCluster":
        # The operator asks for the port by its name.
        if "dashboard" not in names:
            yield Breach(listed, says="the head lists ports, and none is named dashboard")
    elif "dashboard" not in names and str(PORTS["dashboard"]) not in numbers:
        yield Breach(listed, says="the head lists ports, and none is the dashboard's", level="warning")
    own = cluster.document.root.at("spec", "serveService", "spec", "ports").items
    names |= {port["name"].text for port in own}
    if cluster.kind == "RayService" and not any(
        name == "serve" or name.startswith("serve-") for name in names
    ):
        yield Breach(listed, says="the head lists ports, and none is named serve")
    # Of a headless service, which it is by default, every port can be reached.
    gcs = cluster.head.params["port"].text or str(PORTS["gcs-server"])
    if not _headless(cluster) and gcs not in numbers:
        says = f"the head lists ports, its service is not headless, and {gcs} is not listed for the workers"
        yield Breach(listed, says=says)


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
        told = group.params["memory"].text or "memory" in map(str.lower, group.resources)
        asked, limit = resources["requests"]["memory"], resources["limits"]["memory"]
        # What is no amount is reported as such.
        unlimited = not limit.present or exactly(limit.value) == 0
        if exactly(asked.value) and unlimited and not told:
            yield Breach(asked)


@rule(
    "RS731",
    on=ClusterSubject,
    says="the head has at least 2Gi of memory",
    why="its GCS, dashboard and agents alone need most of it, and it is killed once it has none left",
    remedy="give the head 2Gi or more, 4Gi if jobs' drivers run there",
    level="warning",
)
def head_memory(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    resources = cluster.head.ray["resources"]
    limit, request = resources["limits"]["memory"], resources["requests"]["memory"]
    given = limit if limit.present else request
    if LEAST_MEMORY <= amount(given.value) < HEAD_MEMORY:
        yield Breach(given, says=f"the head has {given.value} of memory, less than 2Gi")


@rule(
    "RS741",
    on=PodSubject,
    says="memory is an amount of bytes that a container can start in",
    why="the container is killed as it starts",
    remedy='give it with its unit, e.g. "4Gi"',
)
def some_memory(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    first = pod.spec["containers"][0].keys
    for container in [*pod.containers, *pod.further]:
        limit = container["resources"]["limits"]["memory"]
        if 0 < amount(limit.value) < (LEAST_MEMORY if container.keys == first else LEAST_OF_OTHERS):
            yield Breach(limit, says=f"{limit.value} is {amount(limit.value):g} bytes of memory")


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


def _headless(cluster: ClusterSubject) -> bool:
    """Return whether the head's service has no address of its own."""
    own = cluster.head.node.at("headService")
    kind = own.at("spec", "type").text or cluster.head.node["serviceType"].text
    return kind in ("", "ClusterIP") and (not own.present or own.at("spec", "clusterIP").text == "None")


def _of_ray(container: Node) -> bool:
    """Return whether the container looks as if it were meant for Ray."""
    return bool(
        RAY_LIKE.search(container["image"].text)
        or container["name"].text in ("ray-head", "ray-worker", "ray-node")
    )
