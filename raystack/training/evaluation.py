"""An evaluation: the task's metrics over each of its eval sets, by their MLflow names."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from raystack.config.data import Data
from raystack.plan import TrainPlan
from raystack.task import Task
from raystack.training.data import eval_batches
from raystack.training.data.eval_sets import EvalSet
from raystack.training.evaluate import evaluate
from raystack.training.meters import MeterSet
from raystack.training.world import World


class Evaluation:
    """The eval sets of a run, and what they are measured by."""

    def __init__(
        self, plan: TrainPlan, task: Task, sets: tuple[EvalSet, ...], world: World, folder: str | None
    ) -> None:
        self.task, self.sets, self.meters = task, sets, MeterSet(task, world, folder)
        self._plan, self._world = plan, world

    def measure(self, module: nn.Module) -> dict[str, float]:
        """Return each metric of each set. Collective."""
        found: dict[str, float] = {}
        data, world = self._plan.training.data, self._world
        for each in self.sets:
            batches = self._batches(each, data, world)
            found |= evaluate(self.task, module, batches, world, self.meters, each.prefix)
        return found

    def first_batch(self, each: EvalSet) -> tuple[Any, int]:
        """Return the first batch of a set and its number of samples, the same on every worker."""
        # A file that the dataset opens in this process would be shared by all loader processes, its forks.
        data = self._plan.training.data
        one = data.model_copy(update={"loaders": min(data.loaders, 1), "prefetch": 1})
        return next(self._batches(each, one, World(0, 1, self._world.device), pin=False))

    def _batches(
        self, each: EvalSet, data: Data, world: World, *, pin: bool | None = None
    ) -> Iterator[tuple[Any, int]]:
        return eval_batches(
            self.task,
            each.data,
            self._plan.eval_batch,
            world.rank,
            world.size,
            data,
            self._plan.seed,
            world.device.type == "cuda" if pin is None else pin,
            self._plan.eval_tokens,
        )
