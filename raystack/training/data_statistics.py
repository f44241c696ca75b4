"""Statistics of a finished run's data, as a served model will see it: inputs of `predict`, and its outputs.

They come from the eval data, because samples for training may be augmented; without one that has the inputs,
from the training data. A part of it is enough: the samples are drawn at random, for some seconds at most.
"""

import random
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from raystack.checkpoint.example import sent
from raystack.checkpoint.statistics import Array, Collector, DataStatistics
from raystack.config.data import Data
from raystack.task import MapDataset, StreamDataset, Task
from raystack.training.data import eval_batches, size
from raystack.training.data.kinds import streams
from raystack.training.data.sources import samples_at
from raystack.training.example import inputs_of

SAMPLES = 10_000
"""Most samples that are looked at."""
LIMIT_S = 5.0
"""Seconds after which no more samples are read."""
BATCH = 32


class Source(NamedTuple):
    """A dataset of the run."""

    name: str
    data: MapDataset | StreamDataset


def data_statistics(
    task: Task, sources: list[Source], data: Data, module: nn.Module | None
) -> DataStatistics | None:
    """Return the statistics of the first source whose samples have the inputs of `predict`.

    None if there is none. `module` is the trained model in eval mode; without it there are no outputs. Raises
    what the task raises.
    """
    for source in sources:
        statistics = _describe(task, source, data, module)
        if statistics is not None:
            return statistics
    return None


def _describe(task: Task, source: Source, data: Data, module: nn.Module | None) -> DataStatistics | None:
    inputs, outputs = Collector(task.signature.inputs), Collector(task.signature.outputs)
    samples, until = 0, time.monotonic() + LIMIT_S
    for batch, count in _batches(task, source.data, data):
        arrays = inputs_of(batch, task.signature, count)
        if arrays is None:
            return None
        inputs.add(arrays)
        samples += count
        if module is not None:
            outputs.add(_predict(task, module, arrays))
        if time.monotonic() > until:
            break
    return DataStatistics(
        source.name, samples, inputs.describe(), outputs.describe() if module is not None else {}
    )


def _batches(task: Task, dataset: MapDataset | StreamDataset, data: Data) -> Iterator[tuple[Any, int]]:
    """Yield batches of up to SAMPLES samples, and their numbers of samples."""
    in_process = data.model_copy(update={"loaders": 0})
    # One at a time where their sizes may differ, so that there is no padding among the values.
    free = any(-1 in spec.shape[1:] for spec in task.signature.inputs)
    part = _Few(dataset) if streams(dataset) else _Drawn(cast(MapDataset, dataset))
    return eval_batches(task, part, 1 if free else BATCH, 0, 1, in_process, 0, False)


def _predict(task: Task, module: nn.Module, inputs: Mapping[str, Array]) -> dict[str, Array]:
    with torch.inference_mode():
        answers = task.predict(module, {name: sent(array) for name, array in inputs.items()})
    return {spec.name: _array(answers[spec.name]) for spec in task.signature.outputs}


def _array(answer: Tensor | Array | list[Any]) -> Array:
    if isinstance(answer, Tensor):
        return np.asarray(answer.float() if answer.dtype == torch.bfloat16 else answer)
    return np.asarray(answer, object)  # of dtype bytes, which may be lists of str


class _Drawn:
    """Samples of a dataset in a random order, always the same."""

    def __init__(self, data: MapDataset) -> None:
        self._data = data
        self._indices = random.Random(0).sample(range(len(data)), min(len(data), SAMPLES))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Any:
        return self._data[self._indices[index]]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return samples_at(self._data, [self._indices[index] for index in indices])


class _Few:
    """The first samples of a stream."""

    def __init__(self, data: StreamDataset) -> None:
        self._data, self._length = data, min(size(data) or SAMPLES, SAMPLES)

    def __len__(self) -> int:
        return self._length

    def stream(self, start: int) -> Iterator[Any]:
        return self._data.stream(start)
