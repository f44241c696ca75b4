"""Batch arithmetic: global = micro x accumulation x workers, in whole numbers."""

from dataclasses import dataclass

from raystack.config.training import Batch as BatchConfig
from raystack.errors import PlanError, Problem


@dataclass(frozen=True)
class Batch:
    """Samples per optimizer step and how they are split. `global_ == micro * accumulation * workers` holds."""

    global_: int
    micro: int
    accumulation: int
    workers: int


def plan_batch(asked: BatchConfig, workers: int) -> Batch:
    """Work out what was left out; PlanError names the nearest batches that are possible."""
    match asked.global_, asked.micro, asked.accumulation:
        case None, None, _:
            raise PlanError(
                Problem("training.batch", rule="global or micro has to be given", remedy="add training.batch.global=64, for example")
            )
        case None, int(micro), accumulation:
            return Batch(micro * (accumulation or 1) * workers, micro, accumulation or 1, workers)
        case int(total), None, accumulation:
            micro, rest = divmod(total, (accumulation or 1) * workers)
            if rest == 0 and micro > 0:
                return Batch(total, micro, accumulation or 1, workers)
        case int(total), int(micro), None:
            accumulation, rest = divmod(total, micro * workers)
            if rest == 0 and accumulation > 0:
                return Batch(total, micro, accumulation, workers)
        case int(total), int(micro), int(accumulation):
            if total == micro * accumulation * workers:
                return Batch(total, micro, accumulation, workers)
    raise PlanError(_impossible(asked, workers))


def _impossible(asked: BatchConfig, workers: int) -> Problem:
    assert asked.global_ is not None
    unit = (asked.micro or 1) * (asked.accumulation or 1) * workers
    if asked.micro is not None and asked.accumulation is not None:
        possible = [unit]
    else:
        below = asked.global_ // unit * unit
        possible = [size for size in (below, below + unit) if size > 0]
    parts = [f"{name} {value}" for name, value in (("micro", asked.micro), ("accumulation", asked.accumulation)) if value is not None]
    given = " x ".join([*parts, f"{workers} worker{'s' if workers > 1 else ''}"])
    nearest = " or ".join(f"training.batch.global={size}" for size in possible)
    return Problem(
        "training.batch",
        rule=f"global has to be a multiple of {given}" if len(parts) < 2 else f"global has to equal {given}",
        got=f"global {asked.global_}",
        remedy=f"nearest: {nearest}",
    )
