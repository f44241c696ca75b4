"""What RunConfig allows under a dotted key: its fields, kinds and words, in lists and mappings too."""

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raystack.config.source import Key, is_index


class Fields:
    """What the model allows under a key, given the values: of a union, the branch that `kind` chooses."""

    def __init__(self, model: type[BaseModel], values: Mapping[str, Any]) -> None:
        self.model, self.values = model, values

    def fields(self, key: Key) -> dict[str, FieldInfo]:
        """Fields under `key`, by the name they have in YAML."""
        models = self._models(key)
        given = at(self.values, (*key, "kind"))
        chosen = [model for model in models if _has_kind(model, given)]
        return {
            field.alias or name: field
            for model in chosen or models
            for name, field in model.model_fields.items()
        }

    def kinds(self, key: Key) -> list[str]:
        """The words that `kind` may be under `key`."""
        return [kind for model in self._models(key) for kind in literals(model.model_fields.get("kind"))]

    def kinds_with(self, key: Key) -> list[str]:
        """Of the section that holds `key`, the kinds that have a field of this name."""
        return [
            kind
            for model in self._models(key[:-1])
            if key[-1] in {field.alias or name for name, field in model.model_fields.items()}
            for kind in literals(model.model_fields.get("kind"))
        ]

    def literals(self, key: Key) -> list[str]:
        """The words that `key` may be."""
        return [str(choice) for part in self._annotations(key) for choice in _words(part)]

    def holds(self, key: Key, *kinds: object) -> bool:
        """Whether a value of one of the Python types `kinds`, or of any type, may stand under `key`."""
        return any((typing.get_origin(part) or part) in (Any, *kinds) for part in self._annotations(key))

    def known(self, key: Key) -> bool:
        """Whether anything may stand under `key`."""
        return bool(self._annotations(key))

    def _models(self, key: Key) -> list[type[BaseModel]]:
        if not key:
            return [self.model]
        found = self._annotations(key)
        return [part for part in found if isinstance(part, type) and issubclass(part, BaseModel)]

    def _annotations(self, key: Key) -> list[Any]:
        """The types that may stand under `key`, each branch of a union for itself."""
        if not key:
            return [self.model]
        if (field := self.fields(key[:-1]).get(key[-1])) is not None:
            return list(_branches(field.annotation))
        found = []
        for outer in self._annotations(key[:-1]):
            origin, arguments = typing.get_origin(outer), typing.get_args(outer)
            if outer is Any:
                found.append(Any)
            elif origin is dict:
                found.extend(_branches(arguments[1]))
            elif origin in (tuple, list) and is_index(key[-1]):
                index = 0 if arguments[-1] is Ellipsis or origin is list else int(key[-1])
                found.extend(part for inner in arguments[index : index + 1] for part in _branches(inner))
        return found


def at(values: Any, key: Key) -> Any:
    """The value under `key`; None where there is none."""
    for name in key:
        if isinstance(values, list) and is_index(name):
            values = values[int(name)] if int(name) < len(values) else None
        else:
            values = values.get(name) if isinstance(values, dict) else None
    return values


def literals(field: FieldInfo | None) -> list[Any]:
    """The words of a field's Literal."""
    return [] if field is None else [word for part in parts(field.annotation) for word in _words(part)]


def parts(annotation: Any) -> Iterator[Any]:
    """The annotation and all that it is made of."""
    yield annotation
    if typing.get_origin(annotation) is not typing.Literal:
        for argument in typing.get_args(annotation):
            yield from parts(argument)


def _branches(annotation: Any) -> Iterator[Any]:
    """Of a union its branches, without what `Annotated` says of them."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _branches(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for branch in typing.get_args(annotation):
            yield from _branches(branch)
    else:
        yield annotation


def _words(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()


def _has_kind(model: type[BaseModel], kind: Any) -> bool:
    """Whether `kind`, or its absence, chooses this branch of a union."""
    field = model.model_fields.get("kind")
    if field is None or kind is None:
        return field is not None and not field.is_required()
    return kind in literals(field)
