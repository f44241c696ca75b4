"""The runs below `experiment.storage`."""

import re

import fsspec

from raystack.config import RunConfig
from raystack.errors import LaunchError, Problem, nearest


def find(config: RunConfig, run: str | None) -> str:
    """Id of the run to go on with: `run`, or the experiment's newest. LaunchError if there is none."""
    name, storage = config.experiment.name, config.experiment.storage
    filesystem, root = fsspec.core.url_to_fs(f"{storage}/runs")
    names: list[str] = [path.rstrip("/").rpartition("/")[2] for path in filesystem.ls(root, detail=False)] if filesystem.isdir(root) else []
    own = sorted(candidate for candidate in names if re.fullmatch(rf"{name}-\d{{8}}-\d{{6}}-\w+", candidate))
    if run is None and own:
        return own[-1]
    if run in own:
        return str(run)
    close = nearest(run, own) if run else None
    remedy = f"did you mean {close}?" if close else (f"the newest is {own[-1]}" if own else "start one without --resume")
    raise LaunchError(Problem("--resume", rule=f"there is no such run of '{name}' in {storage}/runs", got=run, remedy=remedy))
