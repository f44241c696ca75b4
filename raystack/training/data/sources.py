"""All kinds of data as one of two: samples by index, or a stream that starts at any sample.

In: what `train_data` or `eval_data` returned, and the config. Out: a MapDataset or a StreamDataset, or a
ConfigError for what that kind of data cannot do.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, cast

from torch.utils.data import IterableDataset

from raystack.config.data import Data
from raystack.config.training import Training
from raystack.errors import ConfigError, Problem
from raystack.task import Dataset, HasLengths, HasWeights, MapDataset, RayDataset, StreamDataset
from raystack.training.data import numbers
from raystack.training.data.kinds import length, misfit, streams
from raystack.training.data.order import BucketOrder, Order, SampleOrder, WeightedOrder
from raystack.training.data.token_budget import TokenBudget

ENDLESS = 2**62
"""Number of samples in an epoch without an end."""


def open_train_data(dataset: Dataset, training: Training) -> MapDataset | StreamDataset:
    """Open the training data; raise ConfigError if this kind of data cannot do what the config says."""
    opened = _opened("train_data", dataset, training.data)
    problems = [*_empty("train_data", opened), *_lacks(opened, training)]
    if problems:
        raise ConfigError(problems)
    return opened


def open_eval_data(
    dataset: Dataset, training: Training, name: str = "eval_data"
) -> MapDataset | StreamDataset:
    """Open eval data, `name` in an error; raise ConfigError if it is empty or has no length."""
    opened = _opened(name, dataset, training.data)
    if size(opened) is None:
        remedy = "give the dataset a __len__"
        raise ConfigError(
            Problem(f"task: {name}", rule="eval data has a length", got=type(dataset).__name__, remedy=remedy)
        )
    by_tokens = training.batch.micro_tokens is not None and training.evaluate.batch is None
    if by_tokens and not isinstance(opened, HasLengths):
        rule = "micro_tokens cannot split the eval data, which has no lengths"
        remedy = "set it to a number of samples, or give the dataset `lengths`"
        raise ConfigError(Problem("training.evaluate.batch", rule=rule, remedy=remedy))
    if problems := _empty(name, opened):
        raise ConfigError(problems)
    return opened


def size(dataset: MapDataset | StreamDataset) -> int | None:
    """Return the number of samples in an epoch; None for a stream without a length."""
    return length(dataset)


def samples_at(dataset: MapDataset, indices: list[int]) -> list[Any]:
    """Return the samples of these numbers, by torch's `__getitems__` where a dataset has it."""
    many = getattr(dataset, "__getitems__", None)
    return list(many(indices)) if many is not None else [dataset[index] for index in indices]


def sample_order(dataset: MapDataset | StreamDataset, seed: int, data: Data, global_batch: int) -> Order:
    """Return the order of the training's samples."""
    order: SampleOrder | WeightedOrder
    if data.weighted:
        order = WeightedOrder(cast(HasWeights, dataset).weights, seed)
    else:
        samples = size(dataset)
        order = SampleOrder(ENDLESS if samples is None else samples, seed, data.shuffle)
    return (
        order
        if data.bucket is None
        else BucketOrder(order, cast(HasLengths, dataset).lengths, global_batch, data.bucket)
    )


def token_budget(
    dataset: MapDataset | StreamDataset, training: Training, seed: int, global_batch: int
) -> TokenBudget | None:
    """Return what splits the steps by `training.batch.micro_tokens`; None if that is not set."""
    if training.batch.micro_tokens is None:
        return None
    order = sample_order(dataset, seed, training.data, global_batch)
    return TokenBudget(order, cast(HasLengths, dataset).lengths, training.batch.micro_tokens)


def _opened(name: str, dataset: Dataset, data: Data) -> MapDataset | StreamDataset:
    if (problem := misfit(name, dataset)) is not None:
        raise ConfigError(problem)
    if streams(dataset):
        return dataset
    if isinstance(dataset, RayDataset):
        return RayRows(dataset, data)
    # By class, because torch's IterableDataset has a __getitem__ that always raises.
    by_index = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
    samples = length(dataset)
    if by_index and samples is not None:
        return cast(MapDataset, dataset)
    iterable = cast(Iterable[Any], dataset)
    return FromStart(iterable) if samples is None else SizedFromStart(iterable)


def _lacks(dataset: MapDataset | StreamDataset, training: Training) -> Iterator[Problem]:
    """Yield problems for what the config requires and the dataset cannot do."""
    if training.epochs is not None and size(dataset) is None:
        rule, remedy = (
            "the training data has no length, so it has no epochs",
            "give training.steps, or the dataset a __len__",
        )
        yield Problem("training.epochs", rule=rule, got=str(training.epochs), remedy=remedy)
    in_order = streams(dataset)
    if in_order and training.data.shuffle:
        rule, remedy = (
            "the training data can only be read in its own order",
            "set training.data.shuffle=false",
        )
        yield Problem("training.data.shuffle", rule=rule, got="true", remedy=remedy)
    yield from numbers.lacking(dataset, training, in_order=in_order)


def _empty(name: str, dataset: MapDataset | StreamDataset) -> list[Problem]:
    if size(dataset) != 0:
        return []
    return [
        Problem(
            f"task: {name}",
            rule="a dataset has at least one sample",
            got="length 0",
            remedy="check where the task reads from",
        )
    ]


class FromStart:
    """An iterable as a stream: it is read from its beginning, and samples before the start are dropped."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterable = iterable

    def stream(self, start: int) -> Iterator[Any]:
        """Return the samples from `start` on."""
        return islice(iter(self._iterable), start, None)


class SizedFromStart(FromStart):
    """A FromStart for an iterable with a length."""

    def __len__(self) -> int:
        return len(cast(Any, self._iterable))


class RayRows:
    """Rows of a Ray dataset as a stream; each reader runs the dataset's plan in order."""

    def __init__(self, dataset: RayDataset, data: Data) -> None:
        if data.loaders:
            rule, remedy = (
                "Ray Data has its own tasks to read with, and cannot be used in loader processes",
                "set training.data.loaders=0",
            )
            raise ConfigError(
                Problem("training.data.loaders", rule=rule, got=str(data.loaders), remedy=remedy)
            )
        # Ray Data returns blocks as they are ready otherwise, and a sample's number would not be its own.
        dataset.context.execution_options.preserve_order = True
        dataset.context.enable_progress_bars = False  # a run shows its own
        self._dataset, self._prefetch, self._rows = dataset, data.prefetch, dataset.count()

    def __len__(self) -> int:
        return self._rows

    def stream(self, start: int) -> Iterator[Any]:
        """Return the rows from `start` on, each a dict of its columns."""
        rows = _BlockRows(
            self._dataset.iter_batches(prefetch_batches=self._prefetch, batch_size=None, batch_format="numpy")
        )
        rows.skip(start)
        return rows


class _BlockRows:
    """The rows in blocks of columns; a skipped block is fetched but not split into rows."""

    def __init__(self, blocks: Iterable[Any]) -> None:
        self._blocks = iter(blocks)
        self._block: Any = {}
        self._at = self._size = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        while self._at == self._size:
            self._advance()
        row = {name: column[self._at] for name, column in self._block.items()}
        self._at += 1
        return row

    def skip(self, count: int) -> None:
        """Skip `count` rows, or all that are left."""
        while count > 0:
            if self._at == self._size:
                try:
                    self._advance()
                except StopIteration:
                    return
            step = min(count, self._size - self._at)
            self._at += step
            count -= step

    def _advance(self) -> None:
        self._block = next(self._blocks)
        self._at, self._size = 0, len(next(iter(self._block.values()), ()))
