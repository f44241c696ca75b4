"""Metrics over the whole eval data, exact on any number of workers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raystack.errors import Problem, TrainingError
from raystack.task import Task
from raystack.training.data import to_device
from raystack.training.meters import MeterSet
from raystack.training.modes import evaluating
from raystack.training.outputs import Outputs
from raystack.training.world import World

Totals = dict[str, tuple[float, float]]
"""Sum and count of each metric, by name."""


@torch.no_grad()
def evaluate(
    task: Task,
    module: nn.Module,
    batches: Iterator[tuple[Any, int]],
    world: World,
    meters: MeterSet,
    prefix: str = "eval/",
) -> dict[str, float]:
    """Return each metric of the task over all samples of a set; NaN where nothing was counted.

    Sums and counts are added up in float64, over batches and workers. A metric may be missing from some
    batches, or from all batches of a worker.
    """
    totals: Totals = {}
    outputs = Outputs(task)
    meters.reset()
    with evaluating(module):
        for on_host, count in batches:
            batch = to_device(on_host, world.device)
            metrics = task.metrics(module, batch)
            outputs.keep(outputs.compute(module, batch), count)
            # A count of 0 is padding: the forward pass is only for its collectives.
            if count:
                _add(totals, sums(metrics, count, meters))
    everyone: Totals = {}
    # By name, because the workers may have met different ones.
    for each in world.gather_objects(totals):
        _add(everyone, each)
    means = {name: _ratio(*everyone[name]) for name in sorted(everyone)}
    found = {**means, **meters.compute(), **outputs.summarize(world)}
    return {f"{prefix}{name}": value for name, value in found.items()}


def sums(metrics: Any, count: int, meters: MeterSet) -> Totals:
    """Return sum and count of each metric of a batch of `count` samples, and give the meters theirs.

    Raises TrainingError, with the metric's name, for what is not one.
    """
    if not isinstance(metrics, Mapping) or not all(isinstance(name, str) for name in metrics):
        got = type(metrics).__name__
        raise TrainingError(
            Problem("task: metrics", rule="metrics returns a mapping from names to values", got=got)
        )
    return {name: _sum(name, value, count) for name, value in meters.update(metrics).items()}


def _sum(name: str, value: Any, count: int) -> tuple[float, float]:
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(each, _NUMERIC) for each in value):
        total, weight = (torch.as_tensor(each).double().sum() for each in value)
        return float(total), float(weight)
    if isinstance(value, Tensor) and value.shape == (count,):
        return float(value.double().sum()), float(count)
    got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    rule = f"metrics returns a tensor of shape [{count}], one value per sample, or a pair (sums, counts)"
    raise TrainingError(Problem(f"task: metrics['{name}']", rule=rule, got=got))


def _add(totals: Totals, more: Totals) -> None:
    for name, (amount, weight) in more.items():
        before = totals.get(name, (0.0, 0.0))
        totals[name] = (before[0] + amount, before[1] + weight)


def _ratio(total: float, weight: float) -> float:
    return total / weight if weight else math.nan


_NUMERIC = (Tensor, int, float)
