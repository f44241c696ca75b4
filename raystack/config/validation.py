"""pydantic's errors -> Problems in the user's words: one per key, with its place, its rule and the nearest
valid name.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from yaml.constructor import SafeConstructor

from raystack.config.choices import Groups
from raystack.config.fields import Fields, at, parts
from raystack.config.interpolation import Unresolved
from raystack.config.provenance import Provenance
from raystack.config.section import ConflictError, Pattern, UnshownError
from raystack.config.source import Key, dotted
from raystack.errors import Problem, nearest

WORDS = {
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "finite_number": "should be a finite number",
    "bool_type": "should be true or false",
    "string_type": "should be text",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
    "dict_type": "should be a mapping of keys to values",
    "model_type": "should be a mapping of keys to values",
    "model_attributes_type": "should be a mapping of keys to values",
    "too_short": "should have {min_length} or more entries",
    "too_long": "should have at most {max_length} entries",
    "literal_error": "should be {expected}",
}
"""pydantic's kinds of error that the user meets, in plain words; the rest speak plainly already."""

NUMBERS = ("int_type", "int_from_float", "float_type")


def problems(
    error: ValidationError, model: type[BaseModel], values: dict[str, Any], provenance: Provenance
) -> list[Problem]:
    """One Problem per key that is wrong, in the order of the schema. Values without a value were told about
    before.
    """
    by_key: dict[Key, list[ErrorDetails]] = {}
    for detail in error.errors():
        if not _is_unresolved(detail):
            by_key.setdefault(_key(detail, values), []).append(detail)
    return [_problem(key, details, Fields(model, values), provenance) for key, details in by_key.items()]


def _is_unresolved(detail: ErrorDetails) -> bool:
    value = detail["input"]
    if detail["type"].startswith("union_tag") and isinstance(value, dict):
        return isinstance(value.get("kind"), Unresolved)
    return isinstance(value, Unresolved)


def _key(detail: ErrorDetails, values: dict[str, Any]) -> Key:
    """The user's key: pydantic also puts the branches of a union into its location, and those are not in the
    file.
    """
    key: list[str] = []
    node: Any = values
    missing = detail["type"] == "missing"
    for index, part in enumerate(detail["loc"]):
        last = index == len(detail["loc"]) - 1
        if _holds(node, part):
            node = node[part]
        elif not (missing and last and isinstance(part, str)):
            continue
        key.append(str(part))
    return tuple(key)


def _holds(node: Any, part: int | str) -> bool:
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, dict) and part in node


def _problem(key: Key, details: list[ErrorDetails], schema: Fields, provenance: Provenance) -> Problem:
    first = details[0]
    cause = first.get("ctx", {}).get("error")
    match first["type"]:
        case "extra_forbidden":
            return _unknown(key, first["input"], schema, provenance)
        case "missing" if isinstance(first["loc"][-1], int):
            return Problem(
                provenance.where(key),
                rule=f"should have {first['loc'][-1] + 1} entries",
                got=_shown(first["input"]),
            )
        case "missing":
            remedy = "drop the override" if provenance.deleted(key) else f"add {dotted(key)}"
            return Problem(provenance.where(key), rule="is required", remedy=remedy)
        case "union_tag_invalid":
            context = first["ctx"]
            choices = [choice.strip("'") for choice in context["expected_tags"].split(", ")]
            return _one_of((*key, "kind"), context["tag"], choices, provenance)
        case "union_tag_not_found":
            remedy = f"add {dotted(key)}.kind: {' or '.join(schema.kinds(key))}"
            return Problem(provenance.where((*key, "kind")), rule="is required", remedy=remedy)
        case "literal_error" if len(details) == 1 and isinstance(first["input"], str):
            return _one_of(key, first["input"], schema.literals(key), provenance)
    if isinstance(cause, ConflictError):
        got = ", ".join(
            f"{name} {_shown(at(schema.values, (*key, name)))}"
            for name in cause.keys
            if name not in ("password", "token")
        )
        return Problem(
            provenance.where_last(key, cause.keys), rule=str(cause), got=got or None, remedy=cause.remedy
        )
    hide = isinstance(cause, UnshownError)
    rules = dict.fromkeys(_rule(detail) for detail in details)
    rule = " or ".join(
        rule if index == 0 else rule.removeprefix("should be ") for index, rule in enumerate(rules)
    )
    return Problem(
        provenance.where(key, hide=hide),
        rule=rule,
        got=None if hide else _shown(first["input"]),
        remedy=_of_section(key, first, provenance)
        or _remedy(first, key if provenance.by_override(key) else None),
    )


def _rule(detail: ErrorDetails) -> str:
    if detail["type"] in WORDS:
        return WORDS[detail["type"]].format(**detail.get("ctx", {}))
    message = detail["msg"].removeprefix("Value error, ")
    return message.replace("Input should", "should", 1) if message.startswith("Input should") else message


def _of_section(key: Key, detail: ErrorDetails, provenance: Provenance) -> str | None:
    """What to do about a section that is no mapping: `tracking: off` may be meant as a choice."""
    if len(key) > 1 or detail["type"] not in ("dict_type", "model_type", "model_attributes_type"):
        return None
    (section,), value = key, detail["input"]
    groups = _groups(provenance)
    if (choice := groups.meant(section, value)) is not None:
        shown = f'"{choice}"' if choice.lower() in SafeConstructor.bool_values else choice
        return f"choose it in the defaults list: `defaults: [{section}: {shown}, _self_]`"
    if choices := groups.choices(section):
        return f"choose from the group in the defaults list: {', '.join(choices)}"
    return "leave it out" if value is None or value is False else None


def _groups(provenance: Provenance) -> Groups:
    return Groups((provenance.file.parent, *Groups().roots))


def _remedy(detail: ErrorDetails, overridden: Key | None) -> str | None:
    """What to do about the mistakes that YAML invites, in a file or in the override of a key."""
    value = detail["input"]
    if detail["type"] in NUMBERS and isinstance(value, str):
        return _as_number(value.strip(), whole=detail["type"] != "float_type")
    if detail["type"] in NUMBERS and isinstance(value, float) and value.is_integer():
        return f"write {value:.0f}"
    if detail["type"] == "string_type" and isinstance(value, bool | int | float):
        text = str(value).lower() if isinstance(value, bool) else value
        return f"write \"{dotted(overridden)}='{text}'\"" if overridden else "put it in quotes"
    if detail["type"] == "literal_error" and isinstance(value, bool) and "'off'" in detail["ctx"]["expected"]:
        return 'YAML reads off as false: write "off" with its quotes'
    return None


def _as_number(text: str, *, whole: bool) -> str | None:
    """How a number is written that was given as text."""
    if re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", text) or (
        not whole and re.fullmatch(r"[-+]?[0-9]+\.[0-9]*", text)
    ):
        return "drop the quotes; a number from the environment is written ${oc.decode:${oc.env:NAME}}"
    if found := re.fullmatch(r"\+?(-?)0[0_]*([1-9][0-9_]*)", text):
        return f"write {found[1]}{found[2]}, without the 0 in front"
    return None


def _one_of(key: Key, got: Any, choices: list[str], provenance: Provenance) -> Problem:
    close = nearest(str(got), choices)
    rule = f"should be {' or '.join(choices)}"
    return Problem(
        provenance.where(key),
        rule=rule,
        got=_shown(got),
        remedy=f"did you mean '{close}'?" if close else None,
    )


def _unknown(key: Key, value: Any, schema: Fields, provenance: Provenance) -> Problem:
    name, fields = key[-1], schema.fields(key[:-1])
    chosen = provenance.where_chosen(key)
    groups = [] if len(key) > 1 else _groups(provenance).names()
    by_override = provenance.where(key).startswith("override")
    others = [] if len(key) > 1 else groups if by_override else ["defaults"]
    close = nearest(name, [*fields, *others])
    others_have = [kind for kind in schema.kinds_with(key) if kind != at(schema.values, (*key[:-1], "kind"))]
    if chosen is not None:
        remedy = "give the group's file a `# @package` with the key that it belongs under"
    elif name in groups:
        remedy = f"choose from the group in the defaults list: `defaults: [{name}: ..., _self_]`"
    elif close is None and others_have:
        remedy = f"it belongs to kind {' or '.join(others_have)}"
    else:
        remedy = f"did you mean '{close}'?" if close else f"known here: {', '.join(fields)}"
    secret = close in fields and any(
        isinstance(mark, Pattern) and mark.secret for mark in _marks(fields[close])
    )
    return Problem(
        chosen or provenance.where(key, hide=secret),
        rule="unknown key",
        got=None if secret else _shown(value),
        remedy=remedy,
    )


def _marks(field: FieldInfo) -> Iterator[Any]:
    """Metadata of `Annotated` on the field and inside its type."""
    yield from field.metadata
    for part in parts(field.annotation):
        yield from getattr(part, "__metadata__", ())


def _shown(value: Any) -> str | None:
    """A value as a message shows it: as YAML would have it, and short."""
    if isinstance(value, dict | BaseModel):
        return "a mapping"
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
