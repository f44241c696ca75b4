"""Who owns which field: server-side apply, and the bookkeeping in managedFields of every other write.

A set of fields is a set of paths, and a path is a tuple of fieldsV1 elements: `f:spec`, `k:{"name":"main"}`,
`v:"a"`. In go the live object, what was applied and the schema, which says what merges; out comes the object
that results, or a conflict.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fake.kinds import Object, Schema
from fake.refusal import RefusedError
from fake.schema import child, is_atomic_map, is_field, item, key_of, list_type

Path = tuple[str, ...]
Paths = frozenset[Path]

_ABSENT = object()
_STRIPPED = {
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    *(
        ("f:metadata", f"f:{key}")
        for key in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
        )
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
    def order(self) -> tuple[str, ...]:
        """Where it stands among the others."""
        return self.operation, self.time, self.name, self.api_version, self.subresource

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
        named = {
            "manager": self.name,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
        }
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
        found.append(
            Manager(
                entry["manager"],
                entry["operation"],
                entry["apiVersion"],
                entry["time"],
                entry.get("subresource", ""),
                paths,
            )
        )
    return found


def with_managers(obj: Object, owners: Iterable[Manager]) -> Object:
    """The object with these entries, in the API server's order; those that own nothing are left out."""
    entries = [owner.entry for owner in sorted(owners, key=lambda owner: owner.order) if owner.paths]
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": {**metadata, **({"managedFields": entries} if entries else {})}}


def untimed(obj: Object) -> Object:
    """Without the times of its managers: a write that changes nothing else is none."""
    entries = [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in obj["metadata"].get("managedFields", ())
    ]
    return {**obj, "metadata": {**obj["metadata"], "managedFields": sorted(entries, key=json.dumps)}}


def apply(schema: Schema, live: Object | None, applied: Object, manager: Manager, *, force: bool) -> Object:
    """Server-side apply. Raises RefusedError with 409 where others own what would change, unless it is
    forced.
    """
    mine = field_set(schema, applied)
    owners = managers(live)
    if live is not None and not owners:
        owners = [_before_first_apply(schema, live, manager)]
    others = [owner for owner in owners if owner.id != manager.id]
    former = next((owner.paths for owner in owners if owner.id == manager.id), frozenset())
    merged = applied if live is None else _merge(schema, live, applied)
    merged = _pruned(schema, merged, former, mine.union(*(owner.paths for owner in others)))
    seen = compare(schema, live or {}, merged)
    conflicts = [(owner, path) for owner in others for path in sorted(owner.paths & seen.taken)]
    if conflicts and not force:
        raise _conflict(conflicts)
    others = [replace(owner, paths=owner.paths - seen.taken - seen.removed) for owner in others]
    return with_managers(merged, [*others, replace(manager, paths=mine)])


def update(schema: Schema, live: Object | None, new: Object, manager: Manager) -> Object:
    """Any other write: the manager comes to own what it changed, and nobody owns what is gone.

    What nobody has managed since it was made is not managed until the first apply.
    """
    return _updated(schema, live, live or {}, new, manager)


def create(schema: Schema, blank: Object, new: Object, manager: Manager) -> Object:
    """The first write. `blank` is what a new object of the kind has, of which nobody becomes the owner."""
    return _updated(schema, None, blank, new, manager)


def _updated(schema: Schema, live: Object | None, before: Object, new: Object, manager: Manager) -> Object:
    owners = managers(live)
    if live is not None and not owners:
        return with_managers(new, [])
    seen = compare(schema, before, new)
    kept = [
        replace(
            owner, paths=owner.paths - seen.removed - (frozenset() if owner.id == manager.id else seen.taken)
        )
        for owner in owners
    ]
    if not seen.taken:
        return with_managers(new, kept)
    former = next((owner.paths for owner in kept if owner.id == manager.id), frozenset())
    others = [owner for owner in kept if owner.id != manager.id]
    return with_managers(new, [*others, replace(manager, paths=former | seen.taken)])


@dataclass(frozen=True)
class Comparison:
    """How an object differs from what it was: not the fields that changed alone, but whole objects that came
    or went, too.
    """

    added: Paths
    removed: Paths
    modified: Paths

    @property
    def taken(self) -> Paths:
        """What whoever wrote it comes to own."""
        return self.added | self.modified


def compare(schema: Schema, before: Object, after: Object) -> Comparison:
    """Compare two states of an object."""
    seen: dict[str, set[Path]] = {"added": set(), "removed": set(), "modified": set()}
    for change, path in _compared(schema, before, after, ()):
        if path and not _is_stripped(path):
            seen[change].add(path)
    return Comparison(*(frozenset(seen[change]) for change in ("added", "removed", "modified")))


def field_set(schema: Schema, applied: Object) -> Paths:
    """What whoever applies this comes to own: its leaves, the items of its lists, and keys of maps."""
    return frozenset(path for path in _fields(schema, applied, ()) if not _is_stripped(path))


def _before_first_apply(schema: Schema, live: Object, manager: Manager) -> Manager:
    """Who owns an object that was made by somebody whom nobody has noted."""
    unmanaged = {key: value for key, value in live.items() if key != "status"}
    return replace(
        manager, name="before-first-apply", operation="Update", paths=compare(schema, {}, unmanaged).added
    )


def _pruned(schema: Schema, merged: Object, former: Paths, kept: Paths) -> Object:
    """The object without what its manager has applied before, applies no more, and nobody else owns."""
    for path in sorted(former, key=len, reverse=True):
        if not any(other[: len(path)] == path for other in kept):
            merged = _remove(schema, merged, path)
    return merged


def _is_stripped(path: Path) -> bool:
    return path in _STRIPPED or path[:2] == ("f:metadata", "f:managedFields")


def _compared(schema: Schema, before: Any, after: Any, at: Path) -> Iterator[tuple[str, Path]]:
    inner = _inner(schema, before, after)
    if inner is None:
        if before is _ABSENT or after is _ABSENT or before != after:
            yield _change(before, after), at
        return
    for element, below, left, right in inner:
        yield from _compared(below, left, right, (*at, element))
    if before is _ABSENT or after is _ABSENT:
        yield _change(before, after), at


def _change(before: Any, after: Any) -> str:
    return "added" if before is _ABSENT else "removed" if after is _ABSENT else "modified"


def _inner(schema: Schema, before: Any, after: Any) -> list[tuple[str, Schema, Any, Any]] | None:
    """What both hold, side by side; None where they are compared as a whole: leaves, atomic values, and what
    is empty on both sides.
    """
    there = [value for value in (before, after) if value is not _ABSENT and value is not None]
    if not any(there):
        return None
    if all(isinstance(value, dict) for value in there) and not is_atomic_map(schema):
        left, right = (value if isinstance(value, dict) else {} for value in (before, after))
        keys = [*left, *(key for key in right if key not in left)]
        return [
            (f"f:{key}", child(schema, key) or {}, left.get(key, _ABSENT), right.get(key, _ABSENT))
            for key in keys
        ]
    if all(isinstance(value, list) for value in there) and list_type(schema) != "atomic":
        left, right = (
            {_element(schema, each): each for each in value} if isinstance(value, list) else {}
            for value in (before, after)
        )
        elements = [*left, *(element for element in right if element not in left)]
        return [
            (element, item(schema), left.get(element, _ABSENT), right.get(element, _ABSENT))
            for element in elements
        ]
    return None


def _fields(schema: Schema, value: Any, at: Path) -> Iterator[Path]:
    if isinstance(value, dict) and not is_atomic_map(schema):
        for key, inner in value.items():
            path = (*at, f"f:{key}")
            if inner is None or inner == {} or not is_field(schema, key):
                yield path
            yield from _fields(child(schema, key) or {}, inner, path)
    elif isinstance(value, list) and list_type(schema) != "atomic":
        for inner in value:
            path = (*at, _element(schema, inner))
            yield path
            yield from _fields(item(schema), inner, path)
    else:
        yield at


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
            return (
                value
                if kept is value[key]
                else {other: kept if other == key else value[other] for other in value}
                if kept
                else rest
            )
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
        lines = [
            line
            for name in sorted(by_owner)
            for line in (f"conflicts with {name}:", *(f"- {path}" for path in by_owner[name]))
        ]
        message = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": _written(path)}
        for owner, path in conflicts
    ]
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
            text += (
                "[" + ",".join(f"{key}={json.dumps(inner)}" for key, inner in json.loads(value).items()) + "]"
            )
    return text
