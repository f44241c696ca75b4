"""The order of samples, a pure function. In: a seed and global positions. Out: sample indices.

Positions continue over epochs without a gap. Each is computed on its own and not drawn after another, so a
run's position in its data is one integer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

ROUNDS = 8
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""SplitMix64's increment."""
WEIGHTED = np.uint64(0x77656967_68746564)
"""What keeps the draws of a seed apart from its permutations."""


class Order(Protocol):
    """The endless sequence of samples."""

    def at(self, positions: Indices) -> Indices:
        """Return the sample indices [n] at global `positions` [n], which may be in several epochs."""


class Permutation:
    """A random order of range(length), computed point by point: no list of `length` numbers is ever held.

    A balanced Feistel network over the next power of four with cycle walking (Black & Rogaway 2002, "Ciphers
    with Arbitrary Finite Domains"); the round function is the SplitMix64 finalizer. Unlike torch.randperm it
    costs no memory, reads from any position, and its result does not depend on the version of a library.
    """

    def __init__(self, length: int, seed: int, epoch: int) -> None:
        self.length = length
        half = max(1, ((length - 1).bit_length() + 1) // 2)
        self._half = np.uint64(half)
        self._mask = np.uint64((1 << half) - 1)
        with np.errstate(over="ignore"):
            start = _mix(np.array([seed], np.uint64)) + np.uint64(epoch)
            self._keys = _mix(_mix(start) + np.arange(1, ROUNDS + 1, dtype=np.uint64) * GOLDEN)

    def __call__(self, positions: Indices) -> Indices:
        """Return the sample indices [n], int64, at `positions` [n], each in range(length)."""
        values = self._encrypt(positions.astype(np.uint64))
        # Cycle walking: what falls outside of the range is encrypted again until it is inside.
        while (outside := values >= self.length).any():
            values[outside] = self._encrypt(values[outside])
        return values.astype(np.int64)

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << self._half) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply SplitMix64's finalizer (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class SampleOrder:
    """The endless sequence of samples: epoch after epoch, each in its own order."""

    length: int
    seed: int
    shuffle: bool = True

    def at(self, positions: Indices) -> Indices:
        """Return the sample indices [n] at global `positions` [n], which may be in several epochs."""
        if not self.shuffle:
            return positions % self.length
        epochs, within = np.divmod(positions, self.length)
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = Permutation(self.length, self.seed, int(epoch))(within[here])
        return indices


class WeightedOrder:
    """Samples drawn with replacement, each position by itself, in proportion to their weights.

    By inversion of the cumulated weights. The random number of a position is the output of SplitMix64 there
    (Steele, Lea & Flood 2014), of which a float64 holds 53 bits. It costs 8 bytes per sample.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        cumulated = np.cumsum(np.asarray(weights, np.float64))
        # The last one is exactly 1, which no random number reaches.
        self._cumulated = cumulated / cumulated[-1]
        self.length, self.seed = len(cumulated), seed
        self._key = _mix(_mix(np.array([seed], np.uint64)) ^ WEIGHTED)

    def at(self, positions: Indices) -> Indices:
        """Return the sample indices [n] at global `positions` [n]."""
        with np.errstate(over="ignore"):
            bits = _mix(self._key + positions.astype(np.uint64) * GOLDEN)
        drawn = (bits >> np.uint64(11)) * 2.0**-53
        return np.searchsorted(self._cumulated, drawn, side="right")


class BucketOrder:
    """An order with samples of similar length brought together.

    A window is `batches` global batches; it ends early where an epoch does, so that each epoch visits each
    sample once. The samples of a window are those that `order` has there. Sorted by length they are dealt to
    the window's global batches, each a run of neighbours; which batch gets which run is random. What a step
    holds is therefore independent of how it is split over workers and forward passes, and within a step the
    samples lie by length, so that those of one pass are the most alike.
    """

    def __init__(
        self, order: "SampleOrder | WeightedOrder", lengths: Sequence[int], global_batch: int, batches: int
    ) -> None:
        self._order, self._lengths = order, np.asarray(lengths, np.int64)
        self._batch, self._window = global_batch, global_batch * batches
        # Two, because a request may span the end of one window and the start of the next.
        self._indices = lru_cache(maxsize=2)(self._sorted)

    def at(self, positions: Indices) -> Indices:
        """Return the sample indices [n] at global `positions` [n]."""
        windows, epochs = positions // self._window, positions // self._order.length
        indices = np.empty_like(positions)
        for window, epoch in np.unique(np.stack([windows, epochs], axis=1), axis=0).tolist():
            here = (windows == window) & (epochs == epoch)
            start, _ = self._range(window, epoch)
            indices[here] = self._indices(window, epoch)[positions[here] - start]
        return indices

    def _range(self, window: int, epoch: int) -> tuple[int, int]:
        """Return the range of positions that are in both the window and the epoch."""
        length = self._order.length
        return max(window * self._window, epoch * length), min(
            (window + 1) * self._window, (epoch + 1) * length
        )

    def _sorted(self, window: int, epoch: int) -> Indices:
        """Return the sample indices of all positions of a window in an epoch."""
        start, stop = self._range(window, epoch)
        positions = np.arange(start, stop)
        samples = self._order.at(positions)
        samples = samples[np.argsort(self._lengths[samples], kind="stable")]
        batches = positions // self._batch - start // self._batch
        # The sum is a number of its own for each (window, epoch), because one or the other grows from piece
        # to piece.
        shuffled = Permutation(int(batches[-1]) + 1, self._order.seed, window + epoch)(batches)
        indices = np.empty_like(samples)
        indices[np.argsort(shuffled, kind="stable")] = samples
        return indices
