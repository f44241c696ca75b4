"""Config groups: which there are, and what a file's defaults list and the overrides choose from them.

In: the user's file and the parsed overrides. Out: the overrides in the form Hydra wants for groups, the
overrides of keys, and a Problem for each choice that does not exist. A group is looked up beside the user's
file first and then among raystack's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from raystack.config.provenance import file_problems, is_secret, quoted, read, relative
from raystack.errors import Problem, nearest

_PACKAGE = Path(__file__).parents[1]
GROUPS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
"""Folder of raystack's config groups: inside the installed package, or at the root of a checkout."""


@dataclass(frozen=True)
class Groups:
    """Where groups are looked up, first to last."""

    roots: tuple[Path, ...] = (GROUPS,)

    def names(self) -> list[str]:
        """Every group, sorted."""
        return sorted({path.parent.name for root in self.roots for path in root.glob("[!.]*/*.yaml")})

    def choices(self, group: str) -> list[str]:
        """Every choice of a group, sorted; empty where there is no such group."""
        return sorted({path.stem for root in self.roots for path in (root / group).glob("*.yaml")})

    def file(self, name: str) -> Path | None:
        """The file of `group/choice`, or of a config without a group."""
        return next((path for root in self.roots if (path := root / f"{name}.yaml").is_file()), None)


@dataclass
class Choices:
    """What was chosen, and what cannot be."""

    groups: Groups
    lines: list[str] = field(default_factory=list)
    """Overrides of groups, for Hydra."""
    keys: list[Override] = field(default_factory=list)
    """Overrides of keys."""
    slots: set[str] = field(default_factory=set)
    """`group` or `group@package` of every entry in the defaults lists."""
    problems: list[Problem] = field(default_factory=list)

    def lists(self, group: str) -> bool:
        """Whether a defaults list chooses from the group."""
        return any(slot.partition("@")[0] == group for slot in self.slots)


@dataclass(frozen=True)
class Default:
    """One entry of a defaults list."""

    where: str
    group: str | None
    """None for a config that is named without a group."""
    names: tuple[str, ...]
    """The choices, or the config's name."""
    package: str
    """What follows an `@`."""
    keywords: tuple[str, ...]
    """`optional`, `override`."""


def parse(overrides: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """Overrides in Hydra's grammar; a Problem for each that does not parse or is a sweep."""
    parser = OverridesParser.create()
    parsed, problems = [], []
    for text in overrides:
        where = quoted(text)
        try:
            override = parser.parse_override(text)
        except HydraException:
            problems.append(_unreadable(where, text))
            continue
        if override.is_sweep_override():
            key, _, value = text.partition("=")
            remedy = f"quote text that holds commas: {key}='{value}', or write a list: {key}=[{value}]"
            problems.append(Problem(where, rule="gives several values where one is expected", remedy=remedy))
        else:
            parsed.append(override)
    return parsed, problems


def _unreadable(where: str, text: str) -> Problem:
    key, equals, value = text.partition("=")
    if not equals:
        return Problem(
            where,
            rule="an override is key=value",
            remedy=f"write {text or 'training.epochs'}=..., or ~key to delete a key",
        )
    if not key.lstrip("+~").replace(".", "").replace("_", "").isalnum():
        return Problem(
            where, rule="the part before '=' should be a dotted key, e.g. training.epochs", got=repr(key)
        )
    if is_secret(key):
        return Problem(
            where, rule="the value cannot be read", remedy=f"give a reference: {key}=secret:env:NAME"
        )
    quote = '"' if "'" in value else "'"
    return Problem(
        where,
        rule="the value cannot be read",
        got=value,
        remedy=f"quote it: {key}={quote}{value}{quote}, and once more for the shell",
    )


def choose(file: Path, overrides: Sequence[Override]) -> Choices:
    """Follow the defaults lists from `file` down, and tell the overrides of groups from those of keys."""
    found = Choices(Groups((file.parent, GROUPS)))
    chosen = {override.key_or_group for override in overrides if _chooses(override, found.groups)}
    _follow(file, "", chosen, found, (file,))
    choices: dict[str, Override] = {}
    for override in overrides:
        group = override.key_or_group
        if (
            group not in chosen
            or isinstance(override.value(), dict)
            or (override.is_delete() and not found.lists(group))
        ):
            found.keys.append(override)
        elif (problem := _choice_problem(override, found)) is not None:
            found.problems.append(problem)
        else:
            choices[group] = override
    for group, override in choices.items():
        names = () if override.is_delete() else tuple(_names(override))
        default = Default(quoted(str(override.input_line)), group, names, "", ())
        for name in names:
            _follow_name(name, default, chosen, found, (file,))
    found.lines.extend(_line(override, found) for override in choices.values())
    return found


def _names(override: Override) -> list[Any]:
    value = override.value()
    return value if isinstance(value, list) else [value]


def _chooses(override: Override, groups: Groups) -> bool:
    return (
        "." not in override.key_or_group
        and not isinstance(override.value(), dict)
        and bool(groups.choices(override.key_or_group))
    )


def _line(override: Override, found: Choices) -> str:
    """Hydra wants a `+` where the defaults list does not have the group yet, and none where it does."""
    text = str(override.input_line).lstrip("+")
    return text if override.is_delete() or found.lists(override.key_or_group) else f"+{text}"


def _choice_problem(override: Override, found: Choices) -> Problem | None:
    group, value, where = override.key_or_group, override.value(), quoted(str(override.input_line))
    if override.package is not None:
        return Problem(
            where, rule="a package after '@' has no meaning in an override", remedy=f"write {group}={value}"
        )
    if override.is_delete():
        return None
    if override.is_add() and found.lists(group):
        return Problem(where, rule=f"the defaults list has '{group}' already", remedy="drop the +")
    return next(
        (
            problem
            for name in _names(override)
            if (problem := _missing(where, group, name, found.groups)) is not None
        ),
        None,
    )


def _missing(where: str, group: str, name: object, groups: Groups) -> Problem | None:
    """The Problem of choosing `name` from `group`, or None if it is there."""
    options = groups.choices(group)
    if not options:
        close = nearest(group, groups.names())
        remedy = f"did you mean '{close}'?" if close else f"groups: {', '.join(groups.names())}"
        return Problem(where, rule=f"there is no config group '{group}'", remedy=remedy)
    if isinstance(name, str) and groups.file(f"{group}/{name}") is not None:
        return None
    close = nearest(str(name), options)
    guess = f"did you mean '{close}'? " if close else ""
    got = "null" if name is None else str(name)
    return Problem(
        where,
        rule=f"the group '{group}' has no choice '{got}'",
        remedy=f"{guess}choices: {', '.join(options)}",
    )


def _follow(file: Path, inside: str, overridden: set[str], found: Choices, trail: tuple[Path, ...]) -> None:
    """Check the defaults list of `file`, which belongs to the group `inside`, and of every file it leads to.

    `trail` is the way from the user's file to this one.
    """
    for default in _defaults(file, inside, found.problems):
        slot = f"{default.group}{default.package}"
        if default.group is not None and "override" not in default.keywords:
            if slot in found.slots:
                remedy = f"drop one of them, or write `override /{slot}: ...` for the one that counts"
                found.problems.append(
                    Problem(default.where, rule=f"'{slot}' is chosen for a second time", remedy=remedy)
                )
                continue
            found.slots.add(slot)
        for name in default.names:
            if default.group not in overridden and "${" not in name:
                _follow_name(name, default, overridden, found, trail)


def _follow_name(
    name: str, default: Default, overridden: set[str], found: Choices, trail: tuple[Path, ...]
) -> None:
    path = name if default.group is None else f"{default.group}/{name}"
    file = found.groups.file(path)
    if file is None:
        if "optional" not in default.keywords:
            rule = f"there is no '{path}.yaml' beside the config or among raystack's groups"
            problem = (
                None if default.group is None else _missing(default.where, default.group, name, found.groups)
            )
            found.problems.append(problem or Problem(default.where, rule=rule))
    elif file in trail:
        found.problems.append(
            Problem(default.where, rule=f"'{path}' leads back to this file", remedy="drop the entry")
        )
    elif problems := file_problems(file, may_be_empty=True):
        found.problems.extend(problems)
    else:
        _follow(file, path.rpartition("/")[0], overridden, found, (*trail, file))


def _defaults(file: Path, inside: str, problems: list[Problem]) -> Iterator[Default]:
    """Entries of the file's defaults list; a Problem for each that is none."""
    root = read(file)
    for entry, value in root.value if isinstance(root, yaml.MappingNode) else []:
        if entry.value != "defaults":
            continue
        where = f"{relative(file)}:{entry.start_mark.line + 1}: defaults"
        if not isinstance(value, yaml.SequenceNode):
            problems.append(
                Problem(
                    where,
                    rule="should be a list of choices",
                    remedy="write `defaults: [resources: cpu2, _self_]`",
                )
            )
            continue
        if sum(node.value == "_self_" for node in value.value) > 1:
            problems.append(Problem(where, rule="_self_ stands there twice", remedy="drop one of them"))
        for node in value.value:
            if node.value == "_self_":
                continue
            where = f"{relative(file)}:{node.start_mark.line + 1}: defaults"
            if (default := _default(where, node, inside)) is None:
                problems.append(
                    Problem(
                        where, rule="each entry should be `group: choice`, the name of a config, or _self_"
                    )
                )
            else:
                yield default


def _default(where: str, node: yaml.Node, inside: str) -> Default | None:
    group: str | None
    match node:
        case yaml.ScalarNode(tag="tag:yaml.org,2002:str", value=str(text)):
            names: tuple[str, ...] = (_inside(text, inside),)
            group = None
        case yaml.MappingNode(
            value=[(yaml.ScalarNode(value=str(text)), yaml.ScalarNode(tag=tag, value=name))]
        ):
            group, names = _inside(text, inside), () if tag == "tag:yaml.org,2002:null" else (name,)
        case yaml.MappingNode(value=[(yaml.ScalarNode(value=str(text)), yaml.SequenceNode(value=nodes))]):
            group, names = _inside(text, inside), tuple(str(item.value) for item in nodes)
        case _:
            return None
    *keywords, last = text.split() or [""]
    return Default(where, group, names, last[last.find("@") :] if "@" in last else "", tuple(keywords))


def _inside(text: str, group: str) -> str:
    """`optional /a/b@c` -> `a/b`; a name that does not begin with a slash is looked up in the group of its
    file.
    """
    name = (text.split() or [""])[-1].partition("@")[0]
    return name.lstrip("/") if name.startswith("/") or not group else f"{group}/{name}"
