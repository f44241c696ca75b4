"""TunePlan -> KatibPlan: a study as Kubeflow's Katib runs it, in Katib's own terms.

Katib has its own search and its own early stopping, and each trial is a training of its own. What Katib
cannot do as the config says it is a PlanError that names the key. The facts are those of Katib 0.19.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from raystack.config import RunConfig
from raystack.config.overrides import parse
from raystack.config.tuning import CmaEs, Gp, Grid, Median, Tpe, Tuning
from raystack.errors import PlanError, Problem
from raystack.plan.space import Dimension
from raystack.plan.tuning import Objective, TunePlan

PARALLEL = 3
"""Trials at once where the config does not say it; Katib's own default."""
PLAIN = re.compile(r"[\w.:/@+\-\[\]{},]+", re.ASCII)
"""What survives Katib, which puts values into JSON and into a shell command as they are."""
LIMITS = ("seconds", "worker_hours", "plateau")


@dataclass(frozen=True)
class Parameter:
    """A path of the space as Katib samples it."""

    path: str
    type: Literal["double", "int", "discrete", "categorical"]
    feasible: Mapping[str, Any]
    """Katib's `feasibleSpace`."""
    overrides: tuple[str, ...]
    """Overrides of the trial's command, with a placeholder for the value."""


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of Katib, and its settings as text."""

    name: str
    settings: Mapping[str, str]


@dataclass(frozen=True)
class KatibPlan:
    """A study for Katib."""

    objective: Objective
    strategy: Literal["min", "max", "latest"]
    """Which of a trial's values counts."""
    parameters: tuple[Parameter, ...]
    search: Algorithm
    stopping: Algorithm | None
    trials: int
    parallel: int
    failures: int
    config: RunConfig
    """The config of a trial without its point."""


def plan_katib(plan: TunePlan) -> KatibPlan:
    """Return the plan. Raises PlanError with all that Katib cannot do."""
    tuning = plan.tuning
    found = [*_study_problems(plan), *_search_problems(plan)]
    found += [problem for each in plan.space for problem in _space_problems(each, tuning)]
    if found:
        raise PlanError(found)
    (objective,) = plan.objectives
    every = prod(len(each.choices) for each in plan.space) if isinstance(tuning.search, Grid) else plan.trials
    trials = min(plan.trials, every)
    best = plan.config.training.checkpoint.keep_best
    return KatibPlan(
        objective=objective,
        strategy=objective.mode if best is not None and best.metric == objective.metric else "latest",
        parameters=tuple(map(_parameter, plan.space)),
        search=_search(tuning, plan.seed),
        stopping=_stopping(tuning),
        trials=trials,
        parallel=min(tuning.parallel or PARALLEL, trials),
        failures=min(tuning.limits.failures, trials),
        config=_without_publication(plan.config),
    )


def _without_publication(config: RunConfig) -> RunConfig:
    """Return the config of a trial: it registers no model and searches nothing."""
    registry = config.registry.model_copy(update={"model": None, "alias": None})
    return config.model_copy(update={"tuning": None, "registry": registry})


def _parameter(dimension: Dimension) -> Parameter:
    path = dimension.path
    placeholder = f"${{trialParameters.{path}}}"
    if not dimension.choices:
        kind: Literal["double", "int"] = "int" if dimension.integer else "double"
        return Parameter(path, kind, _range(dimension), (f"{path}={placeholder}",))
    values = _values(dimension)
    # A mapping would be merged into the one that is there.
    whole = [f"~{_target(dimension)}"] if any(isinstance(value, dict) for value in values) else []
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return Parameter(
        path,
        "discrete" if numbers else "categorical",
        {"list": [as_text(value) for value in values]},
        (*whole, f"{_target(dimension)}={placeholder}"),
    )


def _range(dimension: Dimension) -> dict[str, Any]:
    low, high = dimension.low, dimension.high
    distribution = "logUniform" if dimension.log else "uniform"
    if dimension.kind == "normal":
        # Katib takes the middle of the range as mean, and a sixth of it as standard deviation.
        distribution, low, high = "normal", low - 3 * high, low + 3 * high
    step = 1.0 if dimension.integer and dimension.step is None else dimension.step
    number = int if dimension.integer else float
    return {
        "min": str(number(low)),
        "max": str(number(high)),
        **({"step": str(number(step))} if step is not None else {}),
        "distribution": distribution,
    }


def _target(dimension: Dimension) -> str:
    """Return the path that the override sets: of a group, that of its section."""
    return next(iter(dimension.sections[dimension.choices[0]])) if dimension.sections else dimension.path


def _values(dimension: Dimension) -> list[Any]:
    if dimension.sections is None:
        return list(dimension.choices)
    return [next(iter(dimension.sections[name].values())) for name in dimension.choices]


def as_text(value: Any) -> str:
    """Return a value as an override has it, without blanks."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{','.join(map(as_text, value))}]"
        case Mapping():
            return f"{{{','.join(f'{key}:{as_text(inner)}' for key, inner in value.items())}}}"
    return str(value)


def _arrives(value: Any) -> bool:
    """Return whether the trial's command reads the text back as the value."""
    text = as_text(value)
    parsed, problems = parse([f"x={text}"]) if PLAIN.fullmatch(text) else ([], [])
    return bool(parsed) and not problems and _lists(parsed[0].value()) == _lists(value)


def _lists(value: Any) -> Any:
    """Return the value with its type beside each number, since 1, 1.0 and True are equal."""
    match value:
        case list() | tuple():
            return [_lists(inner) for inner in value]
        case Mapping():
            return {key: _lists(inner) for key, inner in value.items()}
    return type(value), value


def _space_problems(each: Dimension, tuning: Tuning) -> Iterator[Problem]:
    where = f"tuning.space.{each.path}"
    if each.when:
        rule = "Katib samples every parameter in every trial, without conditions"
        yield Problem(f"{where}.when", rule=rule, remedy="make two studies of it, or use raystack tune")
    paths = {path for section in (each.sections or {}).values() for path in section} or {each.path}
    if any(path.partition(".")[0] == "resources" for path in paths):
        rule = "the pods of a trial are fixed in Katib's template"
        yield Problem(where, rule=rule, remedy="leave it out, or use raystack tune")
    if len(paths) > 1:
        rule, got = "the choices of a group for Katib set one section", ", ".join(sorted(paths))
        yield Problem(where, rule=rule, got=got)
    elif lost := [value for value in _values(each) if not _arrives(value)]:
        rule = "Katib puts values into a command as they are, which this one does not survive"
        yield Problem(where, rule=rule, got=str(lost[0]), remedy="use plain words, numbers and lists of them")
    if not each.choices and not _drawn(each, tuning):
        rule = f"Katib's service for {tuning.search.kind} draws such numbers in another way"
        yield Problem(where, rule=rule, got=each.kind, remedy="use tuning=random, or another domain")


def _drawn(each: Dimension, tuning: Tuning) -> bool:
    """Return whether the service behind Katib's algorithm draws from that very distribution."""
    match tuning.search:
        case Tpe(multivariate=True):
            return each.kind != "normal"
        case CmaEs():  # uniformly, whatever is said
            return not each.log and each.kind != "normal"
        case Gp():  # numbers uniformly in the logarithm, and whole ones one by one
            return not each.log and each.step in (None, 1.0) if each.integer else each.log
    return True


def _study_problems(plan: TunePlan) -> Iterator[Problem]:
    """Yield settings of the study that would have no effect."""
    tuning, remedy = plan.tuning, "drop it, or use raystack tune"
    if len(plan.objectives) > 1:
        got = ", ".join(each.metric for each in plan.objectives)
        yield Problem("tuning.metric", rule="Katib optimises one metric", got=got, remedy="name one")
    for name in ("constraints", "points", "warm_start"):
        if getattr(tuning, name):
            yield Problem(f"tuning.{name}", rule="Katib has nothing of the kind", remedy=remedy)
    for name in LIMITS:
        if getattr(tuning.limits, name) is not None:
            yield Problem(f"tuning.limits.{name}", rule="Katib has no such limit", remedy=remedy)
    scheduler = tuning.scheduler.kind
    if scheduler not in ("fifo", "median"):
        rule = "Katib stops trials early by the median only"
        yield Problem("tuning.scheduler", rule=rule, got=scheduler, remedy="use tuning=median")


def _search_problems(plan: TunePlan) -> Iterator[Problem]:
    """Yield settings of the search that Katib's service of that name does not have."""
    search, where = plan.tuning.search, "tuning.search"
    if getattr(search, "storage", None) is not None:
        yield Problem(f"{where}.storage", rule="Katib stores its experiments itself", remedy="drop it")
    if isinstance(search, Tpe) and not search.multivariate and search.startup != Tpe(kind="tpe").startup:
        rule = "Katib's univariate tpe starts with as many random trials as run at once"
        yield Problem(f"{where}.startup", rule=rule, got=str(search.startup), remedy="set tuning.parallel")
    if isinstance(search, CmaEs):
        if search.startup != CmaEs(kind="cmaes").startup:
            rule = "Katib's cmaes begins without random trials"
            yield Problem(f"{where}.startup", rule=rule, got=str(search.startup), remedy="drop it")
        if len(plan.space.dimensions) < 2:
            rule = "Katib's cmaes needs two paths at least"
            yield Problem("tuning.space", rule=rule, got=str(len(plan.space.dimensions)))
    if isinstance(search, Gp) and search.deterministic:
        rule = "Katib's Gaussian process always allows for noise"
        yield Problem(f"{where}.deterministic", rule=rule, got="true", remedy="drop it")


def _search(tuning: Tuning, seed: int) -> Algorithm:
    search, state = tuning.search, {"random_state": str(seed)}
    match search:
        case Tpe(multivariate=True):
            counts = {"n_startup_trials": str(search.startup), "n_ei_candidates": str(search.candidates)}
            return Algorithm("multivariate-tpe", {**counts, **state})
        case Tpe():
            return Algorithm("tpe", {"n_EI_candidates": str(search.candidates), **state})
        case CmaEs():
            return Algorithm("cmaes", {**({"sigma": str(search.sigma)} if search.sigma else {}), **state})
        case Gp():
            model = {"base_estimator": "GP", "n_initial_points": str(search.startup), "acq_func": "EI"}
            return Algorithm("bayesianoptimization", {**model, **state})
    return Algorithm(search.kind, state)


def _stopping(tuning: Tuning) -> Algorithm | None:
    scheduler = tuning.scheduler
    if not isinstance(scheduler, Median):
        return None
    settings = {"min_trials_required": str(scheduler.min_trials), "start_step": str(scheduler.grace)}
    return Algorithm("medianstop", settings)
