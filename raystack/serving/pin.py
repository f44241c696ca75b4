"""What is to be served -> what means the same on every replica, checked before Ray is started."""

from dataclasses import replace
from pathlib import Path

from raystack import registry
from raystack.config.serving import Serving
from raystack.config.target import Local
from raystack.config.tracking import Tracking
from raystack.plan import ServePlan


def pin(plan: ServePlan) -> ServePlan:
    """The plan with its model pinned. Raises as `pinned` does, and ConfigError for a folder that is to be
    served on this machine and has no model.
    """
    serving, target = pinned(plan.serving, plan.tracking), plan.config.target
    pinned_plan = replace(plan, serving=serving)
    if isinstance(target, Local) and target.address is None:
        for each in pinned_plan.models:
            if ":/" not in each.model:
                registry.resolve(each.model, plan.tracking)
    return pinned_plan


def pinned(serving: Serving, tracking: Tracking) -> Serving:
    """An alias -> the version that it points to now, and a folder -> its absolute path, for each model.

    Raises ConfigError where the registry has no such model, alias or version, ServingError where MLflow does
    not answer.
    """
    models = {
        name: own.model_copy(update={"model": _pinned(own.model, tracking)})
        for name, own in serving.models.items()
    }
    return serving.model_copy(update={"model": _pinned(serving.model, tracking), "models": models})


def _pinned(model: str | None, tracking: Tracking) -> str | None:
    if model is None:
        return None
    if model.startswith("models:/"):
        return registry.pin(model, tracking)
    return model if "://" in model else str(Path(model).expanduser().absolute())


def version_of(model: str) -> str | None:
    """Version of a pinned model; None for a folder or URL, whose version is the model's training step."""
    return model.rpartition("/")[2] if model.startswith("models:/") else None
