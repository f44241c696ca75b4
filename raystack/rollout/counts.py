"""Counters of replicas -> what each version did in an interval, and since the rollout began.

Replicas count from their start on, so what is new is a difference. A replica that is started again under its
name begins at 0 again.
"""

import math
import sys
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Seen(Protocol):
    """Counters of one version in one replica, since the replica was started."""

    @property
    def replica(self) -> str:
        """Name of the replica."""

    @property
    def version(self) -> str: ...
    @property
    def requests(self) -> int: ...
    @property
    def errors(self) -> int:
        """Requests that ended with a status of 500 and above or were lost, and copies that failed."""

    @property
    def latency(self) -> tuple[int, ...]:
        """Requests without an error that took at most each of the bounds; the last counts all of them."""

    @property
    def compared(self) -> int: ...
    @property
    def different(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def largest(self) -> dict[str, float]: ...


@dataclass(frozen=True)
class Counts:
    """Requests of one version, in an interval or altogether."""

    requests: int = 0
    errors: int = 0
    """Requests that ended with a status of 500 and above or were lost, and copies that failed."""
    latency: tuple[int, ...] = ()
    """Requests without an error that took at most each of the bounds; the last number counts all of them."""
    compared: int = 0
    """Copies whose answers were compared."""
    different: int = 0
    """Of the copies compared, those with another answer."""
    dropped: int = 0
    """Copies that were not made, because too many were being answered."""
    largest: Mapping[str, float] = field(default_factory=dict)
    """Largest difference that was found, by output."""

    @property
    def answered(self) -> int:
        """Requests and copies."""
        return self.requests + self.compared

    @property
    def timed(self) -> int:
        """Requests without an error, whose time was measured."""
        return self.latency[-1] if self.latency else 0

    @property
    def tried(self) -> int:
        """Requests and copies, those that failed too, of which `errors` are a part."""
        return self.timed + self.compared + self.errors

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum."""
        outputs = {*self.largest, *other.largest}
        return Counts(
            self.requests + other.requests,
            self.errors + other.errors,
            _added(self.latency, other.latency),
            self.compared + other.compared,
            self.different + other.different,
            self.dropped + other.dropped,
            {name: max(self.largest.get(name, 0.0), other.largest.get(name, 0.0)) for name in outputs},
        )

    def slower(self, index: int) -> int:
        """Return how many requests took longer than the bound with that index."""
        return self.timed - self.latency[index] if self.latency else 0


Last = Mapping[str, Counts]
"""The counters as they were read last, by `replica version`."""


def read(seen: Iterable[Seen]) -> dict[str, tuple[str, Counts]]:
    """Return the counters as values, with their version, by `replica version`."""
    return {
        f"{each.replica} {each.version}": (
            each.version,
            Counts(
                each.requests,
                each.errors,
                tuple(each.latency),
                each.compared,
                each.different,
                each.dropped,
                {name: _finite(value) for name, value in each.largest.items()},
            ),
        )
        for each in seen
    }


def since(last: Last, now: Mapping[str, tuple[str, Counts]]) -> dict[str, Counts]:
    """Return what each version did since the counters were read last."""
    found: dict[str, Counts] = {}
    for key, (version, counts) in now.items():
        new = _difference(last.get(key), counts)
        found[version] = found.get(version, Counts()).plus(new)
    return found


def percentile_s(counts: Counts, percentile: float, bounds: tuple[float, ...]) -> float | None:
    """Return the percentile of the latency: the bound below which so many requests were, in seconds.

    None without a request, infinity beyond the last bound.
    """
    if not counts.timed:
        return None
    wanted = counts.timed * percentile / 100
    # The last number counts all requests, beyond the last bound too.
    index = bisect_left(counts.latency, wanted)
    return bounds[index] if index < len(bounds) else math.inf


def bound_above(seconds: float, bounds: tuple[float, ...]) -> int | None:
    """Return the index of the least bound that is at least so many seconds; None if there is none."""
    index = bisect_left(bounds, seconds * (1 - 1e-9))
    return index if index < len(bounds) else None


def _finite(value: float) -> float:
    """Return a number that JSON has."""
    return value if math.isfinite(value) else sys.float_info.max


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    if not one or not other:
        return one or other
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _difference(last: Counts | None, now: Counts) -> Counts:
    """Return what is new; everything if the counters began again."""
    if last is None or now.requests < last.requests or now.compared < last.compared:
        return now
    latency = (
        tuple(new - old for new, old in zip(now.latency, last.latency, strict=True))
        if len(now.latency) == len(last.latency)
        else now.latency
    )
    return Counts(
        now.requests - last.requests,
        max(0, now.errors - last.errors),
        latency,
        now.compared - last.compared,
        max(0, now.different - last.different),
        max(0, now.dropped - last.dropped),
        now.largest,
    )
