"""Where values lie on an axis from 0 to 1, and what is written beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raystack.plan.space import Dimension

Ticks = list[tuple[float, Any]]
"""(place, value) of each label."""
MOST_TICKS = 12
WIDE = 100.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""


class Scale(Protocol):
    """An axis."""

    def place(self, value: Any) -> float | None:
        """Return where a value lies; None if it has no place."""

    def ticks(self) -> Ticks:
        """Return the labels."""


@dataclass(frozen=True)
class Categories:
    """Values without an order, at equal distances."""

    values: tuple[Any, ...]

    def place(self, value: Any) -> float | None:
        return (self.values.index(value) + 0.5) / len(self.values) if value in self.values else None

    def ticks(self) -> Ticks:
        every = math.ceil(len(self.values) / MOST_TICKS)
        return [((index + 0.5) / len(self.values), each) for index, each in enumerate(self.values)][::every]


@dataclass(frozen=True)
class Numbers:
    """Numbers from `low` to `high`, by their logarithm if `log`."""

    low: float
    high: float
    log: bool = False

    def place(self, value: Any) -> float | None:
        if value is None or not math.isfinite(value) or (self.log and value <= 0):
            return None
        if self.low == self.high:
            return 0.5
        low, high, own = (math.log(each) if self.log else each for each in (self.low, self.high, value))
        return (own - low) / (high - low)

    def ticks(self) -> Ticks:
        found = self._powers() if self.log else []
        if len(found) < 2:
            found = self._steps()
        return [(place, each) for each in found if (place := self.place(each)) is not None]

    def _powers(self) -> list[float]:
        """Return the powers of ten between the ends; if there are few, 1, 2 and 5 times them."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for factors in ((1,), (1, 2, 5)):
            every = (factor * 10.0**power for power in range(first, last + 1) for factor in factors)
            found = [each for each in every if self.low * 0.999 <= each <= self.high * 1.001]
            if len(found) >= 3:
                break
        return found[:: math.ceil(len(found) / MOST_TICKS)] if found else found

    def _steps(self) -> list[float]:
        """Return round numbers between the ends, five or so; of equal ends their value."""
        if self.low == self.high:
            return [self.low]
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.8)
        first, last = math.ceil(self.low / step - 1e-6), math.floor(self.high / step + 1e-6)
        return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def scale_of(dimension: Dimension, given: Sequence[Any]) -> Scale:
    """Return the axis of a path, long enough for the numbers `given`."""
    if dimension.choices:
        return Categories(dimension.choices)
    ends = () if dimension.kind == "normal" else (dimension.low, dimension.high)
    return numbers([*ends, *given], dimension.log)


def scale_of_metric(given: Sequence[float]) -> Scale:
    """Return the axis of a metric, logarithmic if the values are far from each other."""
    return numbers(given, is_wide(given))


def numbers(given: Sequence[float], log: bool) -> Numbers:
    return Numbers(min(given, default=0.0), max(given, default=1.0), log)


def is_wide(given: Sequence[float]) -> bool:
    """Return whether positive values are so far from each other that a linear axis hides most of them."""
    return bool(given) and min(given) > 0 and max(given) / min(given) > WIDE
