"""The process group that FSDP and DeepSpeed need even with one worker, which Ray Train does not set up."""

import sys
import warnings

import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from raystack.training.world import World


def join_group(world: World) -> None:
    """Make sure that this process is in a process group; a single worker gets a group of its own."""
    # FSDP and DeepSpeed call collectives by names that newer versions of torch warn of, several times a step,
    # and the user can do nothing about it.
    warnings.filterwarnings(
        "ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning
    )
    if dist.is_initialized():
        return
    assert world.size == 1, "the workers of a larger run are in a process group before they train"
    # gloo beside nccl for tensors on the CPU, which nccl does not move. A HashStore lives in this process and
    # needs no port.
    backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)


def forget_groups() -> None:
    """Empty this thread's caches of DTensor, which keep process groups alive.

    A fork from another thread frees what this thread alone holds. In the child the threads of a process group
    are missing, and its destructor would end it with a segmentation fault.
    """
    if "torch.distributed.tensor" in sys.modules:
        from torch.distributed.tensor.debug import _clear_sharding_prop_cache

        _clear_sharding_prop_cache()
