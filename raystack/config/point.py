"""A config with other values at some of its paths, as a search needs it thousands of times.

In: a valid RunConfig, and values by dotted path. Out: a RunConfig that passed the same validation as a file.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from raystack.config.fields import Fields
from raystack.config.mapping import NAME, from_mapping
from raystack.config.run import RunConfig
from raystack.config.source import Key, is_index
from raystack.errors import ConfigError


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Return the config with `values` at their dotted paths, set in this order.

    Where a `kind` changes, keys that both kinds have stay and those of the old kind are dropped. Raises
    ConfigError if the result is invalid.
    """
    data = config.model_dump()
    for path, value in values.items():
        _set(data, tuple(path.split(".")), value)
    try:
        return RunConfig.model_validate(data)
    except ValidationError:
        return _explained(data)


def _explained(data: dict[str, Any]) -> RunConfig:
    """Validate as a file is, which takes a hundred times as long and words the mistakes for people."""
    try:
        return from_mapping(data)
    except ConfigError as error:
        line = re.compile(rf"^{re.escape(NAME)}:\d+: ")
        raise ConfigError(replace(each, where=line.sub("", each.where)) for each in error.problems) from None


def _set(data: dict[str, Any], key: Key, value: Any) -> None:
    *parents, last = key
    node: Any = data
    for name in parents:
        if isinstance(node, list) and is_index(name):
            node = node[int(name)]
            continue
        inner = node.get(name)
        if isinstance(inner, tuple):
            inner = node[name] = list(inner)
        elif not isinstance(inner, (dict, list)):
            inner = node[name] = {}
        node = inner
    if isinstance(node, list):
        node[int(last)] = value
        return
    changed = last == "kind" and node.get(last) != value
    node[last] = value
    if changed:
        known = Fields(RunConfig, data).fields(tuple(parents))
        for name in [name for name in node if name not in known]:
            del node[name]
