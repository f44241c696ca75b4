"""The pace of earlier runs, by which a run's price is estimated. In: a plan. Out: a Pace from a ledger."""

import re

import yaml

from raystack.checkpoint import CONFIG
from raystack.errors import RaystackError
from raystack.plan import TrainPlan
from raystack.plan.costs import Pace
from raystack.runs import ledger
from raystack.runs.ledger import Entry
from raystack.storage import Storage

MOST = 20
"""Earlier runs that are looked at, the newest first."""


def pace(plan: TrainPlan) -> Pace | None:
    """Return the pace of the newest run of the experiment with the same workers and global batch.

    None if there is none, or the storage does not answer.
    """
    config = plan.config
    pattern = rf"{config.experiment.name}-\d{{8}}-\d{{6}}-\w+"
    try:
        storage = Storage(f"{config.experiment.storage}/runs")
        for name in [name for name in reversed(storage.names()) if re.fullmatch(pattern, name)][:MOST]:
            for entry in reversed(ledger.read(Storage(f"{storage.url}/{name}"))):
                if entry.steps > 1 and _fits(entry, plan):
                    steps = plan.training.steps or _steps(plan, entry, storage.read(f"{name}/{CONFIG}"))
                    return Pace(name, entry.trained_s / entry.steps, steps)
    except (RaystackError, OSError, ValueError):
        return None
    return None


def _fits(entry: Entry, plan: TrainPlan) -> bool:
    return (entry.workers, entry.global_batch) == (plan.workers.count, plan.batch.global_)


def _steps(plan: TrainPlan, entry: Entry, config: str) -> int | None:
    """Return the steps of the plan by those of an earlier run; None if that one had no epochs either."""
    epochs = (yaml.safe_load(config).get("training") or {}).get("epochs")
    if not epochs or not plan.training.epochs:
        return None
    return round(entry.total_steps * plan.training.epochs / float(epochs))
