"""Results of an earlier study or of MLflow runs, as trials of this study's space."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from raystack.config import from_mapping
from raystack.config.fields import at
from raystack.errors import ConfigError, PlanError, Problem
from raystack.plan.space import Point, plan_space
from raystack.plan.tuning import TunePlan, study_paths
from raystack.tuning.record import Report, StudyStore, Trial, value
from raystack.tuning.search.domain import completed

STUDY, MLFLOW = "tuning.warm_start.study", "tuning.warm_start.mlflow"


@dataclass(frozen=True)
class Earlier:
    """What a search begins with."""

    trials: tuple[Trial, ...]
    """Finished, with a point of this study's space and all its metrics."""
    note: str
    """For the user: how many there are, and how many were left out."""


@dataclass(frozen=True)
class _Past:
    """A training that finished."""

    id: str
    point: Point
    """Points of the earlier study, for the names of its groups' choices."""
    value_at: Callable[[str], Any]
    """What its config had at a path."""
    reports: list[Report]


def earlier_trials(plan: TunePlan) -> Earlier | None:
    """Return what the config's `warm_start` names; None if it names nothing.

    Raises PlanError if there is no such study or experiment, LaunchError if MLflow does not answer.
    """
    wanted = plan.tuning.warm_start
    if wanted is None:
        return None
    past = list(_study(plan, wanted.study) if wanted.study else _experiment(plan, wanted.mlflow or ""))
    told = [trial for number, one in enumerate(past) if (trial := _trial(plan, number, one)) is not None]
    name = f"study {wanted.study}" if wanted.study else f"MLflow experiment {wanted.mlflow}"
    note = f"the search begins with {len(told)} finished trials of {name}"
    if len(told) < len(past):
        left_out = len(past) - len(told)
        note += f"; {left_out} others are outside of the space, or have no {_metrics(plan)}"
    return Earlier(tuple(told), note)


def _trial(plan: TunePlan, number: int, past: _Past) -> Trial | None:
    point = completed(plan.space, past.point, past.value_at)
    if point is None:
        return None
    trial = Trial(number=number, id=past.id, point=point, status="finished", reports=past.reports)
    known = all(value(trial, each, plan) is not None for each in plan.objectives)
    return trial if known else None


def _study(plan: TunePlan, name: str) -> Iterator[_Past]:
    if name == plan.name:
        remedy = "name another study, or leave it out: a study goes on by itself"
        raise PlanError(Problem(STUDY, rule="a study cannot begin with itself", got=name, remedy=remedy))
    store = StudyStore(study_paths(plan.config.experiment.storage, name).folder)
    try:
        trials = store.trials()
        before = plan_space(from_mapping(yaml.safe_load(store.storage.read("config.yaml"))))
    except (ConfigError, PlanError) as error:
        problem = error.problems[0]
        raise PlanError(Problem(STUDY, rule=problem.rule, got=name, remedy=problem.remedy)) from None
    except FileNotFoundError:
        raise PlanError(Problem(STUDY, rule="this study has no config.yaml", got=name)) from None
    for trial in trials:
        if trial.status == "finished":
            yield _Past(trial.id, trial.point, partial(before.value, point=trial.point), trial.reports)


def _experiment(plan: TunePlan, name: str) -> Iterator[_Past]:
    uri = plan.tracking_uri
    if uri is None:
        rule, remedy = "its runs are in MLflow, and tracking is off", "use tracking=local, or leave it out"
        raise PlanError(Problem(MLFLOW, rule=rule, got=name, remedy=remedy))
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise PlanError(Problem(MLFLOW, rule=f"there is no MLflow store at {uri} yet", got=name))
    from raystack.registry.history import finished_runs  # imports MLflow

    for run in finished_runs(uri, plan.config.tracking, name, MLFLOW):
        config = _nested(run.params)
        report = Report(number=1, step=0, seconds=0.0, metrics=dict(run.metrics), order=0)
        yield _Past(run.id, {}, partial(_at, config), [report])


def _at(config: Mapping[str, Any], path: str) -> Any:
    return at(config, tuple(path.split(".")))


def _nested(params: Mapping[str, str]) -> dict[str, Any]:
    """Return the config that `registry.recording.flatten` made params of."""
    config: dict[str, Any] = {}
    for key, text in params.items():
        *parents, last = key.split(".")
        node = config
        for name in parents:
            inner = node.setdefault(name, {})
            node = inner if isinstance(inner, dict) else {}
        node[last] = _parsed(text)
    return config


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _metrics(plan: TunePlan) -> str:
    return " and ".join(each.metric for each in plan.objectives)
