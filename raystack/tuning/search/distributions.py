"""Dimensions as Optuna's distributions, and points as its params.

A `normal` is uniform in its quantile, which is what Optuna sees: every algorithm then draws from the normal
distribution where it knows nothing. Lists and mappings are their JSON text.
"""

import json
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from raystack.plan.space import Dimension, Point, Space
from raystack.tuning.search.domain import DEVIATIONS, typed

_TAIL = NormalDist().cdf(-DEVIATIONS)


def distribution(each: Dimension) -> BaseDistribution:
    """Return Optuna's distribution of a dimension. Raises ValueError if Optuna has none for it."""
    if each.choices:
        return CategoricalDistribution([_to_param(each, value) for value in each.choices])
    if each.kind == "normal":
        return FloatDistribution(_TAIL, 1 - _TAIL)
    if each.integer:
        return IntDistribution(int(each.low), int(each.high), log=each.log, step=int(each.step or 1))
    # In decimal, because Optuna warns of a range that is no multiple of the step by a rounding error.
    return FloatDistribution(each.low, typed(each, each.high), log=each.log, step=each.step)


def to_params(space: Space, point: Point) -> dict[str, Any]:
    """Return Optuna's params of a point that is in the domains."""
    return {each.path: _to_param(each, point[each.path]) for each in space if each.path in point}


def to_point(space: Space, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the point of Optuna's params; None if they lack a dimension that counts."""
    point: dict[str, Any] = {}
    for each in space:
        if space.active(each, point):
            if each.path not in params:
                return None
            point[each.path] = _from_param(each, params[each.path])
    return point


def suggested(space: Space, trial: Trial) -> dict[str, Any]:
    """Return the point that Optuna suggests for its trial."""
    point: dict[str, Any] = {}
    for each in space:
        if space.active(each, point):
            point[each.path] = _from_param(each, _suggest(trial, each.path, distribution(each)))
    return point


def _suggest(trial: Trial, name: str, found: BaseDistribution) -> Any:
    match found:
        case CategoricalDistribution():
            return trial.suggest_categorical(name, found.choices)
        case IntDistribution():
            return trial.suggest_int(name, found.low, found.high, step=found.step, log=found.log)
        case FloatDistribution():
            return trial.suggest_float(name, found.low, found.high, step=found.step, log=found.log)
    raise AssertionError(found)


def _to_param(each: Dimension, value: Any) -> Any:
    if each.choices:
        return value if _scalars(each) else json.dumps(value, sort_keys=True)
    if each.kind == "normal":
        return min(max(NormalDist(each.low, each.high).cdf(value), _TAIL), 1 - _TAIL)
    return value


def _from_param(each: Dimension, param: Any) -> Any:
    if each.choices:
        return param if _scalars(each) else next(v for v in each.choices if _to_param(each, v) == param)
    if each.kind == "normal":
        return NormalDist(each.low, each.high).inv_cdf(param)
    return typed(each, param)


def _scalars(each: Dimension) -> bool:
    return all(isinstance(value, (str, int, float, bool, type(None))) for value in each.choices)
