"""The parts of a worker's training, built from the plan.

In: the plan, and this worker. Out: an Assembly, at the step from which the run resumes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from raystack.checkpoint import CheckpointStore, Manifest, ModelSpec, describe_parameters
from raystack.checkpoint.extra_state import (
    Extra,
    load_extra_state,
    read_extra,
    resize_buffers,
)
from raystack.checkpoint.model import Parameter
from raystack.code.loading import call, load, make_model
from raystack.config.training import Training
from raystack.errors import Problem
from raystack.events import Listener, Warned
from raystack.plan import TrainPlan
from raystack.plan.cadence import check_length
from raystack.task import (
    HasBlocks,
    HasObjectives,
    MakesOptimizer,
    MapDataset,
    Objective,
    SetsRate,
    StreamDataset,
    Task,
)
from raystack.training import ema, objectives, own_optimizer, resume
from raystack.training import strategy as strategies
from raystack.training.chunks import check_chunks
from raystack.training.data import (
    BatchPlan,
    check_same,
    open_train_data,
    size,
    token_budget,
)
from raystack.training.data.eval_sets import check_same_sets, open_eval_sets
from raystack.training.ema import Averages
from raystack.training.evaluation import Evaluation
from raystack.training.freeze import Thaw, freeze
from raystack.training.groups import settings_of
from raystack.training.initial import initialise
from raystack.training.model_checks import check_model, sparse_parameters
from raystack.training.optimizer import make_optimizer
from raystack.training.recompute import recompute
from raystack.training.schedule import Factor, factor_of, warmup_steps
from raystack.training.strategy import MakeOptimizer, Strategy
from raystack.training.trial import try_metrics
from raystack.training.world import World


@dataclass(frozen=True)
class Samples:
    """The data of a run, and the steps over it."""

    train: MapDataset | StreamDataset
    length: int | None
    """Number of samples in an epoch; None for a stream without a length."""
    schedule: BatchPlan
    evaluation: Evaluation


@dataclass(frozen=True)
class Assembly:
    """The parts of a worker's training, constant for an attempt."""

    task: Task
    samples: Samples
    spec: ModelSpec
    """Description of the model at step 0."""
    parameters: int
    """Number of trainable parameters."""
    strategy: Strategy
    objectives: Mapping[str, Objective]
    """The task's objectives by name; none where it has one loss."""
    optimizer: str
    """Kind of the optimizer, which says what its state is."""
    factor: Factor
    """What the learning rates of a step are, as a fraction of their peaks."""
    thaw: Thaw
    averages: Averages | None
    """Moving averages of the weights; None if the config has none."""
    found: Manifest | None
    """Manifest of the checkpoint that it goes on from."""

    @property
    def first(self) -> int:
        """Number of optimizer steps that the run has done already."""
        return self.found.step if self.found is not None else 0


def assemble(
    plan: TrainPlan, world: World, folder: str | None, store: CheckpointStore, tell: Listener
) -> Assembly:
    """Build all parts, and load the checkpoint to resume from. `folder` is the task's; None: installed."""
    torch.set_num_threads(plan.workers.threads)
    found = resume.find(store, world, tell)
    # Before the task's code runs, so that all workers make the same data and the same initial weights.
    world.seed(plan.seed)
    task = load(plan.config.task.model_copy(update={"folder": folder}))
    plan = own_optimizer.decided(plan, task)
    samples = _open(plan, world, task, folder, found)
    factor = factor_of(plan.training.schedule, task)
    world.seed(plan.seed)  # reading data may have drawn numbers, and not on every worker the same
    model = _make(plan, task, folder, restored=found is not None)
    for warning in _doubts(plan.training, samples.schedule, task, model):
        tell(Warned(str(warning)))
    until = freeze(model, plan.training.freeze)
    check_model(model, plan.training)
    init_from = found.init_from if found is not None else initialise(plan, model, world, tell)
    parameters = describe_parameters(model)
    trainable = sum(one.numel() for one in model.parameters() if one.requires_grad)
    with store.fetch(found.step, found.state) if found is not None else nullcontext() as state:
        extra = read_extra(state) if state is not None else Extra()
        resize_buffers(model, extra.buffers)
        blocks = _prepared_blocks(task, model, plan.training)
        strategy, turns, name = _spread(plan, task, model, blocks, until, world, folder)
        if found is not None:
            resume.check_optimizer(name, found)
        strategy.state()  # what a checkpoint cannot hold is refused now, and not hours later
        if state is not None:
            _restore(state, strategy, extra)
        averages = ema.resumed(plan.training.ema, strategy, state, tell)
        try_metrics(
            plan.training, plan.config.registry.gates, samples.evaluation, strategy, world, folder, tell
        )
    return Assembly(
        task=task,
        samples=samples,
        spec=_spec(plan, task, parameters, init_from),
        parameters=trainable,
        strategy=strategy,
        objectives=turns,
        optimizer=name,
        factor=factor,
        thaw=Thaw(until),
        averages=averages,
        found=found,
    )


def _open(plan: TrainPlan, world: World, task: Task, folder: str | None, found: Manifest | None) -> Samples:
    """Open the task's data, and lay out the steps over it from the checkpoint on, if there is one."""
    training = plan.training
    data = open_train_data(call("train_data", task.train_data, folder=folder), training)
    check_same("train_data", task, data, training, plan.seed, world)
    length = size(data)
    check_length(plan.cadence, length)
    if found is not None:
        resume.check(plan, found, length)
    schedule = resume.schedule(plan, world, length, found)
    budget = token_budget(data, training, plan.seed, schedule.batch.global_)
    sets = open_eval_sets(call("eval_data", task.eval_data, folder=folder), training)
    check_same_sets(sets, task, training, plan.seed, world)
    check_chunks(sets, plan.config.registry.gates)
    return Samples(
        data, length, replace(schedule, budget=budget), Evaluation(plan, task, sets, world, folder)
    )


def _make(plan: TrainPlan, task: Task, folder: str | None, *, restored: bool) -> nn.Module:
    """Return the task's model, which is told whether stored weights will replace all of its own."""
    config = plan.training.init_from
    restored = restored or (config is not None and config.whole)
    model: nn.Module = call("model", partial(make_model, task, restored=restored), folder=folder)
    return model


def _spec(
    plan: TrainPlan, task: Task, parameters: Mapping[str, Parameter], init_from: Mapping[str, Any] | None
) -> ModelSpec:
    """Describe the model at step 0."""
    return ModelSpec(
        plan.config.task.entry,
        plan.config.task.args,
        task.signature,
        plan.run_id,
        step=0,
        metrics={},
        averaged=plan.training.ema is not None and plan.training.ema.export,
        init_from=init_from,
        parameters=parameters,
    )


def _spread(
    plan: TrainPlan,
    task: Task,
    model: nn.Module,
    blocks: Sequence[nn.Module],
    until: Mapping[str, int],
    world: World,
    folder: str | None,
) -> tuple[Strategy, Mapping[str, Objective], str]:
    """Return the strategy, the objectives of a task that has several, and the kind of the optimizer."""
    config = plan.training.optimizer
    make: MakeOptimizer
    if isinstance(task, MakesOptimizer):
        make = partial(own_optimizer.make_own, task.optimizer, plan.training, until, folder)
    else:
        settings = settings_of(plan.training, model, blocks, until)
        make = partial(make_optimizer, config, settings=settings, sparse=any(sparse_parameters(model)))
    if isinstance(task, HasObjectives):
        several, turns = objectives.build(task, plan, model, until, make, world, folder)
        return several, turns, several.optimizers(turns, config)
    strategy = strategies.build(plan, model, blocks, make, world)
    return strategy, {}, resume.optimizer_name(config, strategy.optimizer)


def _prepared_blocks(task: Task, model: nn.Module, training: Training) -> Sequence[nn.Module]:
    """Return the task's blocks, with gradient checkpointing and compilation applied if configured."""
    blocks = list(task.blocks(model)) if isinstance(task, HasBlocks) else []
    if training.gradient_checkpointing:
        recompute(blocks)
    if training.compile:
        for block in blocks or [model]:
            block.compile()
    return blocks


def _restore(state: Path, strategy: Strategy, extra: Extra) -> None:
    from raystack.checkpoint.sharded import read  # takes a second, which a new run does not pay

    strategy.load(partial(read, state))
    load_extra_state(strategy.bare, extra.modules)


def _doubts(training: Training, schedule: BatchPlan, task: Task, model: nn.Module) -> Iterator[Problem]:
    """Yield what can be trained but is unlikely to be meant."""
    if not any(module.training for module in model.modules()):
        remedy = "call train() on it in the task's model(), except on parts that are frozen"
        yield Problem(
            "task: model", rule="all of it is in eval mode, as it will be in training", remedy=remedy
        )
    if isinstance(task, SetsRate) and training.schedule.kind != "task":
        rule = "the task's lr_factor is not used"
        remedy = "set training.schedule.kind=task"
        yield Problem("training.schedule.kind", rule=rule, got=training.schedule.kind, remedy=remedy)
    warmup = warmup_steps(training.schedule, schedule.steps)
    if warmup > schedule.steps:
        rule = f"longer than the run's {schedule.steps} steps, so the learning rate never reaches its peak"
        yield Problem("training.schedule.warmup_steps", rule=rule, got=str(warmup))
    norms = any(isinstance(module, _BatchNorm) and module.training for module in model.modules())
    if norms and schedule.steps > schedule.first and schedule.batch.micro > 1 and schedule.smallest_pass == 1:
        rule = "BatchNorm gets a single sample in the run's last step, over which it has no statistics"
        remedy = "training.data.drop_last=true leaves that step out"
        yield Problem("training.data.drop_last", rule=rule, got="false", remedy=remedy)
