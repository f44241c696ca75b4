"""The budget section: what a run may use, over all of its attempts."""

from typing import Annotated

from pydantic import Field

from raystack.config.section import Fraction, Section

Positive = Annotated[float, Field(gt=0)]


class RunBudget(Section):
    """Limits of a run, counted over all attempts by the ledger in its folder. When one is reached, the run
    writes a checkpoint and ends with exit status 8; with a larger budget `--resume` goes on from there.
    """

    time_s: Positive | None = None
    """Seconds in which the run's driver may run, the start of Ray included. `training.max_time_s` is another
    limit: it counts steps only, and a run that reaches it is finished.
    """

    gpu_hours: Positive | None = None
    """Hours of GPUs that workers may hold: two workers with a GPU each use one in half an hour."""

    money: Positive | None = None
    """Amount in `prices.currency`; it needs a price of the run's workers."""

    warn_at: Fraction = 0.8
    """Fraction of a limit at which the run warns once."""
