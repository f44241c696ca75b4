"""Which file and line, or which override, a value came from."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override

from raystack.errors import Problem

Key = tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """One YAML file and the dotted key under which it was merged."""

    file: Path
    package: Key


@dataclass(frozen=True)
class Provenance:
    """Everything a composed config was made of, first to last."""

    overrides: Sequence[Override]
    layers: Sequence[Layer]

    def where(self, key: Key) -> str:
        """`config.yaml:7: training.epochs`, or the override's text: the last place that set `key` or what holds it."""
        dotted = ".".join(key)
        for length in range(len(key), 0, -1):
            if (place := self._place(key[:length])) is not None:
                return f"{place}: {dotted}"
        return f"{_relative(self.layers[-1].file)}: {dotted}" if self.layers else dotted

    def _place(self, key: Key) -> str | None:
        for override in reversed(self.overrides):
            if tuple(override.key_or_group.split("."))[: len(key)] == key:
                return f"override '{override.input_line}'"
        for layer in reversed(self.layers):
            if key[: len(layer.package)] == layer.package:
                line = _line(layer.file, key[len(layer.package) :])
                if line is not None:
                    return f"{_relative(layer.file)}:{line}"
        return None


def yaml_problem(file: Path) -> Problem | None:
    """What is wrong with the file as YAML, with its line, or None."""
    try:
        root = _compose(file)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return Problem(f"{_relative(file)}:{line}", rule=f"this is not YAML: {error.problem or error}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return Problem(_relative(file), rule=f"this is not YAML: {error}")
    if not isinstance(root, yaml.MappingNode):
        return Problem(_relative(file), rule="a config is a mapping of sections", remedy="start with `experiment: {name: ...}`")
    return None


def _line(file: Path, key: Key) -> int | None:
    """1-based line of `key` in the file, or None if the file does not set it."""
    node: yaml.Node | None = _compose(file)
    mark = None
    for name in key:
        if isinstance(node, yaml.MappingNode):
            pairs = {entry.value: (entry, value) for entry, value in node.value}
            if name not in pairs:
                return None
            entry, node = pairs[name]
        elif isinstance(node, yaml.SequenceNode) and name.isdigit() and int(name) < len(node.value):
            entry = node = node.value[int(name)]
        else:
            return None
        mark = entry.start_mark
    return None if mark is None else mark.line + 1


@cache
def _read(file: Path, modified: int) -> yaml.Node | None:
    return yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)


def _compose(file: Path) -> yaml.Node | None:
    return _read(file, file.stat().st_mtime_ns)


def _relative(file: Path) -> str:
    relative = os.path.relpath(file)
    return str(file) if relative.startswith("..") else relative
