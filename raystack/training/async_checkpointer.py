"""Asynchronous checkpoints: training waits at most for a copy of its state in memory.

Weights and optimizer state change only in the optimizer's step, so they are copied during the next forward
and backward pass; what a forward pass changes is small and copied at once. Two more threads do the rest. The
first writes the copy to the local disk and hashes it, together with its counterparts on the other workers,
over a process group of its own. The second uploads the files to a remote store, and on worker 0 publishes the
checkpoint and deletes the old ones. While the store is unavailable, checkpoints wait on the local disk, up to
a bound.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch.distributed as dist

from raystack.checkpoint import MODEL, CheckpointStore, CheckpointWriter, Manifest
from raystack.checkpoint.manifest import FileEntry
from raystack.checkpoint.model import write_metrics
from raystack.checkpoint.state import Shard, Staging, State, share
from raystack.config.training import Checkpoint
from raystack.events import Event, Saved, Warned
from raystack.refusals import refusals
from raystack.training.world import World

LAST_S = 20.0
"""Seconds that a failing attempt waits for the checkpoints that it has begun."""
GROUP = "raystack-checkpoint"
"""Description of the writers' process group, which the watchdog leaves out of its counts."""
ASK_S = 0.05
"""Seconds between two checks whether all workers are done."""
NICE = 10
"""Increment of the background threads' niceness, so that training goes first where every core trains."""


@dataclass(frozen=True)
class _Pending:
    """A checkpoint between its copy and its publication."""

    manifest: Manifest
    writer: CheckpointWriter
    requested: float
    """Time of the request, in seconds of `perf_counter`."""


class AsyncCheckpointer:
    """The checkpoints of one attempt.

    `fill` writes what is not state (config, model card) into the folder, on worker 0.
    """

    def __init__(
        self, store: CheckpointStore, world: World, config: Checkpoint, fill: Callable[[Manifest, Path], None]
    ) -> None:
        self._store, self._world, self._config, self._fill = store, world, config, fill
        self._staging = Staging()
        # A group of its own, because the writer's collectives run beside the training's and two threads must
        # not interleave theirs on one group. gloo, because what is exchanged lies in CPU memory.
        self._group = dist.new_group(backend="gloo", group_desc=GROUP) if world.size > 1 else None
        self._stop = threading.Event()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._copier = ThreadPoolExecutor(1, "raystack-copy")
        self._writer = ThreadPoolExecutor(1, "raystack-write", _yield_to_training)
        self._sender = ThreadPoolExecutor(1, "raystack-send", _yield_to_training)
        self._copying: Future[dict[str, Shard]] | None = None
        self._stalled_s = 0.0
        """Seconds that training has waited for the last checkpoint."""
        self._writing: Future[None] | None = None
        self._sending: list[Future[None]] = []
        self._measuring: list[Future[None]] = []
        """What adds metrics to checkpoints that are published."""
        self._skipped: int | None = None
        """Step of the last checkpoint that was skipped."""

    def save(self, manifest: Manifest, state: State) -> bool:
        """Begin a checkpoint of `state`, at the same step on every worker; return whether it was begun.

        Call `copied` before the state changes. The checkpoint is skipped, with a warning, if too many wait
        for their upload. Raises the error of an earlier checkpoint that failed.
        """
        requested = time.perf_counter()
        self._settle()
        if not self._store.local and self._backlog() >= self._config.pending:
            self._events.put(
                Warned(
                    f"checkpoint at step {manifest.step} skipped: {self._config.pending} wait for"
                    f" {self._store.url}"
                )
            )
            self._skipped = manifest.step
            return False
        mine = share(state, self._world.rank, self._world.size)
        # Leading parts, such as buffers, change in the next forward pass: they are copied before it.
        copied = self._staging.copy({name: part for name, part in mine.items() if part.leading})
        self._copying = self._copier.submit(
            self._staging.copy, {name: part for name, part in mine.items() if not part.leading}
        )
        pending = _Pending(manifest, self._store.writer(manifest.step, manifest.attempt), requested)
        self._writing = self._writer.submit(self._write, pending, copied, self._copying)
        self._stalled_s = time.perf_counter() - requested
        return True

    def measured(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an evaluation to the checkpoint of `step`, once that is published."""
        if self._world.rank == 0 and step != self._skipped:
            self._writing = self._writer.submit(self._after_sending, self._writing, step, metrics)

    def copied(self) -> None:
        """Wait until the state may change; call it before each step of the optimizer."""
        if self._copying is not None:
            began = time.perf_counter()
            self._copying.result()
            self._copying = None
            self._stalled_s += time.perf_counter() - began

    def events(self) -> list[Event]:
        """Return the events since the last call, in order."""
        return [self._events.get() for _ in range(self._events.qsize())]

    def wait(self) -> None:
        """Wait until every checkpoint that was begun is published, on every worker."""
        self._settle()
        # Polled, because a barrier has a timeout and a worker's store may be unavailable for longer.
        while any(
            row[0]
            for row in self._world.gather([float(not all(future.done() for future in self._published()))])
        ):
            mine = [future for future in self._published() if not future.done()]
            if mine:
                wait(mine, ASK_S)
            else:  # another worker's
                time.sleep(ASK_S)
        for future in self._published():
            future.result()
        self._sending.clear()
        self._measuring.clear()

    def close(self) -> None:
        """Wait LAST_S at most for the checkpoints that were begun, and abandon the rest."""
        if self._stop.is_set():
            return
        deadline = time.monotonic() + LAST_S
        for future in [*([self._writing] if self._writing else []), *self._sending]:
            wait([future], max(0.0, deadline - time.monotonic()))
        # `_write` appends to the list when it ends, so what was still written above is waited for here.
        wait(self._published(), max(0.0, deadline - time.monotonic()))
        self._stop.set()
        self._copier.shutdown(wait=False)
        self._writer.shutdown(wait=False, cancel_futures=True)
        self._sender.shutdown(wait=False, cancel_futures=True)

    def _settle(self) -> None:
        """Wait until the last copy is on disk and its memory free; raise the background threads' errors."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None
        for futures in (self._sending, self._measuring):
            for future in [future for future in futures if future.done()]:
                future.result()
                futures.remove(future)

    def _published(self) -> list[Future[None]]:
        return [*self._sending, *self._measuring]

    def _backlog(self) -> int:
        """Return the longest queue of any worker."""
        # The maximum over all workers, because either all skip a checkpoint or none does.
        return int(max(row[0] for row in self._world.gather([float(len(self._sending))])))

    def _write(self, pending: _Pending, copied: State, copying: "Future[dict[str, Shard]]") -> None:
        from raystack.checkpoint.sharded import (
            gather,
            write,
        )  # takes a second, which nobody has to wait for here

        writer = pending.writer
        state = {**copied, **copying.result()}
        with self._refusals(pending, state):
            write(writer.folder / pending.manifest.state, state, self._group)
            if self._world.rank == 0:
                self._fill(pending.manifest, writer.folder)
        files = writer.entries(self._mine(writer.folder, pending.manifest))
        everyone = gather(files, self._group)
        manifest = replace(
            pending.manifest, files={name: entry for one in everyone for name, entry in one.items()}
        )
        self._sending.append(self._sender.submit(self._send, replace(pending, manifest=manifest), files))

    def _refusals(self, pending: _Pending, state: State) -> AbstractContextManager[None]:
        """Have a full disk name the checkpoint, which training has left behind, and the folder."""
        key = "experiment.storage" if self._store.local else "TMPDIR"
        # The state of all workers: each writes about its share.
        needed = self._world.size * sum(shard.data.nbytes for shard in state.values())
        what = f"the checkpoint of step {pending.manifest.step}"
        return refusals(what, str(pending.writer.folder.parent), key, needed)

    def _mine(self, folder: Path, manifest: Manifest) -> list[str]:
        """Return the names of this worker's files."""
        # Workers on one machine share a local draft folder; torch.distributed.checkpoint names each file
        # `__<rank>_<number>` after the rank that wrote it.
        prefix = f"__{self._world.rank}_"
        state = [
            f"{manifest.state}/{path.name}"
            for path in (folder / manifest.state).iterdir()
            if path.name.startswith(prefix)
        ]
        if self._world.rank > 0:
            return state
        others = [
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith("__")
        ]
        return state + others

    def _after_sending(self, writing: Future[None] | None, step: int, metrics: Mapping[str, float]) -> None:
        if writing is not None:
            writing.result()  # what it raised would be lost with its future
        self._measuring.append(self._sender.submit(self._add_metrics, step, metrics))

    def _add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        store = self._store.until(self._stop)
        store.add(step, MODEL, partial(write_metrics, metrics=metrics), metrics)
        # Which checkpoint is the best is known now.
        store.prune(self._config.keep_last, self._config.keep_best, step)

    def _send(self, pending: _Pending, files: Mapping[str, FileEntry]) -> None:
        manifest = pending.manifest
        pending.writer.send(files, self._stop)
        if self._world.rank == 0 and not self._stop.is_set():
            pending.writer.publish(manifest, self._stop)
            self._store.until(self._stop).prune(self._config.keep_last, self._config.keep_best, manifest.step)
            seconds = time.perf_counter() - pending.requested
            self._events.put(
                Saved(manifest.step, self._store.folder(manifest.step), seconds, self._stalled_s)
            )
        pending.writer.drop()


def _yield_to_training() -> None:
    """Raise this thread's niceness above that of the training."""
    thread = threading.get_native_id()  # on Linux niceness is a thread's own
    # A sandbox may forbid any change of a priority.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)
