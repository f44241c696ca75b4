"""Strategies: how the model is spread over the workers, behind one small protocol."""

from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from raystack.checkpoint.state import State
from raystack.config.strategy import DDP, FSDP
from raystack.plan import TrainPlan
from raystack.training.world import World

MakeOptimizer = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]
"""From the parameters with their names."""


class Strategy(Protocol):
    """A way to train one model on many workers; all workers call its methods in the same order."""

    module: nn.Module
    """The module that the task's methods are called with; it has the attributes of the user's own."""
    bare: nn.Module
    """The user's own module, whose parameter names a checkpoint has; its weights may be split."""

    optimizer: torch.optim.Optimizer
    """The optimizer, in whose parameter groups the loop's factor becomes a rate."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of every forward pass, in training and evaluation: the configured precision."""

    def loss(self, function: Callable[[nn.Module, Any], Any], batch: Any) -> Any:
        """Call `function(module, batch)`, whose result `backward` starts from."""

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        """Return the context of one forward and backward pass; the `last` of a step reduces the gradients."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss."""

    def step(
        self,
        factor: float,
        clip_norm: float | None,
        *,
        clip_value: float | None = None,
        scale: Tensor | None = None,
        want_norm: bool,
    ) -> Tensor | None:
        """Multiply the gradients by `scale`, clip them, update the weights and clear the gradients.

        The rate of each parameter group is its peak times `factor`.
        Returns the total L2 norm before clipping, if it was computed.
        """

    def freeze(self, names: Set[str]) -> None:
        """Drop the gradients of these parameters from now on, and of no others.

        They do not count in the norm, and neither their weights nor their optimizer state change. Parameters
        that are frozen until different steps are in different parameter groups.
        """

    def communication_s(self) -> float | None:
        """Return the seconds that the last reduction of gradients took on this worker; None if not known."""

    def state(self) -> State:
        """Return the state of a checkpoint, as live ranges on this worker.

        It has the weights in float32, the buffers and the optimizer state.
        """

    def weights(self) -> State:
        """Return the live ranges of the trained weights, in float32; a part of `state`."""

    def renew(self) -> None:
        """Have what is derived from the weights follow a change of them. Collective."""

    def load(self, read: Callable[[State], Set[str]]) -> None:
        """Allocate the optimizer's state, let `read` fill all state in place, and renew derived weights.

        `read` returns the names that it has not filled: the optimizer's state of parameters that never had a
        gradient.
        """


def build(
    plan: TrainPlan,
    model: nn.Module,
    blocks: Sequence[nn.Module],
    make_optimizer: MakeOptimizer,
    world: World,
) -> Strategy:
    """Spread `model`, which is on the CPU, over the workers' devices.

    `blocks` are the parts of it that repeat; it may be empty.
    """
    config = plan.training.strategy
    # Importing a strategy can take seconds, so only the configured one is imported.
    if isinstance(config, DDP):
        from raystack.training.strategy.ddp import DataParallel

        return DataParallel(config, plan.training.precision, model, make_optimizer, world)
    if isinstance(config, FSDP):
        from raystack.training.strategy.fsdp import FullyShard

        return FullyShard(config, plan.training.precision, model, blocks, make_optimizer, world)
    from raystack.training.strategy.zero import ZeroEngine

    return ZeroEngine(plan, model, make_optimizer, world)


__all__ = ["MakeOptimizer", "Strategy", "build"]
