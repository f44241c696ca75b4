"""Whether all workers have the same data. A dataset that divides itself by rank does not.

In: what a worker has opened. Out: nothing, or the ConfigError on all of them.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from raystack.config.training import Training
from raystack.errors import ConfigError, Problem
from raystack.task import MapDataset, StreamDataset, Task
from raystack.training.data.batches import first_batch
from raystack.training.data.numbers import used
from raystack.training.data.sources import RayRows, size
from raystack.training.world import World


def check_same(
    name: str, task: Task, dataset: MapDataset | StreamDataset, training: Training, seed: int, world: World
) -> None:
    """Raise ConfigError if the data that the task's method `name` returned differs between the workers.

    Their lengths are compared, their first samples, and the numbers by which samples are chosen and put
    together.
    """
    if world.size == 1 or isinstance(dataset, RayRows):
        return
    lengths = world.gather_objects(size(dataset))
    if len(set(lengths)) > 1:
        raise ConfigError(_divided(name, f"{', '.join(map(str, lengths))} samples by rank"))
    numbers = hashlib.sha256(b"".join(np.asarray(each).tobytes() for each in used(dataset, training)))
    if len(set(world.gather_objects(numbers.hexdigest()))) > 1:
        raise ConfigError(_divided(name, "other lengths or weights on each rank"))
    data = training.data
    mine = _digest(first_batch(task, dataset, data, seed))
    if len(set(world.gather_objects(mine))) == 1:
        return
    # Samples that another read changes say nothing: their random numbers are not from the seeded generators.
    repeats = world.gather_objects(_digest(first_batch(task, dataset, data, seed)) == mine)
    if all(repeats):
        raise ConfigError(_divided(name, "another first sample on each rank"))


def _divided(name: str, got: str) -> Problem:
    remedy = (
        "leave out what divides it, such as a split by rank: each worker gets its own samples of the whole"
    )
    return Problem(f"task: {name}", rule="is the same on every worker", got=got, remedy=remedy)


def _digest(batch: Any) -> str:
    """Return a hash of the tensors of a batch."""
    digest = hashlib.sha256()
    for tensor in _plain(tree_leaves(batch)):
        digest.update(str(tensor.shape).encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain(leaves: list[Any]) -> Iterator[Tensor]:
    for leaf in leaves:
        if type(leaf) is Tensor and leaf.layout is torch.strided and leaf.numel():
            yield leaf
