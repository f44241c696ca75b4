"""The optimizer of a config, and the learning rate of a step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from raystack.config.optimizer import SGD, AdamW, Schedule


def make_optimizer(
    config: AdamW | SGD, parameters: Iterable[nn.Parameter], *, sparse: bool = False
) -> torch.optim.Optimizer:
    """Return the optimizer, with weight decay on parameters of two or more dimensions.

    It is fused where every parameter is real and no gradient is `sparse`: else torch has no fused form.
    """
    # Biases and norms, which have one dimension, are not decayed.
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in trainable if parameter.dim() >= 2],
            "weight_decay": config.weight_decay,
        },
        {"params": [parameter for parameter in trainable if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(parameter.is_floating_point() for parameter in trainable) and not sparse
    if isinstance(config, SGD):
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
        )
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def learning_rate(peak: float, schedule: Schedule, step: int, total: int) -> float:
    """Return the learning rate of optimizer step `step` (from 0) of `total`.

    It warms up linearly, then falls to floor * peak at the last step. Cosine as in Loshchilov & Hutter 2017,
    "SGDR", without restarts.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    progress = (step - schedule.warmup_steps) / max(1, total - 1 - schedule.warmup_steps)
    match schedule.kind:
        case "constant":
            return peak
        case "linear":
            fraction = 1 - min(progress, 1.0)
        case "cosine":
            fraction = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return peak * (schedule.floor + (1 - schedule.floor) * fraction)


def initialise(optimizer: torch.optim.Optimizer) -> None:
    """Create the state of a new optimizer, all zeros, so that a checkpoint can be read into it."""
    # Optimizers create their state in their first step. This one has the rate 0 and changes no weight.
    if optimizer.state:
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    optimizer.zero_grad()
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                value.zero_()
