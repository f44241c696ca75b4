"""The built-in optimizers, and what strategies do with any optimizer."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from raystack.checkpoint.state import OPTIMIZER, State
from raystack.config.optimizer import SGD, Adafactor, Adagrad, Adam, AdamW, Muon, Optimizer, Own, RMSprop
from raystack.training.groups import Setting, grouped

NUMBERS = (bool, int, float)
"""Types of plain numbers in an optimizer's state."""


def make_optimizer(
    config: Optimizer,
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    settings: Mapping[str, Setting] | None = None,
    sparse: bool = False,
) -> torch.optim.Optimizer:
    """Return the optimizer of the trainable ones of the `named` parameters.

    Without `settings` weight decay is on parameters of two or more dimensions. SGD and Adam are fused where
    every parameter is real and no gradient is `sparse`: else torch has no fused form.
    """
    assert not isinstance(config, Own), "the task makes it"
    trainable = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    groups = [
        (
            setting.by_adamw,
            {"params": held, "lr": config.lr * setting.lr_scale, "weight_decay": setting.weight_decay},
        )
        for setting, held in grouped(config, trainable, settings or {})
    ]
    fused = all(parameter.is_floating_point() for _, parameter in trainable) and not sparse
    if isinstance(config, Muon):
        parts = [_muon(config, [group for by_adamw, group in groups if not by_adamw])]
        parts += [_adamw(config, [group for by_adamw, group in groups if by_adamw], fused=fused)]
        return Joined([part for part in parts if part is not None])
    return _plain(config, [group for _, group in groups], fused=fused)


def _plain(
    config: AdamW | SGD | Adam | RMSprop | Adagrad | Adafactor, groups: list[dict[str, Any]], *, fused: bool
) -> torch.optim.Optimizer:
    lr = config.lr
    match config:
        case SGD():
            return torch.optim.SGD(
                groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
            )
        case Adam():
            return torch.optim.Adam(groups, lr=lr, betas=config.betas, eps=config.eps, fused=fused)
        case RMSprop():
            return torch.optim.RMSprop(
                groups, lr=lr, alpha=config.alpha, eps=config.eps, momentum=config.momentum
            )
        case Adagrad():
            start = config.initial_accumulator
            return torch.optim.Adagrad(groups, lr=lr, eps=config.eps, initial_accumulator_value=start)
        case Adafactor():
            decay, threshold = config.beta2_decay, config.threshold
            return torch.optim.Adafactor(groups, lr=lr, beta2_decay=decay, d=threshold)
        case AdamW():
            return torch.optim.AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=fused)


def _muon(config: Muon, groups: list[dict[str, Any]]) -> torch.optim.Optimizer | None:
    if not groups:
        return None
    return torch.optim.Muon(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        adjust_lr_fn="match_rms_adamw",
    )


def _adamw(config: Muon, groups: list[dict[str, Any]], *, fused: bool) -> torch.optim.Optimizer | None:
    if not groups:
        return None
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


class Joined(torch.optim.Optimizer):
    """Optimizers of different parameters, as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], parts[0].defaults)
        self.parts = parts
        for part in parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the parameters of all."""
        assert closure is None, "the loop has computed the gradients"
        for part in self.parts:
            part.step()


def remember_peaks(optimizer: torch.optim.Optimizer) -> None:
    """Note the rate that each parameter group has now as its peak."""
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]


def peak(optimizer: torch.optim.Optimizer) -> float:
    """Return the peak rate that is reported: that of parameters in no group of their own."""
    return float(optimizer.defaults.get("lr", optimizer.param_groups[0]["peak"]))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the rate of each parameter group to `factor` times its peak."""
    # The loop computes the factor of each step, so there is no scheduler whose state has to be saved.
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def clip_values(gradients: list[Tensor], limit: float | None) -> None:
    """Limit the magnitude of each element, in place."""
    if limit is not None and gradients:
        gradients = [torch.view_as_real(one) if one.is_complex() else one for one in gradients]
        torch._foreach_clamp_min_(gradients, -limit)
        torch._foreach_clamp_max_(gradients, limit)


def initialise(optimizer: torch.optim.Optimizer) -> bool:
    """Create the state of a new optimizer, so that a checkpoint can be read into it.

    Returns False if it has state from the start, such as Adagrad.
    """
    # Optimizers create their state in their first step. This one has the rate 0 and changes no weight.
    if optimizer.state:
        return False
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer.step()
    except RuntimeError:  # torch's SparseAdam takes no other gradients than sparse ones
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter).to_sparse()
        optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    optimizer.zero_grad()
    return True


def load_state(
    optimizer: torch.optim.Optimizer,
    named: Mapping[str, nn.Parameter],
    state: Callable[[], State],
    read: Callable[[State], Set[str]],
) -> None:
    """Let `read` fill the whole `state` of a training, which has that of its optimizer.

    A parameter that never had a gradient gets no state, as in a new run.
    """
    lazy = initialise(optimizer)
    parts = state()
    left = read(parts)
    for name, parameter in named.items():
        values = optimizer.state.get(parameter, {})
        if lazy and any(f"{OPTIMIZER}{name}/{key}" in left for key in values):
            del optimizer.state[parameter]
            continue
        for key, value in values.items():
            if isinstance(value, NUMBERS):
                values[key] = type(value)(parts[f"{OPTIMIZER}{name}/{key}"].data.item())


def state_values(
    optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, nn.Parameter]]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the optimizer's state by its name in a checkpoint: tensors, and numbers as tensors."""
    for name, parameter in named:
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, NUMBERS):
                yield f"{OPTIMIZER}{name}/{key}", torch.tensor(value, dtype=torch.float64)
            elif isinstance(value, Tensor):
                yield f"{OPTIMIZER}{name}/{key}", value
