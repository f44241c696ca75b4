"""Batches of any structure: made from samples, and moved to a device. Both keep the types they are given."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
from torch.utils.data import default_collate


def collate(samples: list[Any]) -> Any:
    """Return the batch of a list of samples: torch's default, which also takes dataclasses."""
    first = samples[0]
    if not _is_dataclass(first):
        try:
            return default_collate(samples)
        except (TypeError, RuntimeError) as error:  # of a type that has no batch, or of different sizes
            rule = f"these samples make no batch ({error}); give the task a method `collate`"
            raise ValueError(rule) from error
    names = [field.name for field in dataclasses.fields(first)]
    return _filled(first, {name: collate([getattr(one, name) for one in samples]) for name in names})


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor in nested mappings, sequences and dataclasses, and what has a `to` itself."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    return _moved(batch, lambda value: to_device(value, device), device)


def _moved(batch: Any, move: Callable[[Any], Any], device: torch.device) -> Any:
    # First, because what moves itself may be a tuple (PackedSequence) or a mapping (BatchEncoding) as well.
    if callable(to := getattr(batch, "to", None)) and not isinstance(batch, type):
        moved = to(device)
        return batch if moved is None else moved  # one that moves in place may return nothing
    if isinstance(batch, Mapping):
        return _mapping(batch, {key: move(value) for key, value in batch.items()})
    # A namedtuple takes its fields one by one.
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(value) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(move(value) for value in batch)
    if _is_dataclass(batch):
        names = [field.name for field in dataclasses.fields(batch)]
        return _filled(batch, {name: move(getattr(batch, name)) for name in names if hasattr(batch, name)})
    return batch


def _mapping(batch: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    if type(batch) is dict:
        return values
    if isinstance(batch, MutableMapping):
        # A copy keeps what the type has beside its items, such as a default factory.
        same = copy.copy(batch)
        for key, value in values.items():
            same[key] = value
        return same
    try:
        return type(batch)(values)  # type: ignore[call-arg]
    except TypeError:
        return values


def _filled(one: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of a dataclass instance with these values, of frozen ones and computed fields too."""
    same = copy.copy(one)
    for name, value in values.items():
        object.__setattr__(same, name, value)
    return same


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
