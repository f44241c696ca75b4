"""What FSDP and DeepSpeed need of torch.distributed beyond what Ray Train sets up: a group even for one
worker, and quiet.
"""

import warnings

import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from raystack.training.world import World


def join_group(world: World) -> None:
    """See to it that this process is in a process group. The only worker of a run gets one of its own,
    without a port.

    FSDP and DeepSpeed call collectives by names that newer versions of torch warn of, several times a step;
    the user can do nothing about it.
    """
    warnings.filterwarnings(
        "ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning
    )
    if dist.is_initialized():
        return
    assert world.size == 1, "the workers of a larger run are in a process group before they train"
    backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
