"""Work beside the requests: a thread that does it every so often, and what waits for it.

The event loop only puts things into a Waiting, which has a bound and never blocks.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from threading import Event
from typing import Generic, TypeVar

from raystack import interrupts

END_S = 5.0
"""Seconds that the end of a replica waits for the last work."""

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


class Background:
    """A thread that calls `work` every `every_s` seconds, and a last time at the end."""

    def __init__(self, name: str, work: Callable[[], object], every_s: float) -> None:
        self._name, self._work, self._every_s = name, work, every_s
        self._told: str | None = None
        self._until = 0.0
        self.ending = Event()
        """Set when there is little time left."""
        self._thread = interrupts.start_deaf(self._run, f"raystack-{name}")

    def end(self) -> None:
        """Have the work be done a last time. Returns at once."""
        if not self.ending.is_set():
            self._until = time.monotonic() + END_S
            self.ending.set()

    def close(self) -> None:
        """End the work; return when it is done, or some seconds after its end was asked for."""
        self.end()
        self._thread.join(max(0.0, self._until - time.monotonic()))

    def _run(self) -> None:
        while not self.ending.wait(self._every_s):
            self._once()
        self._once()

    def _once(self) -> None:
        try:
            self._work()
        except Exception as error:
            # What observes the requests must not end with one of them, and the log not fill up with it.
            told, self._told = self._told, repr(error)
            if told != self._told:
                logger.warning("%s of the served model failed", self._name, exc_info=True)


class Waiting(Generic[Item]):
    """A queue from the event loop to one thread, which holds at most `most` things of `size` bytes in all."""

    def __init__(self, most: int, size: int) -> None:
        self._queue: deque[tuple[Item, int]] = deque()
        self._most, self._size = most, size
        # Each is changed by one side only, so that neither needs a lock.
        self._put, self._taken = 0, 0
        self.dropped = 0

    def put(self, item: Item, size: int) -> bool:
        """Append an item of `size` bytes; False if there is no room, so that it is dropped."""
        if len(self._queue) >= self._most or self._put - self._taken + size > self._size:
            self.dropped += 1
            return False
        self._put += size
        self._queue.append((item, size))
        return True

    def take(self) -> Item | None:
        """Return the oldest item; None if there is none."""
        try:
            item, size = self._queue.popleft()
        except IndexError:
            return None
        self._taken += size
        return item
