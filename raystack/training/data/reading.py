"""The samples of a forward pass, read and made into a batch, in the training process or in a loader process.

In: a dataset and the positions of a pass. Out: the batch, or what the task raised. The random numbers of a
sample are a function of the seed and its position, so they do not depend on who reads it.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from torch.utils.data import Dataset, get_worker_info
from torch.utils.data._utils import worker

from raystack.code.loading import RemoteTraceError, frames
from raystack.task import Collates, MapDataset, StreamDataset, Task
from raystack.training.data.kinds import streams
from raystack.training.data.sources import ENDLESS, FromStart, samples_at, size
from raystack.training.data.structure import collate
from raystack.training.seeds import drawn_since, mixed, seed_host

WATCHED = 100
"""Number of passes, or of samples of a stream, that are watched for random numbers in the training process.

Longer, and what draws none would pay for it in each step.
"""

SENTINEL = 0
"""Seed while samples are read that are not expected to draw numbers, so that it shows if they do."""

_ENDED = object()


class Pass(NamedTuple):
    """The samples of one forward pass."""

    positions: Sequence[int]
    indices: list[int]
    """Their numbers in the dataset."""


class Failure:
    """An exception that the task raised in a loader process, on its way to the training process."""

    def __init__(self, error: Exception) -> None:
        self._name, self._module = type(error).__qualname__, type(error).__module__
        self._text, self._frames = str(error), frames(error)
        self._pickled = _pickled(error)

    def reraise(self) -> None:
        """Raise the exception again, with its way through the task's code."""
        if self._pickled is not None:
            error = pickle.loads(self._pickled)
        else:
            error = type(self._name, (Exception,), {"__module__": self._module})(self._text)
        raise error from RemoteTraceError(self._frames)


class Batches(Dataset[Any]):
    """A dataset of batches: what a DataLoader reads for a Pass."""

    def __init__(self, task: Task, dataset: MapDataset | StreamDataset, seed: int) -> None:
        self._collate, self._own = (task.collate, True) if isinstance(task, Collates) else (collate, False)
        self._seed = seed
        self._samples = (
            StreamReader(dataset, seed) if streams(dataset) else MapReader(cast(MapDataset, dataset), seed)
        )

    def __getitem__(self, wanted: Pass) -> Any:
        """Return the batch of a pass; in a loader process a Failure if the task raises."""
        if get_worker_info() is None:
            return self._batch(wanted)
        # torch would raise it again as a text, without the type's own attributes and the task's lines.
        try:
            return self._batch(wanted)
        except Exception as error:
            return Failure(error)

    def _batch(self, wanted: Pass) -> Any:
        try:
            samples = self._samples.take(wanted)
        except StopIteration as error:  # which would look like the end of the data
            raise RuntimeError("reading a sample raised StopIteration").with_traceback(
                error.__traceback__
            ) from None
        if self._own:
            seed_host(mixed(self._seed, wanted.positions[0], -1))
        return self._collate(samples)


class MapReader:
    """Reads samples by index."""

    def __init__(self, dataset: MapDataset, seed: int) -> None:
        self._dataset, self._seed = dataset, seed
        # To seed each sample may take longer than to read it, so it is done only where numbers are drawn.
        self._draws: bool | None = None
        """Whether reading a sample draws random numbers; None before the first pass."""
        self._watched = 0
        """Number of passes in which none were drawn."""

    def take(self, wanted: Pass) -> list[Any]:
        """Return the samples of a pass."""
        if self._draws is False:
            if self._watched >= WATCHED and get_worker_info() is None:
                return samples_at(self._dataset, wanted.indices)
            seed_host(SENTINEL)
            samples = samples_at(self._dataset, wanted.indices)
            self._draws = drawn_since(SENTINEL)
            if not self._draws:
                self._watched += 1
                return samples
            # For the first time, in this pass, which is therefore read again.
        return [
            self._one(position, index)
            for position, index in zip(wanted.positions, wanted.indices, strict=True)
        ]

    def _one(self, position: int, index: int) -> Any:
        seed = mixed(self._seed, position)
        seed_host(seed)
        (sample,) = samples_at(self._dataset, [index])
        if not self._draws:
            self._draws = drawn_since(seed)
        return sample


class StreamReader:
    """Reads a stream; a pass before the last one starts the stream again."""

    def __init__(self, dataset: StreamDataset, seed: int) -> None:
        self._dataset, self._seed = dataset, seed
        self._length = size(dataset) or ENDLESS
        self._samples: Iterator[Any] = iter(())
        self._begins: int | None = None
        """Position of the stream's first sample, which is that of its epoch; None before it is started."""
        self._next = 0
        self._draws = False
        """Whether the stream has drawn random numbers."""
        self._unwatched = 0
        """Position from which a stream that has not drawn any is not watched for them any more."""
        self._last: tuple[Pass, list[Any]] | None = None

    def take(self, wanted: Pass) -> list[Any]:
        """Return the samples of a pass; raise EOFError if the stream ends before them."""
        # A padding pass repeats the pass before it.
        if self._last is None or self._last[0] != wanted:
            self._draws = (
                self._draws or get_worker_info() is not None
            )  # to seed takes no time of the training
            with _whole():
                self._last = wanted, [self._one(position) for position in wanted.positions]
        return list(self._last[1])

    def _one(self, position: int) -> Any:
        begins = position - position % self._length
        if self._begins != begins or self._next > position:
            # What cannot seek draws the numbers of all samples before this one again.
            self._next = begins if isinstance(self._dataset, FromStart) else position
            self._unwatched = self._next + WATCHED
            self._begins, self._samples = begins, self._drawn(self._next, self._opened)
        if position > self._next and (skip := getattr(self._samples, "skip", None)) is not None:
            skip(position - self._next)
        else:
            for skipped in range(self._next, position):
                self._drawn(skipped, self._following)
        sample = self._drawn(position, self._following)
        if sample is _ENDED:
            raise EOFError(_too_short(position - begins, size(self._dataset)))
        self._next = position + 1
        return sample

    def _opened(self) -> Iterator[Any]:
        return self._dataset.stream(self._next % self._length)

    def _following(self) -> Any:
        return next(self._samples, _ENDED)

    def _drawn(self, position: int, draw: Callable[[], Any]) -> Any:
        """Return what `draw` returns, with the random numbers of a position."""
        if not self._draws and position >= self._unwatched:
            return draw()
        seed = mixed(self._seed, position)
        seed_host(seed)
        result = draw()
        self._draws = self._draws or drawn_since(seed)
        return result


@contextmanager
def _whole() -> Iterator[None]:
    """Hide from a stream that it is in a loader process, because many give each process a part of theirs."""
    # Each process reads the whole stream and takes its own passes from it.
    info, worker._worker_info = worker._worker_info, None
    try:
        yield
    finally:
        worker._worker_info = info


def _pickled(error: Exception) -> bytes | None:
    """Return the pickled exception, without its causes; None if it does not survive that."""
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # any, because the exception's class is the task's
        return None
    return pickled


def _too_short(index: int, length: int | None) -> str:
    if index == 0:
        return "the stream has no samples"
    if length is not None:
        return f"the stream ended before sample {index}, but its length is {length}"
    return (
        f"the stream ended before sample {index}: train for fewer steps, or give it a __len__, so that it"
        " starts again as an epoch"
    )
