"""Validation of a document against the schema of a CRD, either shipped or of a cluster.

Reports fields that the schema does not have, wrong types, values out of range, and missing fields. CEL rules
of the CRD are among the rules of lint.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from raystack.errors import nearest
from raystack.kuberay.lint.document import Document
from raystack.kuberay.lint.finding import Finding
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.rule import Rule
from raystack.kuberay.lint.rules.schema import MISSING, RANGE, TYPE, UNKNOWN
from raystack.kuberay.lint.schemas import crds

Schema = Mapping[str, Any]
Broken = tuple[Rule, Node, str, str]
"""Rule, node, problem and remedy."""

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
REMEDIES = {
    ("jobTemplate", "spec"): "write its fields into jobTemplate itself, which is a RayJob's spec alone",
    ("spec", "concurrencyPolicy"): "drop it; a CronJob that creates RayJobs has one",
}
"""Remedies for fields that a CronJob has and a RayCronJob has not."""


def schema_findings(document: Document, crd: Mapping[str, Any] | None = None) -> list[Finding]:
    """Return the violations of the CRD's schema; none if the document is of another kind or version.

    The CRD is as Kubernetes stores it; by default the shipped one of the document's kind.
    """
    crd = crd or crds().get(document.kind)
    if crd is None or crd["spec"]["names"]["kind"] != document.kind:
        return []
    group = crd["spec"]["group"]
    for version in crd["spec"]["versions"]:
        if document.root["apiVersion"].text == f"{group}/{version['name']}":
            schema = version["schema"]["openAPIV3Schema"]
            known = {**schema.get("properties", {}), "metadata": METADATA, "status": ANY}
            own = {**schema, "properties": known}
            return [_finding(document, *broken) for broken in _object(document.root, own)]
    return []


def _finding(document: Document, rule: Rule, node: Node, says: str, remedy: str) -> Finding:
    return Finding(rule.id, rule.level, document.where(node.keys), node.path, f"{says}: {rule.why}", remedy)


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
            yield TYPE, node, says, _typed(value, str in allowed)
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
            yield UNKNOWN, inner, f"the CRD has no field {name}", _meant(inner, name, known)
    for name in schema.get("required", ()):
        # The API server fills in defaults before it validates.
        if not node[name].present and "default" not in known.get(name, {}):
            yield MISSING, node[name], f"{name} is required", MISSING.remedy


def _range(node: Node, schema: Schema) -> Iterator[Broken]:
    value = node.value
    if "enum" in schema and value not in schema["enum"]:
        says = f"{node.keys[-1]} is one of {', '.join(map(str, schema['enum']))}"
        yield RANGE, node, says, RANGE.remedy
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        if schema.get("x-kubernetes-int-or-string"):
            yield RANGE, node, f"{value} is no quantity", "write it as Kubernetes does, e.g. 500m or 4Gi"
        else:
            yield RANGE, node, f"{value} does not match {schema['pattern']}", RANGE.remedy
    for bound in BOUNDS:
        if bound in schema:
            size = len(value) if isinstance(value, (str, list)) else value
            if (size < schema[bound]) if bound.startswith("min") else (size > schema[bound]):
                yield RANGE, node, f"the {bound} is {schema[bound]}", RANGE.remedy


def _meant(node: Node, name: str, known: Mapping[str, Schema]) -> str:
    """Return the remedy for an unknown field."""
    for keys, remedy in REMEDIES.items():
        if node.keys[-len(keys) :] == keys:
            return remedy
    meant = nearest(name, known)
    return f"did you mean {meant}?" if meant else UNKNOWN.remedy


def _typed(value: Any, as_text: bool) -> str:
    """Return how to write a value so that it has the type."""
    if as_text and isinstance(value, (int, float)):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return f'put it in quotes: "{text}"'
    return TYPE.remedy


def _article(kind: type) -> str:
    return {dict: "a mapping", list: "a list", str: "a string", bool: "true or false"}.get(kind, "a number")
