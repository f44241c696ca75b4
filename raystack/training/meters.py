"""Metrics over a whole eval set by torchmetrics' objects, whose states are merged over the workers.

raystack does not import torchmetrics. Its own synchronisation is not used either: it waits for ever where a
worker has no samples, or lists of another length.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from raystack.code.loading import brief, call, trace
from raystack.errors import ConfigError, Problem, TrainingError
from raystack.task import Meters, Task
from raystack.training.shared import on_first
from raystack.training.world import World

States = tuple[int, Mapping[str, Any]]
"""Number of updates of a torchmetrics object, and its states by name: tensors, or lists of them."""


class MeterSet:
    """The meters of a task by name, each for one set after the other."""

    def __init__(self, task: Task, world: World, folder: str | None) -> None:
        self._world, self._folder = world, folder
        made = call("meters", task.meters, folder=folder) if isinstance(task, Meters) else {}
        self._meters: dict[str, Any] = _checked(made)
        for meter in self._meters.values():
            meter.to(world.device)
            for part in _parts(meter):
                part.distributed_available_fn = _alone

    def reset(self) -> None:
        """Begin a set."""
        for meter in self._meters.values():
            meter.reset()

    def update(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Give the meters what `metrics` has for them, and return the rest.

        Raises TrainingError if an update fails.
        """
        rest = dict(metrics)
        for name in self._meters.keys() & rest.keys():
            given = rest.pop(name)
            try:
                _update(self._meters[name], given)
            except Exception as error:  # any, of torchmetrics or of a meter of the task's own
                raise self._failed(name, "update", error) from error
        return rest

    def compute(self) -> dict[str, float]:
        """Return each meter's value over all workers, on every one; NaN of nothing. Collective."""
        if not self._meters:
            return {}
        mine = {name: [_states(part) for part in _parts(meter)] for name, meter in self._meters.items()}
        everyone = self._world.collect(mine)
        return on_first(self._world, partial(self._merged, everyone))

    def compute_own(self) -> dict[str, float]:
        """Return the value of each meter that was updated here. Raises TrainingError if that fails."""
        return {name: self._value(name) for name, meter in self._meters.items() if meter.update_called}

    def _merged(self, everyone: Sequence[Mapping[str, Sequence[States]]]) -> dict[str, float]:
        values = {}
        for name, meter in self._meters.items():
            for index, part in enumerate(_parts(meter)):
                _merge(part, [states[name][index] for states in everyone], self._world.device)
            updated = any(count for states in everyone for count, _ in states[name])
            values[name] = self._value(name) if updated else math.nan
        return values

    def _value(self, name: str) -> float:
        try:
            value = self._meters[name].compute()
        except Exception as error:  # as for an update
            raise self._failed(name, "compute", error) from error
        if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
            return float(value)
        if isinstance(value, (int, float)):
            return float(value)
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        remedy = "average it, such as by average='macro', or have a meter for each value"
        raise TrainingError(
            Problem(f"task: meters['{name}']", rule="compute returns one number", got=got, remedy=remedy)
        )

    def _failed(self, name: str, method: str, error: Exception) -> TrainingError:
        rule = f"its {method} raised {brief(f'{type(error).__name__}: {error}')}"
        remedy = f"metrics returns for '{name}' what update takes: a tuple, a mapping, or one value"
        problem = Problem(f"task: meters['{name}']", rule=rule, remedy=remedy if method == "update" else None)
        return TrainingError(problem, trace(error, self._folder))


def _checked(made: Any) -> dict[str, Any]:
    if not isinstance(made, Mapping) or not all(isinstance(name, str) for name in made):
        rule, got = "meters returns a mapping from names to torchmetrics' objects", type(made).__name__
        raise ConfigError(Problem("task: meters", rule=rule, got=got))
    for name, meter in made.items():
        if not isinstance(meter, nn.Module) or not hasattr(meter, "metric_state"):
            rule, got = "a meter is a torchmetrics.Metric", type(meter).__name__
            remedy = "name each metric of a collection" if "Collection" in got else None
            raise ConfigError(Problem(f"task: meters['{name}']", rule=rule, got=got, remedy=remedy))
    return dict(made)


def _parts(meter: nn.Module) -> Iterator[Any]:
    """Yield the meter and those that are inside of it: each has states of its own."""
    return (module for module in meter.modules() if hasattr(module, "metric_state"))


def _update(meter: Any, given: Any) -> None:
    if isinstance(given, tuple):
        meter.update(*given)
    elif isinstance(given, Mapping):
        meter.update(**given)
    else:
        meter.update(given)


def _states(part: Any) -> States:
    return part.update_count, tree_map_only(Tensor, torch.Tensor.cpu, dict(part.metric_state))


def _merge(part: Any, everyone: Sequence[States], device: torch.device) -> None:
    """Give a meter the states of all workers, by rank; of one that was not updated they say nothing."""
    states = [tree_map_only(Tensor, lambda one: one.to(device), own) for count, own in everyone if count]
    for name, reduction in part._reductions.items() if states else ():
        values = [own[name] for own in states]
        if isinstance(values[0], list):
            # Neighbouring parts of the set in order, as if one worker had seen all of it.
            setattr(part, name, [each for value in values for each in value])
        elif len(values) > 1:
            stacked = torch.stack(values)
            setattr(part, name, reduction(stacked) if reduction is not None else stacked)
        else:
            setattr(part, name, values[0])
    part._update_count = sum(count for count, _ in everyone)
    part._computed = None


def _alone() -> bool:
    """Tell torchmetrics that there are no other workers."""
    return False
