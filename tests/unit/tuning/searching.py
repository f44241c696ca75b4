"""A study without its trainings: plans of the tiny task, and trials that a function answers."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from raystack.config import dump, load
from raystack.plan.space import Point
from raystack.plan.tuning import TunePlan, plan_tuning
from raystack.tuning.record import Report, Status, StudyStore, Trial
from raystack.tuning.search import Search
from raystack.tuning.search.opening import open_search

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
METRIC = "eval/loss"
LR, DECAY, EPOCHS = "training.optimizer.lr", "training.optimizer.weight_decay", "training.epochs"
NUMBERS = (
    f"{{{LR}: {{loguniform: [1e-4, 1e-1]}}, {DECAY}: {{uniform: [0, 1]}}, {EPOCHS}: {{randint: [1, 9]}}}}"
)


def plan_study(storage: str | Path, space: str, *overrides: str) -> TunePlan:
    """A plan that minimises METRIC."""
    always = [f"experiment.storage={storage}", f"tuning.metric={METRIC}", "tuning.mode=min"]
    return plan_tuning(load(TINY, [*always, f"tuning.space={space}", *overrides]), "tiny-1")


def new_store(plan: TunePlan) -> StudyStore:
    """The plan's study, begun."""
    store = StudyStore(plan.paths.folder)
    store.create(plan)
    store.storage.write("config.yaml", dump(plan.config))
    return store


def reopened(plan: TunePlan) -> Search:
    """The plan's search after a driver that was killed."""
    store = StudyStore(plan.paths.folder)
    return open_search(plan, store, store.trials())


def ask(search: Search, plan: TunePlan, number: int) -> Trial:
    """Trial `number`, recorded."""
    point = search.ask(number)
    assert point is not None
    trial = Trial(number=number, id=f"{plan.name}-{number:04d}", point=dict(point))
    StudyStore(plan.paths.folder).write(trial)
    return trial


def end(
    search: Search,
    plan: TunePlan,
    trial: Trial,
    values: Iterable[float] = (),
    status: Status = "finished",
    **others: float,
) -> None:
    """End a trial after reports of these values."""
    for value in values:
        number = len(trial.reports) + 1
        metrics = {METRIC: value, **{name.replace("_", "/"): other for name, other in others.items()}}
        report = Report(number=number, step=number, seconds=1.0, metrics=metrics, order=0)
        trial.reports.append(report)
        search.report(trial, report)
    trial.status = status
    StudyStore(plan.paths.folder).write(trial)
    search.end(trial)


def drive(
    search: Search, plan: TunePlan, numbers: Iterable[int], answer: Callable[[Point], float]
) -> list[dict[str, Any]]:
    """The points of these trials, each of which finishes before the next is asked for."""
    points = []
    for number in numbers:
        trial = ask(search, plan, number)
        end(search, plan, trial, [answer(trial.point)])
        points.append(trial.point)
    return points


def bowl(point: Point) -> float:
    """Least at a learning rate of 0.01 and no weight decay."""
    return float((math.log10(point[LR]) + 2) ** 2 + point[DECAY])
