"""Batches of samples. In: a dataset, the order, the schedule. Out: the batches for the task's `loss`."""

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from raystack.config.data import Data
from raystack.task import HasLengths, MapDataset, StreamDataset, Task
from raystack.training.data.batch_plan import BatchPlan, split, split_by_tokens
from raystack.training.data.order import Indices, Order
from raystack.training.data.reading import Batches, Failure, Pass
from raystack.training.seeds import mixed, seed_host

# A permutation costs as much for 10,000 samples as for one.
LOOKAHEAD = 64
"""Number of forward passes whose samples are computed together."""

EVALUATION = 1
"""Part of the seeds of an evaluation, whose positions are others than those of the training."""


class _Passes:
    """The forward passes from a step on."""

    def __init__(self, order: Order, schedule: BatchPlan, first_step: int) -> None:
        self._order, self._schedule, self._first = order, schedule, first_step

    def __iter__(self) -> Iterator[Pass]:
        micro_batches = (
            micro_batch
            for step in range(self._first, self._schedule.steps)
            for micro_batch in self._schedule.micro_batches(step)
        )
        while ahead := list(islice(micro_batches, LOOKAHEAD)):
            positions = np.concatenate([_array(micro_batch.positions) for micro_batch in ahead])
            ends = np.cumsum([len(micro_batch.positions) for micro_batch in ahead])
            parts = np.split(self._order.at(positions), ends[:-1])
            for micro_batch, indices in zip(ahead, parts, strict=True):
                yield Pass(micro_batch.positions, indices.tolist())


def _array(positions: Sequence[int]) -> Indices:
    if isinstance(positions, range):
        return np.arange(positions.start, positions.stop)
    return np.array(positions, np.int64)


def training_batches(
    task: Task,
    dataset: MapDataset | StreamDataset,
    order: Order,
    schedule: BatchPlan,
    first_step: int,
    data: Data,
    seed: int,
    pin: bool,
) -> Iterator[Any]:
    """Return the batches of this worker's forward passes, in order, from `first_step` to the run's end."""
    loaders = mixed(seed, schedule.rank, first_step)
    return _batches(task, dataset, _Passes(order, schedule, first_step), data, seed, loaders, pin)


def eval_batches(
    task: Task,
    dataset: MapDataset | StreamDataset,
    size: int,
    rank: int,
    world_size: int,
    data: Data,
    seed: int,
    pin: bool,
    tokens: int | None = None,
) -> Iterator[tuple[Any, int]]:
    """Yield (batch, number of samples that count) for this worker's part of a dataset with a length.

    A batch has `size` samples, or, where the dataset has lengths, as many as pad to at most `tokens`.
    All workers get as many batches, because a forward pass may have collectives; where the number is 0, the
    samples count in another batch.
    """
    if tokens is not None and isinstance(dataset, HasLengths):
        parts = split_by_tokens(np.asarray(dataset.lengths).tolist(), tokens, world_size, rank)
    else:
        parts = split(len(dataset), size, world_size, rank)  # type: ignore[arg-type]
    passes = [Pass(range(start, stop), list(range(start, stop))) for start, stop, _ in parts]
    loaders = mixed(seed, EVALUATION, rank)
    batches = _batches(task, dataset, passes, data, mixed(seed, EVALUATION), loaders, pin)
    for (start, stop, counts), batch in zip(parts, batches, strict=True):
        # Reading the samples has left the generators anywhere, and a model may draw numbers as well.
        seed_host(mixed(seed, EVALUATION, start))
        yield batch, stop - start if counts else 0


def first_batch(task: Task, dataset: MapDataset | StreamDataset, data: Data, seed: int) -> Any:
    """Return the batch of sample 0 alone, read where others will be: in a loader process if there are any."""
    # A file that the dataset opens in this process would be shared by all loader processes, its forks.
    one = data.model_copy(update={"loaders": min(data.loaders, 1), "prefetch": 1})
    return next(_batches(task, dataset, [Pass(range(1), [0])], one, seed, seed, False))


def _batches(
    task: Task,
    dataset: MapDataset | StreamDataset,
    passes: Iterable[Pass],
    data: Data,
    seed: int,
    loaders: int,
    pin: bool,
) -> Iterator[Any]:
    """Return the batches of `passes`. The random numbers of samples follow from `seed`.

    `loaders` is the seed of the loader processes, from which a task may make generators of its own.
    """
    loader = DataLoader(
        Batches(task, dataset, seed),
        batch_size=None,
        sampler=passes,
        collate_fn=_as_it_is,
        num_workers=data.loaders,
        prefetch_factor=data.prefetch if data.loaders else None,
        pin_memory=pin,
        # Of its own: the base seed of the loader processes would be drawn from the training's generator.
        generator=torch.Generator().manual_seed(loaders),
        worker_init_fn=_apart,
    )
    return _Loaded(iter(loader))


class _Loaded(Iterator[Any]):
    """The batches of a DataLoader. After an error the next one is that error, and not the batch after it."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self._error: Exception | None = None

    def __next__(self) -> Any:
        if self._error is not None:
            raise self._error
        try:
            batch = next(self._batches)
            if isinstance(batch, Failure):
                batch.reraise()
        except StopIteration:
            raise
        except Exception as error:
            self._error = _lost_loader(self._batches) or error
            # The error's traceback keeps this object; the loader processes end now and not with it.
            self._batches = iter(())
            raise self._error from error.__cause__
        return batch


def _lost_loader(batches: Iterator[Any]) -> Exception | None:
    """Return what torch's signal handler would raise for a loader process that ended by a signal."""
    # It works in the main thread only. In others torch says that a process exited, but not why.
    for process in getattr(batches, "_workers", ()):
        if process.exitcode is not None and process.exitcode < 0:
            name = signal.strsignal(-process.exitcode)
            return RuntimeError(f"DataLoader worker (pid {process.pid}) is killed by signal: {name}.")
    return None


def _apart(number: int) -> None:
    """Leave the process group, and pass over a first SIGTERM: both are for the training, which goes on until
    its checkpoint.
    """
    os.setpgid(0, 0)
    # The second one is of torch, or of Python at its exit, for a loader process that does not end by itself.
    signal.signal(signal.SIGTERM, lambda first, frame: signal.signal(first, signal.SIG_DFL))


def _as_it_is(batch: Any) -> Any:
    return batch
