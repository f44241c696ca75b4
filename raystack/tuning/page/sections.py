"""The text around the figures of a study's page, as HTML."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from raystack.display.points import duration, metric_text
from raystack.plan.tuning import TunePlan
from raystack.tuning.page.figures import Figure
from raystack.tuning.page.importance import Shares
from raystack.tuning.page.markup import cell, diff, figure, grid, section, tile
from raystack.tuning.record import Status, Trial, pareto, ranked
from raystack.tuning.summary import base_diff, best_trial, command, counts, reasons, seconds, values

LISTED = 12
"""Numbers of trials that are given for a reason."""


def heading(plan: TunePlan, trials: Sequence[Trial]) -> str:
    """Return the name, the objectives, the best value, the counts and the time."""
    goals = " and ".join(
        f"<strong>{escape(each.metric)}</strong> ({'highest' if each.mode == 'max' else 'lowest'} is best)"
        for each in plan.objectives
    )
    tried = sum(trial.status != "infeasible" for trial in trials)
    said = f"{tried} of {plan.trials} trials" if trials else "No trials yet"
    begun = min((trial.started for trial in trials if trial.started is not None), default=None)
    since = "" if begun is None else f" Begun {datetime.fromtimestamp(begun, UTC):%Y-%m-%d %H:%M} UTC."
    return (
        f"<header><h1>Study {escape(plan.name)}</h1><p>{said}, for {goals}.{since}</p>"
        f'<ul class="tiles">{"".join(_tiles(plan, trials))}</ul></header>'
    )


def _tiles(plan: TunePlan, trials: Sequence[Trial]) -> Iterator[str]:
    best = best_trial(plan, trials)
    if best is not None and len(plan.objectives) == 1:
        yield tile(metric_text(values(plan, best)[plan.objectives[0].metric]), "best value", "best")
    elif best is not None:
        yield tile(len(pareto(trials, plan)), "on the Pareto front", "best")
    for status, count in counts(trials).items():
        yield tile(count, status)
    wall, work = seconds(trials)
    if work:
        yield tile(duration(wall), "from start to end")
        yield tile(duration(work), "of all workers")


def best(plan: TunePlan, trials: Sequence[Trial]) -> str:
    """Return the best trial's config where it differs from the base config, and the command for it."""
    trial = best_trial(plan, trials)
    if trial is None:
        text = "No trial has a value of the metric that keeps the constraints, so there is no best one."
        return section("Best trial", f"<p>{text}</p>", "best")
    reached = ", ".join(f"{name} {metric_text(number)}" for name, number in values(plan, trial).items())
    parts = [f"<p>{escape(reached)}, after {trial.steps} steps and {duration(trial.seconds)}.</p>"]
    if len(plan.objectives) > 1:
        parts.append(_front(plan, trials))
    pairs = base_diff(plan, trial)
    if pairs:
        parts.append("<p>Its config, where it differs from the study's base config:</p>")
        parts.append(diff(pairs, ("base", f"trial {trial.number}"), "new"))
    else:
        parts.append("<p>Its config is the study's base config.</p>")
    parts.append(f"<p>Train with it:</p><pre><code>{escape(command(plan))}</code></pre>")
    return section(f"Best trial: {trial.number}", "\n".join(parts), "best")


def _front(plan: TunePlan, trials: Sequence[Trial]) -> str:
    rows = (
        [
            cell(str(trial.number), trial.number),
            *(cell(metric_text(number), number) for number in values(plan, trial).values()),
        ]
        for trial in ranked(pareto(trials, plan), plan)
    )
    head = ("Trial", *(f"{each.metric} ({each.mode})" for each in plan.objectives))
    text = "<p>The trials on the Pareto front; the best one is the best of them in the first objective.</p>"
    return text + grid(head, rows)


def why(trials: Sequence[Trial]) -> Iterator[str]:
    """Return why trials were infeasible or failed, grouped."""
    status: Status
    for status, title in (("infeasible", "Why trials were infeasible"), ("failed", "Why trials failed")):
        groups = reasons(trials, status)
        rows = ((cell(str(len(numbers))), cell(reason), cell(_listed(numbers))) for reason, numbers in groups)
        if groups:
            yield section(title, grid(("Trials", "Reason", "Numbers"), rows))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:LISTED])) + (", …" if len(numbers) > LISTED else "")


def drawings(plan: TunePlan, drawn: Mapping[str, Figure], shares: Shares) -> Iterator[str]:
    """Return a section for each kind of figure."""
    for index, each in enumerate(plan.objectives):
        yield figure(
            "Best value over the trials" if index == 0 else "",
            [f"history-{index}"],
            f"{each.metric} of the trials in the order in which they were suggested, and the best so far. "
            "Marks at the lower edge are trials without a value.",
        )
    fronts = [name for name in drawn if name.startswith("front-")]
    if fronts:
        caption = "Trials on the Pareto front are those that no other trial beats in all objectives."
        yield figure("Pareto front", fronts, caption)
    yield figure(
        "Parallel coordinates",
        ["parallel"],
        "A line is a trial; its color is its place in the order of values. Drag along an axis to keep the "
        "trials that pass there, and double-click to show all. “none”: the path does not count in the trial, "
        "or there is no value.",
        f"min-width:{7.5 * len(drawn['parallel']['axes'])}rem",
    )
    yield _importance(drawn, shares)
    for index, each in enumerate(plan.objectives):
        title, name = "Curves of the trials" if index == 0 else "", f"curves-{index}"
        if name in drawn:
            caption = f"{each.metric} at each evaluation; a dot is a trial's last one."
            yield figure(title, [name], caption)
        else:
            yield section(title or "Curves", f"<p>No trial has reported {escape(each.metric)} yet.</p>")


def _importance(drawn: Mapping[str, Figure], shares: Shares) -> str:
    title = "Importance of each path"
    if isinstance(shares, str):
        return section(title, f"<p>{escape(shares)}</p>")
    caption = (
        "Share of each path in what tells the best trials from the others, by conditional PED-ANOVA "
        "(Optuna), of finished and pruned trials."
    )
    height = f"height:{6 + 1.9 * len(drawn['importance']['data'][0]['y']):.1f}rem"
    return figure(title, ["importance"], caption, height)
