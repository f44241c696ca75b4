"""The way of events from rank 0 to the driver: a small actor that holds them until the driver asks."""

import asyncio
from collections.abc import Sequence

from raystack.events import Event


class Feed:
    """A queue with one writer and one reader. Writing never waits for the reader."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._arrived = asyncio.Event()

    async def put(self, events: Sequence[Event]) -> None:
        self._events.extend(events)
        self._arrived.set()

    async def take(self, timeout_s: float) -> list[Event]:
        """Everything that arrived since the last call; waits up to `timeout_s` seconds for the first."""
        try:
            await asyncio.wait_for(self._arrived.wait(), timeout_s)
        except TimeoutError:
            return []
        self._arrived.clear()
        events, self._events = self._events, []
        return events
