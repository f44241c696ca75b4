"""JSON as every parser reads it: a number that is not finite is null."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

_TAG = "$float"


def dumps(
    value: Any, *, indent: int | None = None, sort_keys: bool = False, ensure_ascii: bool = True
) -> str:
    """Return `value` as JSON, with null for NaN and the infinities, which JSON does not have."""
    return json.dumps(
        _finite(value), indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii, allow_nan=False
    )


def numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return numbers by name as they were before `dumps`; null is NaN."""
    return {name: math.nan if value is None else value for name, value in values.items()}


def tagged(value: Any) -> Any:
    """Return `value` with {"$float": "inf"} for each number in it that JSON does not have, for `untagged`."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_TAG: str(value)}
    return _mapped(tagged, value)


def untagged(value: Any) -> Any:
    """Return what `tagged` was given."""
    if isinstance(value, dict) and value.keys() == {_TAG}:
        return float(value[_TAG])
    return _mapped(untagged, value)


def _finite(value: Any) -> Any:
    """Return `value` with None for each number in it that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _mapped(_finite, value)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return `value` with each entry of a mapping or list changed."""
    if isinstance(value, Mapping):
        return {key: change(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [change(each) for each in value]
    return value
