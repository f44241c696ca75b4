"""Differences between two objects of Kubernetes, field by field.

In: two objects, or values. Out: paths with the value before and after.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.api.owners import APPLIED

Path = tuple[str, ...]

ABSENT = object()
"""Value of a field that is not there."""
_SERVERS_OWN = (
    "managedFields",
    "resourceVersion",
    "generation",
    "uid",
    "creationTimestamp",
    "selfLink",
    "deletionTimestamp",
    "finalizers",
)
_NAMED_BY = ("groupName", "name", "mountPath", "containerPort", "key")
"""Keys that identify the items of a list; the first that all items have is used."""


def own(obj: Object) -> Object:
    """Return the object without fields that the server and the operator write."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _SERVERS_OWN}
    metadata["annotations"] = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if key != APPLIED
    }
    return {
        **{key: value for key, value in obj.items() if key not in ("status", "apiVersion", "kind")},
        "metadata": metadata,
    }


def differences(before: Any, after: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Yield the deepest fields that differ.

    Lists of named items are compared by their names, other lists as a whole.
    """
    if before == after or (_is_empty(before) and _is_empty(after)):
        return
    left, right = _by_name(before, after)
    if left is None or right is None:
        yield path, before, after
        return
    for key in [*left, *(key for key in right if key not in left)]:
        yield from differences(left.get(key, ABSENT), right.get(key, ABSENT), (*path, key))


def within_text(path: Path, before: Any, after: Any) -> Iterator[tuple[Path, Any, Any]]:
    """Yield the fields that differ inside texts of YAML, such as `serveConfigV2`, or else the values."""
    old, new = _parsed(before), _parsed(after)
    inside = list(differences(old, new, path)) if old is not None and new is not None else []
    yield from inside or [(path, before, after)]


def _parsed(text: Any) -> Any:
    """Return the mapping or list in a text of several lines of YAML, or None."""
    if not isinstance(text, str) or "\n" not in text.strip():
        return None
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return value if isinstance(value, dict | list) else None


def _is_empty(value: Any) -> bool:
    """Return whether a value counts as not set: the operator writes empty fields back."""
    return value is ABSENT or value is None or value in ({}, [])


def _by_name(before: Any, after: Any) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return both values as mappings if they are mappings or keyed lists, whose keys are in brackets."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before, after
    if isinstance(before, list) and isinstance(after, list):
        items = [*before, *after]
        name = next(
            (
                key
                for key in _NAMED_BY
                if items and all(isinstance(item, dict) and key in item for item in items)
            ),
            None,
        )
        if name is not None:
            left, right = ({f"[{item[name]}]": item for item in side} for side in (before, after))
            if len(left) == len(before) and len(right) == len(after):
                return left, right
    return None, None


def written(path: Path) -> str:
    """Return a path as people write it: `spec.workerGroupSpecs[gpu].replicas`."""
    return "".join(
        step if step.startswith("[") or not index else f".{step}" for index, step in enumerate(path)
    )
