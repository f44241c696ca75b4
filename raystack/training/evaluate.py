"""Metrics over the whole eval data, exact on any number of workers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from raystack.errors import Problem, TrainingError
from raystack.task import Task
from raystack.training.data import to_device
from raystack.training.world import World


@torch.no_grad()
def evaluate(
    task: Task, module: nn.Module, batches: Iterator[tuple[Any, int]], world: World
) -> dict[str, float]:
    """Return each metric of the task over all samples.

    Sums and counts are added up in float64, over batches and workers.
    """
    module.eval()
    totals: dict[str, list[float]] = {}
    for batch, count in batches:
        for name, value in task.metrics(module, to_device(batch, world.device)).items():
            total = totals.setdefault(name, [0.0, 0.0])
            # A count of 0 is padding: the forward pass is only for its collectives.
            if count:
                amount, weight = _sum(name, value, count)
                total[0] += amount
                total[1] += weight
    module.train()
    # Sorted, because the numbers travel without their names.
    names = sorted(totals)
    gathered = world.gather([number for name in names for number in totals[name]])
    sums = [sum(column) for column in zip(*gathered, strict=True)]
    return {f"eval/{name}": sums[2 * index] / sums[2 * index + 1] for index, name in enumerate(names)}


def _sum(name: str, value: Tensor | tuple[Tensor, Tensor], count: int) -> tuple[float, float]:
    if isinstance(value, tuple):
        return float(value[0].double().sum()), float(value[1].double().sum())
    if value.dim() != 1 or value.shape[0] != count:
        rule = f"metrics returns a tensor of shape [{count}], one value per sample, or a pair (sums, counts)"
        raise TrainingError(Problem(f"task: metrics['{name}']", rule=rule, got=f"shape {list(value.shape)}"))
    return float(value.double().sum()), float(count)
