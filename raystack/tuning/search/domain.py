"""Values of one dimension: drawn, typed, and whether the domain holds them."""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from statistics import NormalDist
from typing import Any

from raystack.plan.space import Dimension, Point, Space

DEVIATIONS = 4.0
"""Standard deviations on both sides of a mean that a model looks at: all but 0.006 % of a `normal`."""


def at_quantile(each: Dimension, share: float) -> Any:
    """Return the value below which `share` of the domain lies; 0 <= share < 1."""
    if each.choices:
        return each.choices[int(share * len(each.choices))]
    low, high = each.low, each.high
    if each.kind == "normal":
        return NormalDist(low, high).inv_cdf(max(share, 2.0**-53))
    if each.step is not None:
        return _stepped(each, int(share * (round((high - low) / each.step) + 1)))
    end = high + 1 if each.integer else high
    value = low * (end / low) ** share if each.log else low + share * (end - low)
    return min(math.floor(value) if each.integer else float(value), high)


def typed(each: Dimension, value: Any) -> Any:
    """Return the value as the config takes it: an int where the domain is of whole numbers, and a multiple of
    the step without the noise of its sum. What the domain does not hold stays as it is.
    """
    if not contains(each, value):
        return value
    if each.choices:
        return next(one for one in each.choices if one == value)
    if each.step is not None:
        return _stepped(each, round((value - each.low) / each.step))
    return int(value) if each.integer else float(value)


def contains(each: Dimension, value: Any) -> bool:
    """Return whether the domain holds the value; of `normal`, whether a model looks at it."""
    if each.choices:
        return value in each.choices
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    if each.kind == "normal":
        return abs(value - each.low) <= DEVIATIONS * each.high
    if each.integer and value != int(value):
        return False
    if each.step is not None:
        steps = (value - each.low) / each.step
        if not math.isclose(steps, round(steps), abs_tol=1e-6):
            return False
    return each.low <= value <= each.high or math.isclose(value, each.high, rel_tol=1e-12)


def completed(
    space: Space, point: Point, value_at: Callable[[str], Any] | None = None
) -> dict[str, Any] | None:
    """Return the point with a value for every dimension that counts: where it has none, the config's own.

    `value_at` returns the value of a path in the trial's own config; None: the study's config with the point.
    None if a domain does not hold its value, so that no model of the space can be told of the trial.
    """
    at, found = value_at or partial(space.value, point=point), dict[str, Any]()
    for each in space:
        if not space.active(each, found):
            continue
        value = point[each.path] if each.path in point else _own(each, at)
        if not contains(each, value):
            return None
        found[each.path] = typed(each, value)
    return found


def _own(each: Dimension, value_at: Callable[[str], Any]) -> Any:
    """Return a config's value at a path; of a group the name of the choice whose sections it has."""
    if each.sections is None:
        return _plain(value_at(each.path))
    for name, sections in each.sections.items():
        if all(_plain(value_at(path)) == _plain(section) for path, section in sections.items()):
            return name
    return None


def _plain(value: Any) -> Any:
    """Return the value with lists for tuples, as in JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _stepped(each: Dimension, steps: int) -> float | int:
    """Return low + steps x step, in decimal as both were written."""
    value = Decimal(str(each.low)) + steps * Decimal(str(each.step))
    return int(value) if each.integer else float(value)
