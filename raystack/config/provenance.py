"""Which file and line, which override or which environment variable a value came from."""

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
"""How late a value was set (overrides after files), and where."""


@dataclass(frozen=True)
class Layer:
    """One YAML file and the dotted key under which it was merged."""

    file: Path
    package: Key
    chosen: str | None
    """The override or the line of a defaults list that chose it; None of the user's file."""


@dataclass(frozen=True)
class Provenance:
    """Everything a composed config was made of."""

    file: Path
    """The user's file."""
    overrides: Sequence[Override]
    """First to last."""
    layers: Callable[[], Sequence[Layer]]
    """The files in the order they were merged. A call, because only a mistake needs them and they take time.
    """
    own: Path
    """Folder of raystack's own files. A user does not edit them."""
    base: Path
    """Laid under everything. It is only blamed for the very keys that it sets."""
    variables: dict[Key, str] = field(default_factory=dict)
    """The environment variable that the value of a key was read from."""

    def where(self, key: Key, *, hide: bool = False) -> str:
        """`config.yaml:7: training.epochs`, or the override's text: the last place that set `key` or what
        holds it.

        A value that raystack's own files take from the environment is said of the variable. With `hide` the
        text of an override ends before its value.
        """
        place, variable = self._nearest(key, hide), self.variables.get(key)
        if variable is not None and self.is_own(key):
            place = f"environment variable {variable}"
        elif variable is not None:
            place += f", from the environment variable {variable}"
        return f"{place}: {dotted(key)}"

    def where_last(self, section: Key, names: Sequence[str]) -> str:
        """The place of the key among `names` that was set last, said of `section`."""
        places = [place for name in names if (place := self._place((*section, name), hide=False)) is not None]
        return f"{max(places)[1]}: {dotted(section)}" if places else self.where(section)

    def where_chosen(self, key: Key) -> str | None:
        """Where the file was chosen that is there as `key` as a whole; None if it was not set in this way."""
        if any(_sets(override, key) for override in self.overrides):
            return None
        for layer in reversed(self.layers()):
            if key == layer.package[: len(key)]:
                return None if layer.chosen is None else f"{layer.chosen}: {dotted(key)}"
            if self._line(layer, key) is not None:
                return None
        return None

    def is_own(self, key: Key) -> bool:
        """Whether one of raystack's own files sets `key`."""
        place = self._source(key)
        return place is not None and self.own in place.parents

    def by_override(self, key: Key) -> bool:
        """Whether an override gives `key` its value, by its own name."""
        return any(_parts(override) == key and not override.is_delete() for override in self.overrides)

    def deleted(self, key: Key) -> bool:
        """Whether an override deletes `key`."""
        return any(override.is_delete() and _parts(override) == key for override in self.overrides)

    def _source(self, key: Key) -> Path | None:
        """The file that sets `key` itself; None where an override or nothing does."""
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
    """The Problem of a key that is a list in one file and a mapping in another, which cannot be merged."""
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
    """The lists and mappings of a file, but for those inside of lists."""
    if isinstance(node, yaml.MappingNode):
        yield key, node
        for name, (_, value) in pairs(node).items():
            yield from _containers(value, (*key, name))
    elif isinstance(node, yaml.SequenceNode):
        yield key, node


def variable_of(raw: str) -> str | None:
    """`${oc.env:NAME,default}` -> NAME where the environment has it; None for anything else."""
    found = re.search(r"\$\{oc\.env:\s*([A-Za-z_]\w*)\s*[,}]", raw)
    return found[1] if found and found[1] in os.environ else None


def _parts(override: Override) -> Key:
    return tuple(override.key_or_group.split("."))


def _sets(override: Override, key: Key) -> bool:
    """Whether the override gives `key` itself, by its name or inside the mapping or list that is its
    value.
    """
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
