"""RunConfig -> TrainPlan: everything about a training run that can be decided before it starts."""

from dataclasses import dataclass

from raystack.config import RunConfig
from raystack.config.training import Training
from raystack.errors import PlanError, Problem
from raystack.plan.batch import Batch, plan_batch
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
    batch: Batch
    eval_batch: int
    """Samples per forward pass and worker in an evaluation."""
    cadence: Cadence
    training: Training
    """What the config says and nothing had to be decided about: length, optimizer, schedule, precision, strategy."""
    tracking_uri: str | None
    """MLflow tracking URI; None: nothing is tracked."""
    artifacts: str | None
    """Where the embedded MLflow store keeps artifacts; None: the server decides."""
    config: RunConfig


def plan_training(config: RunConfig, run_id: str) -> TrainPlan:
    """Decide; raises PlanError where the request cannot be met."""
    workers = plan_workers(config.resources)
    batch = plan_batch(config.training.batch, workers.count)
    uri, artifacts = plan_tracking(config)
    return TrainPlan(
        run_id=run_id,
        experiment=config.experiment.name,
        seed=config.experiment.seed,
        paths=run_paths(config.experiment.storage, run_id),
        workers=workers,
        batch=batch,
        eval_batch=config.training.evaluate.batch or batch.micro,
        cadence=_cadence(config.training),
        training=config.training,
        tracking_uri=uri,
        artifacts=artifacts,
        config=config,
    )


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
    every, evaluate, best = training.checkpoint.every_steps, training.evaluate.every_steps, training.checkpoint.keep_best
    if best is not None and every is not None:
        evaluate = evaluate or every
        if every % evaluate:
            raise PlanError(
                Problem(
                    "training.checkpoint.every_steps",
                    rule=f"keep_best needs an evaluation before each checkpoint: a multiple of evaluate.every_steps={evaluate}",
                    got=str(every),
                    remedy=f"nearest: training.checkpoint.every_steps={max(evaluate, round(every / evaluate) * evaluate)}",
                )
            )
    return Cadence(log=training.log_every_steps, evaluate=evaluate, checkpoint=every)
