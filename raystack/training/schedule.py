"""The factor of a step: what its learning rates are, as a fraction of their peaks.

In: the config's schedule, or the task's own function. Out: a pure function of the step and the number of
steps, so that a resumed run goes on with the rates that it would have had.
"""

import math
from collections.abc import Callable

from raystack.config.optimizer import ONE_CYCLE_WARMUP, Schedule
from raystack.errors import ConfigError, Problem, TrainingError
from raystack.task import SetsRate, Task

Factor = Callable[[int, int], float]
"""From an optimizer step, counted from 0, and the number of steps."""


def factor_of(schedule: Schedule, task: Task) -> Factor:
    """Return the factor that a config asks for; raise ConfigError if the task has not got it."""
    if schedule.kind != "task":
        return lambda step, steps: rate_factor(schedule, step, steps)
    if not isinstance(task, SetsRate):
        rule, remedy = "the task has no schedule of its own", "give it a method lr_factor(step, steps)"
        raise ConfigError(Problem("training.schedule.kind", rule=rule, got="task", remedy=remedy))
    own = task.lr_factor
    return lambda step, steps: _checked(own(step, steps))


def rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Return the rate of optimizer step `step` (from 0) of `steps`, as a fraction of the peak.

    It reaches 1 in the last step of the warm-up. Cosine is that of Loshchilov & Hutter 2017, "SGDR", without
    restarts; wsd falls linearly, as in Haegele et al. 2024, "Scaling laws and compute-optimal training beyond
    fixed training durations".
    """
    warmup = warmup_steps(schedule, steps)
    if schedule.kind == "one_cycle":
        return _one_cycle(schedule, step, steps, warmup)
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / max(1, steps - 1 - warmup), 1.0)
    match schedule.kind:
        case "linear":
            fraction = 1 - progress
        case "cosine":
            fraction = (1 + math.cos(math.pi * progress)) / 2
        case "polynomial":
            fraction = (1 - progress) ** schedule.power
        case "wsd":
            decay = max(1, round(schedule.decay_fraction * steps))
            fraction = min(max(steps - 1 - step, 0) / decay, 1.0)
        case "inverse_sqrt":
            return max(schedule.floor, math.sqrt(max(warmup, 1) / (step + 1)))
        case _:
            return 1.0
    return schedule.floor + (1 - schedule.floor) * fraction


def warmup_steps(schedule: Schedule, steps: int) -> int:
    """Return the number of steps in the warm-up of a run of `steps`."""
    if schedule.warmup_fraction is not None:
        return round(schedule.warmup_fraction * steps)
    if schedule.kind == "one_cycle" and not schedule.warmup_steps:
        return round(ONE_CYCLE_WARMUP * steps)
    return schedule.warmup_steps


def _one_cycle(schedule: Schedule, step: int, steps: int, warmup: int) -> float:
    """Return the factor of torch's OneCycleLR with two phases along cosines."""
    peak = max(warmup - 1, 0)
    if step < peak:
        low, progress = schedule.start, 1 - step / peak
    else:
        low, progress = schedule.floor, min((step - peak) / max(1, steps - 1 - peak), 1.0)
    return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2


def _checked(factor: object) -> float:
    if isinstance(factor, int | float) and math.isfinite(factor) and factor >= 0:
        return float(factor)
    rule = "lr_factor returns a number of 0 or more, the rate as a fraction of the peak"
    raise TrainingError(Problem("task: lr_factor", rule=rule, got=repr(factor)))
