"""A document against the schema of a CRD, which comes from the cluster itself: the one place that knows what
it will keep.

Fields that the schema does not have, wrong types, values out of range, and what is missing. The rules of the
CRD that are written in CEL are among the rules of lint.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from raystack.kuberay.lint.document import Document
from raystack.kuberay.lint.finding import Finding
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.rule import Rule
from raystack.kuberay.lint.rules.schema import MISSING, RANGE, TYPE, UNKNOWN

Schema = Mapping[str, Any]
Broken = tuple[Rule, Node, str]

TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")


def schema_findings(document: Document, crd: Mapping[str, Any]) -> list[Finding]:
    """What the CRD, as Kubernetes stores it, has against the document; nothing where the document is of
    another kind.
    """
    if crd["spec"]["names"]["kind"] != document.kind:
        return []
    group, _, name = document.root["apiVersion"].text.partition("/")
    version = next(
        (each for each in crd["spec"]["versions"] if each["name"] == name and group == crd["spec"]["group"]),
        None,
    )
    if version is None or not version.get("served", True):
        known = ", ".join(f"{crd['spec']['group']}/{each['name']}" for each in crd["spec"]["versions"])
        return [_finding(document, RANGE, document.root["apiVersion"], f"the cluster serves {known}")]
    schema = version["schema"]["openAPIV3Schema"]
    own = {
        **schema,
        "properties": {
            **schema.get("properties", {}),
            "metadata": {"x-kubernetes-preserve-unknown-fields": True},
        },
    }
    return [_finding(document, *broken) for broken in _object(document.root, own)]


def _finding(document: Document, rule: Rule, node: Node, says: str) -> Finding:
    return Finding(
        rule.id, rule.level, document.where(node.keys), node.path, f"{says}: {rule.why}", rule.remedy
    )


def _value(node: Node, schema: Schema) -> Iterator[Broken]:
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        allowed: tuple[type, ...] = (int, str)
    else:
        allowed = TYPES.get(kind, ()) if isinstance(kind, str) else ()
    value = node.value
    if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)):
        if not (kind == "integer" and isinstance(value, float) and value.is_integer()):
            wanted = "integer or string" if schema.get("x-kubernetes-int-or-string") else kind
            yield TYPE, node, f"the value is {_article(type(value))} and should be of type {wanted}"
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
            yield UNKNOWN, inner, f"the CRD has no field {name}"
    for name in schema.get("required", ()):
        if not node[name].present and "default" not in known.get(name, {}):
            yield MISSING, node[name], f"{name} is required"


def _range(node: Node, schema: Schema) -> Iterator[Broken]:
    value = node.value
    if "enum" in schema and value not in schema["enum"]:
        yield RANGE, node, f"the value is one of {', '.join(map(str, schema['enum']))}"
    for bound in BOUNDS:
        if bound in schema:
            size = len(value) if isinstance(value, (str, list)) else value
            if (size < schema[bound]) if bound.startswith("min") else (size > schema[bound]):
                yield RANGE, node, f"the {bound} is {schema[bound]}"


def _article(kind: type) -> str:
    return {dict: "a mapping", list: "a list", str: "a string", bool: "true or false"}.get(kind, "a number")
