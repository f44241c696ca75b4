"""Batch arithmetic: global = micro x accumulation x workers, in whole numbers."""

from dataclasses import dataclass, replace

from raystack.config.training import Batch as BatchConfig
from raystack.errors import PlanError, Problem


@dataclass(frozen=True)
class Batch:
    """Samples per optimizer step and their split: `global_ == micro * accumulation * workers`."""

    global_: int
    micro: int
    accumulation: int
    workers: int
    tokens: int | None = None
    """Most padded tokens of a forward pass, which then has one sample or more; `micro` is 1, and
    `accumulation` the largest number of passes.
    """


def plan_batch(config: BatchConfig, workers: int) -> Batch:
    """Work out the sizes that are not set.

    Raises PlanError with the nearest possible batches.
    """
    if config.micro_tokens is not None:
        return _by_tokens(plan_batch(_whole(config), workers), config.micro_tokens)
    # `micro: auto` is resolved earlier, by the memory plan.
    assert config.micro != "auto"
    match config.global_, config.micro, config.accumulation:
        case None, None, _:
            raise PlanError(
                Problem(
                    "training.batch",
                    rule="global or micro has to be given",
                    remedy="add training.batch.global=64, for example",
                )
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
    raise PlanError(_impossible(config, workers))


def plan_batches(config: BatchConfig, least: int, most: int) -> tuple[Batch, ...]:
    """Return a batch for each number of workers, from `most` down to `least`, that divides the global batch.

    All have the same global batch; fewer workers accumulate more. Raises PlanError if no number is possible.
    """
    if config.micro_tokens is not None:
        wholes = plan_batches(_whole(config), least, most)
        return tuple(_by_tokens(whole, config.micro_tokens) for whole in wholes)
    if least == most:
        return (plan_batch(config, most),)
    if config.global_ is None or config.accumulation is not None:
        got = "no global" if config.global_ is None else f"accumulation {config.accumulation}"
        rule = "elastic workers keep the global batch and work accumulation out"
        raise PlanError(
            Problem(
                "training.batch",
                rule=rule,
                got=got,
                remedy="give training.batch.global, and micro if you like",
            )
        )
    batches: list[Batch] = []
    limit = config.micro if isinstance(config.micro, int) else None
    for workers in range(most, least - 1, -1):
        each, rest = divmod(config.global_, workers)
        if rest or each == 0:
            continue
        # The first, largest number of workers sets the limit: what fits a device there fits it everywhere.
        limit = limit or each
        micro = max(size for size in range(1, min(limit, each) + 1) if each % size == 0)
        batches.append(Batch(config.global_, micro, each // micro, workers))
    if not batches:
        rule = f"none of {least} to {most} workers divides the global batch"
        raise PlanError(
            Problem(
                "training.batch.global",
                rule=rule,
                got=str(config.global_),
                remedy=f"nearest: {_near(config.global_, most)}",
            )
        )
    return tuple(batches)


def _whole(config: BatchConfig) -> BatchConfig:
    """Return the same batch without a limit of tokens."""
    return config.model_copy(update={"micro_tokens": None})


def _by_tokens(whole: Batch, tokens: int) -> Batch:
    return replace(whole, micro=1, accumulation=whole.micro * whole.accumulation, tokens=tokens)


def _near(size: int, workers: int) -> str:
    return f"training.batch.global={max(1, round(size / workers)) * workers}"


def _impossible(config: BatchConfig, workers: int) -> Problem:
    assert config.global_ is not None
    assert config.micro != "auto"
    unit = (config.micro or 1) * (config.accumulation or 1) * workers
    if config.micro is not None and config.accumulation is not None:
        possible = [unit]
    else:
        below = config.global_ // unit * unit
        possible = [size for size in (below, below + unit) if size > 0]
    parts = [
        f"{name} {value}"
        for name, value in (("micro", config.micro), ("accumulation", config.accumulation))
        if value is not None
    ]
    given = " x ".join([*parts, f"{workers} worker{'s' if workers > 1 else ''}"])
    nearest = " or ".join(f"training.batch.global={size}" for size in possible)
    return Problem(
        "training.batch",
        rule=f"global has to be a multiple of {given}" if len(parts) < 2 else f"global has to equal {given}",
        got=f"global {config.global_}",
        remedy=f"nearest: {nearest}",
    )
