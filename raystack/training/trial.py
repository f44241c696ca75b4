"""The task's metrics, tried on one batch before the first step: a mistake in them costs no training."""

import torch

from raystack.code.loading import call
from raystack.config.training import KeepBest
from raystack.errors import ConfigError, Problem, TrainingError, nearest
from raystack.plan import TrainPlan
from raystack.task import MapDataset, StreamDataset, Task
from raystack.training.data import eval_batches, to_device
from raystack.training.evaluate import sums
from raystack.training.modes import evaluating
from raystack.training.snapshot import kept
from raystack.training.strategy import Strategy
from raystack.training.world import World


def try_metrics(
    plan: TrainPlan,
    task: Task,
    eval_data: MapDataset | StreamDataset | None,
    strategy: Strategy,
    world: World,
    folder: str | None,
) -> None:
    """Raise ConfigError if the task's metrics fail on the first eval batch, or lack what keep_best names.

    The same batch on every worker. The model is then as it was.
    """
    names: list[str] = []
    if eval_data is not None:
        # A file that the dataset opens in this process would be shared by all loader processes, its forks.
        loaders = min(plan.training.data.loaders, 1)
        data = plan.training.data.model_copy(update={"loaders": loaders, "prefetch": 1})
        batches = eval_batches(
            task, eval_data, plan.eval_batch, 0, 1, data, plan.seed, False, plan.eval_tokens
        )
        batch, count = next(batches)
        module = strategy.module
        with kept(strategy.bare), evaluating(module), torch.no_grad(), strategy.autocast():
            metrics = call("metrics", task.metrics, module, to_device(batch, world.device), folder=folder)
        try:
            names = [f"eval/{name}" for name in sums(metrics, count)]
        except TrainingError as error:
            raise ConfigError(error.problems) from None
    if plan.training.checkpoint.keep_best is not None:
        _check_best(plan.training.checkpoint.keep_best, names)


def _check_best(best: KeepBest, measured: list[str]) -> None:
    if best.metric in measured:
        return
    close = nearest(best.metric, measured)
    known = ", ".join(measured) or "nothing, the task has no eval data"
    raise ConfigError(
        Problem(
            "training.checkpoint.keep_best.metric",
            rule="the task does not measure it",
            got=best.metric,
            remedy=f"did you mean '{close}'?" if close else f"measured: {known}",
        )
    )
