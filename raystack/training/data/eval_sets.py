"""The eval data of a task: one dataset, or several by name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raystack.config.training import Training
from raystack.errors import ConfigError, Problem
from raystack.task import MapDataset, StreamDataset, Task
from raystack.training.data.agreement import check_same
from raystack.training.data.sources import open_eval_data
from raystack.training.world import World

NAME = r"[\w.\- :]{1,100}"
"""What MLflow takes as a part of a metric's name."""


@dataclass(frozen=True)
class EvalSet:
    """One of the eval datasets."""

    name: str | None
    """None for the only one, if the task has not named it."""
    data: MapDataset | StreamDataset

    @property
    def prefix(self) -> str:
        """What the names of its metrics begin with."""
        return "eval/" if self.name is None else f"eval/{self.name}/"

    @property
    def source(self) -> str:
        """The place where the task returned it, for an error."""
        return _source(self.name)


def open_eval_sets(given: Any, training: Training) -> tuple[EvalSet, ...]:
    """Open what `eval_data` returned: None, a dataset, or a mapping of names to datasets.

    Raises ConfigError for what is not eval data, and for names that metrics cannot have.
    """
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        return (EvalSet(None, open_eval_data(given, training)),)
    if not given:
        remedy = "return None for no evaluation"
        raise ConfigError(
            Problem("task: eval_data", rule="a mapping has at least one set", got="{}", remedy=remedy)
        )
    for name in given:
        if not isinstance(name, str) or not re.fullmatch(NAME, name) or name in (".", ".."):
            rule = "the name of a set, as a part of its metrics', has letters, digits, spaces and '_-.:' only"
            raise ConfigError(Problem("task: eval_data", rule=rule, got=repr(name)))
    return tuple(
        EvalSet(name, open_eval_data(dataset, training, _source(name))) for name, dataset in given.items()
    )


def check_same_sets(
    sets: tuple[EvalSet, ...], task: Task, training: Training, seed: int, world: World
) -> None:
    """Raise ConfigError if the workers have other sets, in another order or with other samples."""
    names = world.gather_objects([each.name for each in sets])
    if any(each != names[0] for each in names):
        rule, remedy = "is the same on every worker", "return the same sets, in the same order, on each"
        got = "; ".join(", ".join(map(str, each)) or "none" for each in names)
        raise ConfigError(Problem("task: eval_data", rule=rule, got=got, remedy=remedy))
    for each in sets:
        check_same(each.source, task, each.data, training, seed, world)


def _source(name: str | None) -> str:
    return "eval_data" if name is None else f"eval_data['{name}']"
