"""Training state as ranges of flattened tensors.

Whatever a strategy splits, each worker ends up with contiguous ranges of flattened tensors: all of one (DDP),
rows of one (FSDP), any slice of one (ZeRO). By name and range, what one strategy wrote on N workers is read
by any other on M.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raystack.errors import ConfigError, Problem

WEIGHTS, OPTIMIZER = "model/", "optimizer/"
"""Names are `model/<parameter or buffer>` and `optimizer/<parameter>/<its state>`."""


@dataclass(frozen=True)
class Shard:
    """A contiguous range of a flattened tensor, as this worker holds it."""

    data: Tensor
    """1-D. A live view of the tensor's own memory, so that reading a checkpoint into it is loading; or a copy
    of it.
    """
    start: int
    """Its first element in the flattened whole."""
    total: int
    """Elements of the whole."""
    replicated: bool = False
    """Every worker holds a whole, and all are the same: each may write a share of it."""
    leading: bool = False
    """Every worker holds a whole of its own, and worker 0's is the one that counts, such as the statistics of
    a batch norm.
    """

    @classmethod
    def whole(cls, tensor: Tensor) -> "Shard":
        """All of a contiguous tensor that every worker holds alike. ConfigError where it is not
        contiguous.
        """
        return cls(_flat(tensor), 0, tensor.numel(), replicated=True)

    @classmethod
    def buffer(cls, tensor: Tensor) -> "Shard":
        """All of a contiguous buffer of a module."""
        return cls(_flat(tensor), 0, tensor.numel(), leading=True)


def _flat(tensor: Tensor) -> Tensor:
    if not tensor.is_contiguous():
        rule = (
            f"a checkpoint holds contiguous tensors, and one of shape {list(tensor.shape)} is not"
            " (channels_last?)"
        )
        raise ConfigError(
            Problem(
                "task: model",
                rule=rule,
                remedy="make the weights contiguous; the input alone may have another layout",
            )
        )
    return tensor.detach().view(-1)


State = Mapping[str, Shard]


def share(state: State, rank: int, size: int) -> dict[str, Shard]:
    """What worker `rank` of `size` writes: its own ranges, and its share of what all hold alike."""
    mine = {}
    for name, part in state.items():
        if part.replicated:
            start, stop = part.total * rank // size, part.total * (rank + 1) // size
            part = Shard(part.data[start:stop], start, part.total)
        if part.data.numel() and not (part.leading and rank > 0):
            mine[name] = part
    return mine


class Staging:
    """Copies of a state in CPU memory, in buffers that are kept: only the first copy pays for their pages."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._stream: torch.cuda.Stream | None = None

    def copy(self, state: State) -> dict[str, Shard]:
        """Returns when the copies are complete and the originals may change. On a GPU, beside what its main
        stream does.
        """
        device = next((part.data.device for part in state.values() if part.data.device.type == "cuda"), None)
        if device is None:
            return self._copy(state)
        self._stream = self._stream or torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.default_stream(device))
        with torch.cuda.stream(self._stream):
            copies = self._copy(state)
        self._stream.synchronize()
        return copies

    def _copy(self, state: State) -> dict[str, Shard]:
        copies = {}
        for name, part in state.items():
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape != part.data.shape or buffer.dtype != part.data.dtype:
                pinned = part.data.device.type == "cuda"
                buffer = self._buffers[name] = torch.empty_like(part.data, device="cpu", pin_memory=pinned)
            buffer.copy_(part.data, non_blocking=True)
            copies[name] = replace(part, data=buffer)
        return copies
