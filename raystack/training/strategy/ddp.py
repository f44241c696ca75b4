"""DistributedDataParallel: a full copy of the model on every worker, gradients averaged in the backward."""

from collections.abc import Callable, Iterable, Set
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raystack.checkpoint.state import Shard, State
from raystack.config.strategy import DDP
from raystack.errors import Problem, TrainingError
from raystack.training.optimizer import clip_values, load_state, remember_peaks, set_rates, state_values
from raystack.training.world import World


class DataParallel:
    """One copy of the model and of the optimizer state per worker; with one worker, the bare model."""

    def __init__(
        self,
        config: DDP,
        precision: str,
        model: nn.Module,
        make_optimizer: Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer],
        world: World,
    ) -> None:
        self.bare = model.to(world.device)
        self._autocast = precision == "bf16"
        self._device = world.device.type
        self._ddp = (
            DistributedDataParallel(
                _Losses(model),
                bucket_cap_mb=config.bucket_mb,
                find_unused_parameters=config.find_unused_parameters,
                gradient_as_bucket_view=True,
            )
            if world.size > 1
            else None
        )
        # One worker needs no reducer: DDP's buckets and hooks would only cost memory and time.
        self.module = model
        self._may_be_unused = config.find_unused_parameters
        self._used = False
        """Whether all parameters had a gradient in the first step."""
        self.optimizer = make_optimizer(model.named_parameters())
        remember_peaks(self.optimizer)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._frozen: list[nn.Parameter] = []

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device, torch.bfloat16) if self._autocast else nullcontext()

    def loss(self, function: Callable[[nn.Module, Any], Any], batch: Any) -> Any:
        return function(self.module, batch) if self._ddp is None else self._ddp(function, batch)

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last or self._ddp is None else self._ddp.no_sync()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(
        self,
        factor: float,
        clip_norm: float | None,
        *,
        clip_value: float | None = None,
        scale: Tensor | None = None,
        want_norm: bool,
    ) -> Tensor | None:
        self._check_used()
        for one in self._frozen:
            one.grad = None
        gradients = [_gradient(one) for one in self._parameters if one.grad is not None]
        if scale is not None:
            torch._foreach_mul_(gradients, scale)
        norm = nn.utils.get_total_norm(gradients) if clip_norm is not None or want_norm else None
        if clip_norm is not None and norm is not None:
            # As torch.nn.utils.clip_grads_with_norm_ does, which does not take the values of sparse ones.
            torch._foreach_mul_(gradients, torch.clamp(clip_norm / (norm + 1e-6), max=1.0))
        clip_values(gradients, clip_value)
        set_rates(self.optimizer, factor)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def freeze(self, names: Set[str]) -> None:
        self._frozen = [one for name, one in self.bare.named_parameters() if name in names]

    def _check_used(self) -> None:
        """Raise TrainingError in the first step if DDP waits for a gradient that does not come."""
        if self._used or self._ddp is None or self._may_be_unused:
            return
        unused = [
            name for name, one in self.bare.named_parameters() if one.requires_grad and one.grad is None
        ]
        if unused:
            rule = f"'{unused[0]}' has no gradient, and ddp waits for one of every parameter"
            remedy = "set it to true, or freeze what the loss does not use"
            raise TrainingError(
                Problem("training.strategy.find_unused_parameters", rule=rule, got="false", remedy=remedy)
            )
        self._used = True

    def communication_s(self) -> float | None:
        if self._ddp is None:
            return None
        # DDP samples its timings, and reports 0 until it has the first.
        nanoseconds = self._ddp._get_ddp_logging_data().get("backward_comm_time", 0)
        return nanoseconds / 1e9 if nanoseconds else None

    def weights(self) -> State:
        return {
            f"model/{name}": Shard.whole(one)
            for name, one in self.bare.named_parameters()
            if one.requires_grad
        }

    def renew(self) -> None:
        """Do nothing: the weights that are computed with are the only ones."""

    def state(self) -> State:
        values = state_values(self.optimizer, self.bare.named_parameters())
        return {**whole_model(self.bare), **{name: Shard.whole(value) for name, value in values}}

    def load(self, read: Callable[[State], Set[str]]) -> None:
        load_state(self.optimizer, dict(self.bare.named_parameters()), self.state, read)


class _Losses(nn.Module):
    """The task's loss as a forward pass, which DDP is around."""

    # Not the model's own: so the loss may call any part of the model, and sees its attributes.

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module, Any], Any], batch: Any) -> Any:
        return function(self.model, batch)


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Return the gradient, or the values of a sparse one."""
    assert parameter.grad is not None
    if not parameter.grad.is_sparse:
        return parameter.grad
    parameter.grad = parameter.grad.coalesce()
    return parameter.grad.values()


def whole_model(model: nn.Module) -> dict[str, Shard]:
    """Return the parameters and persistent buffers of a model that every worker holds whole.

    A parameter with two names is stored under the first.
    """
    # state_dict is the only public way to tell persistent buffers from the others.
    kept = model.state_dict(keep_vars=True)
    parameters = {f"model/{name}": Shard.whole(parameter) for name, parameter in model.named_parameters()}
    return parameters | {
        f"model/{name}": Shard.buffer(buffer) for name, buffer in model.named_buffers() if name in kept
    }
