"""Checkpoints that pass from one trial of a population to another.

A donor goes on while its checkpoint is taken, and deletes old ones; so a copy is put aside for whoever takes
it.
"""

import time

from raystack.checkpoint import CheckpointStore
from raystack.errors import Problem, TrainingError
from raystack.plan import TrainPlan, TunePlan
from raystack.plan.naming import step_name
from raystack.storage import Storage

PUBLISHED_S = 120.0
"""Seconds that the checkpoint of a report may take to be published."""
POOL = "pool"
"""Folder of a run for checkpoints that are put aside."""


def pool(study: TunePlan, plan: TrainPlan, step: int) -> str:
    """Return the URL of a trial's checkpoint after `step` steps that lasts; wait until it is published."""
    store = CheckpointStore(plan.paths.checkpoints)
    deadline = time.monotonic() + PUBLISHED_S
    # With the metrics of its evaluation: a trial that goes on from it would make that once more.
    while not any(
        found.step == step and (found.metrics or not found.evaluates) for found in store.manifests()
    ):
        if time.monotonic() > deadline:
            rule = f"its checkpoint was not published within {PUBLISHED_S:.0f} s"
            raise TrainingError(Problem(f"{plan.run_id}, step {step}", rule=rule))
        time.sleep(0.02)
    if study.tuning.scheduler.kind not in ("pbt", "pb2"):
        return store.folder(step)
    run = Storage(plan.paths.folder)
    name = f"{POOL}/{step_name(step)}"
    if not run.files(name):
        run.copy(Storage(store.folder(step)), name)
    for old in run.names(POOL)[:-2]:  # whoever decided to take one does so at once
        run.delete(f"{POOL}/{old}")
    return f"{plan.paths.folder}/{name}"


def take(origin: str, plan: TrainPlan) -> None:
    """Have the trial go on from the checkpoint at `origin`: its own newest one, or one of another trial."""
    own = plan.paths.checkpoints
    if origin.startswith(f"{own}/"):
        return
    run, source = Storage(plan.paths.folder), Storage(origin)
    if not source.files(""):
        return  # a process that was lost starts again later than the donor keeps it; its own are newer
    run.delete("checkpoints")
    run.copy(source, f"checkpoints/{origin.rpartition('/')[2]}")
