"""Ray Tune's schedulers from the config, and their state from a study's record.

A scheduler decides at each report whether a trial goes on. Tune keeps no state of it on disk: after a restart
it sees the recorded reports again, in their order.
"""

import math
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

import ray.tune as tune
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
)

from raystack.config.tuning import Asha, HyperBand, Median, Pb2, Pbt
from raystack.errors import PlanError, Problem
from raystack.plan.space import Dimension
from raystack.plan.tuning import TunePlan, perturbed
from raystack.ray_internals.tune import TrialScheduler, seen_trial
from raystack.tuning.record import Report, Trial

NEVER = 10**9
"""Reports that no trial makes: a trial ends by itself, not by its scheduler."""
TIME = "training_iteration"
"""Tune's name of the number of a report."""


def make_scheduler(plan: TunePlan) -> TrialScheduler:
    """Return the study's scheduler."""
    options: Any = plan.tuning.scheduler
    (first, *_) = plan.objectives
    by: dict[str, Any] = {"metric": first.metric, "mode": first.mode}
    match options:
        case Asha():
            return ASHAScheduler(
                time_attr=TIME,
                max_t=NEVER,
                grace_period=options.grace,
                reduction_factor=options.reduction,
                brackets=options.brackets,
                **by,
            )
        case HyperBand():
            return HyperBandScheduler(
                time_attr=TIME, max_t=options.max_reports, reduction_factor=options.reduction, **by
            )
        case Median():
            return MedianStoppingRule(
                time_attr=TIME, grace_period=options.grace, min_samples_required=options.min_trials, **by
            )
        case Pbt():
            return PopulationBasedTraining(
                time_attr=TIME,
                perturbation_interval=options.every,
                quantile_fraction=options.quantile,
                resample_probability=options.resample,
                hyperparam_mutations=_mutations(plan),
                custom_explore_fn=_Kept(plan),
                log_config=False,
                **by,
            )
        case Pb2():
            return _pb2(plan, options, by)
    return FIFOScheduler()


def _pb2(plan: TunePlan, options: Pb2, by: dict[str, Any]) -> TrialScheduler:
    try:
        import_module("GPy")
        import_module("sklearn")
        from ray.tune.schedulers.pb2 import PB2
    except ImportError as error:
        rule, remedy = (
            f"PB2 needs GPy and scikit-learn: {error}",
            "pip install GPy scikit-learn, or use tuning=pbt",
        )
        raise PlanError(Problem("tuning.scheduler", rule=rule, got="pb2", remedy=remedy)) from None
    bounds: dict[str, Any] = {
        each.path: [each.low, each.high]
        for each in plan.space
        if each.path in perturbed(plan.tuning, plan.space)
    }
    return PB2(
        time_attr=TIME,
        perturbation_interval=options.every,
        quantile_fraction=options.quantile,
        hyperparam_bounds=bounds,
        log_config=False,
        **by,
    )


class _Kept:
    """Keeps a perturbed point inside its bounds: PBT multiplies by 0.8 and 1.2 without a limit."""

    def __init__(self, plan: TunePlan) -> None:
        self._plan = plan

    def __call__(self, point: dict[str, Any]) -> dict[str, Any]:
        for each in self._plan.space:
            if each.path in point and not each.choices and each.kind != "normal":
                value = min(max(point[each.path], each.low), each.high)
                point[each.path] = round(value) if each.integer else float(value)
        return point


def _mutations(plan: TunePlan) -> dict[str, Any]:
    paths = perturbed(plan.tuning, plan.space)
    return {each.path: _domain(each) for each in plan.space if each.path in paths}


def _domain(each: Dimension) -> Any:
    """Return Tune's domain of a dimension."""
    if each.choices:
        return list(each.choices)
    if each.kind == "normal":
        return tune.randn(each.low, each.high)
    if each.integer:
        low, high = int(each.low), int(each.high)
        if each.step is not None:
            return tune.qrandint(low, high, int(each.step))
        return tune.lograndint(low, high + 1) if each.log else tune.randint(low, high + 1)
    if each.step is not None:
        return tune.quniform(each.low, each.high, each.step)
    return tune.loguniform(each.low, each.high) if each.log else tune.uniform(each.low, each.high)


def as_result(report: Report, *, done: bool = False) -> dict[str, Any]:
    """Return a recorded report as Tune's schedulers see one."""
    return {**report.metrics, TIME: report.number, "time_total_s": report.seconds, "done": done}


def replay(scheduler: TrialScheduler, controller: Any, trials: Sequence[Trial]) -> None:
    """Show the recorded reports to a new scheduler, in their order.

    Only schedulers that compare a trial with all others need them: a population goes on from each trial's own
    point and checkpoint, and HyperBand begins new brackets.
    """
    if not isinstance(scheduler, (ASHAScheduler, MedianStoppingRule)):
        return
    stubs = {trial.number: seen_trial(trial.id, trial.point) for trial in trials if trial.reports}
    for stub in stubs.values():
        scheduler.on_trial_add(controller, stub)
    for _, trial, report in sorted(_reports(trials), key=lambda each: each[0]):
        if not any(math.isnan(value) for value in report.metrics.values()):
            scheduler.on_trial_result(controller, stubs[trial.number], as_result(report))
    for trial in trials:
        if trial.over and trial.reports:
            scheduler.on_trial_complete(
                controller, stubs[trial.number], as_result(trial.reports[-1], done=True)
            )


def _reports(trials: Iterable[Trial]) -> list[tuple[int, Trial, Report]]:
    return [(report.order, trial, report) for trial in trials for report in trial.reports]
