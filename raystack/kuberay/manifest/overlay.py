"""The overlay of the config, merged over an object as Kubernetes' strategic merge does.

Lists are merged by the keys that the CRD's schema names: containers, volumes and variables by name, mounts by
mountPath, ports by containerPort; groups of workers by groupName. Other lists are replaced. `null` removes a
field, `$patch: delete` an item of a list or a mapping, and `$patch: replace` keeps nothing of what was there.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raystack.errors import PlanError, Problem, nearest
from raystack.kuberay.lint.schemas import crds
from raystack.kuberay.manifest.parts import Manifest
from raystack.plan import KubePlan
from raystack.plan.kuberay.shape import Taken

Schema = Mapping[str, Any]
PATCH = "$patch"
METADATA = ("labels", "annotations")
LEVELS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "RayCronJob": (("spec",), ("spec", "jobTemplate"), ("spec", "jobTemplate", "rayClusterSpec")),
    "RayJob": (("spec",), ("spec", "rayClusterSpec")),
    "RayService": (("spec",), ("spec", "rayClusterConfig")),
    "RayCluster": (("spec",),),
}
"""Where a key of the overlay may belong in an object, from the outside."""
GROUPS = "workerGroupSpecs"
SHOWN = 60
"""Most characters of a value that is shown."""
WHOLE = ("volumes", "env")
"""Lists whose items are one of several kinds: of an item that is there only the fields given stay."""


def overlaid(plan: KubePlan, made: Manifest) -> Manifest:
    """Return the object with the overlay. Raises PlanError for a key that no object of KubeRay has."""
    over = plan.target.overlay
    if not over:
        return made
    problems: list[Problem] = []
    for key, value in over.items():
        if key == "metadata":
            problems += _metadata_problems(value)
            made = {**made, "metadata": _merged(made["metadata"], value, {}, key)}
        elif (level := _level(made["kind"], key)) is not None:
            made = _inside(made, level, key, value, _schema(made["kind"]))
        elif not any(_level(kind, key) for kind in LEVELS):
            problems.append(_unknown(key))
    if problems:
        raise PlanError(problems)
    return made


def taken(before: Any, after: Any, path: str = "") -> Iterator[Taken]:
    """Yield what `after` has in the place of a value in `before`; what it adds is not listed."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from taken(value, after.get(key), f"{path}.{key}".lstrip("."))
    elif _named(before) and _named(after):
        others = {_name(item): item for item in after}
        for item in before:
            yield from taken(item, others.get(_name(item)), f"{path}[{_name(item)}]")
    elif before != after:
        yield Taken(path, _shown(before), _shown(after))


def _level(kind: str, key: str) -> tuple[str, ...] | None:
    """Return the path of the outermost spec with a field, or None if there is none."""
    schema = _schema(kind)
    for level in LEVELS[kind]:
        inner = schema
        for name in level:
            inner = inner["properties"][name]
        if key in inner["properties"]:
            return level
    return None


def _schema(kind: str) -> Schema:
    found: Schema = crds()[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def _inside(made: Manifest, level: tuple[str, ...], key: str, value: Any, schema: Schema) -> Manifest:
    """Return the object with a field merged at a level."""
    if not level:
        return _merged_object(made, {key: value}, schema)
    name, *rest = level
    inner = _inside(made.get(name, {}), tuple(rest), key, value, schema["properties"][name])
    return {**made, name: inner}


def _merged(base: Any, over: Any, schema: Schema, name: str) -> Any:
    if isinstance(base, dict) and isinstance(over, Mapping):
        return _merged_object(base, over, schema)
    if isinstance(base, list) and isinstance(over, Sequence) and not isinstance(over, str):
        keys = ("groupName",) if name == GROUPS else schema.get("x-kubernetes-list-map-keys")
        if keys:
            return _merged_list(base, over, schema.get("items", {}), tuple(keys), whole=name in WHOLE)
    return _plain(over)


def _merged_object(base: dict[str, Any], over: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    if over.get(PATCH) == "replace":
        return {key: _plain(value) for key, value in over.items() if key != PATCH}
    merged = dict(base)
    for key, value in over.items():
        inner = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
        if value is None or (isinstance(value, Mapping) and value.get(PATCH) == "delete"):
            merged.pop(key, None)
        elif key in merged:
            merged[key] = _merged(merged[key], value, inner if isinstance(inner, dict) else {}, key)
        else:
            merged[key] = _plain(value)
    return merged


def _merged_list(
    base: list[Any], over: Sequence[Any], items: Schema, keys: tuple[str, ...], *, whole: bool
) -> list[Any]:
    """Return the list with each item merged into the one of the same key, or appended."""
    defaults = {key: items.get("properties", {}).get(key, {}).get("default") for key in keys}

    def named(item: Any) -> tuple[Any, ...] | None:
        if not isinstance(item, Mapping):
            return None
        found = tuple(item.get(key, defaults[key]) for key in keys)
        return None if None in found else found

    merged = list(base)
    for item in over:
        if isinstance(item, Mapping) and item.get(PATCH) == "replace" and named(item) is None:
            merged = []
            continue
        name = named(item)
        index = next((i for i, each in enumerate(merged) if name is not None and named(each) == name), None)
        if isinstance(item, Mapping) and item.get(PATCH) == "delete":
            merged = [each for i, each in enumerate(merged) if i != index]
        elif index is None:
            merged.append(_plain(item))
        else:
            both = _merged_object(merged[index], item, items)
            merged[index] = {key: both[key] for key in both if key in item} if whole else both
    return merged


def _plain(value: Any) -> Any:
    """Return a value of the config as plain JSON values, without directives and what is null."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if key != PATCH and inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value if not _deleted(inner)]
    return value


def _deleted(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get(PATCH) == "delete"


def _metadata_problems(value: Any) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        yield Problem("target.overlay.metadata", rule="should be a mapping of keys to values")
        return
    for key in value:
        if key not in METADATA:
            rule = "an overlay changes labels and annotations; the rest of the metadata is planned"
            close = nearest(str(key), METADATA)
            remedy = f"did you mean {close}?" if close else "drop it"
            yield Problem(f"target.overlay.metadata.{key}", rule=rule, remedy=remedy)


def _unknown(key: str) -> Problem:
    names = {"metadata"}
    for kind, levels in LEVELS.items():
        for level in levels:
            inner = _schema(kind)
            for name in level:
                inner = inner["properties"][name]
            names |= inner["properties"].keys()
    rule = f"is no field of the specs of {', '.join(LEVELS)}"
    close = nearest(key, sorted(names))
    remedy = f"did you mean {close}?" if close else "see the fields of KubeRay's API reference"
    if key == "spec":
        remedy = "write its fields into the overlay itself"
    return Problem(f"target.overlay.{key}", rule=rule, remedy=remedy)


def _named(value: Any) -> bool:
    """Return whether a value is a list of which every item has a name."""
    return isinstance(value, list) and bool(value) and all(_name(item) is not None for item in value)


def _name(item: Any) -> str | None:
    if not isinstance(item, dict):
        return None
    for key in ("groupName", "mountPath", "containerPort", "name"):
        if key in item:
            return str(item[key])
    return None


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
