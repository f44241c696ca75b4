"""The training loop, as each worker runs it.

It reads from top to bottom and does not know which strategy it runs.
"""

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raystack import config as configs
from raystack.checkpoint import (
    CONFIG,
    MODEL,
    CheckpointStore,
    Manifest,
    ModelSpec,
    write_spec,
)
from raystack.checkpoint.extra_state import extra_of, extra_shards
from raystack.checkpoint.fence import Fence
from raystack.checkpoint.weights import read_model
from raystack.code.archive import unpack
from raystack.errors import PausedError, Problem, RaystackError, TrainingError
from raystack.events import EndedEarly, Evaluated, Finished, Listener, Saved, Started, Stepped, Warned
from raystack.plan import TrainPlan
from raystack.plan.accelerators import peak_flops
from raystack.plan.cadence import Interval
from raystack.task import Demonstrates, HasObjectives, Task
from raystack.training.assembly import Assembly, assemble
from raystack.training.async_checkpointer import AsyncCheckpointer
from raystack.training.data import sample_order, size, training_batches
from raystack.training.determinism import deterministic
from raystack.training.equalize import equalize
from raystack.training.exporting import choose, export_model
from raystack.training.failure import explained
from raystack.training.graceful_stop import GracefulStop
from raystack.training.hooks import Hooks
from raystack.training.manifests import describe
from raystack.training.objectives import Rounds, TakingTurns
from raystack.training.optimizer import peak
from raystack.training.passes import Passed, Passes
from raystack.training.phases import Phases
from raystack.training.progress import progress_of
from raystack.training.reports import NotFiniteError, Reports
from raystack.training.stopping import TIME, Stopping
from raystack.training.strategy.group import forget_groups
from raystack.training.throughput import Throughput
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World


@dataclass(frozen=True)
class WorkerSpec:
    """The message from the driver to each worker."""

    plan: TrainPlan
    code: bytes | None
    """Archive of the task's folder; None for an installed package."""
    fence: Fence | None = None
    """The check before each publication; None if no other driver can take over the run."""
    exports: bool = True
    """Whether the chosen checkpoint's full weights are exported at the end."""
    # Two drivers that start at the same moment may hold the same number, so the number alone is not unique.
    token: str = field(default_factory=lambda: secrets.token_hex(3))
    """Random part of the attempts' names, one per driver."""

    def attempt_name(self, attempt: int) -> str:
        """Return a name that no other attempt of any driver has; it keeps their checkpoints apart."""
        driver = self.fence.holder.number if self.fence is not None else 0
        return f"{driver}-{attempt}-{self.token}"


def train(
    spec: WorkerSpec, world: World, tell: Listener, graceful_stop: GracefulStop, heartbeats: HeartbeatSender
) -> Finished:
    """Train on this worker, from the run's newest good checkpoint if it has one.

    `tell` is called on rank 0 only. Raises PausedError if `graceful_stop` ended the training at a step with
    a checkpoint.
    """
    with deterministic(spec.plan.training):
        try:
            return _train(spec, world, tell, graceful_stop, heartbeats)
        finally:
            forget_groups()


def _train(
    spec: WorkerSpec, world: World, tell: Listener, graceful_stop: GracefulStop, heartbeats: HeartbeatSender
) -> Finished:
    plan = spec.plan
    tell = tell if world.rank == 0 else lambda event: None
    folder = unpack(spec.code) if spec.code is not None else None
    store = CheckpointStore(plan.paths.checkpoints, spec.fence)
    try:
        built = assemble(plan, world, folder, store, tell)
    except RaystackError:
        raise
    except Exception as error:
        raise explained(
            error, f"step 1, rank {world.rank}", folder, _last_good(store, _newest(store))
        ) from error
    run = _Run(spec, world, tell, graceful_stop, heartbeats, store, built)
    try:
        return run.train()
    except RaystackError:
        raise
    except Exception as error:
        run.close()  # before the error says which checkpoint is the last good one
        raise explained(error, f"{run.where}, rank {world.rank}", folder, run.remedy(run.step)) from error
    finally:
        run.close()


class _Due(NamedTuple):
    """What comes after a step by its number alone."""

    report: bool
    evaluate: bool
    save: bool


class _Run:
    """One worker's training: its parts and its position in the data."""

    def __init__(
        self,
        spec: WorkerSpec,
        world: World,
        tell: Listener,
        graceful_stop: GracefulStop,
        heartbeats: HeartbeatSender,
        store: CheckpointStore,
        built: Assembly,
    ) -> None:
        plan = self.plan = spec.plan
        self.exports = spec.exports
        self.world, self.tell, self.graceful_stop, self.store = world, tell, graceful_stop, store
        self.attempt = spec.attempt_name(world.attempt)
        self.built, self.strategy = built, built.strategy
        self.samples, self.schedule = built.samples, built.samples.schedule
        self.throughput = Throughput(world, peak_flops(world.device_name, plan.training.precision))
        self.phase, self.heartbeats = Phases(world, self.throughput, heartbeats), heartbeats
        fill = partial(_fill, plan, built.spec, spec.code)
        self.checkpointer = AsyncCheckpointer(store, world, plan.training.checkpoint, fill)
        self.step = built.first
        self.saved = built.first or None
        """Step of the last published checkpoint, known on rank 0 only."""
        self.reports = Reports(plan, world, built, self.throughput)
        self.not_numbers: set[str] = set()
        """Metrics that were reported as NaN already."""
        self.evaluating = False
        self.factor = 1.0
        """The step's learning rates, as a fraction of their peaks."""
        self.stopping = Stopping(plan.training, built.found)
        self.told_reason = False
        progress = partial(progress_of, self.schedule, self.samples.length)
        self.hooks = Hooks(built.task, built.strategy.bare, world, progress)

    def train(self) -> Finished:
        """Train from the current position to the end of the run."""
        schedule, first = self.schedule, self.built.first
        self.tell(self._started())
        passes = self._passes()
        self._tell_reason()  # an earlier attempt may have been over
        if self._lacks_evaluation():
            self._evaluate(first, saved=True, complete=True)

        for step in range(first, schedule.steps):
            if self.stopping.reason is not None:
                break
            done = step + 1
            due = self._due_after(step)
            self._begin(step, due)
            if step == first:
                passed, self.throughput.flops_per_step = passes.first(step)
            else:
                passed = passes.run(step)
            norm = self._update(passed, want_norm=due.report or due.save)
            self._average(done)
            self.reports.add(passed.loss)
            if step > first:
                self.throughput.end(schedule.consumed(done) - schedule.consumed(step), passed.tokens)
            self.step = done

            stop = self._stop(step)
            last = done == schedule.steps or self.stopping.out_of_time
            evaluates, saves = last or due.evaluate, last or stop is not None or due.save
            metrics: Mapping[str, float] = {}
            if due.report or saves or (evaluates and self.stopping.patience is not None):
                metrics = self._report(done, norm, passed, passes.names or ())
            self.hooks.step(done, metrics)
            # In this order, so that an evaluation that fails costs no training.
            ends = last or stop is not None
            saved = saves and self._save(done, evaluates=evaluates, complete=ends)
            if evaluates:
                self._evaluate(done, saved=saved, complete=ends)
            if stop is not None and not last:
                raise PausedError(_paused(done, self.store.folder(done)), stop)
            # The second step compiles, because the first ran eagerly to count its operations.
            compiled = self.plan.training.compile and step == first + 1
            if evaluates or saves or step == first or compiled:
                self.throughput.restart()
        return self._finished()

    def _due_after(self, step: int) -> _Due:
        done, cadence = step + 1, self.plan.cadence
        report = done % cadence.log == 0 or done == self.schedule.steps or step == self.built.first
        return _Due(report, self._due(cadence.evaluate, done), self._due(cadence.checkpoint, done))

    def _begin(self, step: int, due: _Due) -> None:
        """Set what a step depends on, before its passes."""
        self.graceful_stop.begin(step, self.stopping.due())
        self.built.thaw.begin(step, self.strategy)
        self.factor = self.built.factor(step, self.schedule.steps)
        self.phase.begin(step, precise=due.report and step > self.built.first)

    def _average(self, done: int) -> None:
        """Take the new weights into their averages."""
        if self.built.averages is not None:
            with self.phase("optimizer"):
                self.built.averages.update(done)

    def _stop(self, step: int) -> str | None:
        """Return the reason to stop after a step, the same on every worker, or None."""
        stop = self.graceful_stop.due(step)
        if stop == TIME:
            self.stopping.out_of_time = True
            self._tell_reason()
        return stop

    def _due(self, interval: Interval, done: int) -> bool:
        """Return whether an interval ends with the step that is the `done`th."""
        return self._passed(interval, done) > self._passed(interval, done - 1)

    def _passed(self, interval: Interval, done: int) -> int:
        return interval.passed(done, self.schedule.consumed(done), self.samples.length)

    @property
    def where(self) -> str:
        """What the run is doing, for an error."""
        doing = self.hooks.running or ("the evaluation" if self.evaluating else None)
        return f"{doing} after step {self.step}" if doing else f"step {self.step + 1}"

    def _tell_reason(self) -> None:
        """Tell, once and before the last report, why the training ends before its last step."""
        if self.stopping.reason is not None and self.step < self.schedule.steps and not self.told_reason:
            self.told_reason = True
            self.tell(EndedEarly(self.step, self.stopping.reason))

    def _lacks_evaluation(self) -> bool:
        """Return whether an earlier attempt ended in the evaluation of this one's first weights."""
        found = self.built.found
        if found is None or found.metrics:
            return False
        return found.evaluates or self.step == self.schedule.steps

    def _report(
        self, done: int, norm: Tensor | None, passed: Passed, names: Sequence[str]
    ) -> Mapping[str, float]:
        """Report the steps since the last report, and return the metrics; raise TrainingError on all workers
        if one had a loss or a gradient that is not finite.
        """
        try:
            metrics = self.reports.gather(done, norm, passed, names)
        except NotFiniteError as error:
            self.close()  # before the error says which checkpoint is the last good one
            remedy = f"{error.remedy}; {self.remedy(error.step - 1)}"
            raise TrainingError(Problem(f"step {error.step}", rule=error.rule, remedy=remedy)) from None
        metrics["train/lr"] = peak(self.strategy.optimizer) * self.factor
        self.tell(Stepped(done, metrics))
        self._tell_saved()
        return metrics

    def _evaluate(self, done: int, *, saved: bool, complete: bool) -> None:
        """Evaluate, and add the metrics to the checkpoint of the step if it is `saved`.

        With `complete`, wait until they are there. If the training ends with it, there is a checkpoint in any
        case.
        """
        if not self.samples.evaluation.sets:
            return
        self.evaluating = True
        with self.phase("evaluate"):
            equalize(self.strategy.bare, self.world)
            with self._weights_to_evaluate(), self.strategy.autocast():
                metrics = self.samples.evaluation.measure(self.strategy.module)
        self.evaluating = False
        self.stopping.observe(done, metrics)
        over = self.stopping.reason is not None
        if over and not saved:
            self._save(done, evaluates=True, complete=True)
        if saved or over:
            self.checkpointer.measured(done, metrics)
        if (saved and complete) or over:
            self.checkpointer.wait()
        self._tell_reason()
        every = self.plan.cadence.evaluate
        self.tell(Evaluated(done, metrics, self._passed(every, done) + (not self._due(every, done))))
        self._warn_of_nan(done, metrics)
        self.hooks.evaluated(done, metrics)

    def _weights_to_evaluate(self) -> AbstractContextManager[None]:
        """Return the block in which the model has the weights to evaluate: its own, or their averages."""
        averages = self.built.averages
        if averages is None or not averages.config.evaluate:
            return nullcontext()
        self.checkpointer.copied()  # a checkpoint of this step reads the weights
        return averages.in_place()

    def _warn_of_nan(self, done: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if math.isnan(value) and name not in self.not_numbers:
                self.not_numbers.add(name)
                self.tell(Warned(f"{name} is not a number after step {done}: NaN, or 0 of 0 samples"))

    def _save(self, done: int, *, evaluates: bool, complete: bool) -> bool:
        """Begin a checkpoint, to which metrics are added if the step `evaluates`.

        Returns whether it was begun, and not skipped; with `complete` it is, and waited for.
        """
        manifest = describe(
            self.plan, self.built, self.world, self.attempt, done, self.stopping, evaluates=evaluates
        )
        with self.phase("save"):
            if complete:
                # An empty backlog first: with a full one `save` would skip the checkpoint to end with.
                self.checkpointer.wait()
            equalize(self.strategy.bare, self.world)
            extra = extra_shards(extra_of(self.strategy.bare, self.built.spec.parameters))
            averages = self.built.averages.state() if self.built.averages is not None else {}
            begun = self.checkpointer.save(manifest, {**self.strategy.state(), **averages, **extra})
            if complete:
                self.checkpointer.wait()
        self._tell_saved()
        if begun:
            self.hooks.saving(done, self.store.folder(done))
        return begun

    def _tell_saved(self) -> None:
        for event in self.checkpointer.events():
            if isinstance(event, Saved):
                self.saved = event.step
            self.tell(event)

    def _finished(self) -> Finished:
        """Export the chosen checkpoint's full weights on rank 0, and return how the training ended."""
        if self.world.rank > 0:
            return Finished(self.step, self.step)
        chosen, reason = choose(self.plan, self.store), self.stopping.reason if self.told_reason else None
        if not self.exports:
            return Finished(self.step, chosen.step, chosen.metrics, ended_early=reason)
        sets, train = self.samples.evaluation.sets, self.samples.train
        export_model(self.plan, self.store, chosen, self.built.task, sets, self.tell, train)
        text = None
        if isinstance(self.built.task, Demonstrates):
            with self.store.fetch(chosen.step, MODEL) as folder, torch.inference_mode():
                task, model, _ = read_model(folder)  # on the CPU: the device still holds the training
                text = task.demonstrate(model) if isinstance(task, Demonstrates) else None
        return Finished(self.step, chosen.step, chosen.metrics, text, reason)

    def _started(self) -> Started:
        built, world = self.built, self.world
        evals = sum(size(each.data) or 0 for each in self.samples.evaluation.sets)
        return Started(
            self.step,
            self.schedule.steps,
            self.samples.length,
            evals,
            built.parameters,
            world.device_name,
            world.size,
        )

    def _passes(self) -> Passes | Rounds:
        """Return the passes of the task's loss, or those of its objectives."""
        task, strategy, seed = self.built.task, self.strategy, self.plan.seed

        def make(task: Task, seed: int, batches: Iterator[Any]) -> Passes:
            length = self.samples.length
            return Passes(task, strategy, self.schedule, self.world, self.phase, seed, batches, length)

        if not isinstance(task, HasObjectives):
            return make(task, seed, self._batches())
        assert isinstance(strategy, TakingTurns)
        update = partial(self._update, want_norm=False)
        return Rounds(task, strategy, self.built.objectives, self._batches(), seed, make, update)

    def _update(self, passed: Passed, *, want_norm: bool) -> Tensor | None:
        """Update the weights with the gradients of `passed`; return their norm if it was computed."""
        # Weights and optimizer state change here only, so a checkpoint of the step before was copied while
        # forward and backward ran.
        self.checkpointer.copied()
        with self.phase("optimizer"):
            return self.strategy.step(
                self.factor,
                self.plan.training.clip_norm,
                clip_value=self.plan.training.clip_value,
                scale=passed.scale,
                want_norm=want_norm,
            )

    def _batches(self) -> Iterator[Any]:
        data, built = self.plan.training.data, self.built
        order = sample_order(self.samples.train, self.plan.seed, data, self.schedule.batch.global_)
        pin = self.world.device.type == "cuda"
        return training_batches(
            built.task, self.samples.train, order, self.schedule, self.step, data, self.plan.seed, pin
        )

    def last_good(self) -> str:
        """Describe, for an error message, where the run can resume from."""
        # Publications are reported on rank 0 only; the other ranks look into the store.
        return _last_good(self.store, self.saved if self.world.rank == 0 else _newest(self.store))

    def remedy(self, step: int) -> str:
        """Describe, for an error in a step, what there is to do whatever the error is."""
        smaller = step < self.schedule.steps and self.schedule.smaller(step)
        hint = "this last step is smaller: training.data.drop_last=true leaves it out; " if smaller else ""
        return f"{hint}{self.last_good()}"

    def close(self) -> None:
        """Stop the background work, after a short wait for checkpoints that were begun."""
        self.heartbeats.enter("over")  # a worker that failed is no worker that hangs
        self.checkpointer.close()
        self._tell_saved()


def _paused(step: int, checkpoint: str) -> Problem:
    return Problem(
        f"step {step}",
        rule=f"the run stopped as it was told to, with the checkpoint {checkpoint}",
        remedy="go on with --resume",
    )


def _fill(plan: TrainPlan, spec: ModelSpec, code: bytes | None, manifest: Manifest, folder: Path) -> None:
    """Write what a checkpoint has beside its state: on rank 0, in the background."""
    (folder / CONFIG).write_text(configs.dump(plan.config), encoding="utf-8")
    (folder / MODEL).mkdir()
    write_spec(folder / MODEL, replace(spec, step=manifest.step), code)


def _newest(store: CheckpointStore) -> int | None:
    """Return the step of the newest checkpoint."""
    return next((found.step for found in reversed(store.manifests())), None)


def _last_good(store: CheckpointStore, step: int | None) -> str:
    return "no checkpoint was written yet" if step is None else f"last good checkpoint: {store.folder(step)}"
