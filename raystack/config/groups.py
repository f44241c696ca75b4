"""Config groups in a search space: the names of choices -> the sections that they stand for.

A resolved config travels without the group's files, so the sections travel in it.
"""

from collections.abc import Callable
from typing import Any

from raystack.config.choices import Groups
from raystack.config.fields import at
from raystack.config.run import RunConfig
from raystack.config.source import header
from raystack.errors import ConfigError, Problem, nearest


def with_sections(config: RunConfig, groups: Groups, choose: Callable[[str], RunConfig]) -> RunConfig:
    """Return the config with the sections of each group in its space.

    `choose` composes the same config with one more override. Raises ConfigError if there is no such choice.
    """
    if config.tuning is None:
        return config
    space = dict(config.tuning.space)
    for group, domain in config.tuning.space.items():
        if isinstance(domain.group, tuple):
            sections = {name: _sections(group, name, groups, choose) for name in domain.group}
            space[group] = domain.model_copy(update={"group": sections})
    return config.model_copy(update={"tuning": config.tuning.model_copy(update={"space": space})})


def _sections(
    group: str, name: str, groups: Groups, choose: Callable[[str], RunConfig]
) -> dict[str, dict[str, Any]]:
    """Return what a choice sets: its section, by the section's dotted key."""
    where = f"tuning.space.{group}"
    file = groups.file(f"{group}/{name}")
    if file is None:
        known = groups.choices(group)
        close = nearest(name, known) if known else nearest(group, groups.names())
        rule = f"there is no '{name}' in the config group" if known else "there is no such config group"
        raise ConfigError(
            Problem(where, rule=rule, got=name, remedy=f"did you mean {close}?" if close else None)
        )
    words = [words for _, words in header(file.read_text(encoding="utf-8")) if words[0] == "@package"]
    package = words[0][1] if words else group.replace("/", ".")
    composed = choose(f"{group}={name}").model_dump()
    section = composed if package == "_global_" else at(composed, tuple(package.split(".")))
    if package == "_global_" or not isinstance(section, dict):
        rule = "a group in a space sets one section of the config"
        raise ConfigError(Problem(where, rule=rule, got=f"# @package {package}"))
    return {package: section}
