"""The worker's side of the watchdog: a thread reports the loop's position to the driver twice a second.

In: a few calls per step from the loop, none of which blocks. Out: heartbeats (`hang.py`), and stacks when the
driver asks for them. A worker's own part of a step is its time minus what it waits for others. It waits in
`torch.distributed`'s blocking calls, which are timed, and in the backward pass after its own gradients are
done, which the autograd engine reports. With NCCL the host waits in none of these: the own part is then the
host's, such as reading samples.
"""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from functools import wraps
from statistics import median
from time import perf_counter
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from raystack.training.async_checkpointer import GROUP
from raystack.training.watchdog.hang import Heartbeat, Orders, Pace, Stacks, StepPhase

logger = logging.getLogger(__name__)

INTERVAL_S = 0.5
"""Seconds between two heartbeats."""

WINDOW = 50
"""Number of recent steps from which a worker's pace is taken."""

ABORTED = 70
"""Exit status of a worker that was ordered to end: sysexits' EX_SOFTWARE."""

_OWN: tuple[StepPhase, ...] = ("data", "forward", "backward", "optimizer")
_IN_STEP: dict[StepPhase, float] = dict.fromkeys((*_OWN, "wait"), 0.0)

_BLOCKING: tuple[tuple[Any, str], ...] = (
    (dist.Work, "wait"),  # every blocking collective of torch.distributed, FSDP and DeepSpeed
    (dist, "_broadcast_coalesced"),  # DDP's buffers, at the start of each forward pass
)


class HeartbeatSender:
    """Sends this worker's position to the driver; its thread runs for the length of a `with` block.

    Construct it in the thread that trains. `send` delivers a heartbeat to the driver and returns orders. It
    may block, and if it raises, that heartbeat is lost. `attempt` grows with every start of the worker
    group. `folder` is the user's, whose frames are marked in stacks.
    """

    def __init__(
        self,
        send: Callable[[Heartbeat], Orders],
        *,
        attempt: int,
        rank: int,
        world: int,
        node: str,
        folder: str | None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._send, self._attempt, self._rank, self._world, self._node = send, attempt, rank, world, node
        self._folder, self._interval_s = folder, interval_s
        self._trainer = threading.get_ident()
        # One tuple, replaced as a whole: the sending thread reads it without a lock.
        self._at: tuple[int, StepPhase, float] = (0, "idle", perf_counter())
        """Step, phase, and the time when the step (outside of one, the phase) began."""
        self._since = perf_counter()
        """Time when the phase began."""
        self._spent: dict[StepPhase, float] = dict(_IN_STEP)
        """Seconds of the step by phase; time blocked in collectives counts as `wait` in every phase."""
        # A ring whose entries are replaced as a whole: the sending thread copies it without a lock.
        self._recent: list[tuple[float, dict[StepPhase, float]]] = []
        """The last steps: seconds, and seconds by phase."""
        self._done = -1
        """Number of timed steps; the first of an attempt is not timed, so it counts from -1."""
        self._blocked = 0
        self._unheard = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raystack-heartbeat", daemon=True)
        self._real = [getattr(owner, name) for owner, name in _BLOCKING]

    def __enter__(self) -> Self:
        for (owner, name), real in zip(_BLOCKING, self._real, strict=True):
            setattr(owner, name, self._timed(real))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for (owner, name), real in zip(_BLOCKING, self._real, strict=True):
            setattr(owner, name, real)
        self.enter("over")
        self._stop.set()
        self._thread.join(timeout=2 * self._interval_s)

    def begin(self, step: int) -> None:
        """Enter step `step`, counted from 0, and its data phase."""
        # Ends a step whose last phase was one of a step, so that the next one starts with no time spent.
        self.enter("idle")
        self._spent = dict(_IN_STEP)
        self._at = (step + 1, "data", self._since)

    def enter(self, phase: StepPhase) -> None:
        """Enter `phase`; a phase outside of a step ends the step."""
        now = perf_counter()
        step, before, began = self._at
        spent = self._spent
        if before in spent:
            spent[before] += now - self._since
            if phase not in spent:
                self._record(now - began)
        self._since = now
        self._at = (step, phase, began if phase in spent else now)

    def backward(self, loss: Tensor) -> None:
        """Enter the backward pass of `loss`, which is about to run."""
        self.enter("backward")
        if self._world > 1 and loss.requires_grad:
            loss.register_hook(self._when_done)

    def _when_done(self, gradient: Tensor) -> None:
        # Callbacks run in the order they were queued: this one before that with which DDP or FSDP waits for
        # the others.
        torch.autograd.Variable._execution_engine.queue_callback(lambda: self.enter("wait"))

    def _record(self, seconds: float) -> None:
        self._done += 1
        if self._done == 0:
            return
        step = (seconds, self._spent)
        if len(self._recent) < WINDOW:
            self._recent.append(step)
        else:
            self._recent[self._done % WINDOW] = step

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def timed(*args: Any, **options: Any) -> Any:
            # The checkpoint writer waits for collectives of its own, which do not hold up the training.
            if threading.get_ident() != self._trainer:
                return call(*args, **options)
            start = perf_counter()
            self._blocked += 1
            try:
                return call(*args, **options)
            finally:
                self._blocked -= 1
                phase, spent = self._at[1], self._spent
                if phase in spent and phase != "wait":
                    took = perf_counter() - start
                    spent[phase] -= took
                    spent["wait"] += took

        return timed

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            if self._say(None).dump:
                self._say(stacks(self._trainer, self._folder))
        self._say(None)

    def _say(self, shown: Stacks | None) -> Orders:
        try:
            orders = self._send(self.heartbeat(shown))
        except Exception as error:  # the error of an unreachable driver depends on the transport
            if not self._unheard:
                logger.warning(
                    "the watchdog does not hear of this worker: %s: %s", type(error).__name__, error
                )
            self._unheard = True
            return Orders()
        self._unheard = False
        if orders.abort is not None:
            # Not sys.stderr: a thread that hangs may hold its lock. And not sys.exit, which ends this thread
            # only, and whose handlers could wait for the thread that hangs.
            os.write(2, f"this worker ends: {orders.abort}\n".encode())
            os._exit(ABORTED)
        return orders

    def heartbeat(self, shown: Stacks | None = None) -> Heartbeat:
        """Return this worker's state as a heartbeat."""
        step, phase, began = self._at
        waiting = phase == "wait" or self._blocked > 0
        seconds = perf_counter() - began
        collectives, pace = issued(self._world), self._pace()
        return Heartbeat(
            self._attempt,
            self._rank,
            self._world,
            self._node,
            os.getpid(),
            step,
            phase,
            seconds,
            collectives,
            waiting,
            pace,
            shown,
        )

    def _pace(self) -> Pace | None:
        recent = self._recent[:]
        if not recent:
            return None
        step_s = median([seconds for seconds, _ in recent])
        own_s = median([seconds - spent["wait"] for seconds, spent in recent])
        most = max(_OWN, key=lambda phase: sum([spent[phase] for _, spent in recent]))
        return Pace(len(recent), step_s, own_s, most)


def issued(world: int) -> int | None:
    """Return how many collectives this process has issued on groups of all `world` workers.

    DeepSpeed's and FSDP's are included. None if there is no such group, or its backend does not count. The
    count is of collectives issued, not completed.
    """
    # One counter per group, 0.3 microseconds each, and safe to read from any thread. The checkpoint writers'
    # group has all workers, too, but it is used while training goes on.
    groups: list[Any] = [
        group
        for group in tuple(dist.distributed_c10d._world.pg_map)
        if group.size() == world and group.group_desc != GROUP
    ]
    try:
        return sum(group._get_sequence_number_for_group() for group in groups) if groups else None
    except RuntimeError:
        return None


def stacks(first: int, folder: str | None) -> Stacks:
    """Return the stacks of all threads but the calling one, with the thread `first` at the top."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = {
        ident: frame for ident, frame in sys._current_frames().items() if ident != threading.get_ident()
    }
    order = sorted(frames, key=lambda ident: (ident != first, names.get(ident, "")))
    told = {ident: _frames(frames[ident]) for ident in order}
    text = "\n".join(
        f"thread {names.get(ident, 'of C code')}:\n{_lines(told[ident], folder)}" for ident in order
    )
    mine = told.get(first, [])
    own = [frame for frame in mine if _is_users(frame, folder)] or mine
    at = (
        f"{os.path.basename(own[-1].filename)}:{own[-1].lineno} in {own[-1].name}"
        if own
        else "an unknown place"
    )
    return Stacks(text, at)


def _frames(frame: FrameType) -> list[traceback.FrameSummary]:
    """Return the summaries of a stack, outermost frame first."""
    return list(traceback.extract_stack(frame))


def _lines(frames: list[traceback.FrameSummary], folder: str | None) -> str:
    return "\n".join(
        f"{'>' if _is_users(frame, folder) else ' '} {frame.filename}:{frame.lineno} in {frame.name}:"
        f" {frame.line}"
        for frame in frames
    )


def _is_users(frame: traceback.FrameSummary, folder: str | None) -> bool:
    return folder is not None and frame.filename.startswith(os.path.join(folder, ""))
