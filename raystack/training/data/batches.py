"""Batches of samples. In: a dataset, the order, the schedule. Out: the batches for the task's `loss`."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from raystack.config.training import Data
from raystack.task import Collates, MapDataset, StreamDataset, Task
from raystack.training.data.batch_plan import BatchPlan
from raystack.training.data.order import Order
from raystack.training.data.sources import Reader

# A permutation costs as much for 10,000 samples as for one.
LOOKAHEAD = 64
"""Number of forward passes whose samples are computed together."""


class _Passes:
    """The forward passes from a step on, as lists of sample indices."""

    def __init__(self, order: Order, schedule: BatchPlan, first_step: int) -> None:
        self._order, self._schedule, self._first = order, schedule, first_step

    def __iter__(self) -> Iterator[list[int]]:
        micro_batches = (
            micro_batch
            for step in range(self._first, self._schedule.steps)
            for micro_batch in self._schedule.micro_batches(step)
        )
        while ahead := list(islice(micro_batches, LOOKAHEAD)):
            positions = np.concatenate(
                [np.arange(micro_batch.start, micro_batch.stop) for micro_batch in ahead]
            )
            ends = np.cumsum([micro_batch.stop - micro_batch.start for micro_batch in ahead])
            for indices in np.split(self._order.at(positions), ends[:-1]):
                # A worker without samples in the last step still takes part in its collectives, with weight
                # 0.
                yield indices.tolist() or [0]


class _InOrder(IterableDataset[list[Any]]):
    """The samples of each pass, read from a stream."""

    def __init__(self, dataset: StreamDataset, passes: Iterable[list[int]]) -> None:
        self._dataset, self._passes = dataset, passes

    def __iter__(self) -> Iterator[list[Any]]:
        loader = get_worker_info()
        # The DataLoader takes a batch from each of its processes in turn, so process i reads every n-th pass.
        first, every = (loader.id, loader.num_workers) if loader else (0, 1)
        reader = Reader(self._dataset)
        return (reader.take(indices) for indices in islice(self._passes, first, None, every))


def training_batches(
    task: Task,
    dataset: MapDataset | StreamDataset,
    order: Order,
    schedule: BatchPlan,
    first_step: int,
    data: Data,
    pin: bool,
) -> Iterator[Any]:
    """Return the batches of this worker's forward passes, in order, from `first_step` to the run's end."""
    return iter(_loader(task, dataset, _Passes(order, schedule, first_step), data, pin))


def eval_batches(
    task: Task,
    dataset: MapDataset | StreamDataset,
    size: int,
    rank: int,
    world_size: int,
    data: Data,
    pin: bool,
) -> Iterator[tuple[Any, int]]:
    """Return (batch, number of samples that count) for this worker's part of a dataset with a length."""
    # All workers get the same number of batches, because a forward pass may have collectives: one without
    # samples repeats the first sample with a count of 0.
    length = len(dataset)  # type: ignore[arg-type]
    per_worker = -(-length // world_size)
    start = min(rank * per_worker, length)
    stop = min(start + per_worker, length)
    starts = range(start, start + per_worker, size)
    passes = [list(range(first, min(first + size, stop))) for first in starts]
    batches = iter(_loader(task, dataset, [indices or [0] for indices in passes], data, pin))
    return ((batch, len(indices)) for batch, indices in zip(batches, passes, strict=True))


def _loader(
    task: Task, dataset: MapDataset | StreamDataset, passes: Iterable[list[int]], data: Data, pin: bool
) -> DataLoader[Any]:
    in_order = isinstance(dataset, StreamDataset)
    return DataLoader(
        _InOrder(dataset, passes) if isinstance(dataset, StreamDataset) else dataset,  # type: ignore[arg-type]
        batch_size=None if in_order else 1,
        batch_sampler=None if in_order else passes,
        collate_fn=task.collate if isinstance(task, Collates) else default_collate,
        num_workers=data.loaders,
        prefetch_factor=data.prefetch if data.loaders else None,
        pin_memory=pin,
    )


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor in nested mappings and sequences to `device`."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    # A namedtuple takes its fields one by one.
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
