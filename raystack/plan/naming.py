"""Names and paths of a run. Pure: the caller passes the time and the random part."""

from dataclasses import dataclass
from datetime import datetime


def run_id(experiment: str, started: datetime, token: str) -> str:
    """Return a run's id, such as `digits-20261123-094500-3f9a`.

    It sorts by time within an experiment and is valid as a folder, a label and the value of a metric's tag.
    """
    return f"{experiment}-{started:%Y%m%d-%H%M%S}-{token}"


def step_name(step: int) -> str:
    """Return the folder name of the checkpoint after `step` optimizer steps; it sorts by step."""
    return f"step-{step:010d}"


@dataclass(frozen=True)
class RunPaths:
    """The paths of one run's files, all below `experiment.storage`."""

    folder: str
    """`<storage>/runs/<run id>`."""
    config: str
    """File of the resolved config, YAML."""
    checkpoints: str
    """Folder of the checkpoints, one folder each."""
    outcome: str
    """File on how the last driver ended, JSON (`runs/ending.py`)."""


def run_paths(storage: str, run: str) -> RunPaths:
    """Return the paths of a run below `storage`."""
    folder = f"{storage}/runs/{run}"
    return RunPaths(
        folder=folder,
        config=f"{folder}/config.yaml",
        checkpoints=f"{folder}/checkpoints",
        outcome=f"{folder}/outcome.json",
    )
