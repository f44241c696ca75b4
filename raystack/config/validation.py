"""pydantic's errors -> Problems in the user's words: one per key, with its place, its rule and the nearest
valid name.
"""

import json
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from raystack.config.choices import Groups
from raystack.config.interpolation import Unresolved
from raystack.config.provenance import Key, Provenance
from raystack.config.section import ConflictError, Pattern, UnshownError
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
    return [_problem(key, details, _Schema(model, values), provenance) for key, details in by_key.items()]


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


def _problem(key: Key, details: list[ErrorDetails], schema: "_Schema", provenance: Provenance) -> Problem:
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
            remedy = "drop the override" if provenance.deleted(key) else f"add {'.'.join(key)}"
            return Problem(provenance.where(key), rule="is required", remedy=remedy)
        case "union_tag_invalid":
            context = first["ctx"]
            choices = [choice.strip("'") for choice in context["expected_tags"].split(", ")]
            return _one_of((*key, "kind"), context["tag"], choices, provenance)
        case "union_tag_not_found":
            remedy = f"add {'.'.join(key)}.kind: {' or '.join(schema.kinds(key))}"
            return Problem(provenance.where((*key, "kind")), rule="is required", remedy=remedy)
        case "literal_error" if len(details) == 1 and isinstance(first["input"], str):
            return _one_of(key, first["input"], schema.literals(key), provenance)
    if isinstance(cause, ConflictError):
        got = ", ".join(
            f"{name} {_shown(_at(schema.values, (*key, name)))}"
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
        remedy=_remedy(first),
    )


def _rule(detail: ErrorDetails) -> str:
    if detail["type"] in WORDS:
        return WORDS[detail["type"]].format(**detail.get("ctx", {}))
    message = detail["msg"].removeprefix("Value error, ")
    return message.replace("Input should", "should", 1) if message.startswith("Input should") else message


def _remedy(detail: ErrorDetails) -> str | None:
    """What to do about the mistakes that YAML invites."""
    value = detail["input"]
    if (
        detail["type"] in NUMBERS
        and isinstance(value, str)
        and value.strip().lstrip("+-").replace(".", "", 1).isdigit()
    ):
        return "drop the quotes; a number from the environment is written ${oc.decode:${oc.env:NAME}}"
    if detail["type"] == "string_type" and isinstance(value, bool | int | float):
        return "put it in quotes"
    if detail["type"] == "literal_error" and isinstance(value, bool) and "'off'" in detail["ctx"]["expected"]:
        return 'YAML reads off as false: write "off" with its quotes'
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


def _unknown(key: Key, value: Any, schema: "_Schema", provenance: Provenance) -> Problem:
    name, fields = key[-1], schema.fields(key[:-1])
    groups = [] if len(key) > 1 else Groups((provenance.file.parent, *Groups().roots)).names()
    by_override = provenance.where(key).startswith("override")
    others = [] if len(key) > 1 else groups if by_override else ["defaults"]
    close = nearest(name, [*fields, *others])
    if name in groups:
        remedy = f"choose from the group in the defaults list: `defaults: [{name}: ..., _self_]`"
    else:
        remedy = f"did you mean '{close}'?" if close else f"known here: {', '.join(fields)}"
    secret = close in fields and any(
        isinstance(mark, Pattern) and mark.secret for mark in _marks(fields[close])
    )
    return Problem(
        provenance.where(key, hide=secret),
        rule="unknown key",
        got=None if secret else _shown(value),
        remedy=remedy,
    )


class _Schema:
    """What the model allows under a key, given the values: of a union, the branch that `kind` chooses."""

    def __init__(self, model: type[BaseModel], values: dict[str, Any]) -> None:
        self.model, self.values = model, values

    def fields(self, key: Key) -> dict[str, FieldInfo]:
        """Fields under `key`, by the name they have in YAML."""
        models = self._models(key)
        chosen = [
            model
            for model in models
            if _at(self.values, (*key, "kind")) in _literals(model.model_fields.get("kind"))
        ]
        return {
            field.alias or name: field
            for model in chosen or models
            for name, field in model.model_fields.items()
        }

    def kinds(self, key: Key) -> list[str]:
        return [kind for model in self._models(key) for kind in _literals(model.model_fields.get("kind"))]

    def literals(self, key: Key) -> list[str]:
        return [str(choice) for choice in _literals(self.fields(key[:-1]).get(key[-1]))]

    def _models(self, key: Key) -> list[type[BaseModel]]:
        if not key:
            return [self.model]
        field = self.fields(key[:-1]).get(key[-1])
        return (
            []
            if field is None
            else [
                part
                for part in parts(field.annotation)
                if isinstance(part, type) and issubclass(part, BaseModel)
            ]
        )


def _at(values: Any, key: Key) -> Any:
    for name in key:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _literals(field: FieldInfo | None) -> list[Any]:
    if field is None:
        return []
    return [
        choice
        for part in parts(field.annotation)
        if typing.get_origin(part) is typing.Literal
        for choice in typing.get_args(part)
    ]


def _marks(field: FieldInfo) -> Iterator[Any]:
    """Metadata of `Annotated` on the field and inside its type."""
    yield from field.metadata
    for part in parts(field.annotation):
        yield from getattr(part, "__metadata__", ())


def parts(annotation: Any) -> Iterator[Any]:
    """The annotation and all that it is made of."""
    yield annotation
    if typing.get_origin(annotation) is not typing.Literal:
        for argument in typing.get_args(annotation):
            yield from parts(argument)


def _shown(value: Any) -> str | None:
    """A value as a message shows it: as YAML would have it, and short."""
    if isinstance(value, dict | BaseModel):
        return "a mapping"
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
