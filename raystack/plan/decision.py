"""The decisions of a plan, as they are sent to a driver elsewhere.

In: a TrainPlan or TunePlan. Out: the config to send, and JSON that the driver's own plan has to agree with.
A driver plans again from the config, because the run's id is decided there. What `--dry-run` has shown must
not change on the way: `micro: auto` is sent as the size that was found, and a driver that decides
differently, because it has another version of raystack, ends before it trains
(docs/decisions/0013-decisions-travel.md).
"""

import json
from dataclasses import asdict
from typing import Any

from raystack import __version__
from raystack.config import RunConfig
from raystack.errors import PlanError, Problem
from raystack.plan.costs import sent_prices
from raystack.plan.training import TrainPlan
from raystack.plan.tuning import TunePlan

FILE = "plan.json"
"""Name of the file with the decisions, beside the config that was sent."""
# A user's own task folder may have a file of this name, which must not be compared with anything.
MARK = "decided by raystack"
"""Key by which the file is recognised."""


def sent_config(plan: TrainPlan | TunePlan) -> RunConfig:
    """Return the plan's config, with the micro batch that was found instead of `auto`, and prices."""
    costs = plan.base.costs if isinstance(plan, TunePlan) else plan.costs
    config = plan.config.model_copy(update={"prices": sent_prices(plan.config, costs)})
    batch = config.training.batch
    if batch.micro != "auto" or isinstance(plan, TunePlan):
        return config
    # The largest micro batch over all numbers of workers: planning again from it gives each number the same.
    found = batch.model_copy(update={"micro": max(each.micro for each in plan.batches)})
    return config.model_copy(update={"training": config.training.model_copy(update={"batch": found})})


def as_sent(plan: TrainPlan | TunePlan) -> str:
    """Return the decisions as JSON."""
    return json.dumps({MARK: __version__, **_decisions(plan)}, indent=2, allow_nan=False)


def check(plan: TrainPlan | TunePlan, sent: str) -> None:
    """Raise PlanError if `plan`, made here, differs from the decisions sent with its config."""
    try:
        there: Any = json.loads(sent)
    except ValueError:
        return
    if not isinstance(there, dict) or MARK not in there:
        return
    # A round trip through JSON, because it turns tuples into lists.
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


def _decisions(plan: TrainPlan | TunePlan) -> dict[str, Any]:
    """Return the decisions that do not depend on the run's id or on the place.

    Those of a study are its number of trials, and the training without a point.
    """
    if isinstance(plan, TunePlan):
        return {"trials": plan.trials, **_decisions(plan.base)}
    return {
        "workers": asdict(plan.workers),
        "batches": [_set(asdict(batch)) for batch in plan.batches],
        "eval_batch": plan.eval_batch,
        "cadence": asdict(plan.cadence),
        "deepspeed": plan.deepspeed,
    }


def _set(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _shown(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
