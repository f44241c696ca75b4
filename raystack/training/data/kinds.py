"""What `train_data` or `eval_data` returned and is not data, each with a sentence that says why."""

from collections.abc import Iterator, Mapping, Sized
from typing import Any, TypeGuard

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from raystack.errors import Problem
from raystack.task import RayDataset, StreamDataset

TEXT = (str, bytes)
ARRAY = (torch.Tensor, np.ndarray)


def length(dataset: object) -> int | None:
    """Return the number of samples in an epoch; None if the dataset does not know it."""
    try:
        return len(dataset) if isinstance(dataset, Sized) else None
    except (TypeError, NotImplementedError):  # so a class says that this object has none
        return None


def streams(dataset: object) -> TypeGuard[StreamDataset]:
    """Return whether a dataset is a stream, and not one that has another use for the name."""
    return isinstance(dataset, StreamDataset) and callable(dataset.stream)


def misfit(name: str, dataset: Any) -> Problem | None:
    """Return what is wrong with an object that a task's method `name` returned as data, by its type alone."""
    rule, remedy = _told(dataset)
    if rule is None:
        return None
    got = type(dataset).__name__
    if isinstance(dataset, Mapping):
        got = f"{got} of {', '.join(map(str, list(dataset)[:5]))}"
    return Problem(f"task: {name}", rule=rule, got=got, remedy=remedy)


def _loads(dataset: Any) -> bool:
    """Return whether an object gives batches, as the loaders of other libraries do that wrap a dataset."""
    if isinstance(dataset, IterableDataset) or hasattr(dataset, "__getitem__"):
        return False
    return all(hasattr(dataset, name) for name in ("__iter__", "dataset", "batch_size"))


def _told(dataset: Any) -> tuple[str | None, str | None]:
    """Return the rule that `dataset` breaks, and the remedy."""
    if isinstance(dataset, DataLoader) or _loads(dataset):
        return "is a dataset, not a DataLoader", "return its dataset; batches are made by training.batch"
    if isinstance(dataset, Mapping):
        join = "join them, with torch.utils.data.ConcatDataset for example"
        return "is one dataset, not several by name", join
    if isinstance(dataset, tuple) and dataset and all(isinstance(part, ARRAY) for part in dataset):
        return "is samples by index, not a tuple of columns", "return a torch.utils.data.TensorDataset of it"
    if hasattr(dataset, "iloc"):
        return "is samples by index, and a table's are its columns", "return a dataset of its rows"
    if streams(dataset) or isinstance(dataset, (RayDataset, IterableDataset)):
        return None, None
    if isinstance(dataset, Iterator):
        return "an iterator can be read only once", "return an object whose __iter__ begins anew"
    by_index, iterable = hasattr(dataset, "__getitem__"), hasattr(dataset, "__iter__")
    if isinstance(dataset, TEXT) or not (by_index or iterable):
        return "is samples by index, a stream or an iterable", "see Dataset in raystack.task"
    if not iterable and length(dataset) is None:
        return "samples by index have a length", "give the dataset a __len__"
    return None, None
