"""How much each path of the space matters for a good value: Optuna's conditional PED-ANOVA.

It compares where the good trials lie along a path with where all of them do, so that a path that counts in
some trials only has its share too, and values are used by their order alone: a trial that diverged changes
nothing. fANOVA leaves conditional paths out, and needs half a minute for a thousand trials.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection

from raystack.plan.space import Dimension, Point, Space
from raystack.plan.tuning import TunePlan
from raystack.tuning.record import Trial, value
from raystack.tuning.search.distributions import distribution, to_params

FEWEST = 10
"""Trials with a value below which the shares would be chance."""
GOOD = 5
"""Good trials that are compared at least, as the method's authors ask for; a tenth of all if that is more."""


Shares = dict[str, float] | str
"""The share of each path, the largest first; or a sentence on why there are none."""


def importance(plan: TunePlan, trials: Sequence[Trial]) -> Shares:
    """Return the shares of the paths."""
    # The others did not end by what they reached.
    known = {
        trial.number: values
        for trial in trials
        if trial.status in ("finished", "pruned") and (values := _values(plan, trial)) is not None
    }
    if len(known) < FEWEST:
        return f"This needs {FEWEST} finished or pruned trials with a value, and there are {len(known)}."
    study = _study(plan, trials, known)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, min(0.5, GOOD / len(known))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of paths that few trials have
        shares = get_param_importances(study, evaluator=evaluator, normalize=False)
    total = sum(shares.values())
    if not total > 0:
        return "No path tells the best trials from the others."
    return {path: float(share / total) for path, share in shares.items()}


def _study(plan: TunePlan, trials: Sequence[Trial], known: dict[int, list[float]]) -> optuna.Study:
    """Return a study of Optuna in memory that holds the trials with a value."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces each study that it creates
    try:
        directions = [
            StudyDirection.MAXIMIZE if each.mode == "max" else StudyDirection.MINIMIZE
            for each in plan.objectives
        ]
        study = optuna.create_study(directions=directions)
    finally:
        optuna.logging.set_verbosity(before)
    found = {each.path: distribution(each) for each in plan.space}
    for trial in trials:
        if trial.number in known:
            params = to_params(plan.space, _inside(plan.space, trial.point))
            distributions = {path: found[path] for path in params}
            values = known[trial.number]
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, values=values)
            )
    return study


def _values(plan: TunePlan, trial: Trial) -> list[float] | None:
    """Return the trial's value of each objective; None if one is missing."""
    found = [number for each in plan.objectives if (number := value(trial, each, plan)) is not None]
    return found if len(found) == len(plan.objectives) else None


def _inside(space: Space, point: Point) -> dict[str, Any]:
    """Return the point with each number within its domain, which a population leaves, and known choices."""
    given = {each.path: _nearest(each, point[each.path]) for each in space if each.path in point}
    return {path: near for path, near in given.items() if near is not None}


def _nearest(each: Dimension, given: Any) -> Any:
    if each.choices:
        return given if given in each.choices else None
    if each.kind == "normal":
        return given
    near = min(max(given, each.low), each.high)
    if each.step is not None:
        near = each.low + each.step * round((near - each.low) / each.step)
    return round(near) if each.integer else near
