"""Workers and what each gets; the compute peak and the memory of known devices."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from raystack.config.resources import Resources
from raystack.errors import PlanError, Problem

PEAK_FLOPS: Mapping[str, Mapping[str, float]] = {
    "H200": {"bf16": 989e12, "fp32": 67e12},
    "H100 NVL": {"bf16": 835e12, "fp32": 60e12},
    "H100 PCIe": {"bf16": 756e12, "fp32": 51e12},
    "H100": {"bf16": 989e12, "fp32": 67e12},
    "B200": {"bf16": 2250e12, "fp32": 80e12},
    "A100": {"bf16": 312e12, "fp32": 19.5e12},
    "L40S": {"bf16": 362e12, "fp32": 91.6e12},
    "L4": {"bf16": 121e12, "fp32": 30.3e12},
    "A10G": {"bf16": 70e12, "fp32": 35e12},
    "V100": {"bf16": 0.0, "fp32": 15.7e12},
}
"""Dense peak in FLOP/s by a part of the device's name, from NVIDIA's data sheets; the most specific name
comes first.
"""


def peak_flops(device_name: str, precision: str) -> float | None:
    """Peak of a device in FLOP/s at a precision, or None where it is not known (a CPU, a new GPU)."""
    for name, peaks in PEAK_FLOPS.items():
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", device_name, re.IGNORECASE):
            return peaks.get(precision) or None
    return None


DEVICE_MEMORY: Mapping[str, float] = {
    "H200": 139.0,
    "H100": 78.0,
    "B200": 178.0,
    "A100-80G": 78.0,
    "A100-40G": 39.0,
    "A100": 39.0,
    "L40S": 44.0,
    "L4": 21.9,
    "A10G": 21.9,
    "T4": 14.5,
    "V100": 15.7,
}
"""GiB that CUDA reports, rounded down, by Ray's name of the accelerator; of a name with several sizes, the
smallest.
"""


def device_memory(config: Resources) -> int | None:
    """Bytes of each worker's device, as asked for or known from its type; None where neither says."""
    known = DEVICE_MEMORY.get(config.accelerator_type or "") if config.gpus_per_worker else None
    gib = config.device_memory_gib or known
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
