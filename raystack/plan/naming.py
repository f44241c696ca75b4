"""Names and places of a run. Pure: the caller brings the time and the random part."""

from dataclasses import dataclass
from datetime import datetime


def run_id(experiment: str, started: datetime, token: str) -> str:
    """`digits-20261123-094500-3f9a`: sorts by time within an experiment, valid as a folder, label and metric
    value.
    """
    return f"{experiment}-{started:%Y%m%d-%H%M%S}-{token}"


def step_name(step: int) -> str:
    """Folder name of the checkpoint after `step` optimizer steps; sorts by step."""
    return f"step-{step:010d}"


@dataclass(frozen=True)
class RunPaths:
    """Where one run keeps what it leaves; all of it below `experiment.storage`."""

    folder: str
    """`<storage>/runs/<run id>`."""
    config: str
    """The resolved config, YAML."""
    checkpoints: str
    """Folder of the checkpoints, one folder each."""
    outcome: str
    """How the last driver ended, JSON (`runs/ending.py`)."""


def run_paths(storage: str, run: str) -> RunPaths:
    folder = f"{storage}/runs/{run}"
    return RunPaths(
        folder=folder,
        config=f"{folder}/config.yaml",
        checkpoints=f"{folder}/checkpoints",
        outcome=f"{folder}/outcome.json",
    )
