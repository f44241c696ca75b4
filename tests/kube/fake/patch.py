"""Patches that are no apply: JSON merge patch (RFC 7386), JSON patch (RFC 6902) and Kubernetes' strategic
merge patch.

In go the object and the patch, out comes a new object.
"""

import copy
from typing import Any

from fake.kinds import Schema
from fake.refusal import malformed
from fake.schema import child, item, resolve


def merge(value: Any, patch: Any) -> Any:
    """JSON merge patch: a null deletes, a list replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for key, inner in patch.items():
        if inner is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), inner)
    return merged


def strategic(schema: Schema, value: Any, patch: Any) -> Any:
    """Like merge, and lists with a merge key merge item by item. Of the directives it knows deleting and
    replacing.
    """
    schema = resolve(schema)
    if isinstance(patch, dict):
        return _strategic_object(schema, value, patch)
    key = schema.get("x-kubernetes-patch-merge-key")
    if isinstance(patch, list) and "merge" in schema.get("x-kubernetes-patch-strategy", ""):
        merged = list(value or ())
        for inner in patch:
            if key is None:
                merged += [inner] if inner not in merged else []
                continue
            at = next(
                (index for index, existing in enumerate(merged) if existing.get(key) == inner.get(key)), None
            )
            if isinstance(inner, dict) and inner.get("$patch") == "delete":
                merged = merged if at is None else merged[:at] + merged[at + 1 :]
            elif at is None:
                merged.append(strategic(item(schema), {}, inner))
            else:
                merged[at] = strategic(item(schema), merged[at], inner)
        return merged
    return patch


def _strategic_object(schema: Schema, value: Any, patch: dict[str, Any]) -> Any:
    if patch.get("$patch") == "replace":
        return {key: inner for key, inner in patch.items() if key != "$patch"}
    merged = dict(value) if isinstance(value, dict) else {}
    for key, inner in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            merged[name] = [kept for kept in merged.get(name, ()) if kept not in inner]
        elif key.startswith("$"):
            continue
        elif inner is None:
            merged.pop(key, None)
        else:
            merged[key] = strategic(child(schema, key) or {}, merged.get(key), inner)
    return merged


def json_patch(value: Any, operations: list[dict[str, Any]]) -> Any:
    """JSON patch with its operations add, remove, replace and test."""
    root = {"": copy.deepcopy(value)}
    for operation in operations:
        *parents, last = [""] + [_unescape(part) for part in operation["path"].split("/")[1:]]
        try:
            holder: Any = root
            for part in parents:
                holder = holder[int(part)] if isinstance(holder, list) else holder[part]
            _operate(holder, last, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise malformed(
                f"the server rejected our request due to an error in our request: {operation['path']}:"
                f" {error}"
            ) from None
    return root[""]


def _operate(holder: Any, last: str, operation: dict[str, Any]) -> None:
    verb = operation["op"]
    at: Any = last
    if isinstance(holder, list):
        at = len(holder) if last == "-" else int(last)
    if verb == "add" and isinstance(holder, list):
        holder.insert(at, operation["value"])
    elif verb == "add":
        holder[at] = operation["value"]
    elif verb == "replace":
        holder[at]  # there has to be something to replace
        holder[at] = operation["value"]
    elif verb == "remove":
        del holder[at]
    elif verb == "test":
        if holder[at] != operation["value"]:
            raise ValueError("testing value failed")
    else:
        raise ValueError(f"unknown operation {verb}")


def _unescape(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
