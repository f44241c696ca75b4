"""What was seen of each version by a replica since it started."""

import math
from bisect import bisect_left
from itertools import accumulate
from typing import NamedTuple

LATENCY_BOUNDS_S = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0),
)
"""Bounds of the latency's buckets."""


class Seen(NamedTuple):
    """Counters of one version in one replica, since the replica was started."""

    replica: str
    version: str
    """Its pinned reference: `models:/name/7`, or a folder."""
    requests: int
    """Those that were answered, and those that are errors."""
    errors: int
    """Those that ended with a status of 500 and above or were lost with a replica; and copies that failed."""
    latency: tuple[int, ...]
    """Answers that took at most each of LATENCY_BOUNDS_S where they are computed; the last counts all."""
    compared: int
    """Copies whose answers were compared."""
    different: int
    dropped: int
    """Copies that were not made, because too many were being answered."""
    largest: dict[str, float]
    """Largest absolute difference, by output."""


class Counts:
    """The counters of one version. For use on one event loop."""

    def __init__(self) -> None:
        self.requests = self.errors = 0
        self.compared = self.dropped = 0
        self.different = 0
        """Copies of which an output differs."""
        self.by_output: dict[str, int] = {}
        """Differences by output."""
        self.largest: dict[str, float] = {}
        self._latency = [0] * (len(LATENCY_BOUNDS_S) + 1)

    def answered(self, seconds: float) -> None:
        """Count an answer."""
        self.requests += 1
        self._latency[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1

    def failed(self, status: int) -> None:
        """Count a request that was not answered, unless that is the client's doing."""
        if status >= 500:
            self.requests += 1
            self.errors += 1

    def differed(self, differences: dict[str, float]) -> None:
        """Count a copy that was compared, with the largest difference of each output that differs."""
        self.compared += 1
        self.different += bool(differences)
        for name, difference in differences.items():
            self.by_output[name] = self.by_output.get(name, 0) + 1
            self.largest[name] = max(self.largest.get(name, 0.0), difference)

    def seen(self, replica: str, version: str) -> Seen:
        """Return the counters as they are now."""
        latency = tuple(accumulate(self._latency))
        copies = self.compared, self.different, self.dropped
        return Seen(replica, version, self.requests, self.errors, latency, *copies, dict(self.largest))


NEVER_EQUAL = math.inf
"""Difference of outputs that are no numbers, or have other shapes."""
