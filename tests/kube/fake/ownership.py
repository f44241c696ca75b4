"""Who owns which field: server-side apply, and the bookkeeping in managedFields of every other write.

A set of fields is a set of paths, and a path is a tuple of fieldsV1 elements: `f:spec`, `k:{"name":"main"}`, `v:"a"`. In go the live
object, what was applied and the schema, which says what merges; out comes the object that results, or a conflict.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fake.kinds import Object, Schema
from fake.refusal import RefusedError
from fake.schema import child, is_atomic_map, is_field, item, key_of, list_type

Path = tuple[str, ...]
Paths = frozenset[Path]

_INSIDE = object()  # stands for the value of something that has fields of its own
_STRIPPED = {
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    *(
        ("f:metadata", f"f:{key}")
        for key in ("name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion")
    ),
}


@dataclass(frozen=True)
class Manager:
    """One entry of managedFields."""

    name: str
    operation: str
    api_version: str
    time: str
    subresource: str = ""
    paths: Paths = frozenset()

    @property
    def id(self) -> tuple[str, str, str]:
        """What tells two entries apart."""
        return self.name, self.operation, self.subresource

    @property
    def entry(self) -> Object:
        """As it stands in an object."""
        tree: Object = {}
        for path in sorted(self.paths):
            node = tree
            for element in path:
                node = node.setdefault(element, {})
            node["."] = {}
        below = {"subresource": self.subresource} if self.subresource else {}
        named = {"manager": self.name, "operation": self.operation, "apiVersion": self.api_version, "time": self.time}
        return {**named, "fieldsType": "FieldsV1", "fieldsV1": _without_lone_dots(tree), **below}

    def __str__(self) -> str:
        below = f' with subresource "{self.subresource}"' if self.subresource else ""
        when = f" using {self.api_version} at {self.time}" if self.operation == "Update" else ""
        return f'"{self.name}"{below}{when}'


def managers(obj: Object | None) -> list[Manager]:
    """Entries of an object's managedFields."""
    found = []
    for entry in (obj or {}).get("metadata", {}).get("managedFields", ()):
        paths = frozenset(_paths(entry.get("fieldsV1", {})))
        found.append(Manager(entry["manager"], entry["operation"], entry["apiVersion"], entry["time"], entry.get("subresource", ""), paths))
    return found


def with_managers(obj: Object, owners: list[Manager]) -> Object:
    """The object with these entries; those that own nothing are left out."""
    entries = [owner.entry for owner in owners if owner.paths]
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": {**metadata, **({"managedFields": entries} if entries else {})}}


def apply(schema: Schema, live: Object | None, applied: Object, manager: Manager, *, force: bool) -> Object:
    """Server-side apply. Raises RefusedError with 409 where others own what would change, unless it is forced."""
    mine = frozenset(flat(schema, applied))
    owners = managers(live)
    before = flat(schema, live) if live is not None else {}
    merged = _merge(schema, live, applied) if live is not None else applied
    changed = frozenset(path for path, value in flat(schema, merged).items() if path not in before or before[path] != value)
    others = [owner for owner in owners if owner.id != manager.id]
    if conflicts := [(owner, path) for owner in others for path in sorted(owner.paths & changed)]:
        if not force:
            raise _conflict(conflicts)
        others = [replace(owner, paths=owner.paths - changed) for owner in others]
    former = next((owner for owner in owners if owner.id == manager.id), None)
    kept = mine.union(*(owner.paths for owner in others))
    for path in sorted(former.paths if former else (), key=len, reverse=True):
        if not any(other[: len(path)] == path for other in kept):
            merged = _remove(schema, merged, path)
    time = former.time if former is not None and former.paths == mine and not changed else manager.time
    return with_managers(merged, [*others, replace(manager, paths=mine, time=time)])


def update(schema: Schema, live: Object | None, new: Object, manager: Manager) -> Object:
    """Any other write: the manager comes to own what it changed, and nobody owns what is gone."""
    before, after = flat(schema, live) if live is not None else {}, flat(schema, new)
    changed = frozenset(path for path, value in after.items() if path not in before or before[path] != value)
    gone = before.keys() - after.keys()
    if not changed and not gone:
        return with_managers(new, managers(live))
    owners = [replace(owner, paths=owner.paths - gone - (frozenset() if owner.id == manager.id else changed)) for owner in managers(live)]
    mine = next((owner for owner in owners if owner.id == manager.id), manager)
    owners = [owner for owner in owners if owner.id != manager.id]
    return with_managers(new, [*owners, replace(manager, paths=mine.paths | changed)])


def flat(schema: Schema, obj: Object) -> dict[Path, Any]:
    """Fields that can be owned, with their values."""
    return {
        path: value for path, value in _flat(schema, obj, ()) if path not in _STRIPPED and path[:2] != ("f:metadata", "f:managedFields")
    }


def _flat(schema: Schema, value: Any, at: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and not is_atomic_map(schema):
        for key, inner in value.items():
            path = (*at, f"f:{key}")
            below = child(schema, key) or {}
            if not is_field(schema, key) and isinstance(inner, dict) and inner:
                yield path, _INSIDE
            yield from _flat(below, inner, path)
    elif isinstance(value, list) and value and list_type(schema) != "atomic":
        for inner in value:
            path = (*at, _element(schema, inner))
            yield path, _INSIDE if isinstance(inner, dict) else inner
            if isinstance(inner, dict):
                yield from _flat(item(schema), inner, path)
    else:
        yield at, value


def _element(schema: Schema, inner: Any) -> str:
    if list_type(schema) == "map":
        return "k:" + json.dumps(key_of(schema, inner), sort_keys=True, separators=(",", ":"))
    return "v:" + json.dumps(inner, separators=(",", ":"))


def _merge(schema: Schema, live: Any, applied: Any) -> Any:
    if isinstance(applied, dict) and isinstance(live, dict) and not is_atomic_map(schema):
        merged = dict(live)
        for key, inner in applied.items():
            merged[key] = _merge(child(schema, key) or {}, live[key], inner) if key in live else inner
        return merged
    if isinstance(applied, list) and isinstance(live, list) and list_type(schema) != "atomic":
        items = {_element(schema, inner): inner for inner in live}
        for inner in applied:
            key = _element(schema, inner)
            items[key] = _merge(item(schema), items[key], inner) if key in items else inner
        return list(items.values())
    return applied


def _remove(schema: Schema, value: Any, path: Path) -> Any:
    """The value without what is at the path; an object or list that becomes empty goes with it."""
    element, below = path[0], path[1:]
    if isinstance(value, dict) and element.startswith("f:") and element[2:] in value:
        key = element[2:]
        rest = {other: inner for other, inner in value.items() if other != key}
        if below:
            kept = _remove(child(schema, key) or {}, value[key], below)
            return value if kept is value[key] else {other: kept if other == key else value[other] for other in value} if kept else rest
        return rest
    if isinstance(value, list) and element[:2] in ("k:", "v:"):
        found = []
        for inner in value:
            if _element(schema, inner) != element:
                found.append(inner)
            elif below:
                found.append(_remove(item(schema), inner, below))
        return found
    return value


def _paths(tree: Mapping[str, Any], at: Path = ()) -> Iterator[Path]:
    for element, inner in tree.items():
        if element == ".":
            yield at
        elif inner:
            yield from _paths(inner, (*at, element))
        else:
            yield (*at, element)


def _without_lone_dots(tree: Object) -> Object:
    """A leaf is written as {}, not as one that holds itself alone."""
    return {key: {} if inner == {".": {}} else _without_lone_dots(inner) for key, inner in tree.items()}


def _conflict(conflicts: list[tuple[Manager, Path]]) -> RefusedError:
    if len(conflicts) == 1:
        owner, path = conflicts[0]
        message = f"Apply failed with 1 conflict: conflict with {owner}: {_written(path)}"
    else:
        by_owner: dict[str, list[str]] = {}
        for owner, path in conflicts:
            by_owner.setdefault(str(owner), []).append(_written(path))
        lines = [line for name in sorted(by_owner) for line in (f"conflicts with {name}:", *(f"- {path}" for path in by_owner[name]))]
        message = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    causes = [{"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": _written(path)} for owner, path in conflicts]
    return RefusedError(409, "Conflict", message, causes=causes)


def _written(path: Path) -> str:
    """As in messages: `.spec.containers[name="main"].image`."""
    text = ""
    for element in path:
        kind, value = element[:2], element[2:]
        if kind == "f:":
            text += f".{value}"
        elif kind == "v:":
            text += f"[={value}]"
        else:
            text += "[" + ",".join(f"{key}={json.dumps(inner)}" for key, inner in json.loads(value).items()) + "]"
    return text
