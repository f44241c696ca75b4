"""The numbers that a dataset has for each sample: its lengths and weights, checked before they are used.

In: an opened dataset and the config. Out: Problems.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from raystack.config.training import Training
from raystack.errors import Problem
from raystack.task import HasLengths, HasWeights, MapDataset, StreamDataset
from raystack.training.data.kinds import length

LENGTHS, WEIGHTS = "lengths", "weights"


def lacking(dataset: MapDataset | StreamDataset, training: Training, *, in_order: bool) -> Iterator[Problem]:
    """Yield problems with the numbers of the training data that the config uses.

    `in_order`: the samples can only be read one after another.
    """
    keys = {
        "training.data.bucket": (training.data.bucket, LENGTHS),
        "training.batch.micro_tokens": (training.batch.micro_tokens, LENGTHS),
        "training.data.weighted": (training.data.weighted or None, WEIGHTS),
    }
    wanted: dict[str, Any] = {}
    for key, (value, name) in keys.items():
        if value is None:
            continue
        if in_order or not isinstance(dataset, HasLengths if name == LENGTHS else HasWeights):
            rule = f"needs samples by index and their {name}"
            remedy = f"give the dataset `{name}`, or drop {key.rpartition('.')[2]}"
            yield Problem(key, rule=rule, got=str(value).lower(), remedy=remedy)
        else:
            wanted[name] = np.asarray(getattr(dataset, name))
    for name, numbers in wanted.items():
        yield from _misfits(name, numbers, length(dataset))
    if training.batch.micro_tokens is not None and LENGTHS in wanted:
        yield from _too_long(wanted[LENGTHS], training.batch.micro_tokens)


def used(dataset: MapDataset | StreamDataset, training: Training) -> list[Any]:
    """Return the numbers that decide which samples a step has, and how it is split."""
    by_length = training.data.bucket is not None or training.batch.micro_tokens is not None
    return [
        *([dataset.lengths] if by_length and isinstance(dataset, HasLengths) else []),
        *([dataset.weights] if training.data.weighted and isinstance(dataset, HasWeights) else []),
    ]


def _misfits(name: str, numbers: Any, samples: int | None) -> Iterator[Problem]:
    where = "task: train_data"
    if numbers.shape != (samples,):
        rule = f"`{name}` has one entry for each of {samples} samples"
        got = str(len(numbers)) if numbers.ndim == 1 else f"shape {list(numbers.shape)}"
        yield Problem(where, rule=rule, got=got)
        return
    if numbers.dtype.kind not in "iufb":
        yield Problem(where, rule=f"`{name}` are numbers", got=str(numbers.dtype))
        return
    bad = np.flatnonzero(~np.isfinite(numbers) | (numbers < 0))
    if len(bad):
        rule = f"`{name}` are finite and not negative"
        yield Problem(where, rule=rule, got=f"{numbers[bad[0]]} for sample {bad[0]}")
    elif name == WEIGHTS and not 0 < numbers.sum(dtype=np.float64) < np.inf:
        yield Problem(where, rule="`weights` have a sum above 0", got=str(numbers.sum(dtype=np.float64)))


def _too_long(lengths: Any, tokens: int) -> Iterator[Problem]:
    if lengths.ndim == 1 and lengths.dtype.kind in "iuf" and len(lengths) and lengths.max() > tokens:
        longest, count = int(lengths.argmax()), int((lengths > tokens).sum())
        others = f", and {count - 1} others" if count > 1 else ""
        rule = f"no pass can hold sample {longest} of length {lengths[longest]}{others}"
        remedy = f"set training.batch.micro_tokens={lengths[longest]} or more, or cut the samples"
        yield Problem("training.batch.micro_tokens", rule=rule, got=str(tokens), remedy=remedy)
