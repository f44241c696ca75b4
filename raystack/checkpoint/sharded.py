"""A training state in and out of a folder, through torch.distributed.checkpoint (DCP): the files that several
workers write.

DCP finds the stored chunks that overlap what a worker asks for, so a folder written by N workers is read by
any number. The import takes a second, which only whoever writes or reads a checkpoint has to pay.
"""

from collections.abc import Iterator
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
    """Write each worker's `state` into `folder`, and rank 0 the index of all. Collective over `group`; None:
    one worker.

    DCP's planner and writer without its `save`, which looks at every entry several times: the interpreter is
    training's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rank = dist.get_rank(group) if group is not None else 0
    writer = FileSystemWriter(str(folder))
    writer.set_up_storage_writer(rank == 0)
    plans, metadata = create_default_global_save_plan(
        gather(SavePlan([_write_item(name, part) for name, part in state.items()]), group)
    )
    mine = writer.prepare_global_plan(plans)[rank]
    results = gather(writer.write_data(mine, _Writing(state)).value(), group)
    if rank == 0:
        writer.finish(metadata, results)


def read(folder: Path, state: State) -> None:
    """Fill the parts of `state` from `folder`, written by any number of workers. Not collective.

    A parameter that had never got a gradient has no optimizer state there: its parts stay as they are. Raises
    TrainingError where the checkpoint lacks another name or has another size under it.
    """
    reader = FileSystemReader(str(folder))
    metadata = reader.read_metadata()
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    planner = _Reading(state)
    reader.read_data(LoadPlan(list(_read_items(state, metadata))), planner).wait()


def read_whole(folder: Path, prefix: str = WEIGHTS) -> dict[str, Tensor]:
    """Every tensor below `prefix`, flattened, by its name without the prefix. One process, no cluster."""
    stored = FileSystemReader(str(folder)).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in stored.items()
        if name.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
    }
    read(folder, {name: Shard.whole(tensor) for name, tensor in tensors.items()})
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def gather(value: Any, group: dist.ProcessGroup | None) -> list[Any]:
    """Every worker's picklable `value`, by rank. Collective over `group`; None: one worker."""
    if group is None:
        return [value]
    everyone: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(everyone, value, group=group)
    return everyone


class _Writing(DefaultSavePlanner):
    """Where the writer finds what it writes."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self._state[index.fqn].data


class _Reading(DefaultLoadPlanner):
    """Where the reader puts what it reads."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        return self._state[index.fqn].data


def _read_items(state: State, metadata: Metadata) -> Iterator[ReadItem]:
    stepped = {_owner(name) for name in metadata.state_dict_metadata if not name.startswith(WEIGHTS)}
    for name, part in state.items():
        entry = metadata.state_dict_metadata.get(name)
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
        if entry.size.numel() != part.total:
            rule = f"'{name}' has {entry.size.numel()} elements there and {part.total} in this model"
            raise TrainingError(
                Problem("checkpoint", rule=rule, remedy="resume with the config that wrote it")
            )
        yield from create_read_items_for_chunk_list(name, entry, [_chunk(part)])


def _owner(name: str) -> str:
    """`optimizer/<parameter>/<state>` -> `optimizer/<parameter>`."""
    return name.rpartition("/")[0]


def _chunk(part: Shard) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size([part.start]), torch.Size([part.data.numel()]))


def _write_item(name: str, part: Shard) -> WriteItem:
    chunk = _chunk(part)
    data = TensorWriteData(chunk, TensorProperties(dtype=part.data.dtype), torch.Size([part.total]))
    return WriteItem(MetadataIndex(name, chunk.offsets), WriteItemType.SHARD, tensor_data=data)
