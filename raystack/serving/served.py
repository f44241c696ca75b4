"""ServePlan -> what each replica is told. No Ray: an application is built from it, wherever Ray is."""

from dataclasses import dataclass
from pathlib import Path

from raystack import registry
from raystack.config.serving import Batching
from raystack.config.tracking import Tracking
from raystack.plan import ServePlan


@dataclass(frozen=True)
class Served:
    """What each replica needs to know."""

    name: str
    model: str
    """A URI or folder. A registered model carries its version, not an alias, so that all replicas serve the
    same one.
    """
    tracking: Tracking
    tracking_uri: str | None
    replicas: int
    cpus: float
    gpus: float
    threads: int
    max_ongoing: int
    max_queued: int
    batching: Batching

    @classmethod
    def of(cls, plan: ServePlan) -> "Served":
        """What a plan serves. An alias is followed here, once, to the version that it points to now."""
        tracking = plan.config.tracking
        return cls(
            name=plan.name,
            model=pin(plan.model, tracking, plan.tracking_uri),
            tracking=tracking,
            tracking_uri=plan.tracking_uri,
            replicas=plan.replicas,
            cpus=plan.cpus,
            gpus=plan.gpus,
            threads=plan.threads,
            max_ongoing=plan.max_ongoing,
            max_queued=plan.max_queued,
            batching=plan.batching,
        )

    @property
    def version(self) -> str | None:
        """Version of a registered model; None for a folder or URL, whose version is the model's training
        step.
        """
        return self.model.rpartition("/")[2] if self.model.startswith("models:/") else None


def pin(model: str, tracking: Tracking, tracking_uri: str | None) -> str:
    """`models:/name@alias` -> `models:/name/version`, and a folder -> its absolute path: what means the same
    on every replica.
    """
    if model.startswith("models:/"):
        return registry.pin(model, tracking, tracking_uri) if "@" in model else model
    return model if "://" in model else str(Path(model).expanduser().absolute())
