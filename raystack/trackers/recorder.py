"""A tracker in a thread of its own: the run neither waits for it nor fails with it."""

import queue
import time
from collections.abc import Callable, Mapping
from threading import Thread

from raystack import interrupts
from raystack.errors import RaystackError
from raystack.events import Evaluated, Event, Saved, Started, Stepped
from raystack.trackers.tracker import Status, Tracker

LIMIT_S = 30.0
"""Seconds that the end of a run waits for a tracker at most."""

Call = Callable[[Tracker], None]


class Recorder:
    """Passes the events of a run on to a tracker, which is made by `make` when the first step is due.

    `name` is the tool's. The first failure ends the record: `warn` gets it, in that thread, and `notes` has
    it. Nothing here raises.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], warn: Callable[[str], None]) -> None:
        self.name, self._make, self._warn = name, make, warn
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread: Thread | None = None
        self._tracker: Tracker | None = None
        self._notes: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user. Complete after `wait`."""
        return tuple(self._notes)

    @property
    def links(self) -> Mapping[str, str]:
        """URLs or commands that show the run, by the name of the tool."""
        return self._tracker.links if self._tracker is not None else {}

    def __call__(self, event: Event) -> None:
        """Record an event. Returns at once."""
        if isinstance(event, Started):
            self.start(event.first_step)
            if event.first_step == 0:
                self.metrics(0, {"model/parameters": float(event.parameters)})
        elif isinstance(event, (Stepped, Evaluated)):
            self.metrics(event.step, event.metrics)
        elif isinstance(event, Saved):
            self._put(lambda tracker: tracker.checkpoint(event.step, event.url))

    def start(self, step: int) -> None:
        """Begin, or go on after `step` optimizer steps."""
        self._put(lambda tracker: tracker.start(step))
        if self._thread is None:
            self._thread = interrupts.start_deaf(self._work, f"raystack-{self.name}")

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record values after `step` optimizer steps."""
        at = time.time()
        self._put(lambda tracker: tracker.metrics(step, metrics, at))

    def end(self, status: Status) -> None:
        """End the record, without waiting."""
        self._put(lambda tracker: tracker.finish(status))
        self._calls.put(None)

    def wait(self) -> None:
        """Wait for the tracker, which has been told of the end, for a limited time."""
        if self._thread is None:  # a run without a step has no record
            return
        self._thread.join(LIMIT_S)
        if self._thread.is_alive():
            self._notes.append(f"{self.name} has not got everything: it took longer than {LIMIT_S:g} s")

    def _put(self, call: Call) -> None:
        self._calls.put(call)

    def _work(self) -> None:
        try:
            self._tracker = self._make()
            for call in iter(self._calls.get, None):
                call(self._tracker)
        except Exception as error:  # a tracker's library may raise anything, and the run is not its own
            text = str(error) if isinstance(error, RaystackError) else f"{type(error).__name__}: {error}"
            self._notes.append(f"{self.name} has not got everything: {text.splitlines()[0]}")
            self._warn(f"{self.name} records nothing more: {text.splitlines()[0]}; the run goes on")
