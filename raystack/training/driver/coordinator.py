"""Where driver, controller and workers of a run meet: a small actor that outlives every attempt.

Up come the workers' events for the driver and their beats for the watchdog; down go orders: to stop at the
next step with a checkpoint, to show their stacks, to end. Ray Train's controller asks it why an attempt
ended.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from raystack.config.training import Watchdog
from raystack.events import Event, Saved, Started
from raystack.training.watchdog.hang import HangDetector, Heartbeat, Orders

JUDGE_S = 0.5
"""Between two looks at all beats: many workers send many, and each look goes over all of them."""

Stop = Literal["terminate", "drain", "resize"]
"""Why an attempt ends at a step with a checkpoint: the run was told to end, a node goes away, there is room
for more workers.
"""


@dataclass(frozen=True)
class RunState:
    """What the controller needs to know between two attempts."""

    newest: int
    """Step of the newest checkpoint of this run; 0 if there is none."""
    stop: Stop | None
    alarm: str | None
    """What the watchdog ended the attempt for."""
    hold_s: float
    """Seconds until another attempt may begin."""


class RunCoordinator:
    """A queue of events with one reader, and the standing orders. Writing never waits for the reader."""

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
        """Add events, in the order they are to be read."""
        for event in events:
            if isinstance(event, Saved):
                self._newest = event.step
            elif isinstance(event, Started):
                self._newest = event.first_step
        self._events.extend(events)
        self._arrived.set()

    async def take(self, timeout_s: float) -> list[Event]:
        """Everything that arrived since the last call; waits up to `timeout_s` seconds for the first.

        The driver's asking is also what notices workers that are all frozen, and send no beats.
        """
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
        """Number of the workers that start now, 1 for the first. Rank 0 asks, once for each start.

        A count, and no time: the workers of the next attempt may be on a machine with an earlier clock.
        """
        self._attempt += 1
        return self._attempt

    async def stop(self, why: Stop) -> None:
        """Have the workers stop at the next step, with a checkpoint. An order to terminate is not replaced by
        another.
        """
        if self._stop != "terminate":
            self._stop = why

    async def state(self) -> RunState:
        """How the run stands."""
        return RunState(self._newest, self._stop, self._alarm, self._not_before - time.monotonic())

    async def begin(self, wait_s: float) -> None:
        """There will be another attempt, in `wait_s` seconds: what ended the last one is settled, except an
        order to terminate.
        """
        self._not_before = time.monotonic() + wait_s
        self._alarm = None
        if self._stop != "terminate":
            self._stop = None

    async def heartbeat(self, heartbeat: Heartbeat) -> Orders:
        """Hear from a worker, and tell it what to do."""
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
