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


class Schedule(Section):
    """Learning rate schedule: a linear warm-up, then the decay."""

    kind: Literal["constant", "cosine", "linear"] = "constant"
    """Shape of the decay after the warm-up, down to `floor` at the last step."""

    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises linearly from 0 to its peak."""

    floor: Fraction = 0.0
    """Rate at the last step, as a fraction of the peak."""
