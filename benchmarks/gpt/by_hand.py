"""A training loop as one would write it by hand: `torchrun --nproc-per-node 2 by_hand.py settings.json`.

The loop is also what bare Ray Train runs in benchmarks/gpt/on_ray.py. What spreads the model over the
processes is in wrapped.py.
"""

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader
from wrapped import WRAPPERS

LOG_EVERY = 10


def read(path: str) -> dict[str, Any]:
    """The settings that benchmarks/commands.py wrote."""
    settings: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return settings


def train(rank: int, world: int, settings: dict[str, Any]) -> None:
    """Train on this worker; the process group is up. The last state is left at settings["state"]."""
    task, model = start(settings)
    wrapped = WRAPPERS[settings["strategy"]](task, model, settings)
    steps = settings["steps"]
    for step, batch in enumerate(batches(task, rank, settings)):
        with autocast(settings):
            loss = task.loss(wrapped.module, batch)
        wrapped.backward(loss)
        wrapped.step(rate(step, settings))
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            loss.item()
    wrapped.save(settings["state"])
    dist.barrier()


def start(settings: dict[str, Any]) -> tuple[Any, nn.Module]:
    """The task and its model, with the weights that the seed gives, on its device."""
    _spare_raystack()
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    module, _, name = settings["entry"].partition(":")
    task = getattr(import_module(module), name)(**settings["task"])
    model: nn.Module = task.model().to(settings["device"])
    if settings["compile"]:
        for block in task.blocks(model):
            block.compile()
    return task, model


def batches(task: Any, rank: int, settings: dict[str, Any], first: int = 0) -> Iterator[Any]:
    """This worker's batches, from step `first` on."""
    order = np.load(settings["order"])[first:]  # [steps, world, micro]
    pin = settings["device"] == "cuda"
    loader = DataLoader(
        task.train_data(), batch_size=order.shape[2], sampler=order[:, rank].ravel().tolist(), pin_memory=pin
    )
    for batch in loader:
        yield batch.to(settings["device"], non_blocking=True)


def autocast(settings: dict[str, Any]) -> AbstractContextManager[Any]:
    """Around a forward pass."""
    return (
        torch.autocast(settings["device"], torch.bfloat16)
        if settings["precision"] == "bf16"
        else nullcontext()
    )


def rate(step: int, settings: dict[str, Any]) -> float:
    """Linear warm-up, then a cosine down to the floor."""
    peak, warmup, floor = settings["lr"], settings["warmup_steps"], settings["floor"]
    if step < warmup:
        return float(peak * (step + 1) / warmup)
    progress = (step - warmup) / max(1, settings["steps"] - 1 - warmup)
    return float(peak * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2))


def _spare_raystack() -> None:
    """The example's task takes two dataclasses from raystack.task, which imports pydantic and Hydra for them.
    Who writes a loop by hand has neither, so what is compared with raystack is spared that half second.
    """

    class Anything:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            pass

    stand_in = ModuleType("raystack.task")
    stand_in.__dict__.update(Signature=Anything, TensorSpec=Anything)
    sys.modules.update({"raystack": ModuleType("raystack"), "raystack.task": stand_in})


if __name__ == "__main__":
    settings = read(sys.argv[1])
    if settings["device"] == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if settings["device"] == "cuda" else "gloo")
    train(dist.get_rank(), dist.get_world_size(), settings)
    dist.destroy_process_group()
