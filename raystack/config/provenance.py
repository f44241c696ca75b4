"""Which file and line, or which override, a value came from; and what is wrong with a file before it has
values.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError

from raystack.errors import Problem

Key = tuple[str, ...]
Place = tuple[int, str]
"""How late a value was set (overrides after files), and where."""

YAML_WORDS = (
    ("'\\t'", "YAML is indented with spaces, and here is a tab", "replace the tab with spaces"),
    (
        "mapping values are not allowed",
        "this is not YAML: a ': ' is out of place",
        "check the indentation, or quote a value that holds ': '",
    ),
    ("constructor for the tag", "YAML tags such as !!python have no meaning here", "remove the tag"),
    ("<stream end>", "this is not YAML: the file ends inside a bracket or quote", "close it"),
    (
        "expected the node content",
        "this is not YAML: a value is missing or begins with a special character",
        "quote the value",
    ),
)
"""A part of the parser's message, and what it means to a user: the rule and the remedy."""


@dataclass(frozen=True)
class Layer:
    """One YAML file and the dotted key under which it was merged."""

    file: Path
    package: Key


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
    base: Path
    """Laid under everything. It is only blamed for the very keys that it sets."""

    def where(self, key: Key, *, hide: bool = False) -> str:
        """`config.yaml:7: training.epochs`, or the override's text: the last place that set `key` or what
        holds it.

        With `hide` the text of an override ends before its value.
        """
        return f"{self._nearest(key, hide)}: {'.'.join(key)}"

    def where_last(self, section: Key, names: Sequence[str]) -> str:
        """The place of the key among `names` that was set last, said of `section`."""
        places = [place for name in names if (place := self._place((*section, name), hide=False)) is not None]
        return f"{max(places)[1]}: {'.'.join(section)}" if places else self.where(section)

    def deleted(self, key: Key) -> bool:
        """Whether an override deletes `key`."""
        return any(override.is_delete() and _parts(override) == key for override in self.overrides)

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
            if key[: len(layer.package)] == layer.package:
                line = line_of(layer.file, key[len(layer.package) :])
                if line is not None:
                    return index, f"{relative(layer.file)}:{line}"
        for index, override in reversed(overrides):
            if _parts(override)[: len(key)] == key:
                return index, _quote(override, hide)
        return None


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
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return False
    return True


def _quote(override: Override, hide: bool) -> str:
    return quoted(str(override.input_line), hide=hide)


def quoted(override: str, *, hide: bool = False) -> str:
    """The text of an override as a message shows it: without its value if `hide`, or if it is meant as a
    secret.
    """
    key, equals, _ = override.partition("=")
    return f"override '{key}=...'" if equals and (hide or is_secret(key)) else f"override '{override}'"


def is_secret(key: str) -> bool:
    """By its name, for messages about overrides that have not met the schema yet."""
    return key.endswith(("password", "token"))


def file_problems(file: Path, *, may_be_empty: bool = False) -> list[Problem]:
    """What is wrong with the file as YAML, with the line of each mistake. A choice of a group may be
    empty.
    """
    try:
        root = read(file)
    except yaml.MarkedYAMLError as error:
        return [marked(error, file)]
    except UnicodeDecodeError:
        return [Problem(relative(file), rule="the file is not UTF-8 text")]
    except yaml.YAMLError as error:
        return [Problem(relative(file), rule=f"this is not YAML: {str(error).splitlines()[0]}")]
    except OSError as error:
        return [Problem(relative(file), rule=f"the file cannot be read: {error.strerror}")]
    if root is None:
        return (
            []
            if may_be_empty
            else [
                Problem(
                    relative(file), rule="the file is empty", remedy="start with `experiment: {name: ...}`"
                )
            ]
        )
    if not isinstance(root, yaml.MappingNode):
        got = "a list" if isinstance(root, yaml.SequenceNode) else str(root.value)
        where = f"{relative(file)}:{root.start_mark.line + 1}"
        return [
            Problem(
                where,
                rule="a config is a mapping of sections",
                got=got,
                remedy="start with `experiment: {name: ...}`",
            )
        ]
    return list(_node_problems(file, root, (), ()))


def marked(error: yaml.MarkedYAMLError, file: Path) -> Problem:
    """The Problem of a YAML error that knows its line."""
    mark = error.problem_mark or error.context_mark
    where = relative(file) if mark is None else f"{relative(file)}:{mark.line + 1}"
    what = error.problem or "it cannot be parsed"
    if what.startswith("but ") and error.context:
        what = f"{error.context}, {what}"
    for sign, rule, remedy in YAML_WORDS:
        if sign in what:
            return Problem(where, rule=rule, remedy=remedy)
    return Problem(where, rule=f"this is not YAML: {what}")


def _node_problems(file: Path, node: yaml.Node, key: Key, above: tuple[int, ...]) -> Iterator[Problem]:
    """Keys given twice, anchors that hold themselves (`above` are the nodes that lead here), `${` that is
    never closed.
    """
    if id(node) in above:
        where = f"{relative(file)}:{node.start_mark.line + 1}: {'.'.join(key)}"
        yield Problem(where, rule="the alias lies inside of what it stands for", remedy="write the value out")
        return
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for entry, value in node.value:
            inner, line = (*key, str(entry.value)), entry.start_mark.line + 1
            if isinstance(entry, yaml.ScalarNode):
                if entry.value in first:
                    rule = f"the key is given twice, first on line {first[entry.value]}"
                    yield Problem(
                        f"{relative(file)}:{line}: {'.'.join(inner)}", rule=rule, remedy="drop one of them"
                    )
                first.setdefault(entry.value, line)
            yield from _node_problems(file, value, inner, above)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _node_problems(file, value, (*key, str(index)), above)
    elif isinstance(node, yaml.ScalarNode) and "${" in node.value:
        try:
            OmegaConf.create([node.value])
        except GrammarParseError:
            where = f"{relative(file)}:{node.start_mark.line + 1}: {'.'.join(key)}"
            remedy = "write ${section.key} or ${oc.env:NAME}; a plain '${' is written \\${"
            yield Problem(where, rule="the interpolation cannot be read", got=node.value, remedy=remedy)


def line_of(file: Path, key: Key) -> int | None:
    """1-based line of `key` in the file, or None if the file does not set it; of the empty key, where its
    content begins.
    """
    node: yaml.Node | None = read(file)
    mark = None if node is None else node.start_mark
    for name in key:
        if isinstance(node, yaml.MappingNode):
            pairs = {
                entry.value: (entry, value)
                for entry, value in node.value
                if isinstance(entry, yaml.ScalarNode)
            }
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


def read(file: Path) -> yaml.Node | None:
    """The file's tree of YAML nodes, which know their lines; None for an empty file."""
    return _read(file, file.stat().st_mtime_ns)


def relative(file: Path) -> str:
    """The path as a message shows it: relative to the working directory where it lies below it."""
    short = os.path.relpath(file)
    return str(file) if short.startswith("..") else short
