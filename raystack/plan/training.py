"""RunConfig -> TrainPlan: everything about a training run that can be decided before it starts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from raystack.config import RunConfig
from raystack.config.training import Training, Zero
from raystack.errors import PlanError, Problem
from raystack.plan.batch import Batch, plan_batches
from raystack.plan.deepspeed import batch_sizes, plan_deepspeed
from raystack.plan.footprint import ModelProfile
from raystack.plan.memory import MemoryPlan, largest_batches, plan_memory
from raystack.plan.naming import RunPaths, run_paths
from raystack.plan.scale import Workers, plan_workers


@dataclass(frozen=True)
class Cadence:
    """What happens after how many optimizer steps; None: only at the end."""

    log: int
    evaluate: int | None
    checkpoint: int | None


@dataclass(frozen=True)
class TrainPlan:
    """What a training run will do. Printed by `--dry-run`, and the very value that is executed."""

    run_id: str
    experiment: str
    seed: int
    paths: RunPaths
    workers: Workers
    batches: tuple[Batch, ...]
    """One for each number of workers that the run may have, the largest first; one where it is not elastic.
    """
    eval_batch: int
    """Samples per forward pass and worker in an evaluation."""
    cadence: Cadence
    training: Training
    """What the config says and nothing had to be decided about: length, optimizer, schedule, precision,
    strategy.
    """
    deepspeed: Mapping[str, Any] | None
    """The JSON that DeepSpeed gets with the most workers (`deepspeed_on` has the others'); None for another
    strategy.
    """
    tracking_uri: str | None
    """MLflow tracking URI; None: nothing is tracked."""
    artifacts: str | None
    """Where the embedded MLflow store keeps artifacts; None: the server decides."""
    config: RunConfig
    memory: MemoryPlan | None = None
    """What a worker's device has to hold; None: the model was not measured, because nobody asked for it."""

    @property
    def batch(self) -> Batch:
        """The batch with the most workers."""
        return self.batches[0]

    def batch_on(self, workers: int) -> Batch:
        """The batch with that number of workers, which is one of the possible ones."""
        return next(batch for batch in self.batches if batch.workers == workers)

    def deepspeed_on(self, workers: int) -> Mapping[str, Any]:
        """The JSON that DeepSpeed gets with that number of workers; the sizes of the batch differ."""
        assert self.deepspeed is not None, "another strategy has none"
        return {**self.deepspeed, **batch_sizes(self.batch_on(workers))}


def plan_training(config: RunConfig, run_id: str, measured: ModelProfile | None = None) -> TrainPlan:
    """Decide; raises PlanError where the request cannot be met. `micro: auto` needs the model to be
    measured.
    """
    workers = plan_workers(config.resources)
    batches = _batches(config.training, workers, measured)
    workers = replace(workers, count=batches[0].workers, least=batches[-1].workers)
    uri, artifacts = plan_tracking(config)
    strategy = config.training.strategy
    return TrainPlan(
        run_id=run_id,
        experiment=config.experiment.name,
        seed=config.experiment.seed,
        paths=run_paths(config.experiment.storage, run_id),
        workers=workers,
        batches=batches,
        eval_batch=config.training.evaluate.batch or batches[0].micro,
        cadence=_cadence(config.training),
        training=config.training,
        deepspeed=(
            plan_deepspeed(strategy, config.training, batches[0], workers)
            if isinstance(strategy, Zero)
            else None
        ),
        tracking_uri=uri,
        artifacts=artifacts,
        config=config,
        memory=plan_memory(measured, config.training, batches, workers) if measured else None,
    )


def _batches(training: Training, workers: Workers, measured: ModelProfile | None) -> tuple[Batch, ...]:
    if training.batch.micro != "auto":
        return plan_batches(training.batch, workers.least, workers.count)
    assert measured is not None, "whoever plans `micro: auto` measures the model first"
    return largest_batches(measured, training, workers)


def plan_tracking(config: RunConfig) -> tuple[str | None, str | None]:
    """Tracking URI and artifact folder; the embedded store lies in `experiment.storage`."""
    storage, tracking = config.experiment.storage, config.tracking
    if tracking.kind == "off":
        if config.registry.model is not None:
            raise PlanError(
                Problem(
                    "registry.model",
                    rule="registering needs MLflow, and tracking is off",
                    remedy="use tracking=local, or drop the section with ~registry",
                )
            )
        return None, None
    if tracking.uri is not None:
        return tracking.uri, None
    return embedded_store(storage)


def embedded_store(storage: str) -> tuple[str, str]:
    """Tracking URI and artifact folder of the store in `experiment.storage`. Raises PlanError where that is
    no folder.
    """
    if "://" in storage:
        raise PlanError(
            Problem(
                "tracking.uri",
                rule="the embedded MLflow store needs experiment.storage to be a local folder",
                got=storage,
                remedy="name a tracking server: tracking.uri=http://...",
            )
        )
    return f"sqlite:///{storage}/mlflow.db", f"{storage}/mlflow"


def _cadence(training: Training) -> Cadence:
    every, evaluate, best = (
        training.checkpoint.every_steps,
        training.evaluate.every_steps,
        training.checkpoint.keep_best,
    )
    if best is not None and every is not None:
        evaluate = evaluate or every
        if every % evaluate:
            rule = "keep_best needs an evaluation before each checkpoint: a multiple of evaluate.every_steps"
            nearest = max(evaluate, round(every / evaluate) * evaluate)
            raise PlanError(
                Problem(
                    "training.checkpoint.every_steps",
                    rule=f"{rule}={evaluate}",
                    got=str(every),
                    remedy=f"nearest: training.checkpoint.every_steps={nearest}",
                )
            )
    return Cadence(log=training.log_every_steps, evaluate=evaluate, checkpoint=every)
