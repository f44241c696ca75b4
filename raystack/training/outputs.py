"""Functions of all outputs over an eval set: gathered over the workers in the order of the dataset.

In: each batch's `outputs`. Out: what the task's `summarize` makes of all of them, on worker 0.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from raystack.errors import Problem, TrainingError
from raystack.task import Summarizes, Task
from raystack.training.shared import on_first
from raystack.training.world import World

Batches = list[dict[str, Tensor]]


class Outputs:
    """The outputs of a set on this worker, on the CPU; nothing for a task that does not summarize."""

    def __init__(self, task: Task) -> None:
        self._task = task if isinstance(task, Summarizes) else None
        self._batches: Batches = []

    def compute(self, module: nn.Module, batch: Any) -> Any:
        """Return the task's outputs of a batch."""
        return self._task.outputs(module, batch) if self._task is not None else None

    def keep(self, outputs: Any, count: int) -> None:
        """Keep the outputs of a batch of `count` samples; 0 is padding. Raises TrainingError for others."""
        if self._task is not None and count:
            self._batches.append(_checked(outputs, count))

    def summarize(self, world: World) -> dict[str, float]:
        """Return the task's summary of all outputs, on every worker. Collective."""
        if self._task is None:
            return {}
        return on_first(world, partial(self._summary, world.collect(self._batches)))

    def summarize_own(self) -> dict[str, float]:
        """Return the summary of what was added here."""
        return self._summary([self._batches]) if self._task is not None else {}

    def _summary(self, everyone: Sequence[Batches]) -> dict[str, float]:
        assert self._task is not None
        # A worker's passes are neighbours, so by rank they are in the order of the dataset.
        batches = [batch for each in everyone for batch in each]
        return _numbers(self._task.summarize({name: _joined(name, batches) for name in batches[0]}))


def _checked(outputs: Any, count: int) -> dict[str, Tensor]:
    if not isinstance(outputs, Mapping):
        rule, got = "outputs returns a mapping from names to tensors", type(outputs).__name__
        raise TrainingError(Problem("task: outputs", rule=rule, got=got))
    kept = {}
    for name, value in outputs.items():
        if not isinstance(value, Tensor) or value.shape[:1] != (count,):
            got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            rule = f"outputs returns tensors of shape [{count}, ...], by sample"
            raise TrainingError(Problem(f"task: outputs['{name}']", rule=rule, got=got))
        value = value.detach().cpu()
        # NumPy has no bfloat16, and the precision of the training is not the task's to know.
        kept[name] = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    return kept


def _joined(name: str, batches: Batches) -> Tensor:
    where = f"task: outputs['{name}']"
    if any(batch.keys() != batches[0].keys() for batch in batches):
        raise TrainingError(Problem("task: outputs", rule="outputs has the same names for every batch"))
    shapes = {tuple(batch[name].shape[1:]) for batch in batches}
    if len(shapes) > 1:
        rule = "outputs has the same shape for every sample"
        got = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
        raise TrainingError(Problem(where, rule=rule, got=got, remedy="pad it, or reduce it to a number"))
    return torch.cat([batch[name] for batch in batches])


def _numbers(summary: Any) -> dict[str, float]:
    rule = "summarize returns a mapping from names to numbers"
    if not isinstance(summary, Mapping) or not all(isinstance(name, str) for name in summary):
        raise TrainingError(Problem("task: summarize", rule=rule, got=type(summary).__name__))
    numbers = {}
    for name, value in summary.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise TrainingError(
                Problem(f"task: summarize['{name}']", rule=rule, got=type(value).__name__)
            ) from None
    return numbers
