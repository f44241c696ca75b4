"""A worker's place among all: rank, world size, device, and the few collectives of the loop."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from raystack.training.seeds import seed_host

Sums = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class World:
    """This worker's place among all; a world of one needs no process group."""

    rank: int
    size: int
    device: torch.device
    attempt: int = 0
    """Number of this start of the workers, counted from 1 by the run's coordinator; the same on all."""

    @classmethod
    def join(
        cls, rank: int, size: int, device: torch.device, next_attempt: Callable[[], int] = lambda: 1
    ) -> "World":
        """Return this worker's world; rank 0 requests the number of the attempt and shares it."""
        alone = cls(rank, size, device)
        number = next_attempt() if rank == 0 else 0
        return replace(alone, attempt=int(alone.gather([number])[0][0]))

    @property
    def device_name(self) -> str:
        """Name of the device, as CUDA or the platform reports it."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return platform.processor() or platform.machine()

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """Return every worker's `values` [n] by rank, exchanged in float64."""
        if self.size == 1:
            return [list(values)]
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        everyone = torch.empty(self.size * len(values), dtype=torch.float64, device=self.device)
        dist.all_gather_into_tensor(everyone, mine)
        return [[float(value) for value in row] for row in everyone.view(self.size, -1).tolist()]

    def gather_objects(self, value: Any) -> list[Any]:
        """Return every worker's picklable `value` by rank; for rare use, because it is slow."""
        if self.size == 1:
            return [value]
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, value)
        return everyone

    def collect(self, value: Any) -> list[Any]:
        """Return every worker's picklable `value` by rank on worker 0, elsewhere nothing; for rare use."""
        if self.size == 1:
            return [value]
        everyone: list[Any] = [None] * self.size if self.rank == 0 else []
        dist.gather_object(value, everyone if self.rank == 0 else None)
        return everyone

    def share(self, value: Any) -> Any:
        """Return worker 0's picklable `value` on every worker; for rare use."""
        shared = [value]
        if self.size > 1:
            dist.broadcast_object_list(shared)
        return shared[0]

    def seed(self, value: int) -> None:
        """Seed the random numbers of torch, NumPy and Python, on the CPU and on this worker's device."""
        seed_host(value)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(value)

    def synchronize(self) -> None:
        """Wait until the device has finished its work, so that a clock can time it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
