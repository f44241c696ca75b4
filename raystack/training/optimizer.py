"""The optimizer of a config."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from raystack.config.optimizer import SGD, Optimizer
from raystack.training.groups import Setting, grouped


def make_optimizer(
    config: Optimizer,
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    settings: Mapping[str, Setting] | None = None,
    sparse: bool = False,
) -> torch.optim.Optimizer:
    """Return the optimizer of the trainable ones of the `named` parameters.

    Without `settings` weight decay is on parameters of two or more dimensions. It is fused where every
    parameter is real and no gradient is `sparse`: else torch has no fused form.
    """
    trainable = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    groups = [
        {"params": parameters, "lr": config.lr * setting.lr_scale, "weight_decay": setting.weight_decay}
        for setting, parameters in grouped(config, trainable, settings or {})
    ]
    fused = all(parameter.is_floating_point() for _, parameter in trainable) and not sparse
    if isinstance(config, SGD):
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
        )
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def remember_peaks(optimizer: torch.optim.Optimizer) -> None:
    """Note the rate that each parameter group has now as its peak."""
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the rate of each parameter group to `factor` times its peak."""
    # The loop computes the factor of each step, so there is no scheduler whose state has to be saved.
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def clip_values(gradients: list[torch.Tensor], limit: float | None) -> None:
    """Limit the magnitude of each element, in place."""
    if limit is not None and gradients:
        torch._foreach_clamp_min_(gradients, -limit)
        torch._foreach_clamp_max_(gradients, limit)


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
