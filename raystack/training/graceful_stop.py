"""Graceful stop: all workers stop at the same step, as a checkpoint needs.

An order reaches each worker at its own time, so rank 0 decides: before it begins a step, it announces in the
process group's store that this one is the last. No worker can end a step before all have exchanged their
gradients in it, so every worker that looks after the step sees the announcement. On a GPU the host runs ahead
of its device, and only the device waits for the others: there the next step is announced, and a host is never
more than one step ahead (docs/decisions/0008-stopping-together.md).
"""

import torch
import torch.distributed as dist

from raystack.training.world import World

KEY = "raystack/stop"


class GracefulStop:
    """The agreement of all workers on the last step.

    `requested` is set from another thread, or by a signal handler, to the reason to stop.
    """

    def __init__(self, world: World) -> None:
        self.requested: str | None = None
        self._world = world
        self._store = dist.distributed_c10d._get_default_store() if world.size > 1 else None
        self._last: tuple[int, str] | None = None
        self._ahead = world.size > 1 and world.device.type == "cuda"
        self._before: torch.cuda.Event | None = None
        """Event at the end of the step before on the device."""

    def begin(self, step: int, own: str | None = None) -> None:
        """Announce the last step if a stop is requested; call it before step `step`, counted from 0.

        `own` is a reason of the training itself, which counts on rank 0.
        """
        reason = self.requested or own
        if reason is None or self._last is not None or self._world.rank > 0:
            return
        self._last = step + self._ahead, reason
        if self._store is not None:
            self._store.set(KEY, f"{self._last[0]} {reason}")

    def due(self, step: int) -> str | None:
        """Return the reason to stop after step `step`, the same on every worker, or None."""
        if self._ahead:
            # Wait for the step before, so that this host is at most one step ahead of the devices.
            now = torch.cuda.Event()
            now.record()
            if self._before is not None:
                self._before.synchronize()
            self._before = now
        # A read of the store takes tens of microseconds; an all-reduce would wait for the device.
        if self._last is None and self._store is not None and self._store.check([KEY]):
            last, reason = self._store.get(KEY).decode().split()
            self._last = int(last), reason
        return self._last[1] if self._last is not None and self._last[0] <= step else None
