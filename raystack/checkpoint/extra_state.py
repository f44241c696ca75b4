"""State of a model that is not in its parameters and first buffers: what `get_extra_state` of its modules
returns, and the shapes of buffers that have changed since the model was built.

In a training state it is one tensor of bytes, EXTRA. The bytes are a safetensors file: the tensors of the
extra state, and in the metadata JSON that refers to them. Nothing is unpickled.
"""

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from raystack.checkpoint.model import Parameter
from raystack.checkpoint.state import Shard
from raystack.errors import ConfigError, Problem

EXTRA = "extra_state"
"""Name in a training state."""
_METADATA = "extra"


@dataclass(frozen=True)
class Extra:
    """What a checkpoint has of a model beside the tensors of its first shapes."""

    modules: Mapping[str, Any] = field(default_factory=dict)
    """Extra state by the name of its module."""
    buffers: Mapping[str, Parameter] = field(default_factory=dict)
    """Buffers that have another shape or dtype than in a new model, or are not in it."""

    def to_bytes(self) -> bytes:
        """Return it as a safetensors file. Raises TypeError for a value that it cannot hold."""
        tensors: dict[str, Tensor] = {}
        values = {name: _encode(value, tensors) for name, value in self.modules.items()}
        buffers = {name: [list(each.shape), each.dtype] for name, each in self.buffers.items()}
        return bytes(write_tensors(tensors, {_METADATA: json.dumps({"modules": values, "buffers": buffers})}))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Extra":
        """Return what `to_bytes` has written."""
        length = int.from_bytes(data[:8], "little")
        values = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_METADATA])
        tensors = read_tensors(data)
        return cls(
            {name: _decode(value, tensors) for name, value in values["modules"].items()},
            {name: Parameter(tuple(shape), dtype) for name, (shape, dtype) in values["buffers"].items()},
        )


def extra_shards(extra: Extra) -> dict[str, Shard]:
    """Return what a training state has of it: nothing, if there is nothing."""
    if not extra.modules and not extra.buffers:
        return {}
    return {EXTRA: Shard.buffer(torch.frombuffer(bytearray(extra.to_bytes()), dtype=torch.uint8))}


def read_extra(folder: Path) -> Extra:
    """Read it from a training state."""
    from raystack.checkpoint.sharded import read_whole  # takes a second

    found = read_whole(folder, EXTRA)
    return Extra.from_bytes(found[""].numpy().tobytes()) if found else Extra()


def extra_of(model: nn.Module, described: Mapping[str, Parameter]) -> Extra:
    """Return what `model` has now beside the tensors that were `described` when it was built."""
    kept = model.state_dict(keep_vars=True)
    changed = {}
    for name, now in describe_buffers(model).items():
        before = described.get(name)
        if name in kept and (before is None or before.shape != now.shape):
            # A strategy may have cast it: the dtype of before is the one that counts.
            changed[name] = now if before is None else replace(now, dtype=before.dtype)
    return Extra(extra_state(model), changed)


def describe_buffers(model: nn.Module) -> dict[str, Parameter]:
    """Describe all buffers of `model` as they are now, those that are not persistent as well."""
    return {
        name: Parameter(tuple(buffer.shape), str(buffer.dtype).removeprefix("torch."))
        for name, buffer in model.named_buffers()
    }


def extra_state(model: nn.Module) -> dict[str, Any]:
    """Return the extra state of the modules that have one, by the module's name; tensors on the CPU."""
    return {
        name: tree_map_only(Tensor, lambda tensor: tensor.detach().cpu(), module.get_extra_state())
        for name, module in _with_extra_state(model)
    }


def load_extra_state(model: nn.Module, values: Mapping[str, Any]) -> None:
    """Set the extra state of the modules that have one and are in `values`."""
    for name, module in _with_extra_state(model):
        if name in values:
            module.set_extra_state(values[name])


def resize_buffers(model: nn.Module, wanted: Mapping[str, Parameter]) -> None:
    """Make the buffers that are `wanted` where they are missing or have another shape or dtype, with any
    values, and make all buffers contiguous, so that they can be read into.
    """
    for module in model.modules():
        for leaf, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_contiguous():
                module._buffers[leaf] = buffer.contiguous()
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)
    for name, each in wanted.items():
        path, _, leaf = name.rpartition(".")
        owner, dtype = model.get_submodule(path), getattr(torch, each.dtype)
        now = owner._buffers.get(leaf)
        if now is None or tuple(now.shape) != each.shape or now.dtype != dtype:
            made = torch.empty(each.shape, dtype=dtype, device=device if now is None else now.device)
            owner.register_buffer(leaf, made, persistent=leaf not in owner._non_persistent_buffers_set)


def check_extra_state(model: nn.Module) -> None:
    """Raise ConfigError, with the module's name, if a checkpoint cannot hold some extra state."""
    for name, module in _with_extra_state(model):
        what = f"the extra state of '{name}'" if name else "the model's extra state"
        if type(module).set_extra_state is nn.Module.set_extra_state:
            rule = f"{what} cannot be restored: {type(module).__name__} has no set_extra_state"
            raise ConfigError(Problem("task: model", rule=rule, remedy="give it one"))
        try:
            Extra({name: module.get_extra_state()}).to_bytes()
        except (TypeError, KeyError) as error:
            rule = f"{what} is made of tensors, numbers, text and bytes, in lists, tuples and dicts"
            remedy = "return such values from get_extra_state, or use buffers"
            raise ConfigError(Problem("task: model", rule=rule, got=str(error), remedy=remedy)) from None


def _with_extra_state(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            yield name, module


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return JSON values for `value`, with its tensors in `tensors` under the names that the values have."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (list, tuple):
        return {kind.__name__: [_encode(each, tensors) for each in value]}
    if kind in (dict, OrderedDict):
        return {"dict": [[_encode(key, tensors), _encode(each, tensors)] for key, each in value.items()]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if isinstance(value, Tensor) and value.layout is torch.strided:
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    raise TypeError(kind.__name__)


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "bytes":
            return bytes.fromhex(content)
        case "dict":
            return {_decode(key, tensors): _decode(each, tensors) for key, each in content}
    values = [_decode(each, tensors) for each in content]
    return values if kind == "list" else tuple(values)
