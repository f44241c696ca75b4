"""Retries after failures, and the watchdog."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from raystack.config.section import NonNegativeFloat, NonNegativeInt, Section


class Retry(Section):
    """Automatic retries after one class of failure."""

    times: NonNegativeInt
    """Maximum number of consecutive retries. A newer checkpoint resets the count, so a run that makes
    progress is never given up.
    """

    wait_s: NonNegativeFloat = 0.0
    """Seconds before the first retry, doubled for each consecutive one up to five minutes."""


class Faults(Section):
    """Retries by class of failure.

    An error that the task raises always ends the run, because it would be raised again.
    """

    lost: Retry = Retry(times=10)
    """A worker's process or its node was lost."""

    memory: Retry = Retry(times=1, wait_s=5)
    """A worker ran out of device or host memory, which usually happens again."""

    hang: Retry = Retry(times=3, wait_s=5)
    """The watchdog aborted a step that hung."""

    preemption: Retry = Retry(times=1000)
    """The cluster reclaims a node. Costs only the restart, because a checkpoint is written in time.
    """


class Watchdog(Section):
    """Detection of hanging steps and of workers that are slower than the others."""

    multiple: Annotated[float, Field(gt=1)] | None = 10.0
    """Limit of a step as a multiple of the recent median. null disables the watchdog."""

    min_s: PositiveFloat = 60.0
    """Lower bound of that limit in seconds, so that a short pause of a fast training raises no alarm."""

    startup_s: PositiveFloat = 1800.0
    """Limit of the first step in seconds; it includes compilation and the first reads."""

    action: Literal["observe", "fail"] = "fail"
    """`observe` logs a warning with the stacks of all workers. `fail` also ends the attempt; faults.hang sets
    the retries.
    """

    slow: Annotated[float, Field(gt=1)] = 1.5
    """Ratio to the median worker's own time per step from which a worker is reported as slow."""
