"""The coordinator of a run: a small actor between driver, controller and workers that outlives every attempt.

The workers send events for the driver and heartbeats for the watchdog, and get orders: to stop at the next
step with a checkpoint, to send their stacks, to end. Ray Train's controller asks it why an attempt ended.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from raystack.config.faults import Watchdog
from raystack.events import Event, Saved, Started
from raystack.training.watchdog.hang import HangDetector, Heartbeat, Orders

# Each check goes over all workers, so with one per heartbeat the cost would grow with their square.
JUDGE_S = 0.5
"""Seconds between two checks of all heartbeats."""

Stop = Literal["terminate", "drain", "resize"]
"""Reasons to end an attempt with a checkpoint.

`terminate`: the run is to end. `drain`: a node goes away. `resize`: there is room for more workers.
"""


@dataclass(frozen=True)
class RunState:
    """The state of a run that the controller needs between two attempts."""

    newest: int
    """Step of the newest checkpoint of this run; 0 if there is none."""
    stop: Stop | None
    alarm: str | None
    """The watchdog's reason, if it ended the attempt."""
    hold_s: float
    """Seconds until another attempt may begin."""


class RunCoordinator:
    """A queue of events with one reader, and the standing orders. Writers never wait for the reader."""

    # An async actor: its methods run on one event loop, so `take` can wait while the others are served, and
    # no lock is needed.

    def __init__(self, watchdog: Watchdog) -> None:
        self._events: list[Event] = []
        self._arrived = asyncio.Event()
        self._watchdog = watchdog
        self._watch = HangDetector(watchdog)
        self._judged = 0.0
        self._attempt = 0
        self._newest = 0
        self._stop: Stop | None = None
        self._alarm: str | None = None
        self._not_before = 0.0

    async def put(self, events: Sequence[Event]) -> None:
        """Append events to the queue."""
        for event in events:
            if isinstance(event, Saved):
                self._newest = event.step
            elif isinstance(event, Started):
                self._newest = event.first_step
        self._events.extend(events)
        self._arrived.set()

    async def take(self, timeout_s: float) -> list[Event]:
        """Return the events since the last call; wait up to `timeout_s` seconds for the first."""
        # Also checked here: workers that are all frozen send no heartbeat that could trigger a check.
        await self._judge()
        if not self._arrived.is_set():
            try:
                await asyncio.wait_for(self._arrived.wait(), timeout_s)
            except TimeoutError:
                return []
        self._arrived.clear()
        events, self._events = self._events, []
        return events

    async def next_attempt(self) -> int:
        """Return the number of the attempt that starts now, from 1; called by rank 0 once per start."""
        # A counter and not a time, because the next attempt may run on a machine whose clock is behind.
        self._attempt += 1
        return self._attempt

    async def stop(self, why: Stop) -> None:
        """Order the workers to stop at the next step with a checkpoint."""
        # `terminate` comes from the user and is final; draining and resizing are the controller's own.
        if self._stop != "terminate":
            self._stop = why

    async def state(self) -> RunState:
        """Return the state of the run."""
        return RunState(self._newest, self._stop, self._alarm, self._not_before - time.monotonic())

    async def begin(self, wait_s: float) -> None:
        """Prepare another attempt in `wait_s` seconds: clear all orders but the one to terminate."""
        self._watch.end()
        self._not_before = time.monotonic() + wait_s
        self._alarm = None
        if self._stop != "terminate":
            self._stop = None

    async def heartbeat(self, heartbeat: Heartbeat) -> Orders:
        """Take a worker's heartbeat and return its orders."""
        orders = self._watch.observe(heartbeat, time.monotonic())
        await self._judge()
        return replace(orders, stop=self._stop)

    async def _judge(self) -> None:
        now = time.monotonic()
        if now - self._judged < JUDGE_S:
            return
        self._judged = now
        hung, slow = self._watch.check(now), self._watch.slow(now)
        if hung is not None and self._watchdog.action == "fail":
            self._alarm = hung.text
            self._watch.abort(hung.text)
        if hung is not None or slow:
            await self.put([*([hung] if hung is not None else []), *slow])
