"""RunConfig -> ServePlan: what is served, under which name, with what."""

import re
from dataclasses import dataclass

from raystack.config import RunConfig
from raystack.config.serving import NAME, Batching
from raystack.errors import PlanError, Problem
from raystack.plan.training import plan_tracking


@dataclass(frozen=True)
class ServePlan:
    """What a deployment will be. Printed by `--dry-run`, and the very value that is executed."""

    name: str
    """The model's name in the protocol and of the Serve application."""
    model: str
    """`models:/name@alias`, `models:/name/version`, or the folder or URL of a checkpoint."""
    host: str
    port: int
    replicas: int
    cpus: float
    gpus: float
    threads: int
    """Compute threads of each replica."""
    max_ongoing: int
    max_queued: int
    batching: Batching
    tracking_uri: str | None
    """MLflow tracking URI, for a model from the registry; None: the model is a checkpoint and needs no
    MLflow.
    """
    config: RunConfig

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        return f"http://{host}:{self.port}/v2/models/{self.name}"


def plan_serving(config: RunConfig) -> ServePlan:
    """Decide; raises PlanError where there is nothing to serve."""
    serving, registry = config.serving, config.registry
    registered = f"models:/{registry.model}@{registry.alias}" if registry.model and registry.alias else None
    model = serving.model or registered
    if model is None:
        remedy = "set serving.model=models:/name@alias, or to a checkpoint's folder"
        raise PlanError(Problem("serving.model", rule="there is no model to serve", remedy=remedy))
    return ServePlan(
        name=_name(config),
        model=model,
        host=serving.host,
        port=serving.port,
        replicas=serving.replicas,
        cpus=serving.cpus_per_replica,
        gpus=serving.gpus_per_replica,
        threads=max(1, int(serving.cpus_per_replica)),
        max_ongoing=serving.max_ongoing,
        max_queued=serving.max_queued,
        batching=serving.batching,
        tracking_uri=_registry_uri(config, model),
        config=config,
    )


def _name(config: RunConfig) -> str:
    """The name in the protocol; a registered model may have one that cannot stand in a URL."""
    name = config.serving.name or config.registry.model or config.experiment.name
    if not re.fullmatch(NAME, name):
        rule = "is left out, and the registered name cannot stand in a URL"
        raise PlanError(
            Problem(
                "serving.name",
                rule=rule,
                got=name,
                remedy="set serving.name to letters, digits, '_', '.' and '-'",
            )
        )
    return name


def _registry_uri(config: RunConfig, model: str) -> str | None:
    if not model.startswith("models:/"):
        return None
    if config.tracking.kind == "off":
        rule = "a model from the registry needs MLflow, and tracking is off"
        raise PlanError(
            Problem(
                "serving.model",
                rule=rule,
                got=model,
                remedy="use tracking=local, or set serving.model to a checkpoint's folder",
            )
        )
    return plan_tracking(config)[0]
