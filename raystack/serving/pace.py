"""How long the forward passes of one shape take, and from that where they run.

A short pass runs on the event loop: in a thread it would cost more than it frees, because the interpreter
hands its lock over every few milliseconds only, and torch gives it back with each operation. A long one runs
in a thread. What a pass takes is known by its number of samples, in powers of two, and it is the least of the
last few, so that one pass that the machine interrupted changes nothing.
"""

from collections import deque

INLINE_S = 0.002
"""Passes shorter than this run on the event loop."""
TRY_S = 0.01
"""A first pass of a size runs on the event loop if it is expected to be shorter than this."""
LONG_S = 0.02
"""A pass on the event loop that took this long is the last one there for now, whatever others took."""
KEPT = 4
"""Number of passes of each size that are remembered."""


class Pace:
    """Seconds of passes, by their number of samples."""

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        """Of passes on the event loop, by the number of bits of their size."""
        self._aside_s = 0.0
        """Of the last pass in the thread."""
        self._least_s = 0.0
        """Of that, what it would have taken on the event loop at least."""
        self._passes, self._pause = 0, 1

    def seconds(self, size: int) -> float:
        """Return what a pass is likely to take."""
        known = self._seconds.get(size.bit_length())
        return min(known) if known else self._aside_s

    def inline(self, size: int) -> bool:
        """Return whether a pass is to run on the event loop."""
        known = self._seconds.get(size.bit_length())
        if known and min(known) < INLINE_S:
            return True
        if known or not self._seconds:
            return self._due()
        return self._bound(size) < TRY_S

    def ran(self, size: int, seconds: float) -> None:
        """Take note of a pass on the event loop."""
        known = self._seconds.get(size.bit_length())
        if known is None:
            known = self._seconds[size.bit_length()] = deque(maxlen=KEPT)
        if seconds >= LONG_S:
            known.clear()
        known.append(seconds)
        if seconds < INLINE_S:
            self._pause = 1

    def ran_aside(self, seconds: float, cpu_s: float, loop_s: float) -> None:
        """Take note of a pass in the thread, the processor's time in it, and the event loop's meanwhile.

        While the loop works, the pass may be waiting for the interpreter.
        """
        self._aside_s, self._least_s = seconds, max(cpu_s, seconds - loop_s)
        self._passes += 1

    def _due(self) -> bool:
        """Whether it is time to try the event loop, for a pass that may be short there.

        Each try that was too long makes the pause to the next four times as long.
        """
        if self._passes < self._pause or self._least_s >= INLINE_S:
            return False
        self._passes, self._pause = 0, self._pause * 4
        return True

    def _bound(self, size: int) -> float:
        """Seconds of a pass of a size that is not known, if they grow with the samples."""
        bits = size.bit_length()
        return min(
            min(known) * (2.0 ** (bits - each) if bits > each else 1.0)
            for each, known in self._seconds.items()
        )
