"""Known-good points of the config, which are tried before what a search suggests."""

from typing import Any

from raystack.plan.space import Point
from raystack.plan.tuning import TunePlan
from raystack.tuning.search.domain import typed


def given_point(plan: TunePlan, number: int) -> Point | None:
    """Return the point that the config gives for trial `number`, without paths that do not count; or None."""
    if number >= len(plan.tuning.points):
        return None
    wanted, point = plan.tuning.points[number], dict[str, Any]()
    for each in plan.space:
        if each.path in wanted and plan.space.active(each, point):
            point[each.path] = typed(each, wanted[each.path])
    return point
