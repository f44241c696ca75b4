"""The figures of a study as plotly.js reads them, in JSON.

A color is a CSS variable, such as `var(--best)`, for which page.js puts the reader's. All text that a
user has given is escaped, because plotly.js reads tags in it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import combinations
from typing import Any

from raystack.display.points import metric_text, short_names, shortened, value_text
from raystack.plan.tuning import Objective, TunePlan
from raystack.tuning.page.scale import is_wide
from raystack.tuning.record import Report, Trial, feasible, pareto, value
from raystack.tuning.summary import best_trial

Figure = dict[str, Any]
"""`data` and `layout` of plotly.js."""

SYMBOLS = {
    "finished": "circle",
    "pruned": "triangle-down",
    "stopped": "square",
    "failed": "x",
    "running": "circle-open",
    "infeasible": "x-thin-open",
}
BROKEN = "breaks a constraint"
MOST_POINTS = 40_000
"""Points of all curves together, so that the page stays small; each has at least FEWEST_POINTS."""
FEWEST_POINTS = 20


def history(plan: TunePlan, trials: Sequence[Trial], objective: Objective) -> Figure:
    """Return the values over the trials with the best so far, and marks for trials without a value."""
    numbers = {trial.number: finite(value(trial, objective, plan)) for trial in trials}
    data = _running_best(plan, trials, objective)
    for status, group in _by_status(plan, trials).items():
        shown = [trial for trial in group if numbers[trial.number] is not None]
        absent = [trial for trial in group if numbers[trial.number] is None]
        heights = [numbers[trial.number] for trial in shown]
        for part, y, scale in ((shown, heights, "y"), (absent, [0.02] * len(absent), "y2")):
            if part:
                mark = _points([trial.number for trial in part], y, status)
                mark["text"] = [_hover(plan, trial, objective) for trial in part]
                once = part is shown or not shown
                data.append(mark | {"yaxis": scale, "legendgroup": status, "showlegend": once})
    axis = _axis(objective.metric, [number for number in numbers.values() if number is not None])
    hidden = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    order = {"title": {"text": "trial"}, "tickformat": "d"} | ({"dtick": 1} if len(trials) <= 10 else {})
    layout = {"xaxis": order, "yaxis": axis, "yaxis2": hidden}
    return {"data": data, "layout": layout}


def curves(plan: TunePlan, trials: Sequence[Trial], objective: Objective) -> Figure:
    """Return the metric over the steps of each trial, the best one above the others."""
    best = best_trial(plan, trials)
    limit = max(FEWEST_POINTS, MOST_POINTS // max(1, len(trials)))
    groups = _by_status(plan, [trial for trial in trials if trial is not best])
    data = [_curve(group, objective, status, limit) for status, group in groups.items()]
    data = [trace for trace in data if trace["x"]]
    if best is not None:
        line = {"color": "var(--best)", "width": 3}
        data.append(
            _curve([best], objective, f"trial {best.number}, the best", MOST_POINTS)
            | {"line": line, "opacity": 1, "marker": {"color": "var(--best)", "size": 6}}
        )
    data += _exploits(plan, trials, objective)
    every = [height for trace in data for height in trace["y"] if height is not None]
    axis = _axis(objective.metric, every)
    return {"data": data, "layout": {"xaxis": {"title": {"text": "step"}}, "yaxis": axis}}


def fronts(plan: TunePlan, trials: Sequence[Trial]) -> list[Figure]:
    """Return the values of each pair of objectives against each other; the Pareto front is of them all."""
    front = {trial.number for trial in pareto(trials, plan)}
    return [_front(plan, trials, pair, front) for pair in combinations(plan.objectives, 2)]


def bars(shares: Mapping[str, float]) -> Figure:
    """Return the importance of each path, the largest above."""
    names = short_names(shares)
    least_first = list(shares.items())[::-1]
    bar = {
        "type": "bar",
        "orientation": "h",
        "x": [share for _, share in least_first],
        "y": [plain(shortened(names[path], 28)) for path, _ in least_first],
        "text": [f"{share:.0%}" for _, share in least_first],
        "customdata": [plain(path) for path, _ in least_first],
        "hovertemplate": "%{customdata}: %{text}<extra></extra>",
        "textposition": "auto",
        "textangle": 0,
        "marker": {"color": "var(--best)"},
    }
    axis = {"tickformat": ".0%", "range": [0, 1], "title": {"text": "share"}}
    return {"data": [bar], "layout": {"xaxis": axis, "yaxis": {"automargin": True, "type": "category"}}}


def plain(text: str) -> str:
    """Return text that plotly.js shows as it is. It knows few entities, and none of a quotation mark."""
    return escape(text, quote=False)


def finite(number: float | None) -> float | None:
    """Return a number that has a place in a figure, or None."""
    return number if number is not None and math.isfinite(number) else None


def _running_best(plan: TunePlan, trials: Sequence[Trial], objective: Objective) -> list[Figure]:
    better = max if objective.mode == "max" else min
    x: list[int] = []
    y: list[float] = []
    for trial in trials:
        number = finite(value(trial, objective, plan)) if feasible(trial, plan) else None
        if number is not None and (not y or better(number, y[-1]) != y[-1]):
            x.append(trial.number)
            y.append(number)
    if not y:
        return []
    if x[-1] != trials[-1].number:
        x.append(trials[-1].number)
        y.append(y[-1])
    line = {"shape": "hv", "color": "var(--best)", "width": 2}
    hover = {"line": line, "hovertemplate": "best so far: %{y}<extra></extra>"}
    return [_lines(x, y, "best so far") | hover]


def _by_status(plan: TunePlan, trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """Return the trials by what is said of them in a legend."""
    groups: dict[str, list[Trial]] = {status: [] for status in (*SYMBOLS, BROKEN)}
    for trial in trials:
        kept = trial.status in ("infeasible", "failed") or not trial.reports or feasible(trial, plan)
        groups[trial.status if kept else BROKEN].append(trial)
    return {status: group for status, group in groups.items() if group}


def _curve(trials: Sequence[Trial], objective: Objective, name: str, limit: int) -> Figure:
    """Return the curves of some trials as one line with gaps; the last point of each has a mark."""
    x: list[int | None] = []
    y: list[float | None] = []
    owner: list[int | None] = []
    sizes: list[int] = []
    for trial in trials:
        reports = thinned([each for each in trial.reports if objective.metric in each.metrics], limit)
        if not reports:
            continue
        x += [*(each.step for each in reports), None]
        y += [*(finite(each.metrics[objective.metric]) for each in reports), None]
        owner += [*[trial.number] * len(reports), None]
        sizes += [*[0] * (len(reports) - 1), 6, 0]
    color = _color(name)
    return _lines(x, y, name) | {
        "mode": "lines+markers",
        "opacity": 0.7,
        "customdata": owner,
        "line": {"color": color, "width": 1 if len(trials) <= 50 else 0.5},
        "marker": {"color": color, "size": sizes},
        "hovertemplate": "trial %{customdata}, step %{x}: %{y}<extra></extra>",
    }


def thinned(reports: Sequence[Report], limit: int) -> list[Report]:
    """Return at most `limit` reports, evenly, with the first and the last."""
    if len(reports) <= limit:
        return list(reports)
    return [reports[round(index * (len(reports) - 1) / (limit - 1))] for index in range(limit)]


def _exploits(plan: TunePlan, trials: Sequence[Trial], objective: Objective) -> list[Figure]:
    """Return a mark where a trial has gone over to another one's checkpoint."""
    names = short_names(each.path for each in plan.space)
    x, y, text = [], [], []
    for trial in trials:
        before = {each.number: each for each in trial.reports}
        for exploit in trial.exploits:
            report = before.get(exploit.report)
            number = None if report is None else finite(report.metrics.get(objective.metric))
            if report is None or number is None:
                continue
            values = (f"{names.get(path, path)} {value_text(new)}" for path, new in exploit.point.items())
            said = f"trial {trial.number} takes over trial {exploit.donor} of step {exploit.step}"
            x.append(report.step)
            y.append(number)
            text.append("<br>".join(map(plain, (said, *values))))
    if not x:
        return []
    mark = {"symbol": "star-diamond", "size": 10, "color": "var(--exploit)"}
    return [_points(x, y, "takes over") | {"marker": mark, "text": text}]


def _front(
    plan: TunePlan, trials: Sequence[Trial], pair: tuple[Objective, Objective], front: set[int]
) -> Figure:
    placed = [
        (trial, x, y)
        for trial in trials
        if (x := finite(value(trial, pair[0], plan))) is not None
        and (y := finite(value(trial, pair[1], plan))) is not None
    ]
    data = []
    for status, group in _by_status(plan, [trial for trial, *_ in placed]).items():
        inside = {trial.number for trial in group} - front
        rest = [each for each in placed if each[0].number in inside]
        if rest:
            mark = _points([x for _, x, _ in rest], [y for *_, y in rest], status)
            data.append(mark | {"text": [_hover(plan, trial, *pair) for trial, *_ in rest]})
    best = sorted((each for each in placed if each[0].number in front), key=lambda each: each[1:])
    if best:
        # Between more than two objectives the front is no line in the plane of two.
        mode = "lines+markers" if len(plan.objectives) == 2 else "markers"
        mark = _points([x for _, x, _ in best], [y for *_, y in best], "Pareto front")
        line = {"color": "var(--best)", "width": 2, "shape": "vh" if pair[0].mode == "max" else "hv"}
        data.append(
            mark
            | {"mode": mode, "line": line, "marker": {"color": "var(--best)", "size": 10}}
            | {"text": [_hover(plan, trial, *pair) for trial, *_ in best]}
        )
    names = [f"{each.metric} ({each.mode})" for each in pair]
    across, up = _axis(names[0], [x for _, x, _ in placed]), _axis(names[1], [y for *_, y in placed])
    return {"data": data, "layout": {"xaxis": across, "yaxis": up}}


def _lines(x: Sequence[Any], y: Sequence[Any], name: str) -> Figure:
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name}


def _points(x: Sequence[Any], y: Sequence[Any], name: str) -> Figure:
    color = _color(name)
    mark = {"symbol": SYMBOLS.get(name, "circle-open"), "size": 9, "color": color}
    thin = {"line": {"color": color, "width": 2}} if name == "infeasible" else {}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": y,
        "name": name,
        "marker": mark | thin,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _color(name: str) -> str:
    return f"var(--{name})" if name in SYMBOLS else "var(--broken)"


def _axis(name: str, values: Sequence[float]) -> Figure:
    kind = {"type": "log", "exponentformat": "power"} if is_wide(values) else {}
    return {"title": {"text": plain(shortened(name, 40))}} | kind


def _hover(plan: TunePlan, trial: Trial, *objectives: Objective) -> str:
    lines = [f"trial {trial.number}, {trial.status}"]
    lines += [f"{each.metric}: {metric_text(value(trial, each, plan))}" for each in objectives]
    if trial.reason is not None:
        lines.append(shortened(trial.reason, 80))
    return "<br>".join(map(plain, lines))
