"""RunConfig -> TunePlan: all that can be decided about a study before it starts; and a trial -> TrainPlan."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from raystack.config import RunConfig
from raystack.config.point import with_values
from raystack.config.training import Training
from raystack.config.tuning import Mode, Tuning
from raystack.errors import PlanError, Problem
from raystack.plan.costs import plan_costs
from raystack.plan.naming import RunPaths, run_paths
from raystack.plan.scale import Workers
from raystack.plan.space import Dimension, Point, Space, plan_space
from raystack.plan.training import TrainPlan, plan_tracking, plan_training

INIT_FROM = "training.init_from"
TRIALS = 10
"""Number of trials where the config gives none and the space has no end."""
PAUSING = ("hyperband", "median", "pbt", "pb2")
"""Schedulers that stop a trial at a report and let it go on, for which each report needs a checkpoint."""


@dataclass(frozen=True)
class Objective:
    """A metric, and which way it is better."""

    metric: str
    mode: Mode


@dataclass(frozen=True)
class TunePlan:
    """The plan of a study: the value that `--dry-run` prints and that is executed."""

    run_id: str
    """Id of this start of the study, under which it is submitted."""
    name: str
    """Name of the study."""
    paths: RunPaths
    """The study's folder, `<storage>/studies/<name>`, and the files in it."""
    seed: int
    space: Space
    objectives: tuple[Objective, ...]
    trials: int
    """Number of trials that are not infeasible."""
    tuning: Tuning
    """The config's own section, for all that needs no decision."""
    base: TrainPlan
    """The training without a point."""
    tracking_uri: str | None
    """MLflow tracking URI; None: nothing is tracked."""
    artifacts: str | None
    """Artifact folder of the embedded MLflow store; None: the server decides."""
    config: RunConfig

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.config.experiment.name

    @property
    def workers(self) -> Workers:
        """The workers of a trial whose point does not change them."""
        return self.base.workers


def init_sources(plan: TunePlan) -> list[str]:
    """Return the sources of `training.init_from` that trials may have: of the config, and of the space."""
    config = plan.base.training.init_from
    found = [config.source] if config is not None else []
    for dimension in plan.space.dimensions:
        if dimension.path in (INIT_FROM, f"{INIT_FROM}.source"):
            sections = (each if isinstance(each, dict) else {"source": each} for each in dimension.choices)
            found += [each["source"] for each in sections if isinstance(each.get("source"), str)]
    return list(dict.fromkeys(found))


def plan_tuning(config: RunConfig, run_id: str) -> TunePlan:
    """Decide on a study; raise PlanError if the config cannot be met."""
    tuning = config.tuning
    if tuning is None or not tuning.space or tuning.metric is None:
        missing = "space" if tuning is None or not tuning.space else "metric"
        remedy = "name paths with domains" if missing == "space" else "name a metric of the evaluation"
        raise PlanError(Problem(f"tuning.{missing}", rule="a study needs one", remedy=remedy))
    if config.resources.launcher == "processes":
        rule, remedy = "the trials of a study are placed by Ray", "set resources.launcher=ray"
        raise PlanError(Problem("resources.launcher", rule=rule, got="processes", remedy=remedy))
    if limits := plan_costs(config).limits:
        rule, remedy = (
            "a study has limits of its own",
            "set tuning.limits.seconds or worker_hours, and drop it",
        )
        raise PlanError(
            Problem(each.key, rule=rule, got=f"{each.amount:g}", remedy=remedy) for each in limits
        )
    space = plan_space(config)
    _check_search(tuning, space)
    _check_scheduler(tuning, config.training, space)
    if config.training.batch.micro == "auto":
        rule, remedy = (
            "measuring the model for every trial would take longer than many a trial",
            "give a size",
        )
        raise PlanError(Problem("training.batch.micro", rule=rule, got="auto", remedy=remedy))
    metrics = tuning.metric if isinstance(tuning.metric, tuple) else (tuning.metric,)
    modes = tuning.mode if isinstance(tuning.mode, tuple) else (tuning.mode,) * len(metrics)
    uri, artifacts = plan_tracking(config)
    name = tuning.name or config.experiment.name
    return TunePlan(
        run_id=run_id,
        name=name,
        paths=study_paths(config.experiment.storage, name),
        seed=config.experiment.seed,
        space=space,
        objectives=tuple(Objective(*pair) for pair in zip(metrics, modes, strict=True)),
        trials=tuning.trials or _all_points(tuning, space) or TRIALS,
        tuning=tuning,
        base=_as_trial(plan_training(_trial_config(config, tuning), run_id)),
        tracking_uri=uri,
        artifacts=artifacts,
        config=config,
    )


def study_paths(storage: str, name: str) -> RunPaths:
    """Return the paths of a study below `storage`."""
    folder = f"{storage}/studies/{name}"
    return RunPaths(folder, f"{folder}/config.yaml", f"{folder}/checkpoints", f"{folder}/outcome.json")


def trial_config(plan: TunePlan, point: Point) -> RunConfig:
    """Return the config of a trial, as `raystack.train` takes it. Raises ConfigError if it is impossible."""
    config = with_values(plan.config, plan.space.values(point))
    return config.model_copy(update={"tuning": None})


def plan_trial(plan: TunePlan, trial_id: str, point: Point) -> TrainPlan:
    """Decide on a trial, which is a training without publication.

    Raises ConfigError or PlanError if the point is impossible.
    """
    config = _trial_config(trial_config(plan, point), plan.tuning)
    planned = _as_trial(plan_training(config, trial_id))
    return replace(planned, paths=run_paths(plan.paths.folder, trial_id))


def _trial_config(config: RunConfig, tuning: Tuning) -> RunConfig:
    """Return the config with a checkpoint at each report, where the scheduler lets trials go on from one."""
    training, every = config.training, config.training.evaluate
    if tuning.scheduler.kind not in PAUSING or (every.every_steps is None and every.every_epochs is None):
        return config
    checkpoint = training.checkpoint.model_copy(
        update={"every_steps": every.every_steps, "every_epochs": every.every_epochs}
    )
    return config.model_copy(update={"training": training.model_copy(update={"checkpoint": checkpoint})})


def _as_trial(plan: TrainPlan) -> TrainPlan:
    """Return the plan with a fixed number of workers, and one worker in the trial's own process."""
    workers = replace(plan.workers, least=plan.workers.count, inline=plan.workers.count == 1)
    return replace(plan, workers=workers, batches=plan.batches[:1])


def _all_points(tuning: Tuning, space: Space) -> int | None:
    """Return the most points that a grid can have, with those of the config; None for another search."""
    if tuning.search.kind != "grid":
        return None
    return len(tuning.points) + prod(len(each.choices) for each in space)


def _check_search(tuning: Tuning, space: Space) -> None:
    """Raise PlanError if the search algorithm cannot do the space."""
    search, several = tuning.search.kind, isinstance(tuning.metric, tuple)
    rule, culprit = None, None
    if search == "grid":
        culprit = next((each for each in space if not each.choices), None)
        rule = "a grid needs values: grid, choice or group"
    elif search == "cmaes":
        culprit = next((each for each in space if each.choices or each.when), None)
        rule = "CMA-ES needs numbers, and every path in every trial, without conditions"
    elif search == "gp":
        culprit = next((each for each in space if each.when), None)
        rule = "a Gaussian process needs every path in every trial, without conditions"
    if search != "grid" and culprit is None:
        culprit = next((each for each in space if each.kind == "grid"), None)
        rule = "a grid domain needs search: {kind: grid}"
    if culprit is not None and rule is not None:
        raise PlanError(
            Problem(f"tuning.space.{culprit.path}", rule=rule, got=culprit.kind, remedy="use tuning=tpe")
        )
    if several and search == "cmaes":
        rule = "CMA-ES optimises one metric"
        raise PlanError(Problem("tuning.search", rule=rule, got="cmaes", remedy="use tuning=tpe"))
    if tuning.warm_start is not None and search in ("random", "grid"):
        rule, remedy = "this search does not learn from other trials", "use tuning=tpe, or leave it out"
        raise PlanError(Problem("tuning.warm_start", rule=rule, got=search, remedy=remedy))
    for index, given in enumerate(tuning.points):
        known: Mapping[str, Dimension] = {each.path: each for each in space}
        for path, value in given.items():
            if path not in known:
                rule = "a point sets paths of the space"
                raise PlanError(Problem(f"tuning.points.{index}.{path}", rule=rule))
            if known[path].choices and value not in known[path].choices:
                rule = "a point's value is one of the domain's"
                raise PlanError(Problem(f"tuning.points.{index}.{path}", rule=rule, got=str(value)))


def _check_scheduler(tuning: Tuning, training: Training, space: Space) -> None:
    """Raise PlanError if the scheduler cannot work with these trials."""
    scheduler = tuning.scheduler
    if scheduler.kind == "fifo":
        return
    if training.evaluate.every_steps is None and training.evaluate.every_epochs is None:
        rule = f"{scheduler.kind} stops trials at their evaluations, and there is one at the end only"
        remedy = "set it to a fraction of the training's steps"
        raise PlanError(Problem("training.evaluate.every_steps", rule=rule, remedy=remedy))
    if scheduler.kind not in ("pbt", "pb2"):
        return
    if tuning.parallel is not None:
        rule, remedy = "a population takes turns where there is not enough room for all", "leave it out"
        raise PlanError(Problem("tuning.parallel", rule=rule, got=str(tuning.parallel), remedy=remedy))
    paths = perturbed(tuning, space)
    known = {each.path: each for each in space}
    for path in scheduler.perturb:
        if path not in known:
            raise PlanError(
                Problem("tuning.scheduler.perturb", rule="should name paths of the space", got=path)
            )
        if not path.startswith("training."):
            rule = "a checkpoint goes on with the same model and workers, so only paths below training change"
            raise PlanError(Problem("tuning.scheduler.perturb", rule=rule, got=path))
    for each in space:
        if changes_resources(each):
            rule = "a trial of a population takes over another one's point, and so cannot have other workers"
            raise PlanError(Problem(f"tuning.space.{each.path}", rule=rule, got=scheduler.kind))
    if not paths:
        rule = f"{scheduler.kind} changes paths below training during a trial, and the space has none"
        raise PlanError(Problem("tuning.scheduler", rule=rule, remedy="use tuning=asha"))
    if scheduler.kind == "pb2" and (
        other := next((path for path in paths if known[path].kind not in ("uniform", "loguniform")), None)
    ):
        rule = "PB2 perturbs uniform and loguniform domains"
        remedy = "leave it out of perturb, or use tuning=pbt"
        raise PlanError(Problem(f"tuning.space.{other}", rule=rule, got=known[other].kind, remedy=remedy))


def perturbed(tuning: Tuning, space: Space) -> tuple[str, ...]:
    """Return the paths that change during a trial of a population."""
    scheduler = tuning.scheduler
    if scheduler.kind not in ("pbt", "pb2"):
        return ()
    own = (each.path for each in space if each.path.startswith("training.optimizer.") and not each.when)
    return scheduler.perturb or tuple(own)


def changes_resources(each: Dimension) -> bool:
    """Return whether the dimension changes what a trial needs."""
    paths = [path for choice in each.sections.values() for path in choice] if each.sections else [each.path]
    return any(path.split(".")[0] == "resources" for path in paths)
