"""Groups of neighbouring workers that split weights among them: hybrid sharding, and ZeRO's second copy."""

from collections.abc import Sequence

from raystack.config.strategy import DDP, FSDP, Zero
from raystack.errors import PlanError, Problem


def check_groups(strategy: DDP | FSDP | Zero, counts: Sequence[int]) -> None:
    """Raise PlanError if one of the possible numbers of workers does not come out in whole groups."""
    match strategy:
        case FSDP():
            key, size = "shard", strategy.shard
        case Zero():
            key, size = "secondary_shard", strategy.secondary_shard
        case DDP():
            return
    if size is None or all(workers % size == 0 for workers in counts):
        return
    possible = " or ".join(str(workers) for workers in sorted(counts))
    rule = f"groups of so many workers have to divide each number of workers of the run, which is {possible}"
    divisors = [each for each in range(2, min(counts)) if all(workers % each == 0 for workers in counts)]
    near = min(divisors, key=lambda each: abs(each - size), default=None)
    remedy = "leave it out, or change resources.workers"
    if near is not None:
        remedy = f"nearest: training.strategy.{key}={near}; or {remedy}"
    raise PlanError(Problem(f"training.strategy.{key}", rule=rule, got=str(size), remedy=remedy))
