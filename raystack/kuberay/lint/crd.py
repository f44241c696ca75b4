"""Validation of a document against the schema of a CRD, either shipped or of a cluster.

Reports fields that the schema does not have, wrong types, values out of range, and missing fields. CEL rules
of the CRD are among the rules of lint.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from raystack.errors import nearest
from raystack.kuberay.lint.document import Document
from raystack.kuberay.lint.finding import Finding
from raystack.kuberay.lint.node import Keys, Node, dotted
from raystack.kuberay.lint.rule import Rule
from raystack.kuberay.lint.rules.schema import MISSING, RANGE, TYPE, UNKNOWN
from raystack.kuberay.lint.schemas import crds

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Broken:
    """Violation of a schema."""

    rule: Rule
    node: Node
    says: str
    remedy: str
    meant: Keys | None = None
    """Path of the absent field that an unknown one was probably meant to be."""
    since: str = "0.0.0"
    """First KubeRay whose CRD is so; older ones had the field."""

    @property
    def hides(self) -> str | None:
        """Path at and below which other rules would tell the same mistake again."""
        if self.rule is not UNKNOWN:
            return self.node.path
        return None if self.meant is None else dotted(self.meant)

    def finding(self, document: Document) -> Finding:
        """Return the finding."""
        reason = f"{self.says}: {self.rule.why}"
        where = document.where(self.node.keys)
        return Finding(self.rule.id, self.rule.level, where, self.node.path, reason, self.remedy)


TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
ANY: Schema = {"x-kubernetes-preserve-unknown-fields": True}
"""Schema of what is not looked at, such as status: a manifest's status is dropped."""
METADATA: Schema = {
    "type": "object",
    "properties": {
        "labels": STRINGS,
        "annotations": STRINGS,
        **{name: {"type": "string"} for name in ("name", "generateName", "namespace")},
        **{name: {"type": "array"} for name in ("finalizers", "ownerReferences", "managedFields")},
        **dict.fromkeys(
            (
                *("uid", "resourceVersion", "generation", "selfLink", "creationTimestamp"),
                *("deletionTimestamp", "deletionGracePeriodSeconds"),
            ),
            ANY,
        ),
    },
}
"""Schema of metadata, which CRDs leave to Kubernetes."""
REMEDIES: Mapping[tuple[str, ...], str] = {
    ("jobTemplate", "spec"): "write its fields into jobTemplate itself, which is a RayJob's spec alone",
    ("spec", "concurrencyPolicy"): "drop it; a CronJob that creates RayJobs has one",
    ("secret", "name"): "did you mean secretName?",
}
"""Remedies for fields that other objects have: a CronJob, and a variable that is taken from a Secret."""
GONE: Mapping[tuple[str, ...], tuple[str, str]] = {
    ("headGroupSpec", "replicas"): ("1.2.0", "drop it; there is one head"),
    ("spec", "deletionPolicy"): ("1.4.0", "write it as deletionStrategy"),
    ("spec", "runtimeEnv"): ("1.1.0", "write it as text in runtimeEnvYAML"),
}
"""Fields that older CRDs have, with the first KubeRay without them, and what takes their place."""


def schema_findings(document: Document, crd: Mapping[str, Any] | None = None) -> list[Finding]:
    """Return the violations of the CRD's schema as findings."""
    return [each.finding(document) for each in violations(document, crd)]


def violations(document: Document, crd: Mapping[str, Any] | None = None) -> list[Broken]:
    """Return the violations of the CRD's schema; none if the document is of another kind or version.

    The CRD is as Kubernetes stores it; by default the shipped one of the document's kind.
    """
    crd = crd or crds().get(document.kind)
    if crd is None or crd["spec"]["names"]["kind"] != document.kind:
        return []
    group, versions = crd["spec"]["group"], crd["spec"]["versions"]
    said = document.root["apiVersion"].text
    version = next((each for each in versions if said == f"{group}/{each['name']}"), None)
    if version is None:
        return []
    found = _against(document, version)
    stored = next((each for each in versions if each.get("storage")), version)
    if version is stored:
        return found
    lasting = {(each.rule.id, each.node.path) for each in _against(document, stored)}
    remedy = f"write apiVersion: {group}/{stored['name']}, which allows it"
    return [
        each if (each.rule.id, each.node.path) in lasting else replace(each, remedy=remedy) for each in found
    ]


def _against(document: Document, version: Schema) -> list[Broken]:
    """Return the violations of the schema of a version."""
    schema = version["schema"]["openAPIV3Schema"]
    known = {**schema.get("properties", {}), "metadata": METADATA, "status": ANY}
    found = list(_object(document.root, {**schema, "properties": known}))
    meant = {each.hides for each in found if each.meant is not None}
    return [each for each in found if not (each.rule is MISSING and each.node.path in meant)]


def _value(node: Node, schema: Schema) -> Iterator[Broken]:
    kind, value = schema.get("type"), node.value
    either = schema.get("x-kubernetes-int-or-string", False)
    allowed = (int, str) if either else TYPES.get(kind, ()) if isinstance(kind, str) else ()
    # bool is a subclass of int.
    if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)):
        # JSON does not distinguish 2.0 from 2.
        if not ((kind == "integer" or either) and isinstance(value, float) and value.is_integer()):
            wanted = "integer or string" if either else kind
            says = f"the value is {_article(type(value))} and should be of type {wanted}"
            yield Broken(TYPE, node, says, _typed(node, allowed))
        return
    yield from _range(node, schema)
    if isinstance(value, dict):
        yield from _object(node, schema)
    elif isinstance(value, list):
        for item in node.items:
            yield from _value(item, schema.get("items", {}))


def _object(node: Node, schema: Schema) -> Iterator[Broken]:
    """Yield the violations of an object."""
    known, further = schema.get("properties", {}), schema.get("additionalProperties")
    free = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-embedded-resource")
    for name, inner in node.fields.items():
        if name in known:
            yield from _value(inner, known[name])
        elif isinstance(further, dict):
            yield from _value(inner, further)
        elif not free and not further and ("type" in schema or known):
            yield _unknown(node, inner, name, known)
    for name in schema.get("required", ()):
        # The API server fills in defaults before it validates.
        if not node[name].present and "default" not in known.get(name, {}):
            yield Broken(MISSING, node[name], f"{name} is required", MISSING.remedy)


def _range(node: Node, schema: Schema) -> Iterator[Broken]:
    value = node.value
    if "enum" in schema and value not in schema["enum"]:
        says = f"{node.keys[-1]} is one of {', '.join(map(str, schema['enum']))}"
        meant = nearest(str(value), map(str, schema["enum"]))
        yield Broken(RANGE, node, says, f"did you mean {meant}?" if meant else RANGE.remedy)
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        if schema.get("x-kubernetes-int-or-string"):
            remedy = "write it as Kubernetes does, e.g. 500m or 4Gi"
            yield Broken(RANGE, node, f"{value} is no quantity", remedy)
        else:
            yield Broken(RANGE, node, f"{value} does not match {schema['pattern']}", RANGE.remedy)
    for bound in BOUNDS:
        if bound in schema:
            size = len(value) if isinstance(value, (str, list)) else value
            if (size < schema[bound]) if bound.startswith("min") else (size > schema[bound]):
                yield Broken(RANGE, node, f"the {bound} is {schema[bound]}", RANGE.remedy)


def _unknown(holder: Node, node: Node, name: str, known: Mapping[str, Schema]) -> Broken:
    """Return the violation of an unknown field."""
    says = f"the CRD has no field {name}"
    for keys, remedy in REMEDIES.items():
        if node.keys[-len(keys) :] == keys:
            return Broken(UNKNOWN, node, says, remedy)
    for keys, (since, remedy) in GONE.items():
        if node.keys[-len(keys) :] == keys:
            return Broken(
                UNKNOWN, node, f"KubeRay {since} and newer have no field {name}", remedy, since=since
            )
    meant = nearest(name, known)
    if meant is None:
        return Broken(UNKNOWN, node, says, UNKNOWN.remedy)
    absent = None if holder[meant].present else (*holder.keys, meant)
    return Broken(UNKNOWN, node, says, f"did you mean {meant}?", absent)


def _typed(node: Node, allowed: tuple[type, ...]) -> str:
    """Return how to write a value so that it has the type."""
    value = node.value
    if str in allowed and isinstance(value, (int, float)):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return f'put it in quotes: "{text}"'
    if allowed == (str,) and isinstance(value, (dict, list)):
        return f"write it as a block of text, `{node.keys[-1]}: |`"
    if isinstance(value, str) and _plain(value, allowed):
        return f"drop the quotes: {value}"
    return TYPE.remedy


def _plain(text: str, allowed: tuple[type, ...]) -> bool:
    """Return whether a text would have the type without its quotes."""
    return (bool in allowed and text in ("true", "false")) or (int in allowed and text.isdecimal())


def _article(kind: type) -> str:
    return {dict: "a mapping", list: "a list", str: "a string", bool: "true or false"}.get(kind, "a number")
