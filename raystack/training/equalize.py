"""Bring worker 0's buffers to all workers: what is evaluated is then what a checkpoint stores.

Each worker's forward passes change its own buffers, such as the statistics of a batch norm. DDP brings worker
0's to the others before each forward pass, but not after the last; FSDP and ZeRO never do.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raystack.checkpoint.extra_state import describe_buffers, extra_state, load_extra_state, resize_buffers
from raystack.training.world import World


@torch.no_grad()
def equalize(model: nn.Module, world: World) -> None:
    """Give all workers the buffers and the extra state of worker 0. Collective; for rare use."""
    if world.size == 1:
        return
    first: list[Any] = [None]
    if world.rank == 0:
        first = [(describe_buffers(model), extra_state(model))]
    dist.broadcast_object_list(first, src=0)
    buffers, extra = first[0]
    resize_buffers(model, buffers)
    for name in buffers:
        _broadcast(model.get_buffer(name), world.device)
    if world.rank > 0:
        load_extra_state(model, extra)


def _broadcast(buffer: Tensor, device: torch.device) -> None:
    """Copy worker 0's values into `buffer`, in place."""
    # As bytes: not every backend has every type of number.
    values = buffer.detach().to(device).contiguous().view(-1).view(torch.uint8)
    dist.broadcast(values, src=0)
    buffer.copy_(values.view(buffer.dtype).view(buffer.shape))
