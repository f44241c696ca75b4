"""The task's own code between two steps: after a step, an evaluation and the begin of a checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from raystack.task import (
    CheckpointEvent,
    EvaluationEvent,
    OnCheckpoint,
    OnEvaluate,
    OnStep,
    Progress,
    StepEvent,
    Task,
)
from raystack.training.world import World


class Hooks:
    """The hooks that a task has; every worker calls them at the same moments."""

    def __init__(
        self, task: Task, model: nn.Module, world: World, progress: Callable[[int], Progress]
    ) -> None:
        self._on_step = task.on_step if isinstance(task, OnStep) else None
        self._on_evaluate = task.on_evaluate if isinstance(task, OnEvaluate) else None
        self._on_checkpoint = task.on_checkpoint if isinstance(task, OnCheckpoint) else None
        self._place = (world.rank, world.size, model)
        self._progress = progress
        self.running: str | None = None
        """Name of the hook that runs, or has raised."""

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Tell that `done` steps are done; there are `metrics` if this one is reported."""
        if self._on_step is not None:
            self._call("on_step", self._on_step, StepEvent(self._progress(done), *self._place, metrics))

    def evaluated(self, done: int, metrics: Mapping[str, float]) -> None:
        """Tell the metrics of an evaluation."""
        if self._on_evaluate is not None:
            event = EvaluationEvent(self._progress(done), *self._place, metrics)
            self._call("on_evaluate", self._on_evaluate, event)

    def saving(self, done: int, url: str) -> None:
        """Tell that a checkpoint was begun."""
        if self._on_checkpoint is not None:
            event = CheckpointEvent(self._progress(done), *self._place, url)
            self._call("on_checkpoint", self._on_checkpoint, event)

    def _call(self, name: str, hook: Callable[[Any], None], event: Any) -> None:
        self.running = name
        hook(event)
        self.running = None
