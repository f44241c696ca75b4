"""The memory plan: which strategies fit the devices, and the largest micro batch that fits.

In: measurements of the model (`raystack.training.profile.measure`), the batch and the workers. Out: a
MemoryPlan. Pure: nothing is measured here, and the formulas are in `footprint.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raystack.config.strategy import DDP, FSDP, Zero
from raystack.config.training import Batch as BatchConfig
from raystack.config.training import Training
from raystack.errors import PlanError, Problem
from raystack.plan.batch import Batch, plan_batches
from raystack.plan.footprint import GIB, Case, Estimate, ModelProfile, Strategy, estimate, name
from raystack.plan.scale import Workers


@dataclass(frozen=True)
class MemoryPlan:
    """The chosen strategy beside the others."""

    estimates: tuple[Estimate, ...]
    chosen: str
    memory: int | None
    """Bytes of each worker's device; None: not known."""
    fits: bool | None
    """True if the chosen strategy fits; None if the device's memory is not known."""
    fitting: tuple[str, ...]
    """The strategies that fit."""
    micro: int
    how: Literal["fake", "real"]
    why: str | None

    @property
    def estimate(self) -> Estimate:
        """Estimate of the chosen strategy."""
        return next(estimate for estimate in self.estimates if estimate.strategy == self.chosen)


def plan_memory(
    measured: ModelProfile, training: Training, batches: Sequence[Batch], workers: Workers
) -> MemoryPlan:
    """Estimate all strategies that the precision allows, the chosen one as configured, others by default.

    An elastic run has a batch for each number of workers; the most demanding counts.
    """
    chosen = training.strategy
    # Only DeepSpeed scales the loss, so fp16 needs ZeRO.
    others: list[Strategy] = [] if training.precision == "fp16" else [DDP(), FSDP(kind="fsdp")]
    stages: tuple[Literal[0, 1, 2, 3], ...] = (0, 1, 2, 3) if name(chosen) == "zero0" else (1, 2, 3)
    others += [Zero(kind="zero", stage=stage) for stage in stages]
    strategies: list[Strategy] = [chosen if name(other) == name(chosen) else other for other in others]
    cases = [Case(measured, training, batch, workers.device) for batch in batches]
    estimates = tuple(
        max((estimate(case, strategy) for case in cases), key=lambda made: made.total)
        for strategy in strategies
    )
    memory = workers.memory
    fitting = tuple(
        estimate.strategy for estimate in estimates if memory is not None and estimate.total <= memory
    )
    fits = None if memory is None else name(chosen) in fitting
    return MemoryPlan(
        estimates,
        name(chosen),
        memory,
        fits,
        fitting,
        max(batch.micro for batch in batches),
        measured.how,
        measured.why,
    )


def micro_batches_to_profile(config: BatchConfig, workers: Workers) -> tuple[int, ...]:
    """Return the smallest and the largest micro batch that the plan may need; raise PlanError as it would."""
    # Two sizes are enough, because the sizes between are interpolated (`footprint.at`).
    if config.micro == "auto":
        sizes = _micros(config, workers)
    else:
        sizes = sorted({batch.micro for batch in plan_batches(config, workers.least, workers.count)})
    return tuple(sorted({sizes[0], sizes[-1]}))


def largest_batches(measured: ModelProfile, training: Training, workers: Workers) -> tuple[Batch, ...]:
    """Return the batches with the largest micro batch that fits, for `micro: auto`.

    Raises PlanError if none fits.
    """
    for micro in reversed(_micros(training.batch, workers)):
        batches = plan_batches(
            training.batch.model_copy(update={"micro": micro}), workers.least, workers.count
        )
        plan = plan_memory(measured, training, batches, workers)
        if plan.fits:
            return batches
    raise PlanError(_too_large(plan))


def _micros(config: BatchConfig, workers: Workers) -> list[int]:
    """Return the micro batches that `auto` may choose, by rising size: divisors of a worker's samples."""
    if config.global_ is None:
        remedy = "add training.batch.global=64, for example"
        raise PlanError(Problem("training.batch.micro", rule="auto needs the global batch", remedy=remedy))
    if config.accumulation is not None:
        rule = "auto works the accumulation out"
        raise PlanError(
            Problem(
                "training.batch.accumulation",
                rule=rule,
                got=str(config.accumulation),
                remedy="drop it, or give micro",
            )
        )
    if workers.memory is None:
        device = (
            f"accelerator_type {workers.accelerator_type}"
            if workers.accelerator_type
            else f"a {workers.device} device"
        )
        rule = f"auto needs the memory of the device, and that of {device} is not known"
        raise PlanError(Problem("training.batch.micro", rule=rule, remedy="set resources.device_memory_gib"))
    config = config.model_copy(update={"micro": None})
    each = [batch.global_ // batch.workers for batch in plan_batches(config, workers.least, workers.count)]
    return sorted({size for number in each for size in range(1, number + 1) if number % size == 0})


def _too_large(plan: MemoryPlan) -> Problem:
    assert plan.memory is not None
    needs = plan.estimate
    largest = max(needs.device, key=lambda line: needs.device[line])
    needed = f"{needs.total / GIB:.2f} GiB of {plan.memory / GIB:.2f} GiB, the largest part {largest}"
    rule = f"not even {plan.micro} fits with {plan.chosen}: {needed}"
    if plan.fitting:
        remedy = f"use a strategy that fits: {', '.join(plan.fitting)}"
    else:
        remedy = (
            "no strategy fits as it comes: try gradient_checkpointing, offloading, more workers or a larger"
            " device"
        )
    return Problem("training.batch.micro", rule=rule, got="auto", remedy=remedy)
