"""Gradients that a loss takes itself, by `torch.autograd.grad`, where a strategy does not survive them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from raystack.errors import ConfigError, Problem


class FirstLoss:
    """Calls losses; the first one is refused if it takes gradients itself.

    Such a backward pass runs the strategy's hooks, which free weights that the loss's own needs once more.
    """

    def __init__(self, kind: str) -> None:
        self._kind, self._first = kind, True

    def __call__(self, function: Callable[[nn.Module, Any], Any], module: nn.Module, batch: Any) -> Any:
        if not self._first:
            return function(module, batch)
        with _Refusal(self._kind):
            loss = function(module, batch)
        self._first = False
        return loss


class _Refusal(TorchFunctionMode):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.autograd.grad:
            rule = f"{self._kind} cannot have a loss that takes gradients itself (torch.autograd.grad)"
            remedy = "use strategy=ddp, or zero1 in fp32"
            raise ConfigError(Problem("training.strategy.kind", rule=rule, remedy=remedy))
        return func(*args, **(kwargs or {}))
