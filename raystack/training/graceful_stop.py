"""How all workers stop at the very same step: an order reaches each of them at its own time, and a checkpoint
needs them all.

Rank 0 announces, before it begins a step, that this one is the last. No worker can end a step before all have
exchanged their gradients in it, so whoever looks after the step sees the announcement. It is a key in the
store that the process group was made with: a read of it costs tens of microseconds, and no collective. On a
GPU the host runs ahead of its device, which alone waits for the others: there the step after is announced,
and a host is never more than one step ahead.
"""

import torch
import torch.distributed as dist

from raystack.training.world import World

KEY = "raystack/stop"


class GracefulStop:
    """`requested` is set from another thread, or by a signal handler, to the reason for which the run is to
    stop.
    """

    def __init__(self, world: World) -> None:
        self.requested: str | None = None
        self._world = world
        self._store = dist.distributed_c10d._get_default_store() if world.size > 1 else None
        self._last: tuple[int, str] | None = None
        self._ahead = world.size > 1 and world.device.type == "cuda"
        self._before: torch.cuda.Event | None = None
        """When the device has done the step before."""

    def begin(self, step: int) -> None:
        """Before step `step`, counted from 0, is begun."""
        if self.requested is None or self._last is not None or self._world.rank > 0:
            return
        self._last = step + self._ahead, self.requested
        if self._store is not None:
            self._store.set(KEY, f"{self._last[0]} {self.requested}")

    def due(self, step: int) -> str | None:
        """After step `step`: the reason to stop now, the same on every worker, or None."""
        if self._ahead:
            now = torch.cuda.Event()
            now.record()
            if self._before is not None:
                self._before.synchronize()
            self._before = now
        if self._last is None and self._store is not None and self._store.check([KEY]):
            last, reason = self._store.get(KEY).decode().split()
            self._last = int(last), reason
        return self._last[1] if self._last is not None and self._last[0] <= step else None
