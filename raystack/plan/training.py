"""RunConfig -> TrainPlan: everything about a training run that can be decided before it starts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from raystack.config import RunConfig
from raystack.config.strategy import Zero
from raystack.config.training import Training
from raystack.errors import PlanError, Problem
from raystack.plan.batch import Batch, plan_batches
from raystack.plan.cadence import Cadence, plan_cadence
from raystack.plan.costs import CostPlan, plan_costs
from raystack.plan.deepspeed import batch_sizes, plan_deepspeed
from raystack.plan.footprint import ModelProfile
from raystack.plan.memory import MemoryPlan, largest_batches, plan_memory
from raystack.plan.naming import RunPaths, run_paths
from raystack.plan.optimizer import check_optimizer
from raystack.plan.scale import Workers, check_launcher, plan_workers
from raystack.plan.sharding import check_groups
from raystack.plan.trackers import TrackersPlan, plan_trackers


@dataclass(frozen=True)
class TrainPlan:
    """The plan of a training run: the value that `--dry-run` prints and that is executed."""

    run_id: str
    experiment: str
    seed: int
    paths: RunPaths
    workers: Workers
    batches: tuple[Batch, ...]
    """Batches for each possible number of workers, the largest first; one if the run is not elastic."""
    eval_batch: int
    """Samples per forward pass and worker in an evaluation."""
    cadence: Cadence
    training: Training
    """The config's own section, for all that needs no decision, such as the optimizer and the schedule."""
    deepspeed: Mapping[str, Any] | None
    """DeepSpeed's JSON with the most workers (`deepspeed_on` has the others); None for other strategies."""
    tracking_uri: str | None
    """MLflow tracking URI; None: nothing is tracked."""
    artifacts: str | None
    """Artifact folder of the embedded MLflow store; None: the server decides."""
    trackers: TrackersPlan
    """Records beside MLflow's."""
    config: RunConfig
    costs: CostPlan
    """What the run costs, and what it may cost."""
    memory: MemoryPlan | None = None
    """The memory of a worker's device; None if the model was not measured, because it was not requested."""

    @property
    def batch(self) -> Batch:
        """The batch with the most workers."""
        return self.batches[0]

    @property
    def eval_tokens(self) -> int | None:
        """Most padded tokens of a forward pass in an evaluation; None: `eval_batch` samples."""
        return None if self.training.evaluate.batch is not None else self.training.batch.micro_tokens

    def batch_on(self, workers: int) -> Batch:
        """Return the batch with a number of workers, which has to be a possible one."""
        return next(batch for batch in self.batches if batch.workers == workers)

    def deepspeed_on(self, workers: int) -> Mapping[str, Any]:
        """Return DeepSpeed's JSON with a number of workers; only the sizes of the batch differ."""
        assert self.deepspeed is not None, "another strategy has none"
        return {**self.deepspeed, **batch_sizes(self.batch_on(workers))}


def plan_training(config: RunConfig, run_id: str, measured: ModelProfile | None = None) -> TrainPlan:
    """Decide on a training; raise PlanError if the config cannot be met.

    `micro: auto` needs a measured model.
    """
    check_launcher(config)
    check_optimizer(config.training)
    workers = plan_workers(config.resources)
    batches = _batches(config.training, workers, measured)
    # An elastic run's limits are narrowed to the numbers that divide the global batch.
    workers = replace(workers, count=batches[0].workers, least=batches[-1].workers)
    uri, artifacts = plan_tracking(config)
    strategy = config.training.strategy
    check_groups(strategy, [batch.workers for batch in batches])
    return TrainPlan(
        run_id=run_id,
        experiment=config.experiment.name,
        seed=config.experiment.seed,
        paths=run_paths(config.experiment.storage, run_id),
        workers=workers,
        batches=batches,
        eval_batch=config.training.evaluate.batch or batches[0].micro,
        cadence=plan_cadence(config.training),
        training=config.training,
        deepspeed=(
            plan_deepspeed(strategy, config.training, batches[0], workers)
            if isinstance(strategy, Zero)
            else None
        ),
        tracking_uri=uri,
        artifacts=artifacts,
        trackers=plan_trackers(config),
        config=config,
        costs=plan_costs(config),
        memory=plan_memory(measured, config.training, batches, workers) if measured else None,
    )


def _batches(training: Training, workers: Workers, measured: ModelProfile | None) -> tuple[Batch, ...]:
    if training.batch.micro != "auto":
        return plan_batches(training.batch, workers.least, workers.count)
    assert measured is not None, "whoever plans `micro: auto` measures the model first"
    return largest_batches(measured, training, workers)


def plan_tracking(config: RunConfig) -> tuple[str | None, str | None]:
    """Return the tracking URI and the artifact folder; None for what is off or the server's."""
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
    """Return the tracking URI and artifact folder of the MLflow store in `experiment.storage`.

    Raises PlanError if that is not a local folder.
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
