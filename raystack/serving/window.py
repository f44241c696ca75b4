"""The requests of the last minutes, as histograms with the bins of a model's statistics."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from raystack.checkpoint.statistics import Array, DataStatistics, Feature, Tensors, columns
from raystack.serving.observers import Observed
from raystack.serving.stability import by_chance, merged, stability_index
from raystack.task import Signature, TensorSpec

SLICES = 10
"""Parts of a window, by which it slides."""

Side = Literal["input", "output"]
Place = tuple[Side, str]
"""An input or output by its name."""


@dataclass
class Tally:
    """Values of a feature."""

    counts: Array
    finite: int = 0
    total: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf

    def add(self, other: "Tally") -> None:
        """Take the values of another one."""
        self.counts = self.counts + other.counts
        self.finite += other.finite
        self.total += other.total
        self.least, self.greatest = min(self.least, other.least), max(self.greatest, other.greatest)

    @classmethod
    def of(cls, feature: Feature, values: Array) -> "Tally":
        """Count values by a feature's bins."""
        counts = feature.histogram(values)
        finite = values[np.isfinite(values)]
        if not len(finite):
            return cls(counts)
        total = float(finite.sum(dtype=np.float64))
        return cls(counts, len(finite), total, float(finite.min()), float(finite.max()))


@dataclass
class _Slice:
    """A part of a window."""

    began: float
    samples: int = 0
    tallies: dict[Place, list[Tally]] = field(default_factory=dict)

    def add(self, tallies: Mapping[Place, list[Tally]]) -> None:
        """Take the values of each feature."""
        for place, features in tallies.items():
            if place not in self.tallies:
                self.tallies[place] = [Tally(np.zeros_like(each.counts)) for each in features]
            for mine, other in zip(self.tallies[place], features, strict=True):
                mine.add(other)


@dataclass(frozen=True)
class Found:
    """What the window of a tensor is, compared with what is expected."""

    indices: Sequence[float]
    """Stability index of each feature."""
    chances: Sequence[float]
    """What each may be by chance."""
    tallies: Sequence[Tally]

    @property
    def index(self) -> float:
        """The greatest one."""
        return max(self.indices)

    def above(self, threshold: float) -> list[int]:
        """Return the features above a threshold."""
        pairs = zip(self.indices, self.chances, strict=True)
        return [number for number, (index, chance) in enumerate(pairs) if index > max(threshold, chance)]


class Window:
    """The last requests of one version, by the bins of its statistics."""

    def __init__(self, statistics: DataStatistics, signature: Signature, window_s: float) -> None:
        self.expects, self._window_s = statistics, window_s
        specs: tuple[tuple[Side, Iterable[TensorSpec]], ...] = (
            ("input", signature.inputs),
            ("output", signature.outputs),
        )
        self._specs = {(side, spec.name): spec for side, of_side in specs for spec in of_side}
        known: tuple[tuple[Side, Tensors], ...] = (
            ("input", statistics.inputs),
            ("output", statistics.outputs),
        )
        self.expected = {
            (side, name): features
            for side, tensors in known
            for name, features in tensors.items()
            if features and (side, name) in self._specs
        }
        """Features by their input or output."""
        self._slices: deque[_Slice] = deque()
        self._random = np.random.default_rng()
        self.drifted: set[Place] = set()

    @property
    def samples(self) -> int:
        """Samples in it."""
        return sum(part.samples for part in self._slices)

    def add(self, now: float, requests: Sequence[Observed]) -> None:
        """Take requests that were answered."""
        if not self._slices or now - self._slices[-1].began >= self._window_s / SLICES:
            self._slices.append(_Slice(now))
        part = self._slices[-1]
        part.samples += sum(seen.request.batch for seen in requests if seen.request is not None)
        part.add(self._tallies(requests))

    def slide(self, now: float) -> None:
        """Forget what is older than the window."""
        while self._slices and now - self._slices[0].began >= self._window_s:
            self._slices.popleft()

    def found(self) -> Iterator[tuple[Place, Found]]:
        """Compare each tensor with what is expected."""
        samples, whole = self.samples, _Slice(0.0)
        for part in self._slices:
            whole.add(part.tallies)
        for place, tallies in whole.tallies.items():
            pairs = [
                merged(np.array(feature.counts), tally.counts)
                for feature, tally in zip(self.expected[place], tallies, strict=True)
            ]
            indices = [stability_index(*pair) for pair in pairs]
            chances = [by_chance(len(pair[0]), self.expects.samples, samples) for pair in pairs]
            yield place, Found(indices, chances, tallies)

    def _tallies(self, requests: Sequence[Observed]) -> dict[Place, list[Tally]]:
        found = {}
        for place, features in self.expected.items():
            parts = [columns(self._specs[place], array, self._random) for array in _arrays(place, requests)]
            if parts:
                values = [np.concatenate(part) for part in zip(*parts, strict=True)]
                found[place] = [Tally.of(each, part) for each, part in zip(features, values, strict=True)]
        return found


def _arrays(place: Place, requests: Sequence[Observed]) -> Iterator[Array]:
    side, name = place
    for seen in requests:
        assert seen.request is not None
        assert seen.outputs is not None
        arrays = seen.request.inputs if side == "input" else seen.outputs
        if name in arrays:
            yield arrays[name]
