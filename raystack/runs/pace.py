"""The pace of earlier runs, by which a run's price is estimated. In: a plan. Out: a Pace from a ledger."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from raystack.checkpoint import CONFIG
from raystack.errors import RaystackError
from raystack.plan import TrainPlan
from raystack.plan.costs import Pace
from raystack.runs import ledger
from raystack.runs.ending import bounded
from raystack.runs.ledger import Entry
from raystack.storage import Storage

MOST = 20
"""Earlier runs that are looked at, the newest first."""
PATIENCE_S = 3.0
"""Seconds for which an unavailable store is retried: a plan is shown without an estimate, too."""


def pace(plan: TrainPlan) -> Pace | None:
    """Return the pace of the newest run of the experiment with such workers and the same global batch.

    None if there is none, or the storage does not answer.
    """
    experiment = plan.config.experiment
    pattern = rf"{re.escape(experiment.name)}-\d{{8}}-\d{{6}}-\w+"
    try:
        with bounded(Storage(f"{experiment.storage}/runs"), PATIENCE_S) as storage:
            names = [name for name in reversed(storage.names()) if re.fullmatch(pattern, name)]
            for name in names[:MOST]:
                if (found := _of(plan, storage, name)) is not None:
                    return found
    except (RaystackError, OSError, ValueError, yaml.YAMLError):
        return None
    return None


def _of(plan: TrainPlan, storage: Storage, name: str) -> Pace | None:
    """Return the pace of one run by its last driver that fits; None if none does."""
    for entry in reversed(ledger.read(storage, f"{name}/{ledger.FILE}")):
        if entry.steps < 2 or not _fits(entry, plan):
            continue
        config = yaml.safe_load(storage.read(f"{name}/{CONFIG}"))
        if _has_such_workers(config, plan):
            steps = plan.training.steps or _steps(plan, entry, config)
            return Pace(name, entry.trained_s / entry.steps, steps)
    return None


def _fits(entry: Entry, plan: TrainPlan) -> bool:
    return (entry.workers, entry.global_batch) == (plan.workers.count, plan.batch.global_)


def _has_such_workers(config: Mapping[str, Any], plan: TrainPlan) -> bool:
    """Return whether the workers of an earlier run had as many GPUs, of the same model."""
    earlier, own = config.get("resources") or {}, plan.config.resources
    had = (earlier.get("gpus_per_worker", 0), earlier.get("accelerator_type"))
    return had == (own.gpus_per_worker, own.accelerator_type)


def _steps(plan: TrainPlan, entry: Entry, config: Mapping[str, Any]) -> int | None:
    """Return the steps of the plan by those of an earlier run; None if that one had no epochs either."""
    epochs = (config.get("training") or {}).get("epochs")
    if not epochs or not plan.training.epochs:
        return None
    return round(entry.total_steps * plan.training.epochs / float(epochs))
