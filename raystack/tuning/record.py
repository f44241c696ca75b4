"""The record of a study: one JSON file per trial, and what they all belong to, below the study's folder.

It is the study's only memory: the search, the scheduler and the limits are restored from it, and everything
that is shown is made of it. A trial's file is rewritten as a whole at each change, so that any storage can
hold it.

```
<storage>/studies/<name>/
  study.json          format, first start, fingerprint of the space
  seconds             wall time over all starts
  config.yaml         the resolved config
  trials/<id>.json    one Trial each
  runs/<id>/          a run folder: checkpoints
  optuna.log          the journal of Optuna's samplers
  best.yaml           the best trial's config, which `raystack train` takes
  report.html
```
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from raystack import strict_json
from raystack.errors import ConfigError, Problem
from raystack.plan.tuning import Objective, TunePlan
from raystack.storage import Storage

FORMAT = 1
STUDY, TRIALS, BEST, PAGE, JOURNAL = "study.json", "trials", "best.yaml", "report.html", "optuna.log"
SECONDS = "seconds"

Status = Literal["running", "finished", "pruned", "infeasible", "failed", "stopped"]
"""Status of a trial.

`running` also after a driver that was killed: such a trial goes on with the study. `stopped`: by a limit of
the study, with a checkpoint.
"""


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


class Report(_Value):
    """What a trial reported after an evaluation."""

    number: int
    """From 1, over all attempts of the trial."""
    step: int
    """Optimizer steps done."""
    seconds: float
    """Seconds that the trial has run, over all attempts."""
    metrics: Annotated[dict[str, float], BeforeValidator(strict_json.numbers)]
    """Metrics of the evaluation, and the latest of the training; null in the file is NaN."""
    order: int
    """Position among all reports of the study, from 0."""


class Exploit(_Value):
    """A trial of a population that took over another one's checkpoint."""

    report: int
    """Number of the trial's last report before."""
    donor: int
    """Number of the trial that it was taken from."""
    step: int
    """Optimizer step of the checkpoint."""
    point: dict[str, Any]
    """The trial's point from then on."""


class Trial(_Value):
    """One trial."""

    number: int
    """From 0, in the order of suggestion."""
    id: str
    """`<study>-<number>`: also the name of its run folder and of its MLflow run."""
    point: dict[str, Any]
    """The values that were tried; of a population's trial the present ones."""
    status: Status = "running"
    reason: str | None = None
    """Why it is infeasible or failed, in one line."""
    reports: list[Report] = Field(default_factory=list)
    exploits: list[Exploit] = Field(default_factory=list)
    started: float | None = None
    """Seconds since 1970; None until it runs."""
    seconds: float = 0.0
    """Seconds that it has run, over all attempts."""
    workers: int = 1
    resources: dict[str, float] = Field(default_factory=dict)
    """Ray resources of all its workers together."""
    given: bool = False
    """True for a known-good point of the config."""

    @property
    def over(self) -> bool:
        return self.status != "running"

    @property
    def steps(self) -> int:
        """Optimizer steps done, as far as they were reported."""
        return self.reports[-1].step if self.reports else 0

    def last(self, metric: str) -> float | None:
        """Return the latest value of a metric, or None."""
        return next((each.metrics[metric] for each in reversed(self.reports) if metric in each.metrics), None)

    def best(self, objective: Objective) -> float | None:
        """Return the best value of an objective over the reports, of those that are finite."""
        values = [each.metrics[objective.metric] for each in self.reports if objective.metric in each.metrics]
        numbers = [value for value in values if math.isfinite(value)]
        return (max if objective.mode == "max" else min)(numbers, default=None)


class StudyStore:
    """The files of a study. All methods raise as Storage does."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.storage = Storage(folder)

    def exists(self) -> bool:
        """Return whether there is a study."""
        return STUDY in self.storage.names()

    def create(self, plan: TunePlan) -> None:
        """Begin a study."""
        if self.storage.local:
            self.storage.make(TRIALS)
        head = {
            "format": FORMAT,
            "name": plan.name,
            "first_start": plan.run_id,
            "fingerprint": fingerprint(plan),
        }
        self.storage.write(STUDY, json.dumps(head, indent=2))

    def check(self, plan: TunePlan) -> None:
        """Raise ConfigError if the study there is another one than the plan's."""
        head = self._head()
        if head.get("fingerprint") != fingerprint(plan):
            rule = "there is a study of that name with another space, metric, search or scheduler"
            remedy = "give this one another tuning.name, or go back to that space"
            raise ConfigError(Problem("tuning.name", rule=rule, got=plan.name, remedy=remedy))

    def first_start(self) -> str:
        """Return the run id of the study's first start, which no other study has."""
        return str(self._head()["first_start"])

    def seconds(self) -> float:
        """Return the wall time of the study over all its starts, in seconds."""
        return float(self.storage.read(SECONDS)) if SECONDS in self.storage.names() else 0.0

    def spend(self, seconds: float) -> None:
        """Write the wall time of the study."""
        self.storage.write(SECONDS, f"{seconds:.1f}")

    def trials(self) -> list[Trial]:
        """Return all trials, by number. Raises ConfigError if a file is damaged or of another version."""
        self._head()
        return sorted(map(self._read, self.storage.names(TRIALS)), key=lambda trial: trial.number)

    def write(self, trial: Trial) -> None:
        """Write a trial."""
        self.storage.write(f"{TRIALS}/{trial.id}.json", trial.model_dump_json(indent=1))

    def write_trace(self, trial: Trial, text: str) -> None:
        """Write the way through the task's code to a trial's error, beside its checkpoints."""
        if self.storage.local:
            self.storage.make(f"runs/{trial.id}")
        self.storage.write(f"runs/{trial.id}/error.txt", text)

    def _head(self) -> dict[str, Any]:
        where = f"{self.folder}/{STUDY}"
        try:
            text = self.storage.read(STUDY)
        except FileNotFoundError:
            raise ConfigError(
                Problem(where, rule="there is no such study", remedy="`raystack tune ls` lists them")
            ) from None
        try:
            head: Any = json.loads(text)
        except ValueError:
            head = None
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            got = None if not isinstance(head, dict) else str(head.get("format"))
            rule = f"the folder of a study has format {FORMAT}, that of this version of raystack"
            raise ConfigError(Problem(where, rule=rule, got=got, remedy="give the study another tuning.name"))
        return head

    def _read(self, name: str) -> Trial:
        try:
            return Trial.model_validate_json(self.storage.read(f"{TRIALS}/{name}"))
        except ValidationError as error:
            rule = f"this file of a trial is damaged: {error.errors()[0]['msg']}"
            where = f"{self.folder}/{TRIALS}/{name}"
            raise ConfigError(Problem(where, rule=rule, remedy="delete it; the trial is then lost")) from None


def fingerprint(plan: TunePlan) -> str:
    """Return a hash of what has to be the same for a study to go on: what is searched, and how."""
    tuning = plan.tuning.model_dump(
        mode="json", include={"space", "metric", "mode", "search", "scheduler", "constraints"}
    )
    tuning["search"].pop("storage", None)  # where Optuna keeps it, which may change
    return hashlib.sha256(json.dumps(tuning, sort_keys=True).encode()).hexdigest()[:16]


def feasible(trial: Trial, plan: TunePlan) -> bool:
    """Return whether the trial's last report keeps the constraints."""
    for metric, bound in plan.tuning.constraints.items():
        value = trial.last(metric)
        if value is None or not (
            (bound.min is None or value >= bound.min) and (bound.max is None or value <= bound.max)
        ):
            return False
    return True


def value(trial: Trial, objective: Objective, plan: TunePlan) -> float | None:
    """Return what a trial is compared by: the value of the checkpoint that it leaves. None without one.

    That is the last report, or the best one if `training.checkpoint.keep_best` keeps it by this metric.
    """
    best = plan.config.training.checkpoint.keep_best
    if best is not None and best.metric == objective.metric:
        return trial.best(objective)
    last = trial.last(objective.metric)
    return last if last is not None and math.isfinite(last) else None


def ranked(trials: Iterable[Trial], plan: TunePlan) -> list[Trial]:
    """Return the trials with a value that keep the constraints, the best first; for one objective."""
    (objective, *_) = plan.objectives
    sign = -1 if objective.mode == "max" else 1
    valued = [
        (sign * number, trial.number, trial)
        for trial in trials
        if feasible(trial, plan) and (number := value(trial, objective, plan)) is not None
    ]
    return [trial for *_, trial in sorted(valued, key=lambda one: one[:2])]


def pareto(trials: Sequence[Trial], plan: TunePlan) -> list[Trial]:
    """Return the trials that no other one beats in all objectives, in order of number."""
    costs = []
    for trial in trials:
        values = [value(trial, each, plan) for each in plan.objectives]
        signed = [
            number if each.mode == "min" else -number
            for number, each in zip(values, plan.objectives, strict=True)
            if number is not None
        ]
        if len(signed) == len(values) and feasible(trial, plan):
            costs.append((trial, signed))
    return [
        trial
        for trial, cost in costs
        if not any(
            all(a <= b for a, b in zip(other, cost, strict=True)) and other != cost for _, other in costs
        )
    ]
