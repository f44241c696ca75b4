"""A document against the schema of a CRD: the one that is shipped, or that of a cluster.

Fields that the schema does not have, wrong types, values out of range, and what is missing. The rules of the
CRD that are written in CEL are among the rules of lint.
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
"""The rule, the place, what is wrong there, and the remedy."""

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
METADATA: Schema = {
    "type": "object",
    "properties": {"labels": STRINGS, "annotations": STRINGS},
    "x-kubernetes-preserve-unknown-fields": True,
}
"""A CRD leaves metadata to Kubernetes, which is as strict there."""
STATUS: Schema = {"x-kubernetes-preserve-unknown-fields": True}
"""The operator's to write: what a manifest has of it is dropped."""
REMEDIES = {
    ("jobTemplate", "spec"): "write its fields into jobTemplate itself, which is a RayJob's spec alone",
    ("spec", "concurrencyPolicy"): "drop it; a CronJob that creates RayJobs has one",
}
"""What to do about fields that a CronJob has and a RayCronJob has not."""


def schema_findings(document: Document, crd: Mapping[str, Any] | None = None) -> list[Finding]:
    """What the CRD, as Kubernetes stores it, has against the document; nothing where the document is of
    another kind or version. Without a CRD, the one of the document's kind that is shipped.
    """
    crd = crd or crds().get(document.kind)
    if crd is None or crd["spec"]["names"]["kind"] != document.kind:
        return []
    group = crd["spec"]["group"]
    for version in crd["spec"]["versions"]:
        if document.root["apiVersion"].text == f"{group}/{version['name']}":
            schema = version["schema"]["openAPIV3Schema"]
            known = {**schema.get("properties", {}), "metadata": METADATA, "status": STATUS}
            own = {**schema, "properties": known}
            return [_finding(document, *broken) for broken in _object(document.root, own)]
    return []


def _finding(document: Document, rule: Rule, node: Node, says: str, remedy: str) -> Finding:
    return Finding(rule.id, rule.level, document.where(node.keys), node.path, f"{says}: {rule.why}", remedy)


def _value(node: Node, schema: Schema) -> Iterator[Broken]:
    kind, value = schema.get("type"), node.value
    either = schema.get("x-kubernetes-int-or-string", False)
    allowed = (int, str) if either else TYPES.get(kind, ()) if isinstance(kind, str) else ()
    if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)):
        if not (kind == "integer" and isinstance(value, float) and value.is_integer()):
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
    """A null is as good as nothing, and what has a default is never missing: the API server fills it in
    first.
    """
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
    """What to do about a field that is not known."""
    for keys, remedy in REMEDIES.items():
        if node.keys[-len(keys) :] == keys:
            return remedy
    meant = nearest(name, known)
    return f"did you mean {meant}?" if meant else UNKNOWN.remedy


def _typed(value: Any, as_text: bool) -> str:
    """How to write a value so that it has the type."""
    if as_text and isinstance(value, (int, float)):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return f'put it in quotes: "{text}"'
    return TYPE.remedy


def _article(kind: type) -> str:
    return {dict: "a mapping", list: "a list", str: "a string", bool: "true or false"}.get(kind, "a number")
