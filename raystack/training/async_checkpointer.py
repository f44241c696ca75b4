"""Checkpoints while training goes on: the workers wait for a copy of their state in memory at most, and for
nothing else.

The weights and the optimizer's state change in the optimizer's step only, so they are copied during the
forward and backward pass that follows; what a forward pass changes is small and copied at once. Two more
threads take it from there. One writes the copy to the local disk and hashes it; it meets the other workers'
over a process group of its own. The next sends the files to the store, where that is remote, and on worker 0
publishes the checkpoint and deletes the old ones. While the store is away, checkpoints wait on the local
disk, up to a bound.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch.distributed as dist

from raystack.checkpoint import CheckpointStore, CheckpointWriter, Manifest
from raystack.checkpoint.manifest import FileEntry
from raystack.checkpoint.state import Shard, Staging, State, share
from raystack.config.training import Checkpoint
from raystack.events import Event, Saved, Warned
from raystack.training.world import World

LAST_S = 20.0
"""How long an attempt that fails stays for checkpoints that it has begun."""
GROUP = "raystack-checkpoint"
"""Description of the process group that the writers meet over: not one of the training's."""
ASK_S = 0.05
"""Between two questions whether all workers are done."""
NICE = 10
"""Added to the niceness of the background threads: where every core trains, training goes first."""


@dataclass(frozen=True)
class _Pending:
    """A checkpoint between its copy and its publication."""

    manifest: Manifest
    writer: CheckpointWriter
    requested: float
    """Clock when it was asked for, seconds."""


class AsyncCheckpointer:
    """The checkpoints of one attempt. `fill` writes what is not state (config, model card) into the folder,
    on worker 0.
    """

    def __init__(
        self, store: CheckpointStore, world: World, config: Checkpoint, fill: Callable[[Manifest, Path], None]
    ) -> None:
        self._store, self._world, self._config, self._fill = store, world, config, fill
        self._staging = Staging()
        self._group = dist.new_group(backend="gloo", group_desc=GROUP) if world.size > 1 else None
        self._stop = threading.Event()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._copier = ThreadPoolExecutor(1, "raystack-copy")
        self._writer = ThreadPoolExecutor(1, "raystack-write", _yield_to_training)
        self._sender = ThreadPoolExecutor(1, "raystack-send", _yield_to_training)
        self._copying: Future[dict[str, Shard]] | None = None
        self._stalled_s = 0.0
        """How long training has waited for the last checkpoint."""
        self._writing: Future[None] | None = None
        self._sending: list[Future[None]] = []

    def save(self, manifest: Manifest, state: State) -> None:
        """Begin a checkpoint of `state`, the same step on every worker. Call `copied` before the state
        changes.

        It is skipped, with a warning, where too many wait for their upload. Raises what an earlier one failed
        with.
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
            return
        mine = share(state, self._world.rank, self._world.size)
        copied = self._staging.copy({name: part for name, part in mine.items() if part.leading})
        self._copying = self._copier.submit(
            self._staging.copy, {name: part for name, part in mine.items() if not part.leading}
        )
        pending = _Pending(manifest, self._store.writer(manifest.step, manifest.attempt), requested)
        self._writing = self._writer.submit(self._write, pending, copied, self._copying)
        self._stalled_s = time.perf_counter() - requested

    def copied(self) -> None:
        """Return when the state may change: before each step of the optimizer."""
        if self._copying is not None:
            began = time.perf_counter()
            self._copying.result()
            self._copying = None
            self._stalled_s += time.perf_counter() - began

    def events(self) -> list[Event]:
        """What happened since the last call, in order."""
        return [self._events.get() for _ in range(self._events.qsize())]

    def wait(self) -> None:
        """Return when every checkpoint that was begun is published, on every worker."""
        self._settle()
        # Asked again and again, because a barrier has a limit and the store of one worker may be away for
        # longer.
        while any(
            row[0] for row in self._world.gather([float(not all(future.done() for future in self._sending))])
        ):
            time.sleep(ASK_S)
        for future in self._sending:
            future.result()
        self._sending.clear()

    def close(self) -> None:
        """Give what was begun a last while to be published, and give it up then."""
        if self._stop.is_set():
            return
        deadline = time.monotonic() + LAST_S
        for future in [*([self._writing] if self._writing else []), *self._sending]:
            wait([future], max(0.0, deadline - time.monotonic()))
        # A checkpoint that was being written when the first wait began is sent by now.
        wait(self._sending, max(0.0, deadline - time.monotonic()))
        self._stop.set()
        self._copier.shutdown(wait=False)
        self._writer.shutdown(wait=False, cancel_futures=True)
        self._sender.shutdown(wait=False, cancel_futures=True)

    def _settle(self) -> None:
        """The copy is written, so its memory is free; errors of the background come up here."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None
        for future in [future for future in self._sending if future.done()]:
            future.result()
            self._sending.remove(future)

    def _backlog(self) -> int:
        """Checkpoints that wait on the worker that is furthest behind: all decide alike."""
        return int(max(row[0] for row in self._world.gather([float(len(self._sending))])))

    def _write(self, pending: _Pending, copied: State, copying: "Future[dict[str, Shard]]") -> None:
        from raystack.checkpoint.sharded import (
            gather,
            write,
        )  # takes a second, which nobody has to wait for here

        writer = pending.writer
        write(writer.folder / pending.manifest.state, {**copied, **copying.result()}, self._group)
        if self._world.rank == 0:
            self._fill(pending.manifest, writer.folder)
        files = writer.entries(self._mine(writer.folder, pending.manifest))
        everyone = gather(files, self._group)
        manifest = replace(
            pending.manifest, files={name: entry for one in everyone for name, entry in one.items()}
        )
        self._sending.append(self._sender.submit(self._send, replace(pending, manifest=manifest), files))

    def _mine(self, folder: Path, manifest: Manifest) -> list[str]:
        """This worker's files; a local draft is shared by all. DCP names a file after the rank that
        wrote it.
        """
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
    """Raise this thread's niceness above that of the training. Only root may lower one, and a sandbox may
    forbid any change.
    """
    thread = threading.get_native_id()  # on Linux niceness is a thread's own
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)
