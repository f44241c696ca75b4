"""What was decided of a training, as it travels to a driver elsewhere. In: a TrainPlan. Out: the config that
is sent with it, and JSON that the driver's own plan has to agree with.

A driver plans again from the config it was sent, because the run's id is settled there. What `--dry-run` has
shown must not change on the way: `micro: auto` is sent as the size that was found, and a driver that decides
otherwise, because its raystack is another one, ends before it trains.
"""

import json
from dataclasses import asdict
from typing import Any

from raystack import __version__
from raystack.config import RunConfig
from raystack.errors import PlanError, Problem
from raystack.plan.training import TrainPlan

FILE = "plan.json"
"""Beside the config that was sent."""
MARK = "decided by raystack"
"""Key that a file of that name has if it is one of these; any other is the user's own."""


def sent_config(plan: TrainPlan) -> RunConfig:
    """The plan's config, with the micro batch that was found instead of `auto`."""
    config, batch = plan.config, plan.training.batch
    if batch.micro != "auto":
        return config
    # The largest of all numbers of workers: from it, each gets the batch that was decided for it.
    found = batch.model_copy(update={"micro": max(each.micro for each in plan.batches)})
    return config.model_copy(update={"training": config.training.model_copy(update={"batch": found})})


def as_sent(plan: TrainPlan) -> str:
    """The decisions as JSON."""
    return json.dumps({MARK: __version__, **_decisions(plan)}, indent=2, allow_nan=False)


def check(plan: TrainPlan, sent: str) -> None:
    """Raise PlanError where `plan`, made here, differs from what was sent with its config."""
    try:
        there: Any = json.loads(sent)
    except ValueError:
        return
    if not isinstance(there, dict) or MARK not in there:
        return
    by, here = there.pop(MARK), json.loads(json.dumps(_decisions(plan)))
    if there == here:
        return
    different = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    what = "; ".join(f"{name} {_shown(here.get(name))}, sent {_shown(there.get(name))}" for name in different)
    rule = (
        f"this driver (raystack {__version__}) decides otherwise than raystack {by}, which submitted the run"
    )
    remedy = "have the same raystack in both places"
    raise PlanError(Problem(FILE, rule=rule, got=what, remedy=remedy))


def _decisions(plan: TrainPlan) -> dict[str, Any]:
    """What does not depend on the run's id or on the place."""
    return {
        "workers": asdict(plan.workers),
        "batches": [asdict(batch) for batch in plan.batches],
        "eval_batch": plan.eval_batch,
        "cadence": asdict(plan.cadence),
        "deepspeed": plan.deepspeed,
    }


def _shown(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
