"""FSDP2: weights, gradients and optimizer state are split over the workers by rows.

In: the user's module and its units, the parts that are gathered together while they are used. Out: the same
module, whose parameters are DTensors, and a state whose parts are rows of the whole.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor

from raystack.checkpoint.state import Shard, State
from raystack.config.strategy import FSDP
from raystack.errors import ConfigError, Problem, TrainingError
from raystack.training.optimizer import clip_values, load_state, remember_peaks, set_rates, state_values
from raystack.training.strategy.group import join_group
from raystack.training.strategy.inside import FirstLoss
from raystack.training.strategy.units import units
from raystack.training.world import World


class FullyShard:
    """The model with each worker holding its rows of every parameter, gradient and optimizer state."""

    def __init__(
        self,
        config: FSDP,
        precision: str,
        model: nn.Module,
        blocks: Sequence[nn.Module],
        make_optimizer: Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer],
        world: World,
    ) -> None:
        _check_scalars(model)
        # Inner units first, as fully_shard requires: the root takes the parameters that are left.
        self._units = [*units(config, model, blocks), model]
        self._device = world.device
        self._bf16 = precision == "bf16"
        join_group(world)
        mesh = _mesh(config, world)
        self._copies = mesh.size() // mesh.size(-1)
        """Number of workers that hold the same rows."""
        offload = (
            CPUOffloadPolicy(pin_memory=world.device.type == "cuda") if config.offload else OffloadPolicy()
        )
        for unit in self._units:
            fully_shard(
                unit,
                mesh=mesh,
                reshard_after_forward=config.reshard_after_forward,
                mp_policy=_precision(config, precision, root=unit is model),
                offload_policy=offload,
            )
        self.module = self.bare = model
        self._loss = FirstLoss("fsdp")
        # Kept, because a gathered unit has its whole parameters in the places of the split ones.
        self._named: dict[str, nn.Parameter] = dict(model.named_parameters())
        """The split parameters, by name."""
        self._frozen: list[nn.Parameter] = []
        self.optimizer = make_optimizer(self._named.items())
        remember_peaks(self.optimizer)
        if isinstance(self.optimizer, torch.optim.SGD):
            for group in self.optimizer.param_groups:
                group["fused"] = False  # torch has no fused SGD for DTensors, only AdamW

    def autocast(self) -> AbstractContextManager[Any]:
        """Return an autocast context in bf16, else none."""
        # The gathered weights are bfloat16 already; autocast lets a task mix them with float32 tensors of its
        # own, as under ddp.
        return torch.autocast(self._device.type, torch.bfloat16) if self._bf16 else nullcontext()

    def loss(self, function: Callable[[nn.Module, Any], Any], batch: Any) -> Any:
        try:
            return self._loss(function, self.module, batch)
        except RuntimeError as error:
            if "mixed torch.Tensor and DTensor" not in str(error):
                raise
            rule = "it uses weights that fsdp gathers in a forward pass of the model or of a unit"
            remedy = "call the model itself, or use strategy=ddp or zero"
            raise TrainingError(Problem("task: loss", rule=rule, remedy=remedy)) from error

    @contextmanager
    def micro_step(self, *, last: bool) -> Iterator[None]:
        root = self.module
        assert isinstance(root, FSDPModule)
        root.set_requires_gradient_sync(last)
        root.set_is_last_backward(last)
        yield

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
        for parameter in self._frozen:
            parameter.grad = None
        gradients = [
            _local(parameter.grad) for parameter in self._named.values() if parameter.grad is not None
        ]
        if scale is not None and gradients:
            torch._foreach_mul_(gradients, scale.to(gradients[0].device))
        norm = self._total_norm(gradients) if clip_norm is not None or want_norm else None
        if clip_norm is not None and norm is not None:
            # The factor of torch.nn.utils.clip_grad_norm_, which would return the norm as a DTensor that has
            # to be gathered.
            shrink = torch.clamp(clip_norm / (norm + 1e-6), max=1.0)
            torch._foreach_mul_(gradients, shrink.to(gradients[0].device))
        clip_values(gradients, clip_value)
        set_rates(self.optimizer, factor)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def freeze(self, names: Set[str]) -> None:
        self._frozen = [self._named[name] for name in names]

    def communication_s(self) -> float | None:
        return None

    def weights(self) -> State:
        return {f"model/{name}": _part(one) for name, one in self._named.items() if one.requires_grad}

    def renew(self) -> None:
        # A unit that is gathered now has the weights of before.
        for unit in self._units:
            assert isinstance(unit, FSDPModule)
            unit.reshard()

    def state(self) -> State:
        parts = {f"model/{name}": _part(parameter) for name, parameter in self._named.items()}
        kept = self.bare.state_dict(keep_vars=True)
        parts |= {
            f"model/{name}": Shard.buffer(buffer)
            for name, buffer in self.bare.named_buffers()
            if name in kept
        }
        return parts | {
            name: _part(value) for name, value in state_values(self.optimizer, self._named.items())
        }

    def load(self, read: Callable[[State], Set[str]]) -> None:
        load_state(self.optimizer, self._named, self.state, read)
        self.renew()

    def _total_norm(self, gradients: list[Tensor]) -> Tensor:
        """Return the L2 norm over all workers."""
        # Every element is on as many workers as there are copies. The sum is over all workers, and not over
        # those of one copy, so that each has the same bits, and the copies stay equal. A worker without rows
        # takes part, too: the others wait for it in the reduction.
        total = torch.zeros((), device=self._device)
        if gradients:
            total = (
                torch.stack(torch._foreach_norm(gradients, 2, torch.float32)).square().sum().to(self._device)
            )
        dist.all_reduce(total)
        return (total / self._copies).sqrt()


def _mesh(config: FSDP, world: World) -> DeviceMesh:
    """Return all workers in one dimension, or groups that split by groups that hold the same."""
    kind, shard = world.device.type, config.shard or world.size
    assert world.size % shard == 0, "the plan has checked it"
    if shard == world.size:
        return init_device_mesh(kind, (shard,))
    return init_device_mesh(kind, (world.size // shard, shard), mesh_dim_names=("copies", "shard"))


def _precision(config: FSDP, precision: str, *, root: bool) -> MixedPrecisionPolicy:
    """Return FSDP's types for the weights, the reduction and the outputs."""
    if precision == "fp32":
        return MixedPrecisionPolicy()
    reduce = torch.float32 if config.reduce_dtype == "fp32" else torch.bfloat16
    # The root's outputs are float32, so that the loss is, whatever the task does with them.
    return MixedPrecisionPolicy(torch.bfloat16, reduce, output_dtype=torch.float32 if root else None)


def _check_scalars(model: nn.Module) -> None:
    """Raise ConfigError if a parameter is a scalar, which has no rows to split."""
    scalars = [name for name, parameter in model.named_parameters() if parameter.dim() == 0]
    if scalars:
        raise ConfigError(
            Problem(
                "training.strategy.kind",
                rule=f"fsdp cannot split a parameter without dimensions, such as '{scalars[0]}'",
                got="fsdp",
                remedy="give it the shape [1], or use strategy ddp or zero",
            )
        )


def _local(tensor: Tensor) -> Tensor:
    """Return this worker's rows, sharing memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _part(tensor: Tensor) -> Shard:
    """Return this worker's rows of a split tensor; all of a scalar, such as the optimizer's step."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return Shard.whole(tensor)
    local = tensor.to_local()
    row = tensor.numel() // tensor.shape[0] if tensor.shape[0] else 0
    mesh = tensor.device_mesh
    split, copies = mesh.size(-1), mesh.size() // mesh.size(-1)
    # DTensors are split as torch.chunk does: the last workers may get fewer rows than the others, or none.
    rows = -(-tensor.shape[0] // split)
    start = min(mesh.get_local_rank(mesh.ndim - 1) * rows, tensor.shape[0]) * row
    copy = mesh.get_local_rank(0) if copies > 1 else 0
    return Shard(local.view(-1), start, tensor.numel(), copy=copy, copies=copies)
