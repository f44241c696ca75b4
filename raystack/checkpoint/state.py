"""Training state as ranges of flattened tensors.

Under every strategy each worker holds contiguous ranges of flattened tensors: whole tensors (DDP), rows of a
tensor (FSDP), arbitrary slices (ZeRO). Described by name and range, a state that one strategy wrote on N
workers can be read by any other on M.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raystack.errors import ConfigError, Problem

WEIGHTS, OPTIMIZER, AVERAGES = "model/", "optimizer/", "ema/"
"""Prefixes of the names `model/<parameter or buffer>`, `optimizer/<parameter>/<its state>` and
`ema/<parameter>`.
"""


@dataclass(frozen=True)
class Shard:
    """A contiguous range of a flattened tensor, as one worker holds it."""

    data: Tensor
    """1-D: a view of the tensor's memory, so that reading a checkpoint into it loads it, or a copy."""
    start: int
    """Index of its first element in the flattened tensor."""
    total: int
    """Number of elements of the whole tensor."""
    replicated: bool = False
    """All workers hold the whole tensor with equal values, so each may write a share of it."""
    copy: int = 0
    """Number of this copy among the equal `copies` of the range, each of which may write a share of it."""
    copies: int = 1
    """Number of workers that hold this very range."""
    leading: bool = False
    """Each worker holds a whole tensor with values of its own, and worker 0's are stored: a module's buffers,
    such as the statistics of a batch norm.
    """

    @classmethod
    def whole(cls, tensor: Tensor) -> "Shard":
        """Return a replicated tensor as one shard. Raises ConfigError if it is not contiguous."""
        return cls(_flat(tensor), 0, tensor.numel(), replicated=True)

    @classmethod
    def buffer(cls, tensor: Tensor) -> "Shard":
        """Return a module's buffer as one shard: a view, or a copy if it is not contiguous."""
        return cls(tensor.detach().contiguous().view(-1), 0, tensor.numel(), leading=True)


def _flat(tensor: Tensor) -> Tensor:
    # `reshape` would copy a tensor that is not contiguous, and loading would fill the copy.
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
"""Shards of one worker, by name."""


def share(state: State, rank: int, size: int) -> dict[str, Shard]:
    """Return what worker `rank` of `size` writes: its own ranges, and its share of the replicated ones."""
    mine = {}
    for name, shard in state.items():
        copy, copies = (rank, size) if shard.replicated else (shard.copy, shard.copies)
        if copies > 1:
            length = shard.data.numel()
            start, stop = length * copy // copies, length * (copy + 1) // copies
            shard = Shard(shard.data[start:stop], shard.start + start, shard.total)
        if shard.data.numel() and not (shard.leading and rank > 0):
            mine[name] = shard
    return mine


class Staging:
    """Copies a state into buffers in CPU memory, which later copies use again."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._stream: torch.cuda.Stream | None = None

    def copy(self, state: State) -> dict[str, Shard]:
        """Return copies of all shards when they are complete, so that the originals may change.

        The copies are valid until the next call.
        """
        device = next((shard.data.device for shard in state.values() if shard.data.is_cuda), None)
        if device is None:
            return self._copy(state)
        # A stream of its own lets the copy overlap with the forward and backward pass on the default stream;
        # it waits first for the optimizer step that is still queued there.
        self._stream = self._stream or torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.default_stream(device))
        with torch.cuda.stream(self._stream):
            copies = self._copy(state)
        self._stream.synchronize()
        return copies

    def _copy(self, state: State) -> dict[str, Shard]:
        copies = {}
        for name, shard in state.items():
            buffer = self._buffers.get(name)
            # New memory is slow: the kernel maps each page at its first write, and pinning takes longer
            # still.
            if buffer is None or buffer.shape != shard.data.shape or buffer.dtype != shard.data.dtype:
                pinned = shard.data.is_cuda  # only a copy into pinned memory is asynchronous
                buffer = self._buffers[name] = torch.empty_like(shard.data, device="cpu", pin_memory=pinned)
            buffer.copy_(shard.data, non_blocking=True)
            copies[name] = replace(shard, data=buffer)
        return copies
