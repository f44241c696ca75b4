"""Workers and what each gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from raystack.config.resources import Resources
from raystack.errors import PlanError, Problem
from raystack.plan.accelerators import ACCELERATORS


def device_memory(config: Resources) -> int | None:
    """Bytes of each worker's device, as asked for or known from its type; None where neither says."""
    known = ACCELERATORS.get(config.accelerator_type or "") if config.gpus_per_worker else None
    gib = config.device_memory_gib or (None if known is None else known.memory_gib)
    return int(gib * 2**30) if gib is not None else None


@dataclass(frozen=True)
class Workers:
    """How many workers, where, and with what."""

    inline: bool
    """True: one worker in the calling process, without Ray."""
    count: int
    """World size; the most workers of an elastic run."""
    least: int
    """The fewest workers of an elastic run; `count` where the number is fixed."""
    device: Literal["cpu", "cuda"]
    backend: Literal["gloo", "nccl"]
    resources: Mapping[str, float]
    """What Ray sets aside for each worker."""
    threads: int
    """Compute threads of each worker."""
    placement: str
    accelerator_type: str | None
    wait_s: float
    """How long resources may be waited for, in seconds."""
    memory: int | None = None
    """Bytes of each worker's device, where they are known."""

    @property
    def needed(self) -> dict[str, float]:
        """Resources of all workers together, of the fewest where the run is elastic."""
        return {name: amount * self.least for name, amount in self.resources.items()}

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change during the run."""
        return self.least < self.count


def plan_workers(config: Resources) -> Workers:
    """Decide; raises PlanError where inline training is asked for what only Ray can give."""
    inline = config.workers == "inline"
    if inline and (config.custom or config.accelerator_type):
        key = "custom" if config.custom else "accelerator_type"
        rule = (
            "inline trains in the process that was started, and Ray does not choose its place by"
            f" resources.{key}"
        )
        raise PlanError(
            Problem(
                "resources.workers",
                rule=rule,
                got="inline",
                remedy=f"set resources.workers=1 or drop resources.{key}",
            )
        )
    least, most = (
        config.workers
        if isinstance(config.workers, tuple)
        else (1, 1)
        if isinstance(config.workers, str)
        else (config.workers,) * 2
    )
    gpus = config.gpus_per_worker
    per_worker = {
        "CPU": float(config.cpus_per_worker),
        **({"GPU": float(gpus)} if gpus else {}),
        **config.custom,
    }
    return Workers(
        inline=inline,
        count=most,
        least=least,
        device="cuda" if gpus else "cpu",
        backend="nccl" if gpus else "gloo",
        resources=per_worker,
        threads=config.cpus_per_worker,
        placement=config.placement,
        accelerator_type=config.accelerator_type,
        wait_s=config.wait_s,
        memory=device_memory(config),
    )
