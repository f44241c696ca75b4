"""Sweeps of the command line, in Hydra's grammar -> entries of `tuning.space`.

`training.optimizer.lr=interval(1e-4,1e-1)` is what `{uniform: [1e-4, 1e-1]}` is in a file, `choice(8,16)` and
`8,16` are `{choice: [8, 16]}`, and `strategy=ddp,zero1` is `{group: [ddp, zero1]}`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from math import ceil
from typing import Any, Literal, cast

from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
)
from omegaconf import DictConfig, OmegaConf

from raystack.config.choices import Groups
from raystack.config.fields import Fields
from raystack.config.overrides import parse, quoted
from raystack.config.run import RunConfig
from raystack.config.space import KINDS, Domain
from raystack.errors import Problem, nearest

Sweeps = Literal["refused", "searched", "grid"]
"""What a sweep means: a mistake, an entry of the space, or one of a space that is searched as a grid."""

SPACE = "tuning.space"
MAX_VALUES = 10_000
"""Limit of the values of a range in a grid."""


@dataclass(frozen=True)
class Sweep:
    """One sweep, as an entry of the space."""

    path: str
    domain: Mapping[str, Any]
    """The entry, for a search that draws."""
    values: Sequence[Any] = ()
    """All values, for a grid; empty if there is no end of them."""

    @property
    def first(self) -> Any:
        """A value that the path may have."""
        return self.values[0] if self.values else next(iter(self.domain.values()))[0]


def parse_sweeps(overrides: Sequence[Override], groups: Groups) -> tuple[list[Sweep], list[Problem]]:
    """Return the sweeps among the overrides, and a Problem for each that is impossible."""
    found = [_sweep(override, groups) for override in overrides if override.is_sweep_override()]
    return (
        [each for each in found if isinstance(each, Sweep)],
        [each for each in found if isinstance(each, Problem)],
    )


def search(
    config: DictConfig, swept: Sequence[Sweep], overrides: Sequence[Override], *, grid: bool = False
) -> None:
    """Put sweeps over the config's own space, and make the search a `grid` if it can be one.

    A path that an override gives one value leaves the space. A search that an override chooses stays.
    """
    space = _space(config)
    if space is None:
        return
    for override in overrides:
        if not override.is_sweep_override() and override.key_or_group in space:
            del space[override.key_or_group]
    kind = OmegaConf.select(config, "tuning.search.kind", throw_on_resolution_failure=False)
    chosen = any(re.match(r"tuning(\.search|$)", override.key_or_group) for override in overrides)
    grid = grid and not chosen
    for each in swept:
        listed = each.values and (grid or kind == "grid") and "group" not in each.domain
        domain = {"choice": list(each.values)} if listed else dict(each.domain)
        when = space[each.path].get("when") if OmegaConf.is_dict(space.get(each.path)) else None
        space[each.path] = domain if when is None else {**domain, "when": when}
        _fill_in(config, each)
    if grid and all(OmegaConf.is_dict(domain) and _is_listed(domain) for domain in space.values()):
        config["tuning"]["search"] = {"kind": "grid"}


def places(overrides: Sequence[str]) -> dict[str, str]:
    """Return the place of each path that an override searches, as messages name it."""
    parsed, _ = parse(overrides, sweeps=True)
    known = {}
    for override in parsed:
        key, text = override.key_or_group, quoted(str(override.input_line))
        if override.is_sweep_override():
            known[key] = text
        elif key.startswith(f"{SPACE}."):
            inner = rf"^{re.escape(SPACE)}\.|\.({'|'.join(Domain.model_fields)})(\..*)?$"
            known[re.sub(inner, "", key)] = text
    return known


def placed(problems: Iterable[Problem], known: Mapping[str, str]) -> list[Problem]:
    """Return the problems with the override as the place of each that is about a path in `known`."""
    return [
        next(
            (
                replace(problem, where=where)
                for path, where in known.items()
                if re.search(rf"(^|: ){re.escape(f'{SPACE}.{path}')}(\.|$)", problem.where)
            ),
            problem,
        )
        for problem in problems
    ]


def _space(config: DictConfig) -> DictConfig | None:
    """Return the config's space, with dotted paths as its keys; None if the schema will reject it."""
    node: Any = config
    for name in SPACE.split("."):
        if node.get(name) is None:
            node[name] = {}
        node = node[name]
        if not OmegaConf.is_dict(node):
            return None
    space = cast(DictConfig, node)
    for prefix in [name for name in space if _is_prefix(space[name])]:
        for path, domain in _flat(str(prefix), space.pop(prefix)):
            there = space.get(path)
            known = there if OmegaConf.is_dict(there) else {}
            kept = {key: known[key] for key in known if _of_another(key, domain)}
            space[path] = {**kept, **domain}
    return space


def _flat(path: str, node: Any) -> Iterable[tuple[str, Any]]:
    """Yield the domains below a path: an override splits it at its dots."""
    if not _is_prefix(node):
        yield path, node
        return
    for name in node:
        yield from _flat(f"{path}.{name}", node[name])


def _is_prefix(node: Any) -> bool:
    fields = Domain.model_fields.keys()
    return (
        OmegaConf.is_dict(node)
        and len(node) > 0
        and all(OmegaConf.is_dict(node[name]) and name not in fields for name in node)
    )


def _of_another(key: Any, domain: Any) -> bool:
    """Return whether a key of an entry stays beside those of `domain`: there is one domain only."""
    return key not in domain and not (key in KINDS and any(kind in domain for kind in KINDS))


def _is_listed(domain: Any) -> bool:
    return any(name in domain for name in ("choice", "grid", "group"))


def _fill_in(config: DictConfig, sweep: Sweep) -> None:
    """Give a path that the file leaves open (`???`) its first value: the config without a trial needs one."""
    head, _, name = sweep.path.rpartition(".")
    parent = OmegaConf.select(config, head, throw_on_resolution_failure=False) if head else config
    if OmegaConf.is_dict(parent) and OmegaConf.is_missing(parent, name):
        parent[name] = sweep.first


def _sweep(override: Override, groups: Groups) -> Sweep | Problem:
    key, value = override.key_or_group, override.value()
    where = quoted(str(override.input_line))
    if override.is_delete():
        return Problem(where, rule="deletes, and a search needs values", remedy="drop the ~")
    if override.package is not None:
        rule = "a search chooses from a group at its own place in the config"
        return Problem(where, rule=rule, got=f"@{override.package}", remedy="drop the package")
    if "." not in key and key not in RunConfig.model_fields and not groups.choices(key):
        close = nearest(key, groups.names())
        if close is not None:
            rule = f"there is no config group '{key}'"
            return Problem(where, rule=rule, remedy=f"did you mean '{close}'?")
    tags: set[str] = getattr(value, "tags", set())
    if tags - {"log"} or (tags and not isinstance(value, IntervalSweep)):
        rule = "the only tag is log, of an interval"
        return Problem(where, rule=rule, got=", ".join(sorted(tags)), remedy="drop it")
    if getattr(value, "shuffle", False):
        return Problem(where, rule="the search decides on the order of trials", remedy="drop shuffle")
    if isinstance(value, IntervalSweep):
        return _interval(where, key, value)
    if isinstance(value, RangeSweep):
        return _range(where, key, value)
    if isinstance(value, Glob):
        return _glob(where, key, value, groups)
    assert isinstance(value, ChoiceSweep)
    values = [_plain(each) for each in value.list]
    if "." not in key and groups.choices(key) and not any(isinstance(each, dict | list) for each in values):
        names = [str(each) for each in values]
        return Sweep(key, {"group": names}, names)
    return Sweep(key, {"choice": values}, values)


def _interval(where: str, key: str, value: IntervalSweep) -> Sweep | Problem:
    assert value.start is not None
    assert value.end is not None
    low, high = value.start, value.end
    whole, log = isinstance(low, int) and isinstance(high, int), "log" in value.tags
    if low >= high:
        got = f"{low:g} and {high:g}"
        return Problem(where, rule="should have its lower bound first", got=got, remedy="interval(low,high)")
    if log and low <= 0:
        rule = "should have bounds above 0: it is uniform in the logarithm"
        return Problem(where, rule=rule, got=f"{low:g}")
    fields, name = Fields(RunConfig, {}), tuple(key.split("."))
    if not whole and fields.holds(name, int) and not fields.holds(name, float):
        remedy = f"write {key}=range({low:.0f},{high:.0f}), or int(interval({low:.0f},{high:.0f}))"
        return Problem(where, rule="this key is a whole number", got="an interval", remedy=remedy)
    kind = ("lograndint" if log else "randint") if whole else ("loguniform" if log else "uniform")
    return Sweep(key, {kind: [low, high]})


def _range(where: str, key: str, value: RangeSweep) -> Sweep | Problem:
    ends = (value.start, value.stop, value.step)
    start, stop, step = (Decimal(str(number)) for number in ends)
    count = ceil((stop - start) / step) if step else 0
    if count < 1:
        rule = "the range is empty"
        return Problem(where, rule=rule, got=f"{start} to {stop} by {step}", remedy="range(low,high,step)")
    kind = int if all(isinstance(number, int) for number in ends) else float
    values = [kind(start + step * index) for index in range(count if count <= MAX_VALUES else 0)]
    if count == 1:
        return Sweep(key, {"choice": values}, values)
    low, high = sorted((start, start + step * (count - 1)))
    return Sweep(key, {"quniform": [kind(low), kind(high), kind(abs(step))]}, values)


def _glob(where: str, key: str, value: Glob, groups: Groups) -> Sweep | Problem:
    known = groups.choices(key) if "." not in key else []
    if not known:
        return Problem(where, rule="glob chooses from a config group", remedy="name the values: choice(a,b)")
    names = value.filter(known)
    if not names:
        return Problem(where, rule="no choice matches", remedy=f"choices: {', '.join(known)}")
    return Sweep(key, {"group": names}, names)


def _plain(value: Any) -> Any:
    """Return a parsed element without Hydra's own types of text."""
    match value:
        case QuotedString():
            return value.text
        case list():
            return [_plain(each) for each in value]
        case dict():
            return {_plain(key): _plain(each) for key, each in value.items()}
    return value
