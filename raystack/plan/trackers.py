"""Places of the records that are made beside MLflow's."""

from dataclasses import dataclass

from raystack.config import RunConfig
from raystack.errors import PlanError, Problem


@dataclass(frozen=True)
class TrackersPlan:
    """Records of a run beside MLflow's; None: there is none."""

    tensorboard: str | None = None
    """Folder of the experiment's runs, one folder each; a local path or fsspec URL."""
    wandb: str | None = None
    """W&B project."""
    wandb_above: str | None = None
    """Local folder in which W&B makes its `wandb/`; None: a temporary one, because its server has all."""


def plan_trackers(config: RunConfig) -> TrackersPlan:
    """Decide on the places; raise PlanError where W&B would record offline in an object store."""
    storage, experiment = config.experiment.storage, config.experiment.name
    board, wandb = config.tracking.tensorboard, config.tracking.wandb
    local = "://" not in storage
    if wandb is not None and wandb.mode == "offline" and not local:
        raise PlanError(
            Problem(
                "tracking.wandb.mode",
                rule="W&B records offline in experiment.storage, which has to be a local folder",
                got=storage,
                remedy="set it to online, or experiment.storage to a folder",
            )
        )
    return TrackersPlan(
        tensorboard=f"{board.folder or f'{storage}/tensorboard'}/{experiment}" if board is not None else None,
        wandb=(wandb.project or experiment) if wandb is not None else None,
        wandb_above=storage if wandb is not None and local else None,
    )
