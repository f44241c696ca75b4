"""A search space: dimensions in an order in which each comes after those that its condition names.

In: a RunConfig with a space. Out: a Space, whose points become values for `config.point.with_values`. Raises
PlanError for a path that does not exist and for a domain that cannot produce its type.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from raystack.config import RunConfig
from raystack.config.fields import Fields, at
from raystack.config.point import with_values
from raystack.config.space import Domain, DomainKind
from raystack.errors import ConfigError, PlanError, Problem, nearest

SEARCHED = ("task", "training", "resources")
"""Sections of the config that a trial may change, besides `experiment.seed`."""

Point = Mapping[str, Any]
"""Values of the dimensions that count, by path; of a group, the name of the choice. JSON values."""


@dataclass(frozen=True)
class Dimension:
    """One path and its domain."""

    path: str
    """Dotted path of the config, or the name of a config group."""
    kind: DomainKind
    choices: tuple[Any, ...] = ()
    """Values of a choice, grid or group; empty for numbers."""
    low: float = 0.0
    """Lowest value; of `normal`, the mean."""
    high: float = 0.0
    """Highest value, inclusive; of `normal`, the standard deviation."""
    step: float | None = None
    log: bool = False
    integer: bool = False
    """True if values are whole numbers, as Python's int."""
    sections: Mapping[str, Mapping[str, Any]] | None = None
    """Of a group: what each choice sets, by the path of its section."""
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """Paths and the values of each for which this dimension counts."""


@dataclass(frozen=True)
class Space:
    """The dimensions of a search."""

    dimensions: tuple[Dimension, ...]
    base: Mapping[str, Any]
    """The config without a point, as data: what a path has where no dimension sets it."""

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self.dimensions)

    def active(self, dimension: Dimension, point: Point) -> bool:
        """Return whether the dimension counts, given the values of those before it."""
        return all(self.value(path, point) in values for path, values in dimension.when)

    def values(self, point: Point) -> dict[str, Any]:
        """Return what the point sets: values by dotted path, sections of groups first, then kinds."""
        found: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.path in point:
                value = point[dimension.path]
                found |= dimension.sections[value] if dimension.sections else {dimension.path: value}
        groups = {path for each in self.dimensions for one in (each.sections or {}).values() for path in one}
        order = sorted(found, key=lambda path: (path not in groups, not path.endswith(".kind")))
        return {path: found[path] for path in order}

    def value(self, path: str, point: Point) -> Any:
        """Return what the config has at a path with the point in it."""
        if path in point:
            return point[path]
        for set_path, value in self.values(point).items():
            if path.startswith(f"{set_path}."):
                return at(value, tuple(path.removeprefix(f"{set_path}.").split(".")))
        return at(self.base, tuple(path.split(".")))


def plan_space(config: RunConfig) -> Space:
    """Check the config's space, and put its dimensions in order. Raises PlanError with all mistakes."""
    assert config.tuning is not None
    base = config.model_dump(mode="json")
    dimensions = {path: _dimension(path, domain, base) for path, domain in config.tuning.space.items()}
    found = [problem for each in dimensions.values() for problem in _problems(each, config, base, dimensions)]
    if found:
        raise PlanError(found)
    try:
        order = TopologicalSorter(
            {path: [name for name, _ in each.when if name in dimensions] for path, each in dimensions.items()}
        ).static_order()
        return Space(tuple(dimensions[path] for path in order), base)
    except CycleError as error:
        rule = f"conditions go round in a circle: {' -> '.join(error.args[1])}"
        raise PlanError(Problem("tuning.space", rule=rule)) from None


def allowed(path: str, base: Mapping[str, Any]) -> list[str]:
    """Return the kinds of the path's section for which there is such a key; [""] if it needs none."""
    key = tuple(path.split("."))
    if _holds(Fields(RunConfig, base), key):
        return [""]
    fields, parent = Fields(RunConfig, base), key[:-1]
    for depth in range(1, len(key)):
        parent = key[:depth]
        kinds = fields.kinds(parent)
        found = [kind for kind in kinds if _holds(Fields(RunConfig, _with_kind(base, parent, kind)), key)]
        if found:
            return found
    return []


def _holds(fields: Fields, key: tuple[str, ...]) -> bool:
    return bool(fields.known(key))


def _with_kind(base: Mapping[str, Any], parent: tuple[str, ...], kind: str) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": kind}
    for name in reversed(parent):
        data = {name: data}
    return data


def _dimension(path: str, domain: Domain, base: Mapping[str, Any]) -> Dimension:
    kind, given = domain.kind, getattr(domain, domain.kind)
    when = tuple(
        (name, tuple(value) if isinstance(value, list) else (value,)) for name, value in domain.when.items()
    )
    if kind == "group":
        sections = given if isinstance(given, dict) else {}
        return Dimension(path, kind, tuple(sections), sections=sections, when=when)
    if kind in ("choice", "grid"):
        return Dimension(path, kind, tuple(_plain(value) for value in given), when=when)
    low, high = given[0], given[1]
    whole = kind in ("randint", "lograndint")
    step = given[2] if kind == "quniform" else None
    if step is not None:
        whole = all(float(number).is_integer() for number in given)
        high = low + step * int((high - low) / step + 1e-9)
    return Dimension(
        path,
        kind,
        low=low,
        high=high - 1 if kind in ("randint", "lograndint") else high,
        step=step,
        log=kind in ("loguniform", "lograndint"),
        integer=whole,
        when=when,
    )


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _problems(
    each: Dimension, config: RunConfig, base: Mapping[str, Any], every: Mapping[str, Dimension]
) -> Iterator[Problem]:
    where = f"tuning.space.{each.path}"
    paths = (
        [each.path]
        if each.kind != "group"
        else sorted({p for s in (each.sections or {}).values() for p in s})
    )
    for path in paths:
        known = path.split(".")[0] in base
        if known and path.split(".")[0] not in SEARCHED and path != "experiment.seed":
            rule = f"a trial changes {', '.join(SEARCHED)} or experiment.seed"
            yield Problem(where, rule=rule, got=path)
            return
    for name, _ in each.when:
        if name not in every and not allowed(name, base):
            yield _unknown(f"{where}.when.{name}", name, base)
    if each.kind == "group":
        return
    kinds = allowed(each.path, base)
    if not kinds:
        yield _unknown(where, each.path, base)
        return
    yield from _type_problems(each, config, base, kinds, every)


def _type_problems(
    each: Dimension,
    config: RunConfig,
    base: Mapping[str, Any],
    kinds: list[str],
    every: Mapping[str, Dimension],
) -> Iterator[Problem]:
    where, key = f"tuning.space.{each.path}", tuple(each.path.split("."))
    fields = Fields(RunConfig, base)
    if kinds == [""] and not each.choices and not fields.holds(key, float):
        whole = fields.holds(key, int)
        if not whole or not each.integer:
            rule = "this key is a whole number" if whole else "this key is no number"
            remedy = "use randint, or quniform with whole numbers" if whole else "use choice"
            yield Problem(where, rule=rule, got=each.kind, remedy=remedy)
            return
    # A value may be impossible beside others: then its trials are infeasible. One error means none can be.
    candidates = each.choices or _ends(each)
    told: list[Problem] = []
    for value in candidates:
        try:
            with_values(config, _conditions(each, every) | {each.path: value})
        except ConfigError as error:
            told += [problem for problem in error.problems if problem.where.startswith(each.path)][:1]
    if candidates and len(told) == len(candidates):
        yield Problem(where, rule=told[0].rule, got=told[0].got, remedy=told[0].remedy)


def _ends(each: Dimension) -> tuple[Any, ...]:
    if each.kind == "normal":
        return (each.low,)
    return tuple(int(end) if each.integer else float(end) for end in (each.low, each.high))


def _conditions(each: Dimension, every: Mapping[str, Dimension]) -> dict[str, Any]:
    """Return values for which the dimension counts."""
    found: dict[str, Any] = {}
    for name, values in each.when:
        other = every.get(name)
        found |= other.sections[values[0]] if other is not None and other.sections else {name: values[0]}
    return dict(sorted(found.items(), key=lambda item: not item[0].endswith(".kind")))


def _unknown(where: str, path: str, base: Mapping[str, Any]) -> Problem:
    known = list(_paths(base))
    leaf = [one for one in known if one.rpartition(".")[2] == path.rpartition(".")[2]]
    close = leaf[0] if len(leaf) == 1 else nearest(path, known)
    if close is None and "." not in path:
        close = f"task.args.{path}"  # a task's argument need not be in the config
    remedy = f"did you mean {close}?" if close else None
    return Problem(where, rule="there is no such path in the config", got=path, remedy=remedy)


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    if not isinstance(node, Mapping):
        yield prefix
        return
    for name, inner in node.items():
        if prefix or name in SEARCHED:
            yield from _paths(inner, f"{prefix}.{name}" if prefix else name)
