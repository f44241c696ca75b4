"""The ends of a study besides its number of trials. In: the record. Out: the reason to stop, or None."""

from collections.abc import Sequence

from raystack.plan import TunePlan
from raystack.tuning.record import Trial, feasible, value


def reached(plan: TunePlan, trials: Sequence[Trial], seconds: float) -> str | None:
    """Return which limit is reached. `seconds` is the wall time of the study over all its starts."""
    limits = plan.tuning.limits
    if limits.seconds is not None and seconds >= limits.seconds:
        return f"tuning.limits.seconds={limits.seconds:g} are over"
    if limits.worker_hours is not None and worker_hours(trials) >= limits.worker_hours:
        return f"tuning.limits.worker_hours={limits.worker_hours:g} are used"
    if limits.plateau is not None and _is_flat(plan, trials):
        return f"no better value in {limits.plateau.trials} trials: tuning.limits.plateau"
    return None


def too_many_failures(plan: TunePlan, trials: Sequence[Trial]) -> bool:
    """Return whether more trials failed than the limit allows."""
    return sum(trial.status == "failed" for trial in trials) > plan.tuning.limits.failures


def worker_hours(trials: Sequence[Trial]) -> float:
    """Return the hours of all workers of all trials."""
    return sum(trial.seconds * trial.workers for trial in trials) / 3600


def _is_flat(plan: TunePlan, trials: Sequence[Trial]) -> bool:
    plateau = plan.tuning.limits.plateau
    assert plateau is not None
    (objective, *_) = plan.objectives
    sign = 1 if objective.mode == "max" else -1
    best, since = float("-inf"), 0
    for trial in trials:
        if not trial.over or trial.status == "infeasible":
            continue
        number = value(trial, objective, plan) if feasible(trial, plan) else None
        if number is not None and sign * number > best + plateau.min_change:
            best, since = sign * number, 0
        else:
            since += 1
    return since >= plateau.trials
