"""Grid search: every combination of the values, the first dimension slowest."""

from collections.abc import Iterator, Sequence
from typing import Any

from raystack.plan.space import Dimension, Point, Space
from raystack.plan.tuning import TunePlan
from raystack.tuning.record import Report, Trial
from raystack.tuning.search.domain import completed
from raystack.tuning.search.points import given_point


class GridSearch:
    """The points of the config, then all others of the grid in a fixed order."""

    notes: tuple[str, ...] = ()

    def __init__(self, plan: TunePlan) -> None:
        self._plan = plan
        self._first = len(plan.tuning.points)
        given = [completed(plan.space, given_point(plan, number) or {}) for number in range(self._first)]
        every = combinations(plan.space, plan.space.dimensions, {})
        self._rest = (point for point in every if point not in given)
        self._seen: list[Point] = []

    def ask(self, number: int) -> Point | None:
        given = given_point(self._plan, number)
        if given is not None:
            return given
        index = number - self._first
        while len(self._seen) <= index:
            point = next(self._rest, None)
            if point is None:
                return None
            self._seen.append(point)
        return self._seen[index]

    def report(self, trial: Trial, report: Report) -> None:
        pass

    def end(self, trial: Trial) -> None:
        pass


def combinations(space: Space, rest: Sequence[Dimension], point: dict[str, Any]) -> Iterator[Point]:
    """Yield the point with each combination of the other dimensions, of those that count."""
    if not rest:
        yield point
        return
    first, *others = rest
    if not space.active(first, point):
        yield from combinations(space, others, point)
        return
    told: list[Any] = []
    for value in first.choices:
        if value not in told:
            told.append(value)
            yield from combinations(space, others, {**point, first.path: value})
