"""A training loop as one would write it by hand: `torchrun --nproc-per-node 2 by_hand.py settings.json`.

The loop is also what bare Ray Train runs in benchmarks/gpt/on_ray.py.
"""

import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

LOG_EVERY = 10


def read(path: str) -> dict[str, Any]:
    """The settings that benchmarks/training.py wrote."""
    settings: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return settings


def train(rank: int, world: int, settings: dict[str, Any]) -> None:
    """Train on this worker; the process group is up. Rank 0 leaves its last state in the file settings["state"]."""
    task, model = start(settings)
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = make_optimizer(model, settings)
    order = np.load(settings["order"])  # [steps, world, micro]
    loader = DataLoader(task.train_data(), batch_size=order.shape[2], sampler=order[:, rank].ravel().tolist())
    steps = settings["steps"]
    for step, batch in enumerate(loader):
        loss = task.loss(ddp, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
        for group in optimizer.param_groups:
            group["lr"] = rate(step, settings)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            loss.item()
    if rank == 0:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, settings["state"])
    dist.barrier()


def start(settings: dict[str, Any]) -> tuple[Any, nn.Module]:
    """The task and its model, with the weights that the seed gives."""
    _spare_raystack()
    from timed import Timed

    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])
    task = Timed(**settings["task"])
    return task, task.model()


def make_optimizer(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW; weight decay for parameters of two or more dimensions."""
    parameters = list(model.parameters())
    groups = [
        {"params": [parameter for parameter in parameters if parameter.dim() >= 2], "weight_decay": settings["weight_decay"]},
        {"params": [parameter for parameter in parameters if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings["lr"], betas=tuple(settings["betas"]), eps=settings["eps"], fused=True)


def rate(step: int, settings: dict[str, Any]) -> float:
    """Linear warm-up, then a cosine down to the floor."""
    peak, warmup, floor = settings["lr"], settings["warmup_steps"], settings["floor"]
    if step < warmup:
        return float(peak * (step + 1) / warmup)
    progress = (step - warmup) / max(1, settings["steps"] - 1 - warmup)
    return float(peak * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2))


def _spare_raystack() -> None:
    """The example's task takes two dataclasses from raystack.task, which imports pydantic and Hydra for them. Who writes a
    loop by hand has neither, so what is compared with raystack is spared that half second."""

    class Anything:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            pass

    stand_in = ModuleType("raystack.task")
    stand_in.__dict__.update(Signature=Anything, TensorSpec=Anything)
    sys.modules.update({"raystack": ModuleType("raystack"), "raystack.task": stand_in})


if __name__ == "__main__":
    dist.init_process_group("gloo")
    train(dist.get_rank(), dist.get_world_size(), read(sys.argv[1]))
    dist.destroy_process_group()
