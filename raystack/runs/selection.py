"""The runs below `experiment.storage`, and the choice of the one to resume.

A new submission is a new run. The attempts of one job resume its run by themselves; anything else has to be
requested.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

from raystack import job_context
from raystack.checkpoint import CONFIG, fence
from raystack.config import RunConfig, dump
from raystack.errors import LaunchError, Problem, nearest
from raystack.job_context import Submitted
from raystack.plan import TunePlan
from raystack.runs import ending, lease
from raystack.storage import Storage

Tell = Callable[[str], None]
"""A function that takes a line for people."""


def choose(config: RunConfig, new: str, tell: Tell, *, resume: bool, run: str | None) -> str:
    """Return the id of this driver's run: one to resume, or `new`, or the id its job was submitted for.

    `resume` is an explicit request, for `run` or for the newest. LaunchError if it cannot be met. A wait is
    reported to `tell`.
    """
    job = job_context.submitted()
    if (
        job is not None
        and config.experiment.resume != "never"
        and (own := _of(config, job, resumed=resume)) is not None
    ):
        return own
    if resume:
        return find(config, run, tell)
    if config.experiment.resume == "auto" and (found := unfinished(config, tell)) is not None:
        return found
    return job.run if job is not None and job.run is not None and not _began(config, job.run) else new


def goes_on(study: TunePlan) -> bool:
    """Return whether this driver goes on with the study of that name without being asked to.

    It does in a later attempt of the job that drove it last, and with `experiment.resume=auto`.
    """
    mode, job = study.config.experiment.resume, job_context.submitted()
    if mode is not None or job is None:
        return mode == "auto"
    last = fence.read(Storage(study.paths.folder))
    return last is not None and last.job == job.job


def find(config: RunConfig, run: str | None, tell: Tell) -> str:
    """Return the id of the run to resume: `run`, or the experiment's newest.

    Raises LaunchError if there is none, or if it is still running.
    """
    storage, option = config.experiment.storage, "--run" if run is not None else "--resume"
    own = [name for name in _runs(config) if _began(config, name)]
    if run is None and own:
        run = own[-1]
    if run not in own:
        close = nearest(run, own) if run else None
        remedy = (
            f"did you mean {close}?"
            if close
            else (f"the newest is {own[-1]}" if own else f"start one without {option}")
        )
        rule = f"there is no such run of '{config.experiment.name}' in {storage}/runs"
        raise LaunchError(Problem(option, rule=rule, got=run, remedy=remedy))
    if (holder := lease.holder(f"{storage}/runs/{run}", tell)) is not None:
        raise LaunchError(
            Problem(option, rule=f"the run still goes on: {holder}", got=run, remedy="stop it first")
        )
    return str(run)


def unfinished(config: RunConfig, tell: Tell) -> str | None:
    """Return the id of the newest unfinished run of the same config that no driver holds, or None.

    Configs may differ in where the run takes place (resources, target, tracking, the place of the task's
    folder) and in whether it resumes.
    """
    for run in reversed(_runs(config)):
        if _is_open(config, run) and lease.holder(f"{config.experiment.storage}/runs/{run}", tell) is None:
            return run
    return None


def _of(config: RunConfig, job: Submitted, *, resumed: bool) -> str | None:
    """Return the id of the run of an earlier attempt of the same job; None in its first attempt.

    A job that was asked to resume may drive any run, and one whose manifest is kept makes up an id, so
    drivers record the job's name. A RayJob of the same name may have been deleted since, so the run of such a
    job also has to be unfinished and of the same config.
    """
    if job.run is not None and _began(config, job.run):
        return job.run
    if job.run is not None and not resumed:
        return None
    for run in reversed(_runs(config)):
        last = fence.read(Storage(f"{config.experiment.storage}/runs/{run}"))
        if last is not None and last.job == job.job and (job.run is not None or _is_open(config, run)):
            return run
    return None


def _is_open(config: RunConfig, run: str) -> bool:
    """Return whether the run is of the same config and has no result yet; a failed run can resume."""
    storage = _storage(config)
    last = ending.read(f"{storage.url}/{run}")
    if (last is not None and last.status == "succeeded") or not _began(config, run):
        return False
    before = yaml.safe_load(storage.read(f"{run}/{CONFIG}"))
    return isinstance(before, dict) and _comparable(before) == _comparable(yaml.safe_load(dump(config)))


def _runs(config: RunConfig) -> list[str]:
    pattern = rf"{config.experiment.name}-\d{{8}}-\d{{6}}-\w+"
    return [name for name in _storage(config).names() if re.fullmatch(pattern, name)]


def _began(config: RunConfig, run: str) -> bool:
    """Return whether the run wrote its config; one whose Ray never answered did not."""
    return CONFIG in _storage(config).names(run)


def _storage(config: RunConfig) -> Storage:
    return Storage(f"{config.experiment.storage}/runs")


PLACE = ("resources", "target", "tracking", "budget", "prices")
"""Sections that do not change what is trained."""


def _comparable(values: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if key not in PLACE}
    return {
        **kept,
        "task": {**kept["task"], "folder": None},
        "experiment": {**kept["experiment"], "resume": None},
    }
