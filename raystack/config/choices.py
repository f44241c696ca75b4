"""Config groups, and the choices that defaults lists and overrides make from them.

In: the user's file and the parsed overrides. Out: the overrides of groups as Hydra expects them, the
overrides of keys, and a Problem for each choice that does not exist. Groups are looked up beside the user's
file first, then among raystack's own. Hydra's own classes resolve names and packages.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.default_element import ConfigDefault, GroupDefault
from hydra.core.override_parser.types import Override
from yaml.constructor import SafeConstructor

from raystack.config.overrides import quoted
from raystack.config.source import file_problems, header, line_of, pairs, read, relative, short
from raystack.errors import Problem, nearest

_PACKAGE = Path(__file__).parents[1]
GROUPS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
"""Folder of raystack's config groups: inside the installed package, or at the root of a checkout."""

NAME = r"[^\s/@:.\x00-\x1f][^\s/@:\x00-\x1f]*"
"""One part of a group's name."""
PACKAGE = r"([\w$-]+(\.[\w$-]+)*)?"
HYDRA = "Hydra's own settings have no effect here"
MAX_FILES = 1000
"""Limit of files that the defaults lists include."""
MAX_TRAIL = 30
"""Limit of nested defaults lists, which Hydra follows by recursion."""

_BOOLEANS = SafeConstructor.bool_values
"""YAML's words for true and false, in lower case."""

Element = GroupDefault | ConfigDefault


@dataclass(frozen=True)
class Groups:
    """The folders in which groups are looked up, in order."""

    roots: tuple[Path, ...] = (GROUPS,)

    def names(self) -> list[str]:
        """Return all groups, sorted: folders with choices, nested up to three levels."""
        return sorted({name for root in self.roots for name in _folders(root, "", 3)})

    def choices(self, group: str) -> list[str]:
        """Return all choices of a group, sorted; empty if there is no such group."""
        return sorted({name for root in self.roots for name in _entries(root / group)[1]})

    def meant(self, group: str, value: Any) -> str | None:
        """Return the choice that `value` names, also if YAML has read it as a boolean: `off` is false."""
        return next(
            (
                name
                for name in self.choices(group)
                if name == value or (isinstance(value, bool) and _BOOLEANS.get(name.lower()) is value)
            ),
            None,
        )

    def file(self, name: str) -> Path | None:
        """Return the file of `group/choice` or of a config without a group, or None."""
        return next((path for root in self.roots if os.path.isfile(path := root / f"{name}.yaml")), None)


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the subfolders and of the YAML files in a folder."""
    try:
        inside = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return [], []
    files = [name.removesuffix(".yaml") for entry in inside if (name := entry.name).endswith(".yaml")]
    return [entry.name for entry in inside if os.path.isdir(entry.path)], [
        name for name in files if os.path.isfile(folder / f"{name}.yaml")
    ]


def _folders(root: Path, inside: str, levels: int) -> Iterator[str]:
    for name in _entries(root / inside)[0]:
        group = f"{inside}/{name}" if inside else name
        if _entries(root / group)[1]:
            yield group
        if levels > 1:
            yield from _folders(root, group, levels - 1)


@dataclass(frozen=True)
class Choice:
    """The choices for one entry of a defaults list, and their place."""

    where: str
    names: tuple[str, ...]
    several: bool
    """True if the choices are given as a list."""


@dataclass
class Choices:
    """Result of following the defaults lists."""

    groups: Groups
    lines: list[str] = field(default_factory=list)
    """Overrides of groups, for Hydra."""
    keys: list[Override] = field(default_factory=list)
    """Overrides of keys."""
    slots: dict[str, Choice] = field(default_factory=dict)
    """Entries of the defaults lists, by `group` or `group@package`."""
    places: dict[Path, str] = field(default_factory=dict)
    """Place where each file was chosen."""
    problems: list[Problem] = field(default_factory=list)

    def at_packages(self, group: str) -> list[str]:
        """Return the slots (`group@package`) in which defaults lists choose from the group."""
        return sorted(slot for slot in self.slots if slot.partition("@")[0] == group)


@dataclass(frozen=True)
class Default:
    """One entry of a defaults list."""

    element: Element
    choice: Choice
    """For a config without a group: its name."""

    @property
    def slot(self) -> str | None:
        """Key of the entry in overrides; None for a config without a group."""
        return str(self.element.get_override_key()) if isinstance(self.element, GroupDefault) else None

    def is_hydra(self) -> bool:
        """Return whether the entry concerns Hydra's own settings."""
        places = (self.element.get_config_path() if self.slot is None else self.slot).split("@")
        return any(re.split(r"[/.]", place)[0] == "hydra" for place in places)


def choose(file: Path, overrides: Sequence[Override]) -> Choices:
    """Follow the defaults lists from `file`, and separate overrides of groups from those of keys."""
    found = Choices(Groups((file.parent, GROUPS)))
    chosen = {_slot(override): override for override in overrides if _chooses(override, found.groups)}
    given = {
        slot: Choice(quoted(str(override.input_line)), tuple(_names(override)), _is_list(override))
        for slot, override in chosen.items()
        if not override.is_delete()
    }
    walk = _Walk(found, dict(given))
    root = ConfigDefault(path=file.stem)
    root.update_parent("", "")
    walk.follow(root, file, (file,))
    listed = set(found.slots)
    for override in overrides:
        if (problem := _no_group(override, found.groups)) is not None:
            found.problems.append(problem)
        elif _slot(override) not in chosen or (override.is_delete() and _slot(override) not in listed):
            found.keys.append(override)
        elif (problem := _choice_problem(override, found)) is not None:
            found.problems.append(problem)
    for slot, override in chosen.items():
        if slot in listed or not override.is_delete():
            found.lines.append(_line(override, slot in listed))
        if slot not in listed and not override.is_delete():
            group, package = override.key_or_group, override.package
            element = GroupDefault(group=group, package=package)
            element.update_parent("", "")
            walk.enter(Default(element, given[slot]), (file,))
    walk.follow_late()
    found.problems.extend(walk.idle())
    return found


def _slot(override: Override) -> str:
    package = "" if override.package is None else f"@{override.package}"
    return f"{override.key_or_group}{package}"


def _is_list(override: Override) -> bool:
    return isinstance(override.value(), list)


def _names(override: Override) -> list[str]:
    """Return the choices as typed: `extra=1` is the file extra/1.yaml."""
    value = override.value()
    if not isinstance(value, str | list):
        return [str(override.input_line).partition("=")[2].strip()]
    return [str(name) for name in (value if isinstance(value, list) else [value])]


def _chooses(override: Override, groups: Groups) -> bool:
    return (
        "." not in override.key_or_group
        and not isinstance(override.value(), dict)
        and bool(groups.choices(override.key_or_group))
    )


def _line(override: Override, listed: bool) -> str:
    """Return the override of a group in Hydra's form."""
    # Hydra requires a `+` if the defaults list does not contain the group yet, and rejects one if it does.
    if override.is_delete():
        return f"~{_slot(override)}"
    names = ["'" + name.replace("'", "\\'") + "'" for name in _names(override)]
    value = f"[{','.join(names)}]" if _is_list(override) else names[0]
    return f"{'' if listed else '+'}{_slot(override)}={value}"


def _no_group(override: Override, groups: Groups) -> Problem | None:
    """Return the Problem of `a/b=...` and `a@b=...` if there is no such group."""
    group, where = override.key_or_group, quoted(str(override.input_line))
    if ("/" not in group and override.package is None) or _chooses(override, groups):
        return None
    if isinstance(override.value(), dict):
        return Problem(where, rule="the choice from a group is the name of a file", remedy="write a name")
    return _missing(where, group, "", groups)


def _choice_problem(override: Override, found: Choices) -> Problem | None:
    slot, where = _slot(override), quoted(str(override.input_line))
    there = found.slots.get(slot)
    if override.is_delete():
        return None if there is None else _deletion_problem(override, there)
    if override.is_add() and there is not None:
        return Problem(where, rule=f"the defaults list has '{slot}' already", remedy="drop the +")
    if there is None and not override.is_add() and (others := found.at_packages(override.key_or_group)):
        value = short(str(override.input_line).partition("=")[2])
        remedy = f"write {short(others[0])}={value}, or +{short(slot)}={value} to choose once more"
        return Problem(
            where, rule=f"the defaults list has '{' and '.join(others)}'", remedy=short(remedy, 300)
        )
    return None


def _deletion_problem(override: Override, there: Choice) -> Problem | None:
    where, slot, value = quoted(str(override.input_line)), _slot(override), override.value()
    if there.several:
        return Problem(where, rule="a list of choices cannot be deleted", remedy=f"write {slot}=[]")
    if value is None or there.names == (str(value),):
        return None
    got = there.names[0] if there.names else "null"
    return Problem(
        where, rule=f"deletes '{slot}' only where it is {short(str(value))}", got=got, remedy=f"write ~{slot}"
    )


def _missing(where: str, group: str, name: str, groups: Groups) -> Problem | None:
    """Return the Problem of choosing `name` from `group`, or None if it exists."""
    options = groups.choices(group)
    if name not in ("_self_", "???", "") and groups.file(f"{group}/{name}") is not None:
        return None
    if not options:
        close = nearest(group, groups.names())
        remedy = f"did you mean '{close}'?" if close else f"groups: {', '.join(groups.names())}"
        return Problem(where, rule=f"there is no config group '{short(group)}'", remedy=remedy)
    close = nearest(name, options)
    guess = f"did you mean '{close}'? " if close else ""
    rule = f"the group '{group}' has no choice '{short(name)}'"
    if name == "???":
        rule = f"a choice from the group '{group}' has to be given"
    return Problem(where, rule=rule, remedy=f"{guess}choices: {', '.join(options)}")


@dataclass
class _Walk:
    """Check of the defaults lists of the user's file and of all files they include."""

    found: Choices
    chosen: dict[str, Choice]
    """Choices that replace an entry's own: of the command line, or of an `override` in an outer file."""
    overriding: dict[str, Choice] = field(default_factory=dict)
    """Those of `chosen` that come from entries with `override`."""
    files: int = 0
    late: list[tuple[Choice, Element, tuple[Path, ...]]] = field(default_factory=list)
    """Choices that refer to others, e.g. `${strategy}`, resolved after all others."""

    def follow(self, element: Element, file: Path, trail: tuple[Path, ...]) -> None:
        """Follow the defaults list of `file`, the config of `element`; `trail` is the path of files to it."""
        directives = dict(words for _, words in header(file.read_text(encoding="utf-8")))
        element.set_package_header(directives.get("@package"))
        package = element.get_final_package()
        if package.partition(".")[0] == "hydra" or (not package and line_of(file, ("hydra",)) is not None):
            where = f"{relative(file)}:{line_of(file, () if package else ('hydra',)) or 1}: hydra"
            self.found.problems.append(Problem(where, rule=HYDRA, remedy="remove them"))
            return
        defaults = list(_defaults(file, self.found.problems, self.found.groups))
        last: Default | None = None
        for default in defaults:
            default.element.update_parent(element.get_group_path(), package)
            if default.is_hydra():
                problem = Problem(default.choice.where, rule=HYDRA, remedy="remove them")
                self.found.problems.append(problem)
                return
            if default.element.is_override() and default.slot is not None:
                last = default
                if default.slot not in self.chosen:
                    self.chosen[default.slot] = self.overriding[default.slot] = default.choice
            elif last is not None:
                rule = "an `override` stands before an entry of another kind"
                problem = Problem(last.choice.where, rule=rule, remedy="move it to the end of the list")
                self.found.problems.append(problem)
                last = None
        for default in defaults:
            if not default.element.is_override():
                self.enter(default, trail)

    def enter(self, default: Default, trail: tuple[Path, ...]) -> None:
        """Follow each file that the entry includes."""
        slot, choice = default.slot, default.choice
        if slot is not None:
            if slot in self.found.slots:
                remedy = f"drop one of them, or write `override /{slot}: ...` for the one that counts"
                rule = f"'{slot}' is chosen for a second time"
                self.found.problems.append(Problem(choice.where, rule=rule, remedy=remedy))
                return
            choice = self.chosen.get(slot, choice)
            self.found.slots[slot] = choice
        for name in choice.names:
            if "${" in name:
                self.late.append((choice, default.element, trail))
            else:
                self.enter_file(choice, default.element, name, trail)

    def enter_file(self, choice: Choice, parent: Element, name: str, trail: tuple[Path, ...]) -> None:
        element = _chosen(parent, name, several=choice.several)
        path, problems = element.get_config_path(), self.found.problems
        group = path.rpartition("/")[0] if isinstance(parent, ConfigDefault) else parent.get_group_path()
        file = self.found.groups.file(path)
        if file is None or name in ("_self_", "???"):
            if not parent.is_optional():
                rule = f"there is no '{short(path)}.yaml' beside the config or among raystack's groups"
                missing = _missing(choice.where, group, name, self.found.groups)
                named = isinstance(parent, GroupDefault) and missing is not None
                problems.append(missing if named and missing else Problem(choice.where, rule=rule))
            return
        self.files += 1
        if file in trail:
            rule = f"'{path}' leads back to this file"
            problems.append(Problem(choice.where, rule=rule, remedy="drop the entry"))
        elif len(trail) >= MAX_TRAIL or self.files == MAX_FILES:
            rule = f"defaults lists lead to {MAX_TRAIL} files in a row, or {MAX_FILES} in all"
            problems.append(Problem(choice.where, rule=rule, remedy="use fewer"))
        elif self.files > MAX_FILES:
            return
        elif wrong := file_problems(file, may_be_empty=True):
            problems.extend(wrong)
        else:
            self.found.places.setdefault(file, choice.where)
            self.follow(element, file, (*trail, file))

    def follow_late(self) -> None:
        """Follow the choices that refer to others."""
        # Hydra resolves these interpolations against the choices only, not against config values.
        for choice, element, trail in self.late:
            slots = {slot: each.names[0] for slot, each in self.found.slots.items() if len(each.names) == 1}
            name, several = choice.names[0], choice.several or isinstance(element, ConfigDefault)
            text = name
            for slot in re.findall(r"\$\{([\w/@.-]+)\}", name):
                text = text.replace(f"${{{slot}}}", slots.get(slot, "${"))
            if several or "${" in text:
                rule = "a choice can refer to another group's single choice and to nothing else"
                problem = Problem(choice.where, rule=rule, got=short(name), remedy="write its name")
                self.found.problems.append(problem)
            else:
                self.enter_file(choice, element, text, trail)

    def idle(self) -> Iterator[Problem]:
        """Yield a Problem for each entry with `override` that overrides nothing."""
        for slot, choice in self.overriding.items():
            if slot not in self.found.slots and not self.found.problems:
                rule = f"no defaults list has '{slot}', which could be overridden"
                others = self.found.at_packages(slot.partition("@")[0])
                remedy = f"did you mean '{others[0]}'?" if others else "drop the word `override`"
                yield Problem(choice.where, rule=rule, remedy=remedy)


def _chosen(parent: Element, name: str, *, several: bool) -> Element:
    """Return the entry with one of its choices, as Hydra builds it."""
    if isinstance(parent, ConfigDefault):
        return parent
    element: Element
    if several:
        element = ConfigDefault(path=f"{parent.group}/{name}", package=parent.package)
    else:
        element = GroupDefault(group=parent.group, value=name, package=parent.package)
    element.update_parent(parent.parent_base_dir, parent.parent_package)
    return element


def _defaults(file: Path, problems: list[Problem], groups: Groups) -> Iterator[Default]:
    """Yield the entries of the file's defaults list; append a Problem for each invalid one."""
    root = read(file)
    found = pairs(root).get("defaults") if isinstance(root, yaml.MappingNode) else None
    if found is None:
        return
    entry, value = found
    where = f"{relative(file)}:{entry.start_mark.line + 1}: defaults"
    if not isinstance(value, yaml.SequenceNode):
        remedy = "write `defaults: [resources: cpu2, _self_]`"
        problems.append(Problem(where, rule="should be a list of choices", remedy=remedy))
        return
    if sum(node.value == "_self_" for node in value.value) > 1:
        problems.append(Problem(where, rule="_self_ stands there twice", remedy="drop one of them"))
    for node in value.value:
        if node.value == "_self_":
            continue
        default = _default(f"{relative(file)}:{node.start_mark.line + 1}: defaults", node, groups)
        if isinstance(default, Problem):
            problems.append(default)
        else:
            yield default


def _default(where: str, node: yaml.Node, groups: Groups) -> Default | Problem:
    match node:
        case yaml.ScalarNode(value=str(text)):
            path, at, package = text.partition("@")
            if (problem := _unquoted(where, node, groups)) is not None:
                return problem
            if re.fullmatch(rf"/?({NAME}/)*[^/@\x00-\x1f]+", path) and re.fullmatch(PACKAGE, package):
                element = ConfigDefault(path=path, package=package if at else None)
                return Default(element, Choice(where, (path,), several=False))
        case yaml.MappingNode(value=[(yaml.ScalarNode(value=str(text)), value)]):
            names = value.value if isinstance(value, yaml.SequenceNode) else [value]
            if all(isinstance(name, yaml.ScalarNode) for name in names):
                several = isinstance(value, yaml.SequenceNode)
                return _group_default(where, text, names, groups, several=several)
    return Problem(where, rule="each entry should be `group: choice`, the name of a config, or _self_")


def _group_default(
    where: str, text: str, nodes: list[yaml.ScalarNode], groups: Groups, *, several: bool
) -> Default | Problem:
    left, at, package = text.partition("@")
    *keywords, group = left.split(" ")
    if (
        set(keywords) - {"optional", "override"}
        or not re.fullmatch(rf"/?{NAME}(/{NAME})*", group)
        or not re.fullmatch(PACKAGE, package)
    ):
        remedy = "check its spaces and slashes"
        return Problem(
            where, rule="should be the name of a config group", got=repr(short(text)), remedy=remedy
        )
    null = not several and nodes[0].tag == "tag:yaml.org,2002:null"
    unquoted = (_unquoted(where, node, groups, group.lstrip("/")) for node in nodes)
    problem = next((found for found in unquoted if found is not None), None)
    if problem is not None and not null:
        return problem
    element = GroupDefault(
        group=group,
        package=package if at else None,
        optional="optional" in keywords,
        override="override" in keywords,
    )
    names = () if null else tuple(str(node.value) for node in nodes)
    return Default(element, Choice(where, names, several))


def _unquoted(where: str, node: yaml.ScalarNode, groups: Groups, group: str = "") -> Problem | None:
    """Return the Problem of a choice that YAML reads as something else than text."""
    if node.tag == "tag:yaml.org,2002:str":
        return None
    name, choices = short(node.value), groups.choices(group)
    meant = groups.meant(group, node.value) or groups.meant(group, _BOOLEANS.get(node.value.lower()))
    if meant is not None and meant != name:
        remedy = f'write "{meant}", with the quotes'
    elif meant is None and choices:
        remedy = f"choices: {', '.join(choices)}"
    else:
        remedy = f'put it in quotes: "{name}"'
    return Problem(
        where, rule="a choice is text, and YAML reads this as another value", got=name, remedy=remedy
    )
