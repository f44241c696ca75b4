"""The task's metrics, tried on a batch of each eval set before the first step: mistakes cost no training."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from raystack.code.loading import brief, call
from raystack.config.gates import Gates
from raystack.config.training import Training
from raystack.errors import ConfigError, Problem, TrainingError, nearest
from raystack.events import Listener, Warned
from raystack.training.data import to_device
from raystack.training.data.eval_sets import EvalSet
from raystack.training.evaluate import sums
from raystack.training.evaluation import Evaluation
from raystack.training.modes import evaluating
from raystack.training.outputs import Outputs
from raystack.training.snapshot import kept
from raystack.training.strategy import Strategy
from raystack.training.world import World


def try_metrics(
    training: Training,
    gates: Gates | None,
    evaluation: Evaluation,
    strategy: Strategy,
    world: World,
    folder: str | None,
    tell: Listener,
) -> None:
    """Raise ConfigError if the task's metrics fail on a set's first batch, or lack what the config names.

    The same batches on every worker. The model is then as it was.
    """
    trial = _Trial(evaluation, strategy.module, world, folder, tell)
    names: list[str] = []
    for each in evaluation.sets:
        with kept(strategy.bare), evaluating(strategy.module), torch.no_grad(), strategy.autocast():
            try:
                names += [f"{each.prefix}{name}" for name in trial.names(each)]
            except TrainingError as error:
                raise ConfigError(error.problems, error.trace) from error
    # One batch may be too little for a summary; the names of what it would return are then not known.
    for key, metric in () if trial.unknown else _named(training, gates):
        _check_measured(key, metric, names)


class _Trial:
    """The metrics of one batch of a set."""

    def __init__(
        self, evaluation: Evaluation, module: nn.Module, world: World, folder: str | None, tell: Listener
    ) -> None:
        self._evaluation, self._module, self._device = evaluation, module, world.device
        self._folder, self._tell = folder, tell
        self.unknown = False
        """Whether there are metrics whose names are not known."""

    def names(self, each: EvalSet) -> list[str]:
        """Return the names of a set's metrics. Raises ConfigError or TrainingError if one cannot be."""
        batch, count = self._evaluation.first_batch(each)
        batch = to_device(batch, self._device)
        task, meters = self._evaluation.task, self._evaluation.meters
        metrics = call("metrics", task.metrics, self._module, batch, folder=self._folder)
        meters.reset()
        found = [*sums(metrics, count, meters)]
        outputs = Outputs(task)
        outputs.keep(call("outputs", outputs.compute, self._module, batch, folder=self._folder), count)
        for what, compute in (("meters", meters.compute_own), ("summarize", outputs.summarize_own)):
            found += self._whole(what, compute, each, count)
        if twice := {name for name in found if found.count(name) > 1}:
            rule = f"'{min(twice)}' is a metric of metrics, too"
            raise ConfigError(Problem("task: summarize", rule=rule, remedy="give one another name"))
        return found

    def _whole(self, what: str, compute: Any, each: EvalSet, count: int) -> list[str]:
        """Return the names of what is computed from a whole set; warn if it cannot be from one batch."""
        try:
            return list(compute())
        except TrainingError as error:
            if not isinstance(error.__cause__, Exception):
                raise
            text = str(error.problems[0])
        except Exception as error:  # the task's own, which says nothing about more samples
            text = f"task: {what}: {brief(f'{type(error).__name__}: {error}')}"
        self.unknown = True
        samples = f"{count} sample{'s' if count > 1 else ''}"
        self._tell(Warned(f"{text}, tried on {samples} of {each.source}; all of it may be enough"))
        return []


def _named(training: Training, gates: Gates | None) -> Iterator[tuple[str, str]]:
    """Yield each key that names a metric, and the metric."""
    if (best := training.checkpoint.keep_best) is not None:
        yield "training.checkpoint.keep_best.metric", best.metric
    if (early := training.early_stopping) is not None:
        yield "training.early_stopping.metric", early.metric
    if gates is not None and gates.champion is not None:
        yield "registry.gates.champion.metric", gates.champion.metric


def _check_measured(key: str, metric: str, measured: list[str]) -> None:
    if metric in measured:
        return
    close = nearest(metric, measured)
    known = ", ".join(measured) or "nothing, the task has no eval data"
    remedy = f"did you mean '{close}'?" if close else f"measured: {known}"
    raise ConfigError(Problem(key, rule="the task does not measure it", got=metric, remedy=remedy))
