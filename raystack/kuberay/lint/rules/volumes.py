"""Rules of the API server on volumes and their mounts, and on what has a place of its own in a pod."""

from collections.abc import Iterable, Iterator

from raystack.errors import nearest
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import NO_PODS, Breach, rule
from raystack.kuberay.lint.subject import PodSubject


@rule(
    "RS141",
    on=PodSubject,
    says="volumes, ports and places of mounts differ",
    why=NO_PODS,
    remedy="rename or drop one of them",
)
def once(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    yield from _twice(pod.spec["volumes"].items, "name", "two volumes have the name")
    for container in [*pod.containers, *pod.further]:
        yield from _twice(container["volumeMounts"].items, "mountPath", "two volumes are mounted at")
        yield from _twice(container["ports"].items, "name", "two ports have the name")
    yield from _twice(pod.spec["resourceClaims"].items, "name", "two claims have the name")


@rule(
    "RS142",
    on=PodSubject,
    says="what is mounted or claimed is in the pod",
    why=NO_PODS,
    remedy="add it to the pod's volumes",
)
def there(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    volumes = {volume["name"].text for volume in pod.spec["volumes"].items} | pod.added
    claims = {claim["name"].text for claim in pod.spec["resourceClaims"].items}
    for container in [*pod.containers, *pod.further]:
        mounts = [*container["volumeMounts"].items, *container["volumeDevices"].items]
        yield from _missing(mounts, volumes, "the pod has no volume", "add it to the pod's volumes")
        asked = container["resources"]["claims"].items
        yield from _missing(asked, claims, "the pod has no claim", "add it to the pod's resourceClaims")


@rule(
    "RS149",
    on=PodSubject,
    says="a path of a mount has no colon, and one below a volume is relative and without ..",
    why=NO_PODS,
    remedy="correct it",
)
def paths(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    for container in [*pod.containers, *pod.further]:
        for mount in container["volumeMounts"].items:
            path, below = mount["mountPath"], mount["subPath"]
            if path.value == "" or ":" in path.text:
                yield Breach(path)
            if below.text.startswith("/") or ".." in below.text.split("/"):
                yield Breach(below)
            if below.text and mount["subPathExpr"].text:
                yield Breach(mount["subPathExpr"], says="a mount has subPath or subPathExpr")


def _twice(items: Iterable[Node], key: str, says: str) -> Iterator[Breach]:
    seen: set[str] = set()
    for item in items:
        name = item[key].text
        if name and name in seen:
            yield Breach(item[key], says=f"{says} {name}")
        seen.add(name)


def _missing(
    items: Iterable[Node], known: frozenset[str] | set[str], says: str, remedy: str
) -> Iterator[Breach]:
    for item in items:
        name = item["name"].text
        if name and name not in known:
            meant = nearest(name, known)
            yield Breach(item["name"], f"{says} {name}", f"did you mean {meant}?" if meant else remedy)
