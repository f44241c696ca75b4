"""What a schema says about a value: its type, its fields, how its lists merge; and what is wrong with it,
unknown in it, left out of it.

In goes a schema, of a CRD or of Kubernetes itself, and a plain JSON value. The `field` of a cause is written
as Kubernetes writes it: `spec.workerGroupSpecs[0].groupName`.
"""

import copy
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from fake.kinds import Schema, definitions
from fake.refusal import Cause
from fake.rules import about_change, holds

_KEY_DEFAULTS = {"protocol": "TCP"}  # of ports; Kubernetes' own definitions do not carry defaults
_PARTS = ("metadata", "source", "spec", "status", "template")
_LIMITS = {"int32": 2**31, "int64": 2**63}
_TIME = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$")


def resolve(schema: Schema) -> Schema:
    """The schema itself where it is only a reference."""
    while "$ref" in schema:
        schema = definitions()[schema["$ref"].rpartition("/")[2]]
    return schema


def child(schema: Schema, key: str) -> Schema | None:
    """Schema of a field, or None where there is no such field."""
    schema = resolve(schema)
    named: Schema | None = schema.get("properties", {}).get(key)
    if named is not None:
        return named
    others: Schema | bool | None = schema.get("additionalProperties")
    if others is None:
        others = is_open(schema)
    if isinstance(others, bool):
        return {} if others else None
    return others


def is_field(schema: Schema, key: str) -> bool:
    """Whether the schema names it, as opposed to the key of a map."""
    return key in resolve(schema).get("properties", {})


def item(schema: Schema) -> Schema:
    """Schema of the items of a list."""
    found: Schema = resolve(schema).get("items", {})
    return found


def is_open(schema: Schema) -> bool:
    """Whether fields that it does not name are kept."""
    return bool(schema.get("x-kubernetes-preserve-unknown-fields")) or not schema.keys() - {"description"}


def list_type(schema: Schema) -> Literal["atomic", "set", "map"]:
    """How a list merges."""
    found: Literal["atomic", "set", "map"] = resolve(schema).get("x-kubernetes-list-type", "atomic")
    return found


def is_atomic_map(schema: Schema) -> bool:
    """Whether an object is replaced as a whole."""
    return bool(resolve(schema).get("x-kubernetes-map-type") == "atomic")


def key_of(schema: Schema, value: Any) -> dict[str, Any]:
    """What identifies an item of a list of type map."""
    keys: Sequence[str] = resolve(schema)["x-kubernetes-list-map-keys"]
    found = {}
    for key in keys:
        default = (child(item(schema), key) or {}).get("default", _KEY_DEFAULTS.get(key))
        if key in value or default is not None:
            found[key] = value.get(key, default)
    return found


def blank(schema: Schema) -> dict[str, Any]:
    """What an object of Kubernetes' own kinds has before anything is written into it: they are structures,
    whose parts are always there.
    """
    schema = resolve(schema)
    properties, required = schema.get("properties", {}), schema.get("required", ())
    return {
        key: blank(below) if key in _PARTS else None
        for key, below in properties.items()
        if key in _PARTS or key in required
    }


def prune(schema: Schema, value: Any, at: str = "") -> tuple[Any, list[str]]:
    """The value without fields that the schema does not know, and their paths."""
    schema = resolve(schema)
    unknown: list[str] = []
    if isinstance(value, dict):
        kept = {}
        for key, inner in value.items():
            below, path = child(schema, key), f"{at}.{key}" if at else key
            if below is None:
                unknown.append(path)
                continue
            kept[key], more = prune(below, inner, path)
            unknown += more
        return kept, unknown
    if isinstance(value, list):
        pruned = [prune(item(schema), inner, f"{at}[{index}]") for index, inner in enumerate(value)]
        return [inner for inner, _ in pruned], [path for _, paths in pruned for path in paths]
    return value, unknown


def fill(schema: Schema, value: Any) -> Any:
    """The value with the schema's defaults for what is left out; nulls where none may be are left out too."""
    schema = resolve(schema)
    if isinstance(value, dict):
        filled = {
            key: inner
            for key, inner in value.items()
            if inner is not None or _nullable(child(schema, key) or {})
        }
        for key, below in schema.get("properties", {}).items():
            if "default" in below and key not in filled:
                filled[key] = copy.deepcopy(below["default"])
        return {key: fill(child(schema, key) or {}, inner) for key, inner in filled.items()}
    if isinstance(value, list):
        return [fill(item(schema), inner) for inner in value]
    return value


def _nullable(schema: Schema) -> bool:
    """Whether a null stays: where it is allowed, and where its being there is an error that is told."""
    schema = resolve(schema)
    of_kubernetes = isinstance(schema.get("type"), list) or "oneOf" in schema
    return not of_kubernetes and "default" not in schema


def problems(schema: Schema, value: Any, old: Any = None, at: str = "") -> Iterator[Cause]:
    """All that the schema holds against the value. `old` is what it was before, None where it is new."""
    schema = resolve(schema)
    types = _types(schema)
    if value is None and (schema.get("nullable") or "null" in types or not types):
        return
    if types and _type(value) not in types and not (_type(value) == "integer" and "number" in types):
        wanted = " or ".join(sorted(types - {"null"}))
        yield Cause(
            at,
            f'Invalid value: "{_type(value)}": {at} in body must be of type {wanted}: "{_type(value)}"',
            "FieldValueTypeInvalid",
        )
        return
    yield from _scalar_problems(schema, value, at)
    if isinstance(value, dict):
        yield from _object_problems(schema, value, old if isinstance(old, dict) else {}, at)
    if isinstance(value, list):
        yield from _list_problems(schema, value, old if isinstance(old, list) else [], at)
    for rule in schema.get("x-kubernetes-validations", ()):
        if about_change(rule["rule"]) and old is None:
            continue
        if not holds(rule["rule"], value, old):
            shown = json.dumps(value) if isinstance(value, str) else f'"{_type(value)}"'
            yield Cause(at, f"Invalid value: {shown}: {rule.get('message', 'failed rule: ' + rule['rule'])}")


def _object_problems(schema: Schema, value: dict[str, Any], old: dict[str, Any], at: str) -> Iterator[Cause]:
    for key in schema.get("required", ()):
        if value.get(key) is None:
            yield Cause(f"{at}.{key}" if at else key, "Required value", "FieldValueRequired")
    for key, inner in value.items():
        below = child(schema, key)
        if below is not None and not (inner is None and key in schema.get("required", ())):
            yield from problems(below, inner, old.get(key), f"{at}.{key}" if at else key)


def _list_problems(schema: Schema, value: list[Any], old: list[Any], at: str) -> Iterator[Cause]:
    seen: list[Any] = []
    former = {}
    kind = list_type(schema)
    if kind == "map":
        former = {
            json.dumps(key_of(schema, inner), sort_keys=True): inner
            for inner in old
            if isinstance(inner, dict)
        }
    for index, inner in enumerate(value):
        key = inner
        if kind == "map" and isinstance(inner, dict):
            key = key_of(schema, inner)
        if kind != "atomic" and key in seen:
            yield Cause(f"{at}[{index}]", f"Duplicate value: {json.dumps(key)}", "FieldValueDuplicate")
        seen.append(key)
        before = former.get(json.dumps(key, sort_keys=True)) if kind == "map" else None
        yield from problems(item(schema), inner, before, f"{at}[{index}]")


def _scalar_problems(schema: Schema, value: Any, at: str) -> Iterator[Cause]:
    shown = json.dumps(value) if not isinstance(value, dict | list) else f'"{_type(value)}"'

    def wrong(what: str) -> Cause:
        return Cause(at, f"Invalid value: {shown}: {at} in body {what}")

    if "enum" in schema and value not in schema["enum"]:
        known = ", ".join(json.dumps(known) for known in schema["enum"])
        yield Cause(at, f"Unsupported value: {shown}: supported values: {known}", "FieldValueNotSupported")
    if isinstance(value, int | float) and not isinstance(value, bool):
        limit = _LIMITS.get(schema.get("format", ""))
        if value < schema.get("minimum", value):
            yield wrong(f"should be greater than or equal to {schema['minimum']}")
        if value > schema.get("maximum", value):
            yield wrong(f"should be less than or equal to {schema['maximum']}")
        if limit is not None and not -limit <= value < limit:
            yield wrong(f"must be of type {schema['format']}: {shown}")
    if isinstance(value, str):
        if "pattern" in schema and re.search(schema["pattern"], value) is None:
            yield wrong(f"should match '{schema['pattern']}'")
        if len(value) < schema.get("minLength", 0):
            yield wrong(f"should be at least {schema['minLength']} chars long")
        if len(value) > schema.get("maxLength", len(value)):
            yield Cause(
                at, f"Too long: may not be more than {schema['maxLength']} bytes", "FieldValueTooLong"
            )
        if schema.get("format") == "date-time" and _TIME.match(value) is None:
            yield wrong(f"must be of type date-time: {shown}")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield wrong(f"should have at least {schema['minItems']} items")
        if len(value) > schema.get("maxItems", len(value)):
            yield Cause(
                at,
                f"Too many: {len(value)}: must have at most {schema['maxItems']} items",
                "FieldValueTooMany",
            )


def _types(schema: Schema) -> set[str]:
    """Types that a value may have; empty where any may."""
    found = schema.get("type")
    if found is None:
        options = [*schema.get("oneOf", ()), *schema.get("anyOf", ())]
        return set().union(*(_types(option) for option in options)) if options else set()
    return set(found) if isinstance(found, list) else {found}


def _type(value: Any) -> str:
    names = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        dict: "object",
        list: "array",
        type(None): "null",
    }
    return names[type(value)]
