"""Write and read a sharded training state with torch.distributed.checkpoint (DCP).

DCP finds the stored chunks that overlap the ranges a worker requests, so any number of workers can read what
N workers wrote. Importing it takes about a second, so import this module only to write or read a checkpoint.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.default_planner import (
    DefaultLoadPlanner,
    DefaultSavePlanner,
    create_default_global_save_plan,
)
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from raystack.checkpoint.state import OPTIMIZER, WEIGHTS, Shard, State
from raystack.errors import Problem, TrainingError


def write(folder: Path, state: State, group: dist.ProcessGroup | None) -> None:
    """Write each worker's `state` into `folder`, and rank 0 the index of all of them.

    Collective over `group`; None means a single worker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rank = dist.get_rank(group) if group is not None else 0
    writer = FileSystemWriter(str(folder))
    writer.set_up_storage_writer(rank == 0)
    # DCP's planner and writer, but not its `save`: that visits every entry several times, and this thread
    # competes with the training loop for the interpreter lock.
    plans, metadata = create_default_global_save_plan(
        gather(SavePlan([_write_item(name, shard) for name, shard in state.items()]), group)
    )
    mine = writer.prepare_global_plan(plans)[rank]
    results = gather(writer.write_data(mine, _SavePlanner(state)).value(), group)
    if rank == 0:
        writer.finish(metadata, results)


def read(folder: Path, state: State) -> set[str]:
    """Fill the shards of `state` from `folder`, which any number of workers may have written. Not collective.

    Shards of optimizer state stay as they are if their parameter never had a gradient; their names are
    returned. Raises TrainingError if any other name is missing from the checkpoint or has another size there.
    """
    reader = FileSystemReader(str(folder))
    metadata = reader.read_metadata()
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    planner = _LoadPlanner(state)
    reader.read_data(LoadPlan(list(_read_items(state, metadata))), planner).wait()
    return state.keys() - metadata.state_dict_metadata.keys()


def names(folder: Path) -> set[str]:
    """Return the names of all that a training state has."""
    return set(FileSystemReader(str(folder)).read_metadata().state_dict_metadata)


def read_whole(folder: Path, prefix: str = WEIGHTS, *, without: Collection[str] = ()) -> dict[str, Tensor]:
    """Read all tensors below `prefix`, flattened, by name without the prefix. Needs no process group.

    Those whose names are in `without` are left out.
    """
    stored = FileSystemReader(str(folder)).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in stored.items()
        if name.startswith(prefix)
        and name.removeprefix(prefix) not in without
        and isinstance(entry, TensorStorageMetadata)
    }
    read(folder, {name: Shard.whole(tensor) for name, tensor in tensors.items()})
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def gather(value: Any, group: dist.ProcessGroup | None) -> list[Any]:
    """Return the picklable `value` of every worker, by rank. Collective over `group`; None is one worker."""
    if group is None:
        return [value]
    values: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(values, value, group=group)
    return values


class _SavePlanner(DefaultSavePlanner):
    """Resolves the names in a save plan to the data of this worker's shards."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self._state[index.fqn].data


class _LoadPlanner(DefaultLoadPlanner):
    """Resolves the names in a load plan to the tensors that are filled."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        return self._state[index.fqn].data


def _read_items(state: State, metadata: Metadata) -> Iterator[ReadItem]:
    stepped = {_owner(name) for name in metadata.state_dict_metadata if name.startswith(OPTIMIZER)}
    for name, shard in state.items():
        entry = metadata.state_dict_metadata.get(name)
        # PyTorch's optimizers create the state of a parameter at its first gradient, so one that never had a
        # gradient is absent. An absent name of a parameter that was stepped is an error.
        if entry is None and stepped and name.startswith(OPTIMIZER) and _owner(name) not in stepped:
            continue
        if not isinstance(entry, TensorStorageMetadata):
            raise TrainingError(
                Problem(
                    "checkpoint",
                    rule=f"it has no '{name}'",
                    remedy="it was written for another model or optimizer",
                )
            )
        if entry.size.numel() != shard.total:
            rule = f"'{name}' has {entry.size.numel()} elements there and {shard.total} in this model"
            raise TrainingError(
                Problem("checkpoint", rule=rule, remedy="resume with the config that wrote it")
            )
        yield from create_read_items_for_chunk_list(name, entry, [_chunk(shard)])


def _owner(name: str) -> str:
    """Return `optimizer/<parameter>` of `optimizer/<parameter>/<state>`."""
    return name.rpartition("/")[0]


def _chunk(shard: Shard) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size([shard.start]), torch.Size([shard.data.numel()]))


def _write_item(name: str, shard: Shard) -> WriteItem:
    chunk = _chunk(shard)
    data = TensorWriteData(chunk, TensorProperties(dtype=shard.data.dtype), torch.Size([shard.total]))
    return WriteItem(MetadataIndex(name, chunk.offsets), WriteItemType.SHARD, tensor_data=data)
