"""What a study has come to, as rows for people and as JSON. In: its plan and trials. Pure."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from raystack import strict_json
from raystack.display.points import duration, metric_text, short_names, value_text
from raystack.errors import ConfigError
from raystack.plan.tuning import TunePlan, trial_config
from raystack.tuning.record import BEST, Status, Trial, feasible, pareto, ranked, value

ABSENT: Any = object()
"""Of a path that does not count, or that a config does not have; null is a value."""


def best_trial(plan: TunePlan, trials: Sequence[Trial]) -> Trial | None:
    """Return the best trial; of several objectives, the one on the Pareto front that is best in the first."""
    front = trials if len(plan.objectives) == 1 else pareto(trials, plan)
    return next(iter(ranked(front, plan)), None)


def counts(trials: Sequence[Trial]) -> dict[Status, int]:
    """Return the number of trials by status, without those that no trial has."""
    found = {status: sum(trial.status == status for trial in trials) for status in get_args(Status)}
    return {status: count for status, count in found.items() if count}


def reasons(trials: Sequence[Trial], status: Status) -> list[tuple[str, list[int]]]:
    """Return why trials ended with this status, with their numbers; the most frequent reason first.

    Reasons that differ in numbers alone count as one, and the first stands for them.
    """
    groups: dict[str, tuple[str, list[int]]] = {}
    for trial in trials:
        if trial.status == status and trial.reason is not None:
            alike = re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", trial.reason)
            groups.setdefault(alike, (trial.reason, []))[1].append(trial.number)
    return sorted(groups.values(), key=lambda group: -len(group[1]))


def values(plan: TunePlan, trial: Trial) -> dict[str, float | None]:
    """Return what the trial is compared by, by metric; NaN where it reported nothing else."""
    found: dict[str, float | None] = {}
    for objective in plan.objectives:
        number = value(trial, objective, plan)
        found[objective.metric] = trial.last(objective.metric) if number is None else number
    return found


def base_diff(plan: TunePlan, trial: Trial) -> dict[str, tuple[Any, Any]]:
    """Return what the trial's config has otherwise than the base config: (base, trial) by path."""
    base = _flat(plan.config.model_copy(update={"tuning": None}).model_dump(mode="json"))
    try:
        own = _flat(trial_config(plan, trial.point).model_dump(mode="json"))
    except ConfigError:  # the config has changed since the trial
        own = base | _flat(plan.space.values(trial.point))
    return {
        path: (base.get(path, ABSENT), own.get(path, ABSENT))
        for path in [*base, *(path for path in own if path not in base)]
        if base.get(path, ABSENT) != own.get(path, ABSENT)
    }


def trial_diff(best: Trial, trial: Trial) -> dict[str, tuple[Any, Any]]:
    """Return where a trial's point differs from the best one's: (best, trial) by path."""
    return {
        path: (best.point.get(path, ABSENT), trial.point.get(path, ABSENT))
        for path in [*best.point, *(path for path in trial.point if path not in best.point)]
        if best.point.get(path, ABSENT) != trial.point.get(path, ABSENT)
    }


def seconds(trials: Sequence[Trial]) -> tuple[float, float]:
    """Return the seconds from the first trial's start to the last one's end, and those of all workers."""
    begun = [trial for trial in trials if trial.started is not None]
    ends = [(trial.started or 0.0) + trial.seconds for trial in begun]
    wall = max(ends) - min(trial.started or 0.0 for trial in begun) if begun else 0.0
    return wall, sum(trial.seconds * trial.workers for trial in trials)


def command(plan: TunePlan) -> str:
    """Return the command that trains with the best trial's config."""
    return f"python -m raystack.train {shlex.quote(f'{plan.paths.folder}/{BEST}')}"


def summary_rows(plan: TunePlan, trials: Sequence[Trial]) -> list[tuple[str, str]]:
    """Return the study in pairs: its counts, its time, its best trial, and how to train with it."""
    found = counts(trials)
    wall, work = seconds(trials)
    rows = [
        ("study", plan.name),
        ("metric", ", ".join(f"{each.metric} ({each.mode})" for each in plan.objectives)),
        ("trials", ", ".join(f"{count} {status}" for status, count in found.items()) or "none"),
        *_reason_rows(trials),
    ]
    if work:
        rows.append(("time", f"{duration(wall)}, {duration(work)} of all workers"))
    best = best_trial(plan, trials)
    if best is None:
        return [*rows, ("best", "none: no trial has a value of the metric that keeps the constraints")]
    if len(plan.objectives) > 1:
        rows += [("front", _headline(plan, trial)) for trial in pareto(trials, plan)]
    rows.append(("best", _headline(plan, best)))
    for path, (before, now) in base_diff(plan, best).items():
        rows.append((path, f"{given_text(now)} (was {given_text(before)})"))
    return [*rows, ("train", command(plan))]


def trial_rows(plan: TunePlan, trials: Sequence[Trial], limit: int | None) -> list[dict[str, str]]:
    """Return the first `limit` trials as a table, the best first; those without a value at the end."""
    names = short_names(each.path for each in plan.space)
    rows = []
    for trial in in_order(plan, trials)[:limit]:
        row = {"trial": str(trial.number), "status": trial.status}
        row |= {metric: metric_text(number) for metric, number in values(plan, trial).items()}
        row |= {"steps": str(trial.steps), "time": duration(trial.seconds)}
        # A path may be called as a column is.
        row |= {name if name not in row else path: point_text(trial, path) for path, name in names.items()}
        rows.append(row)
    return rows


def as_json(plan: TunePlan, trials: Sequence[Trial]) -> str:
    """Return the study as strict JSON: its counts, the numbers of its best trials, and a trial a value."""
    best = best_trial(plan, trials)
    wall, work = seconds(trials)
    study = {
        "name": plan.name,
        "folder": plan.paths.folder,
        "objectives": [{"metric": each.metric, "mode": each.mode} for each in plan.objectives],
        "counts": {status: sum(trial.status == status for trial in trials) for status in get_args(Status)},
        "seconds": wall,
        "worker_seconds": work,
        "best": None if best is None else best.number,
        "front": [trial.number for trial in pareto(trials, plan)] if len(plan.objectives) > 1 else None,
        "diff": _pairs({} if best is None else base_diff(plan, best)),
        "trials": [_trial_json(plan, trial) for trial in trials],
    }
    return strict_json.dumps(study, indent=2)


def given_text(given: Any) -> str:
    """Return a value of a config as text; a dash for ABSENT."""
    return "-" if given is ABSENT else value_text(given)


def point_text(trial: Trial, path: str) -> str:
    """Return the value of a trial's path as text; a dash where it does not count."""
    return given_text(trial.point.get(path, ABSENT))


def in_order(plan: TunePlan, trials: Sequence[Trial]) -> list[Trial]:
    """Return the best trials first: a Pareto front, then by the first objective, then without a value."""
    front = pareto(trials, plan) if len(plan.objectives) > 1 else []
    leading = {trial.number for trial in front}
    first = [*ranked(front, plan), *(t for t in ranked(trials, plan) if t.number not in leading)]
    known = {trial.number for trial in first}
    return [*first, *(trial for trial in trials if trial.number not in known)]


def _reason_rows(trials: Sequence[Trial]) -> Iterator[tuple[str, str]]:
    status: Status
    for status in ("infeasible", "failed"):
        for reason, numbers in reasons(trials, status):
            yield status, f"{len(numbers)}: {reason}" if len(numbers) > 1 else reason


def _headline(plan: TunePlan, trial: Trial) -> str:
    numbers = ", ".join(f"{metric} {metric_text(number)}" for metric, number in values(plan, trial).items())
    return f"trial {trial.number}: {numbers}, after {trial.steps} steps"


def _trial_json(plan: TunePlan, trial: Trial) -> dict[str, Any]:
    kept = trial.model_dump(exclude={"reports", "exploits"})
    return {
        **kept,
        "values": values(plan, trial),
        "feasible": feasible(trial, plan),
        "steps": trial.steps,
        "reports": len(trial.reports),
        "exploits": [each.model_dump() for each in trial.exploits],
    }


def _pairs(diff: Mapping[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    """Return a diff without what there is not."""
    return {
        path: {name: given for name, given in (("base", before), ("best", now)) if given is not ABSENT}
        for path, (before, now) in diff.items()
    }


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted path; a list is a leaf."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    found: dict[str, Any] = {}
    for name, inner in node.items():
        found |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return found
