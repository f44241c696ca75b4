"""DeepSpeed's ZeRO, stages 0 to 3, through its engine; the only importer of deepspeed.

In: the plan, with the engine's JSON, and the user's module. Out: the engine, and a state whose parts are the
ranges of the float32 master weights that this worker updates. DeepSpeed's own checkpoints are not used,
because they fit only the stage and the number of workers that wrote them.
"""

import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from math import inf
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from raystack.checkpoint.state import Shard, State
from raystack.config.optimizer import Own
from raystack.config.strategy import Zero
from raystack.errors import ConfigError, PlanError, Problem
from raystack.plan import TrainPlan
from raystack.training.optimizer import clip_values, remember_peaks, set_rates
from raystack.training.strategy.group import join_group
from raystack.training.strategy.inside import FirstLoss
from raystack.training.strategy.masters import Masters
from raystack.training.strategy.unused import Unused
from raystack.training.world import World

MakeOptimizer = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]

GROUP = ("params", "lr", "weight_decay")
"""Keys of a parameter group that differ between those of a built-in optimizer."""
SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""Attributes of DeepSpeed's dynamic loss scaler that a checkpoint keeps."""


class ZeroEngine:
    """DeepSpeed's engine around the user's module."""

    def __init__(
        self, plan: TrainPlan, model: nn.Module, make_optimizer: MakeOptimizer, world: World
    ) -> None:
        config = plan.training.strategy
        assert isinstance(config, Zero)
        check_precision(plan.training.precision, world.device.type)
        deepspeed = _import(world.device.type, world.device.index or 0)
        if not dist.is_initialized():
            _forget_groups()
        join_group(world)
        self.bare = model
        self._stage, self._precision, self._clip_norm = (
            config.stage,
            plan.training.precision,
            plan.training.clip_norm,
        )
        original = {name: parameter.data for name, parameter in model.named_parameters()}
        if self._precision != "fp32":
            _cast_at_the_border(model, torch.bfloat16 if self._precision == "bf16" else torch.float16)
        built_in = not isinstance(plan.training.optimizer, Own)
        self._unused = Unused(model, world)
        optimizer = make_optimizer(model.named_parameters())
        self._engine = _start(deepspeed, model, optimizer, plan.deepspeed_on(world.size))
        # Its hooks, which do not survive a gradient inside of a loss, are for split and for rounded weights.
        self._whole = self._stage < 3 and self._precision == "fp32"
        self.module = model if self._whole else self._engine
        self._loss = FirstLoss(f"zero{self._stage}")
        self._optimizer = self._engine.optimizer
        self.optimizer: torch.optim.Optimizer = self._engine.basic_optimizer
        self._masters = Masters(self._engine, model, self._stage, built_in=built_in)
        remember_peaks(self.optimizer)
        self._clip_value: float | None = None
        self._frozen: list[Tensor] = []
        """Flat tensors that are not updated."""
        self._dropped: list[tuple[Tensor, Tensor | None]] = []
        """Their gradients, which an update does not see."""
        self._droppers: list[RemovableHandle] = []
        self.optimizer.register_step_pre_hook(self._before_update)
        self.optimizer.register_step_post_hook(self._after_update)
        if self._precision != "fp32":
            self._masters.restore(original)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return no context: the engine's weights are in the precision, and all around it is float32."""
        return nullcontext()

    def loss(self, function: Callable[[nn.Module, Any], Any], batch: Any) -> Any:
        return function(self.module, batch) if self._whole else self._loss(function, self.module, batch)

    @contextmanager
    def micro_step(self, *, last: bool) -> Iterator[None]:
        self._engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        # The loop has scaled the loss for accumulation already, and differently in a last, smaller step.
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(
        self,
        factor: float,
        clip_norm: float | None,
        *,
        clip_value: float | None = None,
        scale: Tensor | None = None,
        want_norm: bool,
    ) -> Tensor | None:
        assert clip_norm == self._clip_norm, "the engine clips by the norm that it was started with"
        set_rates(self.optimizer, factor)
        self._clip_value = clip_value
        if scale is not None:
            self._scale(scale)
        if self._optimizer is self.optimizer:
            norm = self._plain_norm() if clip_norm is not None or want_norm else None
            self._engine.step()
            return norm
        unused = self._unused.names()
        with self._masters.untouched(unused) if unused else nullcontext():
            self._engine.step()
        self._optimizer.custom_loss_scaler = False
        return torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32)

    def freeze(self, names: Set[str]) -> None:
        # Their gradients are zero in what DeepSpeed reduces, so that they are not in the norm.
        for handle in self._droppers:
            handle.remove()
        self._droppers = [
            one.register_hook(torch.zeros_like) for name, one in self.bare.named_parameters() if name in names
        ]
        self._frozen = self._masters.flats(names)

    def communication_s(self) -> float | None:
        return None

    def weights(self) -> State:
        return self._masters.weights()

    def renew(self) -> None:
        self._masters.renew()

    def state(self) -> State:
        parts = self._masters.state()
        kept = self.bare.state_dict(keep_vars=True)
        parts |= {
            f"model/{name}": Shard.buffer(buffer)
            for name, buffer in self.bare.named_buffers()
            if name in kept
        }
        if self._precision == "fp16":
            scaler = self._optimizer.loss_scaler
            parts["loss_scale"] = Shard.whole(
                torch.tensor([getattr(scaler, name, 0) for name in SCALER], dtype=torch.float64)
            )
        return parts

    def load(self, read: Callable[[State], Set[str]]) -> None:
        self._masters.prepare()
        state = self.state()
        left = read(state)
        if self._precision == "fp16":
            for name, number in zip(SCALER, state["loss_scale"].data.tolist(), strict=True):
                if hasattr(self._optimizer.loss_scaler, name):
                    setattr(self._optimizer.loss_scaler, name, number if name == "cur_scale" else int(number))
        self._masters.take(state, left)

    def _before_update(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Do what DeepSpeed does not: clip by value, and leave out what is frozen."""
        # Here its gradients are averaged, scaled back and in float32, in every stage.
        self._dropped = [(flat, flat.grad) for flat in self._frozen]
        for flat in self._frozen:
            flat.grad = None
        held = [flat for group in optimizer.param_groups for flat in group["params"]]
        clip_values([flat.grad for flat in held if flat.grad is not None], self._clip_value)

    def _after_update(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for flat, gradient in self._dropped:
            flat.grad = gradient
        self._dropped = []

    def _scale(self, scale: Tensor) -> None:
        """Multiply the gradients of the step that comes next."""
        if self._stage == 0:
            gradients = [one.grad for one in self.bare.parameters() if one.grad is not None]
            torch._foreach_mul_(gradients, scale)
        elif hasattr(self._optimizer, "bf16_groups"):
            torch._foreach_mul_(self._optimizer.fp32_groups_gradients_flat, scale)
        else:
            # They are in places that depend on the stage, where they are divided by the loss scale.
            factor, loss_scale = float(scale), self._optimizer.loss_scaler.cur_scale
            self._optimizer.override_loss_scale(loss_scale / factor if factor else inf)

    def _plain_norm(self) -> Tensor:
        """Return the norm in stage 0 and float32, where the engine keeps none."""
        # The engine has averaged the gradients in the backward pass.
        return nn.utils.get_total_norm(
            parameter.grad for parameter in self.bare.parameters() if parameter.grad is not None
        )


def check_precision(precision: str, device: str) -> None:
    """Raise PlanError if DeepSpeed cannot compute in `precision` on this machine's "cpu" or "cuda"."""
    accelerator = _import(device).accelerator.get_accelerator()
    able = {"fp32": True, "bf16": accelerator.is_bf16_supported(), "fp16": accelerator.is_fp16_supported()}
    if able[precision]:
        return
    what = (
        "a CPU needs AVX512-FP16 or AMX-FP16"
        if device == "cpu"
        else f"{accelerator.device_name()} is too old"
    )
    others = " or ".join(name for name in ("bf16", "fp32") if able[name])
    rule = f"this machine's {device} does not compute in it: {what}"
    raise PlanError(
        Problem("training.precision", rule=rule, got=precision, remedy=f"use {others}, or workers with GPUs")
    )


def _import(device: str, index: int = 0) -> Any:
    """Import DeepSpeed for a device; raise ConfigError if it is not installed."""
    # DeepSpeed takes its device from the environment, and would choose a GPU if the machine has one.
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["LOCAL_RANK"] = str(index)
    try:
        import deepspeed
    except ModuleNotFoundError as error:
        if error.name != "deepspeed":
            raise
        rule = "zero needs DeepSpeed, which is not installed"
        raise ConfigError(
            Problem(
                "training.strategy.kind", rule=rule, got="zero", remedy="pip install 'raystack-ml[deepspeed]'"
            )
        ) from None
    return deepspeed


def _forget_groups() -> None:
    """Have DeepSpeed let go of the process groups of an earlier training, which have ended."""
    from deepspeed import comm
    from deepspeed.utils import groups

    comm.comm.cdb = None
    groups._release_process_group_references()


def _start(
    deepspeed: Any, model: nn.Module, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]
) -> Any:
    """Start the engine, without its output on stdout and by its logger.

    Where `settings` name an optimizer, DeepSpeed makes it, and of `optimizer` the groups alone are used.
    """
    groups = [{key: group[key] for key in GROUP if key in group} for group in optimizer.param_groups]
    given = {"model_parameters": groups} if "optimizer" in settings else {"optimizer": optimizer}
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Its output says nothing about the run, and errors are raised.
    with redirect_stdout(io.StringIO()):
        # The op for shared memory between CPU workers of a node serves inference only, and building it takes
        # a compiler and a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # The group of an earlier training in this process may have had another size.
        deepspeed.utils.groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None
        engine, *_ = deepspeed.initialize(model=model, config=dict(settings), **given)
    return engine


def _cast_at_the_border(model: nn.Module, dtype: torch.dtype) -> None:
    """Make `model` take and return float32 tensors, whatever its weights are, so that losses are float32."""

    def cast(values: Any, wanted: torch.dtype) -> Any:
        return tree_map(
            lambda value: (
                value.to(wanted) if isinstance(value, Tensor) and value.is_floating_point() else value
            ),
            values,
        )

    model.register_forward_pre_hook(
        lambda module, args, kwargs: (cast(args, dtype), cast(kwargs, dtype)), with_kwargs=True
    )
    model.register_forward_hook(lambda module, args, output: cast(output, torch.float32))


__all__ = ["ZeroEngine", "check_precision"]
