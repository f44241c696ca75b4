"""The optimizer of a training, and the schedule of its learning rate."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from raystack.config.section import ConflictError, Fraction, NonNegativeFloat, NonNegativeInt, Section


class AdamW(Section):
    """torch.optim.AdamW."""

    kind: Literal["adamw"] = "adamw"
    """Decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate."""

    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of parameters with two or more dimensions, so not of biases and norms."""

    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of the running averages of the gradient and its square."""

    eps: PositiveFloat = 1e-8
    """Term added to the denominator for numerical stability."""


class SGD(Section):
    """torch.optim.SGD."""

    kind: Literal["sgd"]
    """Stochastic gradient descent, optionally with momentum."""

    lr: PositiveFloat = 0.1
    """Peak learning rate."""

    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of parameters with two or more dimensions."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum factor; 0 disables momentum."""

    nesterov: bool = False
    """Nesterov momentum; needs momentum above 0."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ConflictError("nesterov needs momentum above 0", "nesterov", "momentum")
        return self


ScheduleKind = Literal[
    "constant", "cosine", "linear", "wsd", "inverse_sqrt", "polynomial", "one_cycle", "task"
]


class Schedule(Section):
    """Learning rate schedule: a warm-up to the peak, then the decay."""

    kind: ScheduleKind = "constant"
    """Shape after the warm-up, down to `floor` at the last step. `wsd` (warm-up, stable, decay; Hu et al.
    2024) stays at the peak and falls linearly in the last `decay_fraction` of the run. `inverse_sqrt`
    (Vaswani et al. 2017) falls with the root of the step number, from the end of the warm-up on. `polynomial`
    is `linear` to the power of `power`. `one_cycle` (Smith & Topin 2019; torch's OneCycleLR) rises and falls
    along a cosine. `task` is the task's own `lr_factor`.
    """

    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises linearly from 0 to its peak."""

    warmup_fraction: Fraction | None = None
    """The warm-up as a fraction of the run's steps; set this or `warmup_steps`. Neither set: no warm-up, but
    0.3 of a `one_cycle`.
    """

    floor: Fraction = 0.0
    """Rate at the last step, as a fraction of the peak; the least rate of `inverse_sqrt`."""

    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    """`wsd`: the last part of the run, over which the rate falls, as a fraction of its steps."""

    power: PositiveFloat = 1.0
    """`polynomial`: the exponent."""

    start: Fraction = 0.04
    """`one_cycle`: rate at the first step, as a fraction of the peak."""

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> Self:
        for key, kind in (("decay_fraction", "wsd"), ("power", "polynomial"), ("start", "one_cycle")):
            if self.kind != kind and getattr(self, key) != type(self).model_fields[key].default:
                raise ConflictError(f"{key} is for kind {kind}", "kind", key, remedy=f"drop {key}")
        if self.warmup_steps and self.warmup_fraction is not None:
            raise ConflictError(
                "takes warmup_steps or warmup_fraction, not both", "warmup_steps", "warmup_fraction"
            )
        if self.kind == "task" and (self.warmup_steps or self.warmup_fraction or self.floor):
            rule = "kind task has the whole factor from the task's lr_factor, without a warm-up or a floor"
            raise ConflictError(rule, "kind", "warmup_steps", "warmup_fraction", "floor")
        if self.kind == "wsd" and (self.warmup_fraction or 0) + self.decay_fraction > 1:
            rule = "the warm-up and the decay are longer than the run"
            raise ConflictError(rule, "warmup_fraction", "decay_fraction")
        return self
