"""The way to a run's coordinator, and the driver's end of it, which reads the events."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from raystack.events import Event, Listener
from raystack.interrupts import start_deaf

DRAIN_S = 5.0
"""Seconds that one request for events waits at most; an event is passed on as soon as it arrives."""


class Link(Protocol):
    """Calls the methods of a `RunCoordinator` that is elsewhere, in an actor or in the driver's process."""

    def ask(self, order: str, *values: Any) -> Any:
        """Call the coordinator's method `order`, and return what it returns."""

    def send(self, order: str, *values: Any) -> None:
        """Call the coordinator's method `order` without waiting for it."""


@contextmanager
def reading(link: Link, tell: Listener, *, gone: type[Exception]) -> Iterator[None]:
    """Pass on the coordinator's events during the block, and those that are left at its end.

    `gone`: what `link` raises if the coordinator has died. The run then ends with an error of its own.
    """
    stop = threading.Event()

    def read() -> None:
        with suppress(gone):
            while True:
                ending = stop.is_set()
                events: list[Event] = link.ask("take", 0.0 if ending else DRAIN_S)
                for event in events:
                    tell(event)
                if ending:
                    return

    reader = start_deaf(read, "raystack-events")
    try:
        yield
    finally:
        stop.set()
        # An empty batch wakes up a reader that waits up to DRAIN_S for the next event.
        link.send("put", [])
        reader.join()
