"""RunConfig -> ServePlan: what is served, under which name, with what."""

from dataclasses import dataclass

from raystack.config import RunConfig
from raystack.config.serving import Batching
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
        raise PlanError(
            Problem("serving.model", rule="there is no model to serve", remedy="set serving.model=models:/name@alias or to a checkpoint's folder")
        )
    return ServePlan(
        name=serving.name or registry.model or config.experiment.name,
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
        tracking_uri=plan_tracking(config)[0],
        config=config,
    )
