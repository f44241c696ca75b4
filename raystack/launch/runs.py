"""The runs below `experiment.storage`, and which of them to go on with."""

import os
import re
from typing import Any

import fsspec
import yaml

from raystack.config import RunConfig, dump
from raystack.errors import LaunchError, Problem, nearest
from raystack.launch import inside, lease


def find(config: RunConfig, run: str | None) -> str:
    """Id of the run to go on with: `run`, or the experiment's newest. LaunchError if there is none, or if it still goes on."""
    storage = config.experiment.storage
    own = [name for name in _runs(config) if _began(config, name)]
    if run is None and own:
        run = own[-1]
    if run not in own:
        close = nearest(run, own) if run else None
        remedy = f"did you mean {close}?" if close else (f"the newest is {own[-1]}" if own else "start one without --resume")
        rule = f"there is no such run of '{config.experiment.name}' in {storage}/runs"
        raise LaunchError(Problem("--resume", rule=rule, got=run, remedy=remedy))
    if (holder := lease.holder(f"{storage}/runs/{run}")) is not None:
        raise LaunchError(Problem("--resume", rule=f"the run still goes on: {holder}", got=run, remedy="stop it first"))
    return str(run)


def unfinished(config: RunConfig) -> str | None:
    """Id of the newest run of the same config that has not ended and that nobody goes on with; None where there is none.

    What may differ is where it runs: resources, target, tracking, and the place of the task's folder.
    """
    asked = _comparable(yaml.safe_load(dump(config)))
    for run in reversed(_runs(config)):
        folder = f"{config.experiment.storage}/runs/{run}"
        filesystem, path = fsspec.core.url_to_fs(folder)
        if filesystem.exists(f"{path}/outcome.json") or not _began(config, run):
            continue
        before = yaml.safe_load(filesystem.cat_file(f"{path}/config.yaml"))
        if isinstance(before, dict) and _comparable(before) == asked and lease.holder(folder) is None:
            return run
    return None


def resumes(config: RunConfig) -> bool:
    """Whether to look for an unfinished run without being asked to: in a Ray job, unless the config says otherwise."""
    return config.experiment.resume == "auto" or (config.experiment.resume is None and inside.VARIABLE in os.environ)


def _runs(config: RunConfig) -> list[str]:
    filesystem, root = fsspec.core.url_to_fs(f"{config.experiment.storage}/runs")
    names: list[str] = [path.rstrip("/").rpartition("/")[2] for path in filesystem.ls(root, detail=False)] if filesystem.isdir(root) else []
    return sorted(candidate for candidate in names if re.fullmatch(rf"{config.experiment.name}-\d{{8}}-\d{{6}}-\w+", candidate))


def _began(config: RunConfig, run: str) -> bool:
    """Whether the run got as far as to write its config: one whose Ray never answered did not."""
    filesystem, path = fsspec.core.url_to_fs(f"{config.experiment.storage}/runs/{run}/config.yaml")
    return bool(filesystem.exists(path))


def _comparable(values: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if key not in ("resources", "target", "tracking")}
    return {**kept, "task": {**kept["task"], "folder": None}}
