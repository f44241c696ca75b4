"""Whether a version is better than another, by the records of their evaluations."""

import math
from pathlib import Path
from typing import Any

from raystack.checkpoint.evaluation import EvaluatedSet, read_evaluation, set_of, why_none
from raystack.config.gates import ChampionGate
from raystack.registry.gates.paired import p_value, too_few
from raystack.registry.gates.report import Check


def better(asked: ChampionGate, version: str, folder: Path, other: str, others: Path) -> Check:
    """Compare a version, whose files are in `folder`, with another."""
    try:
        measured, reason = _tested(asked, *_same_set(asked.metric, version, folder, other, others), other)
    except ComparisonError as error:
        return Check("champion", False, None, bound(asked), str(error))
    return Check("champion", measured["p"] < asked.alpha, measured, bound(asked), reason)


def bound(asked: ChampionGate) -> str:
    """Return what is asked, in words."""
    return f"{asked.metric} better by more than {asked.margin:g}, p below {asked.alpha:g}"


class ComparisonError(Exception):
    """Two versions cannot be compared: the reason."""


def _same_set(
    metric: str, version: str, folder: Path, other: str, others: Path
) -> tuple[EvaluatedSet, EvaluatedSet, str]:
    """Return the set that the metric is of, as both have it, and the metric's own name."""
    mine, theirs = read_evaluation(folder), read_evaluation(others)
    for name, sets, where in ((version, mine, folder), (other, theirs, others)):
        if not sets:
            raise ComparisonError(f"{name} has no record of its evaluation: {why_none(where)}")
    place = set_of(mine, metric)
    if place is None or place[0] not in theirs:
        raise ComparisonError(f"no eval set of both has {metric}; there are {', '.join(sorted(mine))}")
    prefix, own_name = place
    new, old = mine[prefix], theirs[prefix]
    if new.fingerprint != old.fingerprint:
        reason = f"evaluated on other data than {other}; train one with the eval data of the other"
        raise ComparisonError(reason)
    return new, old, own_name


def _tested(
    asked: ChampionGate, new: EvaluatedSet, old: EvaluatedSet, name: str, other: str
) -> tuple[dict[str, Any], str]:
    """Return what the paired test measured, and that in one line."""
    if (few := too_few(len(new.chunks), new.samples, asked.alpha)) is not None:
        raise ComparisonError(f"no version can pass: {few}")
    values, others = new.values(name), old.values(name)
    if values is None or others is None or not all(map(math.isfinite, (*values, *others))):
        raise ComparisonError(f"{asked.metric} is no number on each part of the evaluation data")
    p = p_value(values, others, asked.margin, higher=asked.mode == "max")
    means = sum(values) / len(values), sum(others) / len(others)
    reason = f"{asked.metric} is {means[0]:.4g}, and {means[1]:.4g} of {other}; p is {p:.3g}"
    return {"new": means[0], "old": means[1], "p": p, "chunks": len(values), "against": other}, reason
