"""Gates: what a version of a registered model has to pass before an alias moves to it."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from raystack.config.names import Alias, MetricName
from raystack.config.section import ConflictError, Section, Text

LEAST_ALPHA, MOST_ALPHA = 1e-4, 0.5
"""Bounds of a probability that the paired test can tell."""


class MetricGate(Section):
    """Limits of a metric."""

    min: float | None = None
    """Least value."""

    max: float | None = None
    """Largest value."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ConflictError("needs min or max", "min", "max")
        return self


class ChampionGate(Section):
    """Comparison with the version that has the alias, on the same evaluation data, chunk by chunk."""

    metric: MetricName
    """Metric that is compared, e.g. `eval/accuracy`; one that adds up over samples."""

    alias: Alias | None = None
    """Alias of the other version. Not set: the version that is served in a rollout, else the one with the
    alias that is to move.
    """

    mode: Literal["min", "max"] = "max"
    """`max` if higher values are better, `min` if lower ones are."""

    margin: float = 0.0
    """How much better it has to be. A negative margin lets it be worse by that much."""

    alpha: Annotated[float, Field(gt=LEAST_ALPHA, lt=MOST_ALPHA)] = 0.05
    """Probability that a version that is not better by the margin passes. The smaller, the more samples the
    evaluation needs: 5 at least for 0.05, 14 for the smallest.
    """


class LatencyGate(Section):
    """Time of a prediction."""

    percentile: Annotated[float, Field(gt=0, lt=100)] = 99.0
    """Percentile of the predictions."""

    max: PositiveFloat
    """Largest number of milliseconds, of one sample on one core of the machine that checks."""


class SizeGate(Section):
    """Size of the model."""

    max: PositiveFloat
    """Largest number of megabytes (10^6 bytes) of all its files."""


class Gates(Section):
    """What a version has to pass. What is not set is not asked."""

    metrics: dict[MetricName, MetricGate] = Field(default={})
    """Limits of metrics of its evaluation, by names such as `eval/accuracy`."""

    champion: ChampionGate | None = None
    """Better than the version that has the alias, in a rollout than the one that is served. A first version
    passes.
    """

    latency_ms: LatencyGate | None = None
    """Time of a prediction."""

    size_mb: SizeGate | None = None
    """Size of its files."""

    signature: Literal["compatible"] | None = None
    """`compatible`: it answers whatever the version answers that has the alias, in a rollout the one that is
    served.
    """

    card: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """What has to be said of the version in MLflow: `description`, or names of tags."""
