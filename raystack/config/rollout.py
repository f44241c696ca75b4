"""The rollout section: a version that takes the place of another step by step, or goes back by itself."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from raystack.config.follow import Follow
from raystack.config.mesh import Mesh
from raystack.config.names import Alias, ModelReference
from raystack.config.section import ConflictError, Fraction, NonNegativeFloat, NonNegativeInt, Section, Text
from raystack.config.serving import ServedName
from raystack.config.split import Sticky
from raystack.config.telemetry import http_url

OpenFraction = Annotated[float, Field(gt=0, lt=1)]


class RolloutStep(Section):
    """A share of the traffic, and what has to be seen with it before the next step."""

    weight: Fraction
    """Share of the requests that the new version answers. 0 has it answer copies alone, which
    `rollout.analysis.difference` compares.
    """

    min_requests: NonNegativeInt = 200
    """Requests, copies included, that the new version has to answer in this step."""

    min_s: NonNegativeFloat = 10.0
    """Seconds that the step takes at least."""

    pause: bool = False
    """Wait at the end of the step for `raystack rollout resume` or `promote`; the analysis goes on."""


class Errors(Section):
    """Requests that the new version fails to answer: status 500 and above, and lost replicas."""

    ratio: PositiveFloat = 1.0
    """Bound for its rate of errors, as a multiple of that of the version that is served beside it."""

    max: OpenFraction = 0.05
    """Bound for its rate of errors by itself, which holds at weight 1, too."""


class Latency(Section):
    """Time that the new version takes to answer, from a request's arrival in its process."""

    percentile: Annotated[float, Field(ge=50, lt=100)] = 99.0
    """Percentile that is compared."""

    ratio: PositiveFloat = 1.5
    """Bound for its percentile, as a multiple of the one of the version that is served beside it."""

    floor_ms: NonNegativeFloat = 5.0
    """Milliseconds that no bound lies below: what is faster than that is never called slow."""


class Difference(Section):
    """Answers of the new version that differ from those of the one that is served.

    A share of the requests is answered by both, and the client gets the answer of the one that is served.
    """

    share: OpenFraction = 0.01
    """Bound for the share of answers that differ."""

    mirrored: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the requests that both versions answer."""

    max_ongoing: PositiveInt = 4
    """Copies of one replica that are answered at a time; more are not made."""

    rtol: NonNegativeFloat = 1e-3
    """Relative difference of two numbers that counts as none."""

    atol: NonNegativeFloat = 1e-5
    """Absolute difference of two numbers that counts as none."""


class Metric(Section):
    """A number in Prometheus, such as one of the business, within bounds."""

    query: Text
    """Query in PromQL that gives one number. `{model}` and `{version}` stand for the name in the protocol and
    the new version.
    """

    url: Annotated[Text, AfterValidator(http_url)]
    """URL of Prometheus, e.g. `http://prometheus:9090`."""

    min: float | None = None
    """Least value."""

    max: float | None = None
    """Greatest value."""

    broken: PositiveInt = 3
    """Looks in a row, `rollout.analysis.metrics_s` apart, at which the value has to be out of bounds before
    the version goes back.
    """

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ConflictError("has no bound", "query", remedy="add min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ConflictError("should be at most max", "min", "max")
        return self


class Analysis(Section):
    """Comparison of the new version with the one that is served, all the time from the first step on.

    The tests are sequential: however often they look, a version that keeps its bounds is sent back with
    probability `alpha` at most.
    """

    errors: Errors | None = Errors()
    """Bounds of errors. null: they are not judged."""

    latency: Latency | None = Latency()
    """Bound of the latency. null: it is not judged."""

    difference: Difference | None = None
    """Bound of different answers. Not set: answers are not compared."""

    metrics: dict[ServedName, Metric] = Field(default={})
    """Numbers in Prometheus, by names of your choice."""

    metrics_s: PositiveFloat = 10.0
    """Seconds between two looks at the metrics."""

    alpha: OpenFraction = 0.001
    """Probability that a version that keeps all bounds is sent back, over the whole rollout. The tests share
    it equally.
    """

    every_s: PositiveFloat = 1.0
    """Seconds of an interval, after which the counters are read and judged."""


class Rollout(Section):
    """A version that takes the place of the one that is served, step by step; it goes back by itself when it
    breaks a bound of `analysis`.
    """

    model: ModelReference | None = None
    """Version that is rolled out: `models:/name@alias`, as the alias is at the start, or
    `models:/name/version`. Not set: `raystack follow` and `raystack automate` say which.
    """

    name: ServedName | None = None
    """Name in the protocol of the model that it takes the place of. Not set: the one that is served, or of
    several the one of the same registered model.
    """

    alias: Alias | None = None
    """Alias that is moved to the version at the end. Not set: `registry.alias`; without one none is moved."""

    steps: Annotated[tuple[RolloutStep, ...], Field(strict=False)] = (
        RolloutStep(weight=0.05),
        RolloutStep(weight=0.25),
        RolloutStep(weight=0.5),
        RolloutStep(weight=1.0),
    )
    """Steps in their order. Empty: `raystack follow` puts a version in the place of the other at once."""

    analysis: Analysis = Analysis()
    """What is compared, and its bounds."""

    sticky: Sticky | None = None
    """Key by which requests stay with a version: those that have it go to the same one."""

    patience_s: PositiveFloat = 600.0
    """Seconds after which a step that has too few requests, or lacks a metric, pauses the rollout."""

    follow: Follow | None = None
    """Start of a rollout when an alias moves in MLflow, by `raystack follow`."""

    mesh: Mesh | None = None
    """Who splits the requests in the manifests of `raystack render --as rollout`. Not set: Ray Serve does,
    inside one RayService.
    """

    @model_validator(mode="after")
    def _up(self) -> Self:
        weights = [step.weight for step in self.steps]
        if weights != sorted(weights):
            rule, remedy = "should have steps whose weights do not go down", "order them"
            raise ConflictError(rule, "steps", remedy=remedy)
        mirrors = self.analysis.difference is not None
        for number, step in enumerate(self.steps, 1):
            if step.weight == 0 and step.min_requests and not mirrors:
                rule = f"has nothing to see in step {number}, of weight 0"
                remedy = "set rollout.analysis.difference, or a weight"
                raise ConflictError(rule, "steps", remedy=remedy)
        return self
