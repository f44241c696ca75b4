"""Groups of workers that split the state of a model among them, for hybrid sharding."""

from collections.abc import Sequence

from raystack.config.strategy import FSDP
from raystack.errors import PlanError, Problem


def check_groups(strategy: FSDP, counts: Sequence[int]) -> None:
    """Raise PlanError if one of the possible numbers of workers does not come out in whole groups."""
    shard = strategy.shard
    if shard is None or all(workers % shard == 0 for workers in counts):
        return
    possible = " or ".join(str(workers) for workers in sorted(counts))
    rule = f"groups of so many workers have to divide each number of workers of the run, which is {possible}"
    divisors = [size for size in range(2, min(counts)) if all(workers % size == 0 for workers in counts)]
    near = min(divisors, key=lambda size: abs(size - shard), default=None)
    remedy = "leave it out, so that all workers are one group, or change resources.workers"
    if near is not None:
        remedy = f"nearest: training.strategy.shard={near}; or {remedy}"
    raise PlanError(Problem("training.strategy.shard", rule=rule, got=str(shard), remedy=remedy))
