"""pydantic's errors -> Problems in the user's words: one per key, with its place, its rule and the nearest valid name."""

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from raystack.config.provenance import Key, Provenance
from raystack.errors import Problem, nearest


def problems(error: ValidationError, model: type[BaseModel], values: dict[str, Any], provenance: Provenance) -> list[Problem]:
    """One Problem per key that is wrong, in the order of the schema."""
    by_key: dict[Key, list[ErrorDetails]] = {}
    for detail in error.errors():
        by_key.setdefault(_key(detail, values), []).append(detail)
    return [_problem(key, details, model, provenance) for key, details in by_key.items()]


def _key(detail: ErrorDetails, values: dict[str, Any]) -> Key:
    """The user's key: pydantic also puts the branches of a union into its location, and those are not in the file."""
    key: list[str] = []
    node: Any = values
    missing = detail["type"] == "missing"
    for index, part in enumerate(detail["loc"]):
        last = index == len(detail["loc"]) - 1
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif not (missing and last):
            continue
        key.append(str(part))
    return tuple(key)


def _problem(key: Key, details: list[ErrorDetails], model: type[BaseModel], provenance: Provenance) -> Problem:
    where, first = provenance.where(key) if key else "config", details[0]
    match first["type"]:
        case "extra_forbidden":
            known = list(_fields(model, key[:-1]))
            close = nearest(key[-1], known)
            remedy = f"did you mean '{close}'?" if close else f"known here: {', '.join(known)}"
            return Problem(where, rule="unknown key", got=_short(first["input"]), remedy=remedy)
        case "missing":
            return Problem(where, rule="is required", remedy=f"add {'.'.join(key)}")
        case "union_tag_invalid":
            context = first["ctx"]
            choices = context["expected_tags"].replace(", ", " or ")
            return Problem(provenance.where((*key, "kind")), rule=f"should be {choices}", got=repr(context["tag"]))
    rules = dict.fromkeys(_rule(detail) for detail in details)
    got = None if isinstance(first["input"], (BaseModel, dict)) else _short(first["input"])
    return Problem(where, rule=" or ".join(rules), got=got)


def _rule(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    return message.replace("Input should", "should", 1) if message.startswith("Input should") else message


def _fields(model: type[BaseModel], key: Key) -> Iterator[str]:
    """Names that are valid under `key`."""
    models = [model]
    for name in key:
        models = [
            inner
            for outer in models
            for field_name, field in outer.model_fields.items()
            if name in (field_name, field.alias)
            for inner in _models(field.annotation)
        ]
    for candidate in models:
        yield from (field.alias or name for name, field in candidate.model_fields.items())


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
