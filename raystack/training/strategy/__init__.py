"""How the model is spread over the workers: one small protocol. The loop does not know which strategy it
runs.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from raystack.checkpoint.state import State
from raystack.config.training import DDP, FSDP
from raystack.plan import TrainPlan
from raystack.training.world import World

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Strategy(Protocol):
    """All methods are called on every worker, in the same order."""

    module: nn.Module
    """What the task's methods are called with."""
    bare: nn.Module
    """The user's own module, whose parameter names a checkpoint has. Its weights may be split over the
    workers.
    """

    def autocast(self) -> AbstractContextManager[Any]:
        """Around every forward pass, in training and in evaluation: the precision that was asked for."""

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        """Around one forward and backward pass; gradients are reduced over the workers in the `last` of a
        step.
        """

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss."""

    def step(self, lr: float, clip_norm: float | None, *, want_norm: bool) -> Tensor | None:
        """Clip, update the weights and clear the gradients. Returns the total L2 norm before clipping, if it
        was computed.
        """

    def communication_s(self) -> float | None:
        """Seconds that the last reduction of gradients took on this worker, or None where that is not
        known.
        """

    def state(self) -> State:
        """What a checkpoint holds, as live ranges on this worker: weights in float32, buffers, optimizer
        state.
        """

    def load(self, read: Callable[[State], None]) -> None:
        """Make room for the optimizer's state, let `read` fill the state in place, and renew what is derived
        from it.
        """


def build(
    plan: TrainPlan,
    model: nn.Module,
    blocks: Sequence[nn.Module],
    make_optimizer: MakeOptimizer,
    world: World,
) -> Strategy:
    """Spread `model`, which is on the CPU, over the workers' devices. `blocks` are the parts of it that
    repeat, or none.
    """
    config = plan.training.strategy
    # The import of a strategy takes seconds with some of them: only the one that was asked for is paid for.
    if isinstance(config, DDP):
        from raystack.training.strategy.ddp import DataParallel

        return DataParallel(config, plan.training.precision, model, make_optimizer, world)
    if isinstance(config, FSDP):
        from raystack.training.strategy.fsdp import FullyShard

        return FullyShard(config, plan.training.precision, model, blocks, make_optimizer, world)
    from raystack.training.strategy.zero import ZeroEngine

    return ZeroEngine(plan, model, world)


__all__ = ["MakeOptimizer", "Strategy", "build"]
