"""The origin of config values: a file and line, an override or an environment variable."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override

from raystack.config.overrides import quoted
from raystack.config.source import Key, dotted, is_index, line_of, pairs, read, relative
from raystack.errors import Problem

Place = tuple[int, str]
"""(order in which a value was set, overrides after files; description of the place)."""


@dataclass(frozen=True)
class Layer:
    """A YAML file and the dotted key under which it was merged."""

    file: Path
    package: Key
    chosen: str | None
    """Override or line of a defaults list that chose the file; None for the user's file."""


@dataclass(frozen=True)
class Provenance:
    """The sources of a composed config."""

    file: Path
    """The user's file."""
    overrides: Sequence[Override]
    """Overrides of keys, in order."""
    layers: Callable[[], Sequence[Layer]]
    """Return the files in merge order. A callable, because they take time and only errors need them."""
    own: Path
    """Folder of raystack's own files, which users do not edit."""
    base: Path
    """base.yaml, below all layers. Named only for the exact keys that it sets."""
    variables: dict[Key, str] = field(default_factory=dict)
    """Environment variables from which values were read, by key."""

    def where(self, key: Key, *, hide: bool = False) -> str:
        """Return the last place that set `key` or a parent of it, e.g. `config.yaml:7: training.epochs`.

        For a value that raystack's own files read from the environment, the place is the variable. With
        `hide`, the text of an override ends before its value.
        """
        place, variable = self._nearest(key, hide), self.variables.get(key)
        if variable is not None and self.is_own(key):
            place = f"environment variable {variable}"
        elif variable is not None:
            place += f", from the environment variable {variable}"
        return f"{place}: {dotted(key)}"

    def where_last(self, section: Key, names: Sequence[str]) -> str:
        """Return the place of the key among `names` that was set last, followed by `section`."""
        places = [place for name in names if (place := self._place((*section, name), hide=False)) is not None]
        return f"{max(places)[1]}: {dotted(section)}" if places else self.where(section)

    def where_chosen(self, key: Key) -> str | None:
        """Return the place that chose the file merged as the whole of `key`, or None if no file was."""
        if any(_sets(override, key) for override in self.overrides):
            return None
        for layer in reversed(self.layers()):
            if key == layer.package[: len(key)]:
                return None if layer.chosen is None else f"{layer.chosen}: {dotted(key)}"
            if self._line(layer, key) is not None:
                return None
        return None

    def is_own(self, key: Key) -> bool:
        """Return whether one of raystack's own files sets `key`."""
        place = self._source(key)
        return place is not None and self.own in place.parents

    def by_override(self, key: Key) -> bool:
        """Return whether an override sets exactly `key`."""
        return any(_parts(override) == key and not override.is_delete() for override in self.overrides)

    def deleted(self, key: Key) -> bool:
        """Return whether an override deletes `key`."""
        return any(override.is_delete() and _parts(override) == key for override in self.overrides)

    def waits(self, key: Key) -> bool:
        """Return whether a file sets `key` for another kind of its section than the one that was chosen.

        The kind is chosen by an override or another file: one that stands beside the key is a mistake.
        """
        file, kind = self._source(key), (*key[:-1], "kind")
        chosen = self._source(kind)
        if file is None or file == self.base or chosen == self.base:
            return False
        return chosen != file and (chosen is not None or self.by_override(kind))

    def _source(self, key: Key) -> Path | None:
        """Return the file that sets exactly `key`; None if an override or nothing does."""
        if any(_sets(override, key) for override in self.overrides):
            return None
        for layer in reversed(self.layers()):
            if self._line(layer, key) is not None:
                return layer.file
        return self.base if line_of(self.base, key) is not None else None

    def _nearest(self, key: Key, hide: bool) -> str:
        if (line := line_of(self.base, key)) is not None and self._place(key, hide) is None:
            return f"{relative(self.base)}:{line}"
        for length in range(len(key), 0, -1):
            if (place := self._place(key[:length], hide)) is not None:
                return place[1]
        return relative(self.file)

    def _place(self, key: Key, hide: bool) -> Place | None:
        overrides = list(enumerate(self.overrides, start=len(self.layers())))
        for index, override in reversed(overrides):
            if _sets(override, key):
                return index, _quote(override, hide)
        for index, layer in reversed(list(enumerate(self.layers()))):
            if (line := self._line(layer, key)) is not None:
                return index, f"{relative(layer.file)}:{line}"
        for index, override in reversed(overrides):
            if _parts(override)[: len(key)] == key:
                return index, _quote(override, hide)
        return None

    @staticmethod
    def _line(layer: Layer, key: Key) -> int | None:
        depth = len(layer.package)
        return line_of(layer.file, key[depth:]) if key[:depth] == layer.package else None


def clash(layers: Sequence[Layer]) -> Problem | None:
    """Return the Problem of a key that is a list in one file and a mapping in another, or None."""
    seen: dict[Key, tuple[type[yaml.Node], str]] = {}
    for layer in layers:
        root = read(layer.file)
        above = [(layer.package[:depth], root) for depth in range(len(layer.package)) if root is not None]
        for key, node in [*above, *_containers(root, layer.package)]:
            where = f"{relative(layer.file)}:{node.start_mark.line + 1}"
            kind, before = seen.setdefault(key, (type(node), where))
            if kind is not type(node):
                got, rule = ("a list", "should be a mapping of keys to values")
                if kind is yaml.SequenceNode:
                    got, rule = "a mapping", "should be a list"
                return Problem(f"{where}: {dotted(key)}", rule=f"{rule}, as in {before}", got=got)
    return None


def _containers(node: yaml.Node | None, key: Key) -> Iterator[tuple[Key, yaml.Node]]:
    """Yield the lists and mappings of a file, except those inside lists."""
    if isinstance(node, yaml.MappingNode):
        yield key, node
        for name, (_, value) in pairs(node).items():
            yield from _containers(value, (*key, name))
    elif isinstance(node, yaml.SequenceNode):
        yield key, node


def variable_of(raw: str) -> str | None:
    """Return NAME of `${oc.env:NAME,default}` if it is set in the environment; otherwise None."""
    found = re.search(r"\$\{oc\.env:\s*([A-Za-z_]\w*)\s*[,}]", raw)
    return found[1] if found and found[1] in os.environ else None


def _parts(override: Override) -> Key:
    return tuple(override.key_or_group.split("."))


def _sets(override: Override, key: Key) -> bool:
    """Return whether the override sets `key`, directly or inside a mapping or list."""
    own = _parts(override)
    if own != key[: len(own)]:
        return False
    value: Any = override.value()
    for name in key[len(own) :]:
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and is_index(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return False
    return True


def _quote(override: Override, hide: bool) -> str:
    return quoted(str(override.input_line), hide=hide)
