"""Records of studies that never ran: a known function of the point, its curves, and all that can happen."""

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raystack.config.mapping import from_mapping
from raystack.errors import ConfigError, PlanError
from raystack.plan.tuning import TunePlan, plan_trial, plan_tuning
from raystack.tuning.record import Report, Status, Trial

SPACE: Mapping[str, Any] = {
    "training.optimizer.kind": {"choice": ["adamw", "sgd"]},
    "training.optimizer.lr": {"loguniform": [1e-4, 1e-1]},
    "training.optimizer.betas": {
        "when": {"training.optimizer.kind": "adamw"},
        "choice": [[0.9, 0.95], [0.9, 0.999]],
    },
    "training.optimizer.momentum": {
        "when": {"training.optimizer.kind": "sgd"},
        "uniform": [0.0, 0.99],
    },
    "training.batch.global": {"choice": [64, 96, 128, 256]},
    "task.args.width": {"choice": [8, 16, 32]},
    "strategy": {"group": ["ddp", "zero1"]},
}


def study(storage: Path | str = "/data", **tuning: Any) -> TunePlan:
    """Return the plan of a study over SPACE, with other keys of its tuning section."""
    section = {"metric": "eval/accuracy", "mode": "max", "trials": 40, "space": dict(SPACE), **tuning}
    config = {
        "experiment": {"name": "digits", "seed": 7, "storage": str(storage)},
        "task": {"entry": "task:Demo", "args": {"width": 16}},
        "training": {
            "steps": 200,
            "batch": {"global": 64, "micro": 32},
            "optimizer": {"kind": "adamw", "lr": 2e-3},
            "evaluate": {"every_steps": 20},
        },
        "resources": {"workers": 2},
        "tuning": section,
    }
    return plan_tuning(from_mapping(config), "digits-1")


def record(plan: TunePlan, count: int = 40, *, seed: int = 0) -> list[Trial]:
    """Return trials of random points: most finished, some pruned, infeasible, failed, stopped or running."""
    draw = random.Random(seed)
    trials = []
    for number in range(count):
        point = {each.path: _value(each, draw) for each in plan.space}
        point = {each.path: point[each.path] for each in plan.space if plan.space.active(each, point)}
        trial = Trial(
            number=number, id=f"digits-{number}", point=point, workers=2, started=1.7e9 + 30 * number
        )
        trials.append(trial)
        try:
            plan_trial(plan, trial.id, point)
        except (ConfigError, PlanError) as error:
            trial.status, trial.reason = "infeasible", str(error.problems[0])
            continue
        _run(trial, draw)
    return trials


def _value(each: Any, draw: random.Random) -> Any:
    if each.choices:
        return draw.choice(each.choices)
    if each.integer:
        return draw.randint(int(each.low), int(each.high))
    if each.log:
        return math.exp(draw.uniform(math.log(each.low), math.log(each.high)))
    if each.kind == "normal":
        return draw.gauss(each.low, each.high)
    if each.step is not None:
        return each.low + each.step * draw.randint(0, round((each.high - each.low) / each.step))
    return draw.uniform(each.low, each.high)


def _run(trial: Trial, draw: random.Random) -> None:
    lr = trial.point.get("training.optimizer.lr", 1e-3)
    goal = 0.98 - 0.09 * (math.log10(lr) + 2.4) ** 2 - (0.03 if trial.point.get("strategy") == "zero1" else 0)
    length = draw.choices([10, 6, 3, 1, 0], [5, 2, 2, 1, 0.4])[0]
    for index in range(length):
        reached = goal * (1 - math.exp(-0.5 * (index + 1))) + draw.gauss(0, 0.004)
        metrics = {
            "eval/accuracy": reached,
            "eval/size": trial.point.get("task.args.width", 16) * (2 - reached),
        }
        trial.reports.append(
            Report(
                number=index + 1,
                step=20 * (index + 1),
                seconds=2.0 * (index + 1),
                metrics=metrics,
                order=trial.number * 10 + index,
            )
        )
    trial.seconds = 2.0 * length + 1
    status: Status = "finished" if length == 10 else "pruned"
    if length == 0:
        status, trial.reason = "failed", f"CUDA error at worker {trial.number}: out of <memory> & more"
    elif length == 6 and trial.number % 3 == 0:
        status = "stopped"
    elif length == 1:
        status = "running"
    trial.status = status
