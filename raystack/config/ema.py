"""The moving average of the weights."""

from typing import Annotated

from pydantic import Field, PositiveInt

from raystack.config.section import Section


class EMA(Section):
    """An exponential moving average of the trained weights (Polyak & Juditsky 1992), in float32."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """What an update leaves of the average: average = decay x average + (1 - decay) x weights. It starts as
    the weights that the training starts with.
    """

    every_steps: PositiveInt = 1
    """Optimizer steps between two updates, which come after its multiples. `decay` is that of an update."""

    warmup: bool = False
    """Let the first weights fade sooner: update n, counted from 0, has the decay (1 + n) / (10 + n) while
    that is smaller.
    """

    evaluate: bool = True
    """Evaluate the averages instead of the weights."""

    export: bool = True
    """Export, register and serve the averages instead of the weights."""
