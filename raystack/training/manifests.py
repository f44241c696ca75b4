"""The manifest of a checkpoint: where a run is, and what it may not change when it resumes (`resume.py`)."""

from raystack.checkpoint import Manifest
from raystack.plan import TrainPlan
from raystack.training.assembly import Assembly
from raystack.training.stopping import Stopping
from raystack.training.world import World


def describe(
    plan: TrainPlan,
    built: Assembly,
    world: World,
    attempt: str,
    done: int,
    stopping: Stopping,
    *,
    evaluates: bool,
) -> Manifest:
    """Return the manifest of the checkpoint after `done` steps, which has no files yet.

    `attempt`: the name of the attempt. `evaluates`: whether an evaluation of the step follows.
    """
    return Manifest(
        run_id=plan.run_id,
        step=done,
        samples=built.samples.schedule.consumed(done),
        dataset_length=built.samples.length,
        seed=plan.seed,
        global_batch=built.samples.schedule.batch.global_,
        world_size=world.size,
        strategy=plan.training.strategy.kind,
        attempt=attempt,
        shuffle=plan.training.data.shuffle,
        bucket=plan.training.data.bucket,
        weighted=plan.training.data.weighted,
        init_from=built.spec.init_from,
        optimizer=built.optimizer,
        elapsed_s=stopping.elapsed_s,
        patience=stopping.patience,
        evaluates=evaluates and bool(built.samples.evaluation.sets),
    )
