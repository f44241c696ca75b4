"""Random search: each trial's point is drawn for itself."""

from random import Random
from typing import Any

from raystack.plan.space import Point
from raystack.plan.tuning import TunePlan
from raystack.tuning.record import Report, Trial
from raystack.tuning.search.domain import at_quantile
from raystack.tuning.search.points import given_point


class RandomSearch:
    """Independent points, a function of the seed, the trial's number and the path alone."""

    notes: tuple[str, ...] = ()

    def __init__(self, plan: TunePlan) -> None:
        self._plan = plan

    def ask(self, number: int) -> Point | None:
        given = given_point(self._plan, number)
        return random_point(self._plan, str(number)) if given is None else given

    def report(self, trial: Trial, report: Report) -> None:
        pass

    def end(self, trial: Trial) -> None:
        pass


def random_point(plan: TunePlan, key: str) -> Point:
    """Return the study's random point of that key. Another path in the space changes no value of this one."""
    point: dict[str, Any] = {}
    for each in plan.space:
        if plan.space.active(each, point):
            share = Random(f"{plan.seed}/{key}/{each.path}").random()
            point[each.path] = at_quantile(each, share)
    return point
