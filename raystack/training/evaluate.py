"""Metrics over the whole eval data, exact on any number of workers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raystack.errors import Problem, TrainingError
from raystack.task import Task
from raystack.training.data import to_device
from raystack.training.modes import evaluating
from raystack.training.world import World

Totals = dict[str, tuple[float, float]]
"""Sum and count of each metric, by name."""


@torch.no_grad()
def evaluate(
    task: Task, module: nn.Module, batches: Iterator[tuple[Any, int]], world: World
) -> dict[str, float]:
    """Return each metric of the task over all samples; NaN where nothing was counted.

    Sums and counts are added up in float64, over batches and workers. A metric may be missing from some
    batches, or from all batches of a worker.
    """
    totals: Totals = {}
    with evaluating(module):
        for batch, count in batches:
            metrics = task.metrics(module, to_device(batch, world.device))
            # A count of 0 is padding: the forward pass is only for its collectives.
            if count:
                _add(totals, sums(metrics, count))
    everyone: Totals = {}
    # By name, because the workers may have met different ones.
    for each in world.gather_objects(totals):
        _add(everyone, each)
    return {f"eval/{name}": _ratio(*everyone[name]) for name in sorted(everyone)}


def sums(metrics: Any, count: int) -> Totals:
    """Return sum and count of each metric of a batch of `count` samples.

    Raises TrainingError, with the metric's name, for what is not one.
    """
    if not isinstance(metrics, Mapping) or not all(isinstance(name, str) for name in metrics):
        got = type(metrics).__name__
        raise TrainingError(
            Problem("task: metrics", rule="metrics returns a mapping from names to values", got=got)
        )
    return {name: _sum(name, value, count) for name, value in metrics.items()}


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
