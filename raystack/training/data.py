"""Which samples a worker sees in which order, and the way of a batch to its device.

The order of samples is a pure function of (seed, epoch, position), so the place of a run in its data is one integer: the
number of samples consumed. Step s consumes the global positions [s G, (s+1) G), G the global batch; the workers split that
range, and accumulation splits each worker's part again. Positions run on over epochs without a gap. Every position is
consumed by exactly one worker, whatever their number; only the last step of a run may be smaller than G.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, default_collate

from raystack.config.training import Data
from raystack.plan.batch import Batch
from raystack.task import Collates, MapDataset, Task

Indices = NDArray[np.int64]

ROUNDS = 8

LOOKAHEAD = 64
"""Forward passes whose samples are worked out at once: a permutation costs as much for 10,000 samples as for one."""


class Permutation:
    """A random order of range(length), computed point by point: no list of `length` numbers is ever held.

    A balanced Feistel network over the next power of four with cycle walking (Black & Rogaway 2002, "Ciphers with
    Arbitrary Finite Domains"); the round function is the SplitMix64 finalizer. Unlike torch.randperm it costs no memory,
    reads from any position, and its result does not depend on the version of a library.
    """

    def __init__(self, length: int, seed: int, epoch: int) -> None:
        self.length = length
        half = max(1, ((length - 1).bit_length() + 1) // 2)
        self._half = np.uint64(half)
        self._mask = np.uint64((1 << half) - 1)
        with np.errstate(over="ignore"):
            start = _mix(np.array([seed], np.uint64)) + np.uint64(epoch)
            self._keys = _mix(_mix(start) + np.arange(1, ROUNDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))

    def __call__(self, positions: Indices) -> Indices:
        """Sample indices [n], int64, at `positions` [n], each in range(length)."""
        values = self._encrypt(positions.astype(np.uint64))
        while (outside := values >= self.length).any():
            values[outside] = self._encrypt(values[outside])
        return values.astype(np.int64)

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << self._half) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer (Steele, Lea & Flood 2014)."""
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
        """Sample indices [n] at global `positions` [n], which may lie in several epochs."""
        if not self.shuffle:
            return positions % self.length
        epochs, within = np.divmod(positions, self.length)
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = Permutation(self.length, self.seed, int(epoch))(within[here])
        return indices


@dataclass(frozen=True)
class Share:
    """What one worker consumes in one forward pass."""

    start: int
    stop: int
    weight: float
    """Factor on the mean loss of this pass. With it, the average over the workers of the summed gradients is the gradient
    of the mean loss over all samples of the step, also where the last step of a run is smaller."""


@dataclass(frozen=True)
class Schedule:
    """Which positions each worker consumes in each step. `total` is the number of samples of the whole run."""

    batch: Batch
    total: int
    rank: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.total // self.batch.global_)

    def consumed(self, step: int) -> int:
        """Samples that all workers have consumed after `step` steps."""
        return min(step * self.batch.global_, self.total)

    def shares(self, step: int) -> list[Share]:
        """This worker's forward passes of a step; a pass without samples of its own has start == stop and weight 0."""
        stop = self.consumed(step + 1)
        size = stop - step * self.batch.global_
        first = step * self.batch.global_ + self.rank * self.batch.accumulation * self.batch.micro
        shares = []
        for pass_start in range(first, first + self.batch.accumulation * self.batch.micro, self.batch.micro):
            start, end = min(pass_start, stop), min(pass_start + self.batch.micro, stop)
            shares.append(Share(start, end, (end - start) * self.batch.workers / size))
        return shares


class _Passes:
    """Batch sampler of the forward passes from a step on: lists of sample indices."""

    def __init__(self, order: SampleOrder, schedule: Schedule, first_step: int) -> None:
        self._order, self._schedule, self._first = order, schedule, first_step

    def __iter__(self) -> Iterator[list[int]]:
        shares = (share for step in range(self._first, self._schedule.steps) for share in self._schedule.shares(step))
        while ahead := list(islice(shares, LOOKAHEAD)):
            positions = np.concatenate([np.arange(share.start, share.stop) for share in ahead])
            ends = np.cumsum([share.stop - share.start for share in ahead])
            for indices in np.split(self._order.at(positions), ends[:-1]):
                # A worker without samples in the last step still takes part in its collectives, with weight 0.
                yield indices.tolist() or [0]


def training_batches(
    task: Task, dataset: MapDataset, order: SampleOrder, schedule: Schedule, first_step: int, data: Data, pin: bool
) -> Iterator[Any]:
    """Batches of this worker's forward passes, in order, from `first_step` to the end of the run."""
    return iter(_loader(task, dataset, _Passes(order, schedule, first_step), data, pin))


def eval_batches(
    task: Task, dataset: MapDataset, size: int, rank: int, world_size: int, data: Data, pin: bool
) -> Iterator[tuple[Any, int]]:
    """(batch, samples that count) of this worker's part of `dataset`, in its own order.

    All workers get the same number of batches, because a forward pass may hold collectives; where a worker has no sample
    left, it repeats the first with a count of 0.
    """
    length = len(dataset)
    per_worker = -(-length // world_size)
    start = min(rank * per_worker, length)
    stop = min(start + per_worker, length)
    starts = range(start, start + per_worker, size)
    passes = [list(range(first, min(first + size, stop))) for first in starts]
    batches = iter(_loader(task, dataset, [indices or [0] for indices in passes], data, pin))
    return ((batch, len(indices)) for batch, indices in zip(batches, passes, strict=True))


def _loader(task: Task, dataset: MapDataset, passes: Any, data: Data, pin: bool) -> DataLoader[Any]:
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=passes,
        collate_fn=task.collate if isinstance(task, Collates) else default_collate,
        num_workers=data.loaders,
        prefetch_factor=data.prefetch if data.loaders else None,
        pin_memory=pin,
    )


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor in nested mappings and sequences."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
