"""What is to be served -> what means the same on every replica, checked before Ray is started."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from raystack import registry
from raystack.checkpoint.model import read_spec
from raystack.config.graph import Graph
from raystack.config.llm import Llm
from raystack.config.serving import Loaded, Served, Serving
from raystack.config.split import Split
from raystack.config.target import Local
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, Problem, ServingError
from raystack.plan import ServePlan
from raystack.serving.graph.signature import Wired
from raystack.serving.llm.check import check, with_template
from raystack.serving.split.fit import misfit

Own = TypeVar("Own", bound=Loaded)


def pin(plan: ServePlan) -> ServePlan:
    """The plan with its model pinned. Raises as `pinned` does, and ConfigError for a folder that is to be
    served on this machine and has no model.
    """
    serving, target = pinned(plan.serving, plan.tracking), plan.config.target
    pinned_plan = replace(plan, serving=serving)
    if isinstance(target, Local) and target.address is None:
        for each in pinned_plan.models:
            if each.serving.kind == "llm":
                check(each.serving, plan.tracking)
            elif not plan.several and each.serving.graph is None:
                _there(each.model, "serving.model", plan.tracking)
                _beside(serving.split, each.model, "serving.split", plan.tracking)
        _fits(serving.graph, "serving.graph", plan.tracking)
        for name, model in serving.models.items():
            _fits(model.graph, f"serving.models.{name}.graph", plan.tracking)
        for key, models in (("models", serving.models), ("multiplexed.models", _shared(serving))):
            for name, own in models.items():
                _there(own.model, f"serving.{key}.{name}.model", plan.tracking)
                if isinstance(own, Served):
                    _beside(own.split, own.model, f"serving.{key}.{name}.split", plan.tracking)
    return pinned_plan


def _there(model: str | None, where: str, tracking: Tracking) -> None:
    """Raise ConfigError for a folder of this machine that has no model."""
    if model is None or ":/" in model:
        return
    try:
        registry.resolve(model, tracking)
    except ConfigError as error:
        raise ConfigError([replace(problem, where=where) for problem in error.problems]) from None


def pinned(serving: Serving, tracking: Tracking) -> Serving:
    """An alias -> the version that it points to now, and a folder -> its absolute path, for each model.

    Raises ConfigError where the registry has no such model, alias or version, ServingError where MLflow does
    not answer.
    """
    shared = serving.multiplexed
    own: dict[str, Any] = {
        "model": serving.model and _pinned(serving.model, tracking),
        "split": serving.split and _split_pinned(serving.split, tracking),
        "graph": serving.graph and _steps_pinned(serving.graph, tracking),
        "models": _each_pinned(serving.models, tracking),
        "multiplexed": shared and shared.model_copy(update={"models": _each_pinned(shared.models, tracking)}),
        "llm": _llm(serving.llm, tracking),
    }
    return serving.model_copy(update=own)


def _shared(serving: Serving) -> Mapping[str, Loaded]:
    return serving.multiplexed.models if serving.multiplexed is not None else {}


def _each_pinned(models: Mapping[str, Own], tracking: Tracking) -> dict[str, Own]:
    return {name: own.model_copy(update=_one_pinned(own, tracking)) for name, own in models.items()}


def _one_pinned(own: Loaded, tracking: Tracking) -> dict[str, Any]:
    if isinstance(own, Served) and own.graph is not None:
        return {"graph": _steps_pinned(own.graph, tracking)}
    pinned_model = {"model": own.model and _pinned(own.model, tracking)}
    if isinstance(own, Served) and own.split is not None:
        return {**pinned_model, "split": _split_pinned(own.split, tracking)}
    return pinned_model


def _split_pinned(split: Split, tracking: Tracking) -> Split:
    models: dict[str, float] = {}
    for model, share in split.models.items():
        version = _pinned(model, tracking)
        models[version] = models.get(version, 0.0) + share
    shadow = split.shadow
    if shadow is not None:
        shadow = shadow.model_copy(update={"model": _pinned(shadow.model, tracking)})
    return split.model_copy(update={"models": models, "shadow": shadow})


def _beside(split: Split | None, model: str | None, where: str, tracking: Tracking) -> None:
    """Raise ConfigError for a version of a split that is not there, or does not fit beside the model."""
    if split is None or model is None:
        return
    stable = read_spec(registry.resolve(model, tracking)).signature
    for reference in split.references:
        _there(reference, where, tracking)
        other = read_spec(registry.resolve(reference, tracking)).signature
        problem = misfit(f"{where}: {reference}", stable, other)
        if reference == model:
            problem = Problem(where, rule="is the version that is served", got=reference, remedy="drop it")
        if problem is not None:
            raise ConfigError(problem)


def _steps_pinned(graph: Graph, tracking: Tracking) -> Graph:
    steps = {
        name: step.model_copy(update={"model": step.model and _pinned(step.model, tracking)})
        for name, step in graph.steps.items()
    }
    return graph.model_copy(update={"steps": steps})


def _fits(graph: Graph | None, where: str, tracking: Tracking) -> None:
    """Raise ConfigError where a step of a graph has no model, or does not fit the others."""
    if graph is None:
        return
    signatures = {}
    for name, model in graph.models.items():
        place = f"{where}.steps.{name}.model"
        try:
            signatures[name] = read_spec(registry.resolve(model, tracking)).signature
        except (ConfigError, ServingError) as error:
            raise type(error)([replace(problem, where=place) for problem in error.problems]) from None
    Wired(graph, signatures, where)


def _llm(llm: Llm, tracking: Tracking) -> Llm:
    adapters = {name: _pinned(adapter, tracking) for name, adapter in llm.adapters.items()}
    return with_template(llm).model_copy(update={"adapters": adapters})


def _pinned(model: str, tracking: Tracking) -> str:
    if model.startswith("models:/"):
        return registry.pin(model, tracking)
    return model if "://" in model else str(Path(model).expanduser().absolute())


def version_of(model: str) -> str | None:
    """Version of a pinned model; None for a folder or URL, whose version is the model's training step."""
    return model.rpartition("/")[2] if model.startswith("models:/") else None
