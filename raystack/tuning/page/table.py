"""The table of all trials, which page.js sorts and filters."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from raystack.display.points import duration, metric_text, short_names, shortened, value_text
from raystack.plan.tuning import TunePlan
from raystack.tuning.page.markup import cell, diff, section
from raystack.tuning.record import Trial, feasible
from raystack.tuning.summary import (
    ABSENT,
    best_trial,
    counts,
    in_order,
    point_text,
    trial_diff,
    values,
)

MOST_COLUMNS = 10
"""Paths with a column of their own; the others are in the last column alone."""


def table(plan: TunePlan, trials: Sequence[Trial]) -> str:
    """Return all trials, the best first, with what differs from the best one."""
    if not trials:
        return section("Trials", "<p>There are none.</p>")
    best = best_trial(plan, trials)
    names = short_names(each.path for each in plan.space)
    head = [("trial", "Trial"), ("status", "Status")]
    head += [(each.metric, each.metric) for each in plan.objectives]
    head += [("optimizer steps", "Steps"), ("time that the trial has run", "Time")]
    columns = "".join(
        f'<th scope="col" title="{escape(title)}"><button type="button">{escape(name)}</button></th>'
        for title, name in (*head, *list(names.items())[:MOST_COLUMNS])
    )
    last = "Notes" if best is None else f"Other than trial {best.number}"
    rows = "".join(_row(plan, trial, best, names) for trial in in_order(plan, trials))
    return section(
        "Trials",
        f'{_tools(trials)}<div class="scroll tall"><table id="trials">'
        f'<thead><tr>{columns}<th scope="col">{last}</th></tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table></div>",
    )


def _tools(trials: Sequence[Trial]) -> str:
    statuses = "".join(f'<option value="{status}">{status}</option>' for status in counts(trials))
    return (
        '<p class="tools"><label>Filter <input type="search" id="filter"></label> '
        f'<label>Status <select id="status"><option value="">all</option>{statuses}</select></label> '
        '<output id="shown"></output></p>'
    )


def _row(plan: TunePlan, trial: Trial, best: Trial | None, names: Mapping[str, str]) -> str:
    cells = [
        cell(str(trial.number), trial.number),
        f'<td><span class="{trial.status}">{trial.status}</span></td>',
        *(cell(metric_text(number), number) for number in values(plan, trial).values()),
        cell(str(trial.steps), trial.steps),
        cell(duration(trial.seconds), trial.seconds),
    ]
    for path in list(names)[:MOST_COLUMNS]:
        given = trial.point.get(path, ABSENT)
        same = best is not None and trial is not best and given == best.point.get(path, ABSENT)
        cells.append(cell(shortened(point_text(trial, path), 24), given, "same" if same else ""))
    cells.append(f"<td>{''.join(_notes(plan, trial, best, names))}</td>")
    mark = ' class="best"' if trial is best else ""
    return f'<tr{mark} data-status="{trial.status}">{"".join(cells)}</tr>\n'


def _notes(plan: TunePlan, trial: Trial, best: Trial | None, names: Mapping[str, str]) -> Iterator[str]:
    """Return what else there is to say of a trial."""
    if trial is best:
        yield "the best"
    elif best is not None:
        pairs = trial_diff(best, trial)
        changed = ", ".join(names.get(path, path) for path in pairs)
        markup = diff(pairs, (f"trial {best.number}", f"trial {trial.number}"))
        yield _folded(shortened(changed, 60), markup) if pairs else "nothing"
    if trial.given:
        yield "<p>a given point</p>"
    if trial.reason is not None:
        yield f"<p>{escape(trial.reason)}</p>"
    elif trial.reports and not feasible(trial, plan):
        yield "<p>breaks a constraint</p>"
    for each in trial.exploits:
        point = ", ".join(f"{names.get(path, path)} {value_text(new)}" for path, new in each.point.items())
        yield _folded(f"took over trial {each.donor} at step {each.step}", escape(point))


def _folded(text: str, markup: str) -> str:
    return f"<details><summary>{escape(text)}</summary>{markup}</details>"
