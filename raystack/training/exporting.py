"""The model that a training leaves: the chosen checkpoint's full weights, statistics of its data, and an
example of its inputs.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from raystack.checkpoint import MODEL, CheckpointStore, Manifest, ranked
from raystack.checkpoint.evaluation import write_evaluation
from raystack.checkpoint.example import EXAMPLE, write_example
from raystack.checkpoint.model import WEIGHTS
from raystack.checkpoint.statistics import write_statistics
from raystack.checkpoint.weights import read_model
from raystack.events import Listener, Warned
from raystack.plan import TrainPlan
from raystack.task import MapDataset, StreamDataset, Task
from raystack.training.chunks import TOO_SLOW, evaluated
from raystack.training.data.eval_sets import EvalSet
from raystack.training.data.kinds import streams
from raystack.training.data_statistics import Source, data_statistics
from raystack.training.example import example_inputs

LARGE = 2**30
"""Bytes of weights from which a model is not loaded once more, for statistics of its outputs."""


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
    tell: Listener,
    train: MapDataset | StreamDataset | None = None,
) -> None:
    """Add the full weights, statistics and a sample of an eval set to a checkpoint, unless they are there.

    The statistics are of the training data `train` if no eval set will do.
    """
    from raystack.checkpoint.export import export  # takes a second, which a worker pays only at the end

    sources = [Source(each.source, each.data) for each in sets]
    if train is not None and not streams(train):  # a stream may take long to begin anew
        sources.append(Source("train_data", train))
    exported = export(store, chosen, partial(_describe, plan, task, sources, tuple(sets), tell))
    if f"{MODEL}/{EXAMPLE}" in exported.files:
        return
    inputs = example_inputs(task, sets, plan.training.data)
    if inputs is not None:
        store.add(exported.step, MODEL, partial(write_example, inputs=inputs))


def _describe(
    plan: TrainPlan,
    task: Task,
    sources: list[Source],
    sets: tuple[EvalSet, ...],
    tell: Listener,
    model: Path,
    folder: Path,
) -> None:
    """Write the statistics of the data and, for gates, the evaluation by chunks into `folder`.

    Tell why there are none: the training is done, and what the task's code raises here does not take it away.
    """
    data = plan.training.data
    small = (model / WEIGHTS).stat().st_size < LARGE
    try:
        statistics = data_statistics(task, sources, data, read_model(model)[1] if small else None)
        if statistics is not None:
            write_statistics(folder, statistics)
    except Exception as error:
        said = _said(error)
        tell(Warned(f"the model has no statistics of its data, for drift of what is served: {said}"))
    if (gates := plan.config.registry.gates) is None:
        return
    record, why = (
        None,
        f"models of {LARGE / 2**30:g} GiB and more are not evaluated by chunks; use registry.gates.metrics",
    )
    if small:
        try:
            record, why = evaluated(task, sets, data, read_model(model)[1]), TOO_SLOW
        except Exception as error:
            why = _said(error)
    if record is None and gates.champion is not None:
        tell(Warned(f"the gate registry.gates.champion will refuse this model: {why}"))
    write_evaluation(folder, record or {}, why if record is None else None)


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
