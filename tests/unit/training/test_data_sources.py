"""Streams and Ray datasets: each position once, on any number of workers and loaders, from any
position on.
"""

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from raystack.config.data import Data
from raystack.config.training import Batch as BatchConfig
from raystack.config.training import Training
from raystack.errors import ConfigError
from raystack.plan.batch import Batch
from raystack.training.data import (
    BatchPlan,
    eval_batches,
    open_eval_data,
    open_train_data,
    sample_order,
    size,
    training_batches,
)

BATCH = {1: Batch(12, 3, 4, 1), 2: Batch(12, 3, 2, 2), 3: Batch(12, 2, 2, 3)}


class Stream:
    """Numbers from 0; a read one is written down. Ends after `length`, of which it says so or not."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.read: list[int] = []

    def stream(self, start: int) -> Iterator[int]:
        index = start
        while self.length is None or index < self.length:
            self.read.append(index)
            yield index
            index += 1


class Sized(Stream):
    def __len__(self) -> int:
        assert self.length is not None
        return self.length


class Skipping(Sized):
    """A stream that need not read what it passes over."""

    def stream(self, start: int) -> "Cursor":
        return Cursor(self, start)


class Cursor:
    def __init__(self, owner: Stream, at: int) -> None:
        self.owner, self.at = owner, at

    def __iter__(self) -> "Cursor":
        return self

    def __next__(self) -> int:
        assert self.owner.length is not None
        if self.at >= self.owner.length:
            raise StopIteration
        self.owner.read.append(self.at)
        self.at += 1
        return self.at - 1

    def skip(self, count: int) -> None:
        self.at += count


class Torch(IterableDataset[int]):
    """torch's own kind: no position, no length."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(1000))


class SizedTorch(Torch):
    def __iter__(self) -> Iterator[int]:
        return iter(range(31))

    def __len__(self) -> int:
        return 31


class NoLength(Dataset[int]):
    """Samples by index without an end, as a class that forgot its length looks."""

    def __getitem__(self, index: int) -> int:
        return index


class Loader:
    """A loader of another library: batches of a dataset that it wraps."""

    dataset, batch_size = (1, 2, 3), 2

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[1, 2], [3]])


class Both:
    """Samples that can be read in order; __getitem__ alone does not say how many there are."""

    def __getitem__(self, index: int) -> int:
        return index

    def __iter__(self) -> Iterator[int]:
        return iter(range(1000))


class WithoutIndeed(Torch):
    """A class that has a __len__ and says at this object that it has no length."""

    def __len__(self) -> int:
        raise TypeError("no length")


class Wholesale:
    """Samples that are read many at a time, as torch's DataLoader does it; it streams nothing."""

    stream = "stdout"

    def __len__(self) -> int:
        return 31

    def __getitem__(self, index: int) -> int:
        raise AssertionError("one sample at a time")

    def __getitems__(self, indices: list[int]) -> list[int]:
        return indices


class Rows:
    """As much of ray.data.Dataset as is used, with blocks of different sizes."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.context = SimpleNamespace(execution_options=SimpleNamespace(preserve_order=False))

    def count(self) -> int:
        return self.rows

    def iter_batches(
        self, *, prefetch_batches: int, batch_size: int | None, batch_format: str | None
    ) -> Iterator[dict[str, Any]]:
        assert self.context.execution_options.preserve_order
        assert (batch_size, batch_format, prefetch_batches) == (None, "numpy", 2)
        edges = [0, 5, 5, 6, 20, self.rows]
        return ({"id": np.arange(a, b), "twice": 2 * np.arange(a, b)} for a, b in pairwise(edges))


class Keep:
    """A task whose batches are the samples themselves."""

    def collate(self, samples: list[Any]) -> list[int]:
        return [sample["id"] if isinstance(sample, dict) else sample for sample in samples]


def training(**data: Any) -> Training:
    return Training(steps=7, batch=BatchConfig(micro=1), data=Data(shuffle=False, **data))


def consumed(
    dataset: Any, workers: int, loaders: int = 0, first_step: int = 0, total: int = 80
) -> list[list[int]]:
    """Sample numbers of each step, over all workers, in the order of their positions."""
    config = training(loaders=loaders)
    opened = open_train_data(dataset, config)
    order = sample_order(opened, 3, config.data, 12)
    steps: list[list[int]] = []
    for rank in range(workers):
        schedule = BatchPlan(BATCH[workers], total, rank)
        batches = training_batches(Keep(), opened, order, schedule, first_step, config.data, 3, pin=False)  # type: ignore[arg-type]
        for step in range(first_step, schedule.steps):
            while len(steps) <= step:
                steps.append([])
            for micro_batch in schedule.micro_batches(step):
                batch = [int(sample) for sample in next(batches)]
                steps[step] += batch if micro_batch.weight else []
        assert next(batches, None) is None
    return steps


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("loaders", [0, 2])
def test_every_position_of_a_stream_is_consumed_once(workers: int, loaders: int) -> None:
    wanted = [[position % 31 for position in range(start, min(start + 12, 80))] for start in range(0, 80, 12)]
    assert consumed(Sized(31), workers, loaders) == wanted
    assert consumed(Sized(31), workers, loaders, first_step=4)[4:] == wanted[4:]


@pytest.mark.parametrize(
    "dataset", [Skipping(31), SizedTorch(), Wholesale(), Rows(31)], ids=lambda dataset: type(dataset).__name__
)
@pytest.mark.parametrize("workers", [1, 3])
def test_other_sources_give_the_same(dataset: Any, workers: int) -> None:
    assert consumed(dataset, workers) == consumed(Sized(31), workers)
    assert consumed(dataset, workers, first_step=3)[3:] == consumed(Sized(31), workers)[3:]


def test_without_a_length_positions_run_on() -> None:
    for dataset in (Stream(), Torch(), Both(), WithoutIndeed()):
        assert [sample for step in consumed(dataset, 2) for sample in step] == list(range(80))
        assert [sample for step in consumed(dataset, 3, first_step=2) for sample in step] == list(
            range(24, 80)
        )


def test_a_resumed_run_and_the_other_workers_samples_are_not_read_where_the_stream_can_skip() -> None:
    stream = Skipping(1000)
    consumed(stream, 2, first_step=5)
    assert sorted(stream.read) == list(range(60, 80))
    plain = Sized(1000)
    consumed(plain, 1, first_step=5, total=84)
    assert plain.read == list(range(60, 84))


def test_a_stream_that_ends_early_is_told() -> None:
    with pytest.raises(
        EOFError, match=r"the stream ended before sample 50: train for fewer steps, or give it a __len__"
    ):
        consumed(Stream(50), 1)
    with pytest.raises(EOFError, match=r"the stream has no samples"):
        consumed(Stream(0), 1)
    short = Sized(50)
    short.length, stream = 60, short.stream
    short.stream = lambda start: iter([*stream(start)][: 50 - start])  # type: ignore[method-assign]
    with pytest.raises(EOFError, match=r"the stream ended before sample 50, but its length is 60"):
        consumed(short, 1)


def test_loader_processes_have_seeds_of_their_own_on_each_worker_and_after_a_resume() -> None:
    """From get_worker_info().seed a task may make generators, as PyTorch's documentation proposes."""

    class Seeds(list[int]):
        def __getitem__(self, index: Any) -> Any:
            info = get_worker_info()
            assert info is not None
            return info.seed

    def seed(rank: int, step: int) -> int:
        data, config = Seeds(range(48)), training(loaders=1)
        order, schedule = sample_order(data, 3, config.data, 12), BatchPlan(BATCH[2], 48, rank)
        batches = training_batches(Keep(), data, order, schedule, step, config.data, 3, pin=False)  # type: ignore[arg-type]
        first: int = next(batches)[0]
        return first

    assert len({seed(0, 0), seed(1, 0), seed(0, 2)}) == 3
    assert seed(0, 2) == seed(0, 2)


def test_a_sample_that_raises_stop_iteration_does_not_end_the_data() -> None:
    class Broken(list[int]):
        def __getitem__(self, index: Any) -> Any:
            raise StopIteration

    with pytest.raises(RuntimeError, match="reading a sample raised StopIteration"):
        consumed(Broken(range(12)), 1)


def test_no_batch_is_passed_over_after_an_error() -> None:
    class Broken:
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> int:
            if index == 5:
                raise ValueError("broken image 5")
            return index

    schedule, config = BatchPlan(BATCH[1], 12, 0), training()
    order = sample_order(Broken(), 3, config.data, 12)
    batches = training_batches(Keep(), Broken(), order, schedule, 0, config.data, 3, pin=False)  # type: ignore[arg-type]
    assert next(batches) == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(ValueError, match="broken image 5"):
            next(batches)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_stream_is_evaluated_whole_and_once(workers: int) -> None:
    for dataset in (Sized(11), Rows(21)):
        opened = open_eval_data(dataset, training())
        seen: list[int] = []
        for rank in range(workers):
            for batch, count in eval_batches(Keep(), opened, 2, rank, workers, Data(), 3, pin=False):  # type: ignore[arg-type]
                seen += batch[:count]
        assert sorted(seen) == list(range(size(opened) or 0))


@pytest.mark.parametrize(
    ("dataset", "change", "message"),
    [
        (
            Stream(),
            {"steps": None, "epochs": 2},
            r"training.epochs: the training data has no length.*\(got 2\); give training.steps",
        ),
        (
            Sized(5),
            {"data": Data()},
            r"training.data.shuffle: the training data can only be read in its own order.*shuffle=false",
        ),
        (Rows(5), {"data": Data()}, r"training.data.shuffle"),
        (
            [1, 2],
            {"data": Data(bucket=4)},
            r"training.data.bucket: needs samples by index and their lengths \(got 4\)",
        ),
        (Sized(5), {"data": Data(bucket=4)}, r"training.data.bucket: needs samples by index"),
        (
            Rows(5),
            {"data": Data(shuffle=False, loaders=2)},
            r"training.data.loaders: Ray Data .*\(got 2\); set training.data.loaders=0",
        ),
        (Sized(0), {}, r"task: train_data: a dataset has at least one sample"),
        (iter([1]), {}, r"task: train_data: an iterator can be read only once \(got list_iterator\)"),
        ((each for each in [1]), {}, r"task: train_data: .* only once \(got generator\); .* begins anew"),
        (
            DataLoader([1, 2]),  # type: ignore[arg-type]
            {},
            r"task: train_data: is a dataset, not a DataLoader \(got DataLoader\); return its dataset;",
        ),
        (Loader(), {}, r"task: train_data: is a dataset, not a DataLoader \(got Loader\)"),
        ({"train": [1], "test": [2]}, {}, r"is one dataset, not several by name \(got dict of train, test\)"),
        ((torch.zeros(3), np.zeros(3)), {}, r"not a tuple of columns \(got tuple\); return .*TensorDataset"),
        (NoLength(), {}, r"samples by index have a length \(got NoLength\); give the dataset a __len__"),
        (None, {}, r"task: train_data: is samples by index, a stream or an iterable \(got NoneType\)"),
        ("data.csv", {}, r"task: train_data: is samples by index, a stream or an iterable \(got str\)"),
    ],
)
def test_what_a_source_cannot_do_is_refused(dataset: Any, change: dict[str, Any], message: str) -> None:
    config = training().model_copy(update=change)
    with pytest.raises(ConfigError, match=message):
        open_train_data(dataset, config)


def test_several_training_sets_are_told_by_name() -> None:
    with pytest.raises(
        ConfigError, match=r"task: train_data: is one dataset, not several by name \(got dict of easy, hard\)"
    ):
        open_train_data({"easy": [1], "hard": [2]}, training())


def test_eval_data_has_to_have_a_length() -> None:
    with pytest.raises(
        ConfigError,
        match=r"task: eval_data: eval data has a length \(got Stream\); give the dataset a __len__",
    ):
        open_eval_data(Stream(), training())
