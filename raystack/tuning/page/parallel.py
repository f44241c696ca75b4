"""Parallel coordinates: an axis for each path and for the value, and a line for each trial.

plotly's own `parcoords` needs WebGL, which a browser on a machine without a GPU has not, knows no logarithm,
and has no place for a path that does not count. So the places on the axes are computed here, and page.js
draws ordinary lines between them.
"""

from collections.abc import Mapping, Sequence

from raystack.display.points import metric_text, short_names, shortened, value_text
from raystack.plan.tuning import TunePlan
from raystack.tuning.page.figures import Figure, finite, plain
from raystack.tuning.page.scale import Scale, scale_of, scale_of_metric
from raystack.tuning.record import Trial, pareto, ranked, value

ABSENT = -0.12
"""Place of a trial in which the path does not count, below the axis."""
NAME, LABEL = 18, 13
"""Characters of an axis' name and of its labels."""


def parallel(plan: TunePlan, trials: Sequence[Trial]) -> Figure:
    """Return the axes with their labels, and for each trial its places, group and text."""
    names = short_names(each.path for each in plan.space)
    axes, columns = [], []
    for dimension in plan.space:
        path = dimension.path
        scale = scale_of(dimension, [trial.point[path] for trial in trials if path in trial.point])
        columns.append([scale.place(trial.point[path]) if path in trial.point else None for trial in trials])
        axes.append(_axis(names[dimension.path], scale, absent=None in columns[-1]))
    for objective in plan.objectives:
        measured = [finite(value(trial, objective, plan)) for trial in trials]
        scale = scale_of_metric([number for number in measured if number is not None])
        columns.append([scale.place(number) for number in measured])
        axes.append(_axis(objective.metric, scale, absent=None in columns[-1]))
    groups, group = _groups(plan, trials)
    lines = [
        {
            "places": [ABSENT if place is None else round(place, 4) for place in places],
            "group": group.get(trial.number, len(groups) - 1),
            "text": _hover(plan, trial, names),
        }
        for trial, *places in zip(trials, *columns, strict=True)
    ]
    return {"axes": axes, "lines": lines, "groups": groups}


def _axis(name: str, scale: Scale, *, absent: bool) -> Figure:
    ticks = [(round(place, 4), plain(shortened(value_text(each), LABEL))) for place, each in scale.ticks()]
    return {
        "name": plain(shortened(name, NAME)),
        "ticks": [*ticks, (ABSENT, "none")] if absent else ticks,
    }


def _groups(plan: TunePlan, trials: Sequence[Trial]) -> tuple[list[str], dict[int, int]]:
    """Return the names of the groups, the best first, and the group of each trial that is not in the last."""
    if len(plan.objectives) > 1:
        front = {trial.number for trial in pareto(trials, plan)}
        others = {trial.number: 1 for trial in ranked(trials, plan)}
        return ["Pareto front", "others", "no value"], others | dict.fromkeys(front, 0)
    order = ranked(trials, plan)
    shares = {trial.number: index / len(order) for index, trial in enumerate(order)}
    found = {number: 1 if share < 0.25 else 2 if share < 0.5 else 3 for number, share in shares.items()}
    best = {order[0].number: 0} if order else {}
    return ["best", "best quarter", "second quarter", "lower half", "no value"], found | best


def _hover(plan: TunePlan, trial: Trial, names: Mapping[str, str]) -> str:
    lines = [f"trial {trial.number}, {trial.status}"]
    lines += [
        f"{shortened(each.metric, 30)}: {metric_text(value(trial, each, plan))}" for each in plan.objectives
    ]
    lines += [
        f"{names.get(path, path)}: {shortened(value_text(given), 30)}" for path, given in trial.point.items()
    ]
    return "<br>".join(map(plain, lines))
