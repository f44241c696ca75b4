"""A model spread over the processes as one does it by hand: DDP, FSDP2, and DeepSpeed's engine."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Wrapped:
    """What a loop needs of it."""

    module: Any
    backward: Callable[[Tensor], Any]
    step: Callable[[float], None]
    """Clip, update with this learning rate, clear the gradients."""
    save: Callable[[str], Any]
    """Write weights and optimizer state to a path."""


def ddp(task: Any, model: nn.Module, settings: dict[str, Any]) -> Wrapped:
    """A copy of the model on every process; with one process, the model itself."""
    module = (
        DistributedDataParallel(model, gradient_as_bucket_view=True) if dist.get_world_size() > 1 else model
    )
    optimizer = make_optimizer(model, settings)

    def save(path: str) -> None:
        if dist.get_rank() == 0:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)

    return Wrapped(module, Tensor.backward, stepping(model, optimizer, settings), save)


def fsdp(task: Any, model: nn.Module, settings: dict[str, Any]) -> Wrapped:
    """Each block of the task is gathered by itself, and the rest with the model."""
    from torch.distributed import checkpoint
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(settings["device"], (dist.get_world_size(),))
    for block in task.blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = make_optimizer(model, settings)

    def save(path: str) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        checkpoint.save(state, checkpoint_id=path)  # type: ignore[attr-defined]

    return Wrapped(model, Tensor.backward, stepping(model, optimizer, settings), save)


def zero(task: Any, model: nn.Module, settings: dict[str, Any]) -> Wrapped:
    """DeepSpeed's engine, with the JSON that settings["deepspeed"] has."""
    if settings["device"] == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    # Shared memory for the processes of one machine, which takes a compiler and a minute to build: raystack
    # does not use it either.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=_groups(model, settings), config=settings["deepspeed"]
    )

    def step(lr: float) -> None:
        for group in engine.optimizer.param_groups:
            group["lr"] = lr
        engine.step()

    return Wrapped(engine, engine.backward, step, engine.save_checkpoint)


WRAPPERS: Mapping[str, Callable[[Any, nn.Module, dict[str, Any]], Wrapped]] = {
    "ddp": ddp,
    "fsdp": fsdp,
    "zero": zero,
}


def make_optimizer(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW; weight decay for parameters of two or more dimensions."""
    return torch.optim.AdamW(
        _groups(model, settings),
        lr=settings["lr"],
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
        fused=True,
    )


def stepping(
    model: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> Callable[[float], None]:
    """A whole update with torch's own means."""

    def step(lr: float) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad()

    return step


def _groups(model: nn.Module, settings: dict[str, Any]) -> list[dict[str, Any]]:
    parameters = list(model.parameters())
    return [
        {
            "params": [parameter for parameter in parameters if parameter.dim() >= 2],
            "weight_decay": settings["weight_decay"],
        },
        {"params": [parameter for parameter in parameters if parameter.dim() < 2], "weight_decay": 0.0},
    ]
