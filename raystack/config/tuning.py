"""The tuning section: what is searched, how, with which schedule of trials, and until when."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from raystack.config.names import MetricName
from raystack.config.secret import no_password
from raystack.config.section import ConflictError, Pattern, Section, Text, kind_or
from raystack.config.space import Domain

NonNegativeInt = Annotated[int, Field(ge=0)]
Mode = Literal["min", "max"]
Share = Annotated[float, Field(gt=0, le=0.5)]
Probability = Annotated[float, Field(ge=0, le=1)]
_NAME = "should be 1 to 60 lower case letters, digits and dashes, with no dash at either end"
OptunaUrl = Annotated[Text, AfterValidator(no_password)]
StudyName = Annotated[str, Pattern(r"^[a-z0-9]([a-z0-9-]{0,58}[a-z0-9])?$", _NAME)]


class Random(Section):
    """Independent random points."""

    kind: Literal["random"] = "random"
    """Trial n draws from the experiment's seed and n alone, so parallel studies draw the same."""


class Grid(Section):
    """Every combination of the domains' values."""

    kind: Literal["grid"]
    """All domains have to be `grid`, `choice` or `group`."""


class Tpe(Section):
    """Optuna's Tree-structured Parzen Estimator (Bergstra et al. 2011)."""

    kind: Literal["tpe"]
    """Models good and other points by two densities, and draws where their ratio is highest."""

    startup: PositiveInt = 10
    """Random trials before the model is used."""

    candidates: PositiveInt = 24
    """Points that are drawn and compared for each trial."""

    multivariate: bool = True
    """Model the paths together instead of one by one."""

    storage: OptunaUrl | None = None
    """Optuna storage that holds the study too, e.g. `sqlite:////shared/optuna.db`, which
    `optuna-dashboard` opens; `secret:env:NAME` for a URL with a password. Not set: `optuna.log` in the
    study's own folder.
    """


class CmaEs(Section):
    """Optuna's CMA-ES (Hansen & Ostermeier 2001), for numbers."""

    kind: Literal["cmaes"]
    """Covariance matrix adaptation; needs the package cmaes. Paths that are no numbers are refused."""

    startup: PositiveInt = 1
    """Random trials before the first generation; earlier ones of a warm start count."""

    sigma: PositiveFloat | None = None
    """Initial standard deviation, as a share of each range. Not set: a sixth."""

    storage: OptunaUrl | None = None
    """As for `tpe`."""


class Gp(Section):
    """Optuna's Gaussian process with expected improvement."""

    kind: Literal["gp"]
    """Suits few, costly trials. Conditions between paths are refused."""

    startup: PositiveInt = 10
    """Random trials before the model is used."""

    deterministic: bool = False
    """The objective has no noise."""

    storage: OptunaUrl | None = None
    """As for `tpe`."""


class Fifo(Section):
    """Every trial runs to its end."""

    kind: Literal["fifo"] = "fifo"
    """No early stopping."""


class Asha(Section):
    """Asynchronous successive halving (Li et al. 2020): `ray.tune.schedulers.ASHAScheduler`."""

    kind: Literal["asha"]
    """A trial is pruned at a rung if it is not among the best 1/reduction of those that reached it."""

    grace: PositiveInt = 1
    """Reports before the first rung. A trial reports after each evaluation."""

    reduction: Annotated[int, Field(ge=2)] = 3
    """Rungs are at grace, grace x reduction, grace x reduction^2, ... reports."""

    brackets: PositiveInt = 1
    """Number of brackets, each with a longer grace."""


class HyperBand(Section):
    """HyperBand (Li et al. 2018): `ray.tune.schedulers.HyperBandScheduler`."""

    kind: Literal["hyperband"]
    """Brackets of trials are halved together, so trials pause with a checkpoint at each rung."""

    max_reports: Annotated[int, Field(ge=2)] = 81
    """Reports of a trial that is never pruned."""

    reduction: Annotated[int, Field(ge=2)] = 3
    """The best 1/reduction of a bracket goes on."""


class Median(Section):
    """Median stopping (Golovin et al. 2017): `ray.tune.schedulers.MedianStoppingRule`."""

    kind: Literal["median"]
    """A trial is pruned if its best report is below the median of the others' running means."""

    grace: PositiveInt = 1
    """Reports before a trial may be pruned."""

    min_trials: PositiveInt = 3
    """Trials that must have reported as much."""


class Pbt(Section):
    """Population based training (Jaderberg et al. 2017)."""

    kind: Literal["pbt"]
    """Bad trials take over the checkpoint and the perturbed point of good ones:
    `ray.tune.schedulers.PopulationBasedTraining`. `trials` is the population.
    """

    every: PositiveInt = 1
    """Reports between two perturbations."""

    quantile: Share = 0.25
    """Share of the population that is replaced, and from which it is replaced."""

    resample: Probability = 0.25
    """Probability of a new draw from the domain instead of a factor of 0.8 or 1.2, or a neighbour."""

    perturb: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Paths of the space that may change during a trial, below `training`. Empty: those below
    `training.optimizer`.
    """


class Pb2(Section):
    """Population based bandits (Parker-Holder et al. 2020): `ray.tune.schedulers.pb2.PB2`."""

    kind: Literal["pb2"]
    """As `pbt`, with a Gaussian process that chooses the new values; needs the packages GPy and sklearn."""

    every: PositiveInt = 1
    """Reports between two perturbations."""

    quantile: Share = 0.25
    """Share of the population that is replaced, and from which it is replaced."""

    perturb: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """As for `pbt`; `uniform` and `loguniform` domains only."""


class Plateau(Section):
    """The end of a study that does not get better."""

    trials: PositiveInt = 10
    """Trials in a row without a new best value."""

    min_change: Annotated[float, Field(ge=0)] = 0.0
    """What a new best value has to be better by, in the metric's unit."""


class Limits(Section):
    """Ends of a study besides its number of trials. What runs then is stopped with a checkpoint."""

    seconds: PositiveFloat | None = None
    """Wall time of the study over all its starts."""

    worker_hours: PositiveFloat | None = None
    """Hours of all workers of all trials together: GPU-hours, if a worker has a GPU."""

    failures: NonNegativeInt = 3
    """Failed trials after which the study ends with an error. Infeasible ones do not count."""

    plateau: Plateau | None = None
    """End when the best value stays the same."""


class Bound(Section):
    """A constraint on a metric."""

    min: float | None = None
    """At least this."""

    max: float | None = None
    """At most this."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.min is None and self.max is None:
            raise ConflictError("should have min or max", "min")
        return self


class WarmStart(Section):
    """Earlier results that the search begins with."""

    study: StudyName | None = None
    """An earlier study of the same storage."""

    mlflow: Text | None = None
    """An MLflow experiment, whose finished runs have the space's paths as params and the metric."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.study is None) == (self.mlflow is None):
            raise ConflictError("should name either a study or an MLflow experiment", "study", "mlflow")
        return self


Search = Annotated[
    Annotated[Random | Grid | Tpe | CmaEs | Gp, Field(discriminator="kind")], kind_or("random")
]
Scheduler = Annotated[
    Annotated[Fifo | Asha | HyperBand | Median | Pbt | Pb2, Field(discriminator="kind")], kind_or("fifo")
]


class Tuning(Section):
    """A study: trials of one experiment over a space of its config."""

    name: StudyName | None = None
    """Name of the study, and of its folder below `experiment.storage`/studies. Not set: the experiment's."""

    metric: MetricName | Annotated[tuple[MetricName, ...], Field(strict=False, min_length=2)] | None = None
    """Metric of an evaluation that is optimised, e.g. `eval/accuracy`; a list for several at once."""

    mode: Mode | Annotated[tuple[Mode, ...], Field(strict=False)] = "max"
    """`min` if lower values are better, `max` if higher ones are; a list if there are several metrics."""

    trials: PositiveInt | None = None
    """Number of trials, infeasible ones not counted. Not set: 10, or all points of a grid."""

    parallel: PositiveInt | None = None
    """Trials that run at the same time. Not set: as many as the resources hold."""

    space: dict[Text, Domain] = Field(default={})
    """What is searched: dotted paths of the config, each with a domain."""

    search: Search = Random()
    """The search algorithm, usually chosen by a config group."""

    scheduler: Scheduler = Fifo()
    """The early stopping of trials, usually chosen by a config group."""

    limits: Limits = Limits()
    """Ends of the study besides the number of trials."""

    constraints: dict[MetricName, Bound] = Field(default={})
    """Bounds of other metrics that the best trial has to keep."""

    points: Annotated[tuple[dict[Text, Any], ...], Field(strict=False)] = ()
    """Known-good points that are tried first: paths with values. A path that is missing keeps the config's
    own value.
    """

    warm_start: WarmStart | None = None
    """Earlier results that the search begins with."""

    keep: PositiveInt = 1
    """Number of best trials whose checkpoints are kept."""

    @model_validator(mode="after")
    def _as_many_modes(self) -> Self:
        metrics = len(self.metric) if isinstance(self.metric, tuple) else 1
        if isinstance(self.mode, tuple) and len(self.mode) != metrics:
            rule = f"should have a mode for each of the {metrics} metrics"
            raise ConflictError(rule, "mode", "metric")
        if metrics > 1 and self.scheduler.kind != "fifo":
            rule = "early stopping compares trials by one metric"
            raise ConflictError(rule, "scheduler", "metric", remedy="use one metric, or no scheduler")
        return self
