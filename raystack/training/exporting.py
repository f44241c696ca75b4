"""The model that a training leaves: the chosen checkpoint's full weights, and an example of its inputs."""

from collections.abc import Sequence
from functools import partial

from raystack.checkpoint import MODEL, CheckpointStore, Manifest, ranked
from raystack.checkpoint.example import EXAMPLE, write_example
from raystack.plan import TrainPlan
from raystack.task import Task
from raystack.training.data.eval_sets import EvalSet
from raystack.training.example import example_inputs


def choose(plan: TrainPlan, store: CheckpointStore) -> Manifest:
    """Return the checkpoint whose weights are the result: the best by keep_best, else the newest."""
    best = plan.training.checkpoint.keep_best
    manifests = store.manifests()
    return next(iter(ranked(manifests, best) if best else ()), None) or manifests[-1]


def export_model(
    plan: TrainPlan,
    store: CheckpointStore,
    chosen: Manifest,
    task: Task,
    sets: Sequence[EvalSet],
) -> None:
    """Add the full weights to a checkpoint, and a sample of an eval set, unless they are there."""
    from raystack.checkpoint.export import export  # takes a second, which a worker pays only at the end

    exported = export(store, chosen)
    if f"{MODEL}/{EXAMPLE}" in exported.files:
        return
    inputs = example_inputs(task, sets, plan.training.data)
    if inputs is not None:
        store.add(exported.step, MODEL, partial(write_example, inputs=inputs))
