"""Rules of the API server on what pods take from other objects, and on where they put it."""

import re
from collections.abc import Iterator

from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import NO_PODS, Breach, rule
from raystack.kuberay.lint.subject import PodSubject

NAMED = {"persistentVolumeClaim": "claimName", "secret": "secretName", "configMap": "name"}
"""Sources of a volume with the field that names them."""
OTHERS = {"items", "defaultMode", "optional", "readOnly"}
MODE = 0o777
FIELDS = re.compile(
    r"metadata\.(name|namespace|uid|(labels|annotations)\['[^']+'\])"
    r"|spec\.(nodeName|serviceAccountName)|status\.(hostIPs?|podIPs?)"
)
RESOURCES = re.compile(r"(limits|requests)\.(cpu|memory|ephemeral-storage|hugepages-\w+)")


@rule(
    "RS151",
    on=PodSubject,
    says="a volume, a variable and a claim name what they come from",
    why=NO_PODS,
    remedy="name it",
)
def named(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    for volume in pod.spec["volumes"].items:
        for source, key in NAMED.items():
            given = volume[source].fields
            # A field that the API server does not know is told as such.
            if (
                volume[source].present
                and not given.keys() - OTHERS - {key}
                and not given.get(key, Node("")).value
            ):
                yield Breach(volume[source][key], says=f"a volume of {source} has its {key}")
        yield from _paths(volume)
        if volume["ephemeral"].present:
            yield from _claim(volume["ephemeral"])
    for container in [*pod.containers, *pod.further]:
        yield from _variables(container)
    for claim in pod.spec["resourceClaims"].items:
        sources = [claim[name].text for name in ("resourceClaimName", "resourceClaimTemplateName")]
        if sum(map(bool, sources)) != 1:
            says = "a claim has either resourceClaimName or resourceClaimTemplateName"
            yield Breach(claim, says=says)


def _paths(volume: Node) -> Iterator[Breach]:
    """Yield paths and modes that a volume cannot have."""
    path = volume.at("hostPath", "path")
    if ".." in path.text.split("/"):
        yield Breach(path, says="a path of the node has no ..", remedy="write it out")
    for source in volume.fields.values():
        for item in source["items"].items:
            inside = item["path"]
            if inside.text.startswith("/") or ".." in inside.text.split("/"):
                says = "a path in a volume is relative and without .."
                yield Breach(inside, says=says, remedy="correct it")
        for mode in [source["defaultMode"], *(item["mode"] for item in source["items"].items)]:
            if mode.number is not None and not 0 <= mode.number <= MODE:
                says = f"a mode is at most 0777, which is 511 in JSON (got {mode.number})"
                yield Breach(mode, says=says, remedy="write it with a leading zero, e.g. 0644")


def _claim(ephemeral: Node) -> Iterator[Breach]:
    template = ephemeral.at("volumeClaimTemplate")
    asked = template.at("spec", "resources", "requests", "storage")
    if not asked.present or not template.at("spec", "accessModes").items:
        says = "a volume that is made for a pod has accessModes and resources.requests.storage"
        yield Breach(template, says=says, remedy="give both in volumeClaimTemplate.spec")


def _variables(container: Node) -> Iterator[Breach]:
    for source in container["envFrom"].items:
        given = source.fields.keys() - {"prefix"}
        if len(given) != 1:
            says = "an item of envFrom has either configMapRef or secretRef"
            yield Breach(source, says=says, remedy="give one of them")
    for env in container["env"].items:
        path = env.at("valueFrom", "fieldRef", "fieldPath")
        if path.text and not FIELDS.fullmatch(path.text):
            says = f"{path.text} is no field of a pod that a variable can have"
            single = path.text.replace('"', "'")
            if FIELDS.fullmatch(single):
                # The API's reference knows single quotes alone.
                yield Breach(path, says=says, remedy=f"write {single}", level="warning")
            else:
                yield Breach(path, says=says, remedy="write e.g. metadata.name or status.podIP")
        resource = env.at("valueFrom", "resourceFieldRef", "resource")
        if resource.text and not RESOURCES.fullmatch(resource.text):
            says = f"{resource.text} is no amount that a variable can have"
            yield Breach(resource, says=says, remedy="write e.g. limits.cpu or requests.memory")
