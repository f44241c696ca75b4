"""RunConfig -> RolloutPlan: the version, the steps and the bounds of a rollout."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raystack.config import RunConfig
from raystack.config.names import MODEL
from raystack.config.rollout import Analysis, Rollout, RolloutStep
from raystack.config.serving import Served, Serving
from raystack.config.split import Shadow, Split
from raystack.config.target import Local
from raystack.errors import ConfigError, PlanError, Problem
from raystack.plan.serving import ServePlan, plan_serving
from raystack.plan.training import plan_tracking

Row = tuple[str, str]

TESTS = ("errors", "errors_max", "latency", "difference")
"""Bounds that are judged by sequential tests, by the keys of their numbers in the record."""


@dataclass(frozen=True)
class RolloutPlan:
    """What `raystack rollout` does: the value that `--dry-run` prints and that is executed."""

    name: str
    """Name in the protocol of the model whose version changes."""
    candidate: str
    """Reference of the version that is rolled out."""
    registered: str | None
    """Name of its registered model; None for a folder."""
    alias: str | None
    """Alias that is moved to it at the end."""
    rollout: Rollout
    folder: str
    """`<storage>/rollouts/<name>`; a rollout has a folder of its own in it."""
    serve: ServePlan
    """What is served, before a version is beside it."""
    config: RunConfig

    @property
    def steps(self) -> Sequence[RolloutStep]:
        return self.rollout.steps

    @property
    def analysis(self) -> Analysis:
        return self.rollout.analysis

    @property
    def stable(self) -> str:
        """Reference of the version that is served."""
        model = self.served.model
        assert model is not None, "plan_rollout refuses what is no model"
        return model

    @property
    def served(self) -> Served:
        """The part of the section `serving` that is about the model."""
        serving = self.serve.serving
        return serving.models[self.name] if self.serve.several else serving

    @property
    def tests(self) -> tuple[str, ...]:
        """Bounds that are judged by sequential tests."""
        of = self.analysis
        asked = (of.errors, of.errors, of.latency, of.difference)
        return tuple(name for name, section in zip(TESTS, asked, strict=True) if section is not None)

    @property
    def wanted(self) -> float:
        """Value at which the evidence against a version is enough: the tests share `alpha` equally."""
        return max(1, len(self.tests)) / self.analysis.alpha

    def at(self, weight: float | None) -> ServePlan:
        """Return what is served with a share of the requests for the new version; None takes it away."""
        return self._with(split=None if weight is None else self._split(weight))

    @property
    def promoted(self) -> ServePlan:
        """What is served at the end: the new version in the place of the other."""
        return self._with(model=self.candidate, split=None)

    def pinned(self, stable: str, candidate: str) -> "RolloutPlan":
        """Return the plan with its two versions decided, also in its config."""
        decided = replace(self, candidate=candidate, serve=self._with(model=stable, split=None))
        section = self.rollout.model_copy(update={"model": candidate, "name": self.name})
        config = self.config.model_copy(update={"serving": decided.serve.serving, "rollout": section})
        return replace(decided, rollout=section, config=config, serve=replace(decided.serve, config=config))

    def _split(self, weight: float) -> Split:
        difference = self.analysis.difference
        shadow = None
        if difference is not None and weight < 1:
            shadow = Shadow(
                model=self.candidate,
                share=difference.mirrored,
                max_ongoing=difference.max_ongoing,
                rtol=difference.rtol,
                atol=difference.atol,
            )
        return Split(models={self.candidate: weight}, sticky=self.rollout.sticky, shadow=shadow)

    def _with(self, **update: object) -> ServePlan:
        serving = self.serve.serving
        if self.serve.several:
            own = serving.models[self.name].model_copy(update=update)
            serving = serving.model_copy(update={"models": {**serving.models, self.name: own}})
        else:
            serving = serving.model_copy(update=update)
        return replace(self.serve, serving=serving)


def rollouts_of(config: RunConfig) -> tuple[str, str]:
    """Return the name in the protocol of the model that rollouts of the config are of, and their folder.

    Raises ConfigError without a section, PlanError if it is not clear which model is meant.
    """
    rollout = _section(config)
    registered = _registered(rollout.model) if rollout.model else None
    name = _name(plan_serving(config), rollout, registered)
    return name, f"{config.experiment.storage}/rollouts/{name}"


def plan_rollout(config: RunConfig) -> RolloutPlan:
    """Decide on a rollout. Raises ConfigError without a section, PlanError for one that cannot be."""
    plan = plan_steps(config)
    if not isinstance(config.target, Local) or config.target.address is None:
        rule = "a rollout is on a Ray cluster that stays when this command ends"
        remedy = "start one with `ray start --head` and set target=local target.address=auto"
        raise PlanError(Problem("target.address", rule=rule, remedy=remedy))
    return plan


def plan_steps(config: RunConfig) -> RolloutPlan:
    """Decide on the versions and steps of a rollout, wherever it is. Raises as `plan_rollout` does."""
    rollout = _section(config)
    if rollout.model is None:
        remedy = "set rollout.model=models:/name@alias, or to a version or folder"
        raise PlanError(Problem("rollout.model", rule="there is no version to roll out", remedy=remedy))
    if not rollout.steps:
        raise PlanError(Problem("rollout.steps", rule="there is no step", remedy="add one, or drop the key"))
    serve = plan_serving(config)
    registered = _registered(rollout.model)
    name, folder = rollouts_of(config)
    _check_served(serve.serving, name, several=serve.several)
    if rollout.alias is not None and registered is None:
        rule, remedy = "is MLflow's, and the version is none of MLflow's", "drop it"
        raise PlanError(Problem("rollout.alias", rule=rule, got=rollout.model, remedy=remedy))
    if registered is not None and serve.tracking.kind == "off":  # what is served is none of MLflow's
        tracking = config.tracking.model_copy(update={"uri": plan_tracking(config)[0]})
        serve = replace(serve, tracking=tracking)
    return RolloutPlan(
        name=name,
        candidate=rollout.model,
        registered=registered,
        alias=(rollout.alias or config.registry.alias) if registered else None,
        rollout=rollout,
        folder=folder,
        serve=serve,
        config=config,
    )


def _section(config: RunConfig) -> Rollout:
    if config.rollout is None:
        rule, remedy = "the config has no such section", "add it, with rollout.model"
        raise ConfigError(Problem("rollout", rule=rule, remedy=remedy))
    return config.rollout


def rollout_rows(plan: RolloutPlan) -> list[Row]:
    """Return the plan as rows of (what, value), in reading order."""
    steps = [
        (f"step {number}", _step(step) + (", then a pause" if step.pause else ""))
        for number, step in enumerate(plan.steps, 1)
    ]
    alias = f"{plan.alias} moves to it" if plan.alias else "none is moved"
    return [
        ("version", plan.candidate),
        ("beside", f"{plan.stable}, served as {plan.name}"),
        *steps,
        *_bounds(plan),
        ("alias", alias),
        ("sticky", _sticky(plan.rollout)),
        ("record", plan.folder),
    ]


def _step(step: RolloutStep) -> str:
    least = f"{step.min_requests:,} requests of its own and {step.min_s:g} s"
    return f"{step.weight:.4g} of the requests, {least} at least"


def _bounds(plan: RolloutPlan) -> list[Row]:
    of, rows = plan.analysis, []
    if (errors := of.errors) is not None:
        rows.append(("errors", f"{errors.ratio:g} times those of the other at most, and {errors.max:.2%}"))
    if (latency := of.latency) is not None:
        floor = f", and none below {latency.floor_ms:g} ms counts"
        rows.append(("latency", f"p{latency.percentile:g} {latency.ratio:g} times the other's{floor}"))
    if (difference := of.difference) is not None:
        tolerances = f"rtol {difference.rtol:g}, atol {difference.atol:g}"
        rows.append(("difference", f"{difference.share:.2%} of the answers at most, {tolerances}"))
    for name, metric in of.metrics.items():
        bounds = [f"{word} {value:g}" for word, value in (("min", metric.min), ("max", metric.max)) if value]
        rows.append((f"metric {name}", f"{' and '.join(bounds)} of {metric.query} at {metric.url}"))
    if plan.tests:
        chance = f"{of.alpha:g} over the whole rollout, {of.alpha / len(plan.tests):g} a test"
        rows.append(("falsely back", f"with probability {chance} at most, looked at every {of.every_s:g} s"))
    return rows


def _sticky(rollout: Rollout) -> str:
    sticky = rollout.sticky
    if sticky is None:
        return "no: each request is drawn anew"
    return ", ".join(f"{kind} {value}" for kind, value in sticky.model_dump(exclude_none=True).items())


def _registered(reference: str) -> str | None:
    found = re.fullmatch(rf"models:/({MODEL})(?:@.+|/\d+)", reference)
    return found[1] if found else None


def _name(serve: ServePlan, rollout: Rollout, registered: str | None) -> str:
    """Return the name in the protocol. Raises PlanError if none of several is meant."""
    if not serve.several:
        if rollout.name not in (None, serve.name):
            rule = f"is not the name of the model that is served, '{serve.name}'"
            raise PlanError(Problem("rollout.name", rule=rule, got=rollout.name, remedy="drop it"))
        return serve.name
    models = serve.serving.models
    if rollout.name is not None:
        if rollout.name in models:
            return rollout.name
        rule = f"is none of serving.models: {', '.join(models)}"
        raise PlanError(Problem("rollout.name", rule=rule, got=rollout.name))
    fitting = [
        name
        for name, own in models.items()
        if own.model and registered and _registered(own.model) == registered
    ]
    if len(fitting) == 1:
        return fitting[0]
    rule = "several models are served, and it is not clear which one is meant"
    remedy = f"set it to one of {', '.join(models)}"
    raise PlanError(Problem("rollout.name", rule=rule, remedy=remedy))


def _check_served(serving: Serving, name: str, *, several: bool) -> None:
    served = serving.models[name] if several else serving
    where = f"serving.models.{name}" if several else "serving"
    if serving.kind == "llm":
        rule = "a language model has no versions beside each other"
        raise PlanError(
            Problem("serving.kind", rule=rule, got="llm", remedy="update it in place: raystack serve")
        )
    if served.graph is not None:
        rule, remedy = "a graph has no versions beside each other", "update it in place: raystack serve"
        raise PlanError(Problem(f"{where}.graph", rule=rule, remedy=remedy))
    if served.split is not None:
        rule, remedy = "is what a rollout sets itself", "drop it, or the section rollout"
        raise PlanError(Problem(f"{where}.split", rule=rule, remedy=remedy))
