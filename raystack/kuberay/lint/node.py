"""Values of a YAML document with their paths.

Rules run on unchecked files, so values that are missing or of the wrong type read as empty instead of
raising. Wrong types are reported by the schema.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Key = str | int
Keys = tuple[Key, ...]

PLAIN = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Node:
    """Value, possibly absent, with its path."""

    value: Any
    keys: Keys = ()

    def __getitem__(self, key: Key) -> "Node":
        inner = None
        if isinstance(self.value, dict):
            inner = self.value.get(key)
        elif isinstance(self.value, list) and isinstance(key, int) and key < len(self.value):
            inner = self.value[key]
        return Node(inner, (*self.keys, key))

    def at(self, *keys: Key) -> "Node":
        """Return the node below several keys."""
        node = self
        for key in keys:
            node = node[key]
        return node

    def find(self, pattern: str) -> Iterator["Node"]:
        """Yield the present nodes below a dotted pattern, in which `*` is any item of a list."""
        first, _, rest = pattern.partition(".")
        for inner in self.items if first == "*" else [self[first]]:
            if inner.present:
                yield from inner.find(rest) if rest else [inner]

    @property
    def present(self) -> bool:
        """True if there is a value; the API server treats null as absent."""
        return self.value is not None

    @property
    def items(self) -> list["Node"]:
        """Items of a list."""
        return [self[index] for index in range(len(self.value))] if isinstance(self.value, list) else []

    @property
    def fields(self) -> dict[str, "Node"]:
        """Fields of a mapping that have a value."""
        if not isinstance(self.value, dict):
            return {}
        return {
            key: self[key] for key, value in self.value.items() if isinstance(key, str) and value is not None
        }

    @property
    def text(self) -> str:
        """Value if it is a string, else an empty one."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def number(self) -> int | None:
        """Value if it is an integer, else None."""
        # bool is a subclass of int.
        return self.value if isinstance(self.value, int) and not isinstance(self.value, bool) else None

    @property
    def true(self) -> bool:
        """True if the value is `true`."""
        return self.value is True

    @property
    def path(self) -> str:
        """Path, e.g. `spec.workerGroupSpecs[0].groupName`."""
        return dotted(self.keys)


def dotted(keys: Keys) -> str:
    """Return the path for messages; keys that are no plain words are in brackets."""
    parts = [f".{key}" if isinstance(key, str) and PLAIN.fullmatch(key) else f"[{key}]" for key in keys]
    return "".join(parts).removeprefix(".")
