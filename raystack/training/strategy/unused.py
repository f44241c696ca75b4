"""Which parameters have never had a gradient, where an optimizer does not see them one by one."""

from functools import partial

import torch
from torch import nn

from raystack.training.world import World


class Unused:
    """The parameters without a gradient since the start, on all workers."""

    def __init__(self, model: nn.Module, world: World) -> None:
        self._world = world
        self._waiting = {
            name: parameter.register_post_accumulate_grad_hook(partial(self._used, name))
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self._here: set[str] = set()
        """Names of those that have had their first gradient on this worker."""

    def names(self) -> set[str]:
        """Return the names after a backward pass. Collective, until every parameter has had a gradient."""
        if not self._waiting:
            return set()
        order = sorted(self._waiting)
        everyone = self._world.gather([float(name in self._here) for name in order])
        for name, used in zip(order, zip(*everyone, strict=True), strict=True):
            if any(used):
                self._waiting.pop(name).remove()
        return set(self._waiting)

    def _used(self, name: str, parameter: torch.Tensor) -> None:
        self._here.add(name)
