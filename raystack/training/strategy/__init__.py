"""How the model is spread over the workers: one small protocol. The loop does not know which strategy it runs."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from raystack.config.training import DDP
from raystack.training.strategy.ddp import DataParallel

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Strategy(Protocol):
    """All methods are called on every worker, in the same order."""

    module: nn.Module
    """What the task's methods are called with."""
    bare: nn.Module
    """The user's own module, with full weights on rank 0 when `export` has been called."""

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        """Around one forward and backward pass; gradients are reduced over the workers in the `last` of a step."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss."""

    def step(self, lr: float, clip_norm: float | None, *, want_norm: bool) -> Tensor | None:
        """Clip, update the weights and clear the gradients. Returns the total L2 norm before clipping, if it was computed."""

    def communication_s(self) -> float | None:
        """Seconds that the last reduction of gradients took on this worker, or None where that is not known."""

    def save(self, folder: Path) -> None:
        """Write the training state into the empty `folder`; rank 0's is the one that is kept."""

    def load(self, folder: Path) -> None:
        """Read the training state, written on any number of workers, back in place."""


def build(asked: DDP, model: nn.Module, make_optimizer: MakeOptimizer, world_size: int) -> Strategy:
    """Spread `model`, which is on its device, over the workers."""
    return DataParallel(asked, model, make_optimizer, world_size)


__all__ = ["Strategy", "build"]
