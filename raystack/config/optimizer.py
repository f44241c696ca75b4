"""The optimizer of a training, its parameter groups, what is frozen, and the learning rate's schedule."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from raystack.config.section import ConflictError, Fraction, NonNegativeFloat, NonNegativeInt, Section, Text

Globs = Text | Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
"""One pattern or several, in which `*` stands for any characters, dots included."""


class Group(Section):
    """Parameters that are trained in another way than the rest."""

    match: Globs
    """Patterns for names of parameters, such as `*.embed*`: the names that a checkpoint has. The first group
    that matches a parameter has it.
    """

    lr_scale: NonNegativeFloat = 1.0
    """Factor of the learning rate, on top of `layer_decay`."""

    weight_decay: NonNegativeFloat | None = None
    """Weight decay, also of biases and norms. Not set: as without the group."""


class Grouped(Section):
    """What the built-in optimizers have in common."""

    groups: Annotated[tuple[Group, ...], Field(strict=False)] = ()
    """Parameter groups, by name."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Layer-wise decay of the learning rate (Bao et al. 2022, "BEiT"): that of block i of the task's n
    `blocks`, counted from 0, is scaled by `layer_decay ** (n - i)`, what comes before the blocks by
    `layer_decay ** (n + 1)`, and what comes after them not at all. Not set: none.
    """


class Frozen(Section):
    """Parameters that are not trained."""

    match: Globs
    """Patterns for names of parameters, in which `*` stands for any characters."""

    until_step: PositiveInt | None = None
    """Number of optimizer steps after which they are trained; until then their gradients are computed and
    dropped. Not set: they are frozen for the whole run, which saves their gradients and optimizer state.
    """


class AdamW(Grouped):
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


class SGD(Grouped):
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


class Adam(Grouped):
    """torch.optim.Adam."""

    kind: Literal["adam"]
    """Adam (Kingma & Ba 2015)."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate."""

    weight_decay: NonNegativeFloat = 0.0
    """L2 penalty of parameters with two or more dimensions, added to the gradient."""

    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of the running averages of the gradient and its square."""

    eps: PositiveFloat = 1e-8
    """Term added to the denominator for numerical stability."""


class RMSprop(Grouped):
    """torch.optim.RMSprop."""

    kind: Literal["rmsprop"]
    """RMSprop (Tieleman & Hinton 2012)."""

    lr: PositiveFloat = 1e-2
    """Peak learning rate."""

    weight_decay: NonNegativeFloat = 0.0
    """L2 penalty of parameters with two or more dimensions, added to the gradient."""

    alpha: Fraction = 0.99
    """Decay rate of the running average of the gradient's square."""

    eps: PositiveFloat = 1e-8
    """Term added to the denominator for numerical stability."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum factor; 0 disables momentum."""


class Adagrad(Grouped):
    """torch.optim.Adagrad."""

    kind: Literal["adagrad"]
    """Adagrad (Duchi et al. 2011)."""

    lr: PositiveFloat = 1e-2
    """Peak learning rate."""

    weight_decay: NonNegativeFloat = 0.0
    """L2 penalty of parameters with two or more dimensions, added to the gradient."""

    initial_accumulator: NonNegativeFloat = 0.0
    """First value of the sums of squares."""

    eps: PositiveFloat = 1e-10
    """Term added to the denominator for numerical stability."""


class Adafactor(Grouped):
    """torch.optim.Adafactor: second moments of matrices by row and by column. Under ddp only."""

    kind: Literal["adafactor"]
    """Adafactor (Shazeer & Stern 2018)."""

    lr: PositiveFloat = 1e-2
    """Largest relative step size, and the rate of the weight decay."""

    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of parameters with two or more dimensions."""

    beta2_decay: Annotated[float, Field(le=0)] = -0.8
    """Exponent of the step in the decay rate of the second moments, 1 - step ** beta2_decay."""

    threshold: PositiveFloat = 1.0
    """Largest root mean square of an update."""


class Muon(Grouped):
    """torch.optim.Muon for matrices, and AdamW for the rest: embeddings, and what has not two dimensions.

    The updates of matrices have the size of AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"),
    so both have one rate and one weight decay. Not under zero.
    """

    kind: Literal["muon"]
    """Muon (Jordan et al. 2024): momentum, made orthogonal."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate."""

    weight_decay: NonNegativeFloat = 0.1
    """Weight decay of parameters with two or more dimensions."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Momentum of matrices."""

    nesterov: bool = True
    """Nesterov momentum."""

    adamw: Globs | None = None
    """Patterns for names of further matrices that AdamW updates, such as the head."""

    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    """Of AdamW: decay rates of the running averages of the gradient and its square."""

    eps: PositiveFloat = 1e-8
    """Of AdamW: term added to the denominator for numerical stability."""


class Own(Section):
    """The optimizer that the task's `optimizer(parameters)` makes."""

    kind: Literal["task"]
    """The task's own."""


BuiltIn = AdamW | SGD | Adam | RMSprop | Adagrad | Adafactor | Muon
Optimizer = BuiltIn | Own

ScheduleKind = Literal[
    "constant", "cosine", "linear", "wsd", "inverse_sqrt", "polynomial", "one_cycle", "task"
]

ONE_CYCLE_WARMUP = 0.3
"""Warm-up of `one_cycle` where none is given, as a fraction of the steps: that of torch's OneCycleLR."""


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
