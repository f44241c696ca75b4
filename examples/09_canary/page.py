"""The page of the demonstration: what happened, in one HTML file that needs nothing else."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

from plotly.graph_objects import Figure
from plotly.subplots import make_subplots
from traffic import Answer

from raystack.plan.rollout import RolloutPlan
from raystack.rollout.state import Decision

PAGE = Path(__file__).with_name("page.html")
BIN_S = 0.5
COLORS = {"served": "#4a90d9", "rolled back": "#e0564b", "finished": "#3fa35b"}
GRAY = "#8a919c"


class Look(NamedTuple):
    """A rollout at a moment at which it watched a step."""

    at: float
    step: int
    evidence: float
    """The largest of all bounds."""


class Share(NamedTuple):
    """The share of the requests that a version answered in a step."""

    weight: float
    answered: int
    requests: int


@dataclass(frozen=True)
class Rolled:
    """A rollout that is over."""

    version: str
    status: str
    decisions: Sequence[Decision]
    looks: Sequence[Look]
    plan: RolloutPlan

    @property
    def judged(self) -> list[Look]:
        """Return the looks, with the one that it went back for."""
        back = [made for made in self.decisions if made.what == "roll back"]
        return [*self.looks, *(Look(made.at, -1, max(made.numbers["evidence"].values())) for made in back)]

    def shares(self, answers: Sequence[Answer]) -> list[Share]:
        """Return what clients saw of each step."""
        found = []
        for number, step in enumerate(self.plan.steps):
            times = [look.at for look in self.looks if look.step == number]
            if times:
                during = [answer.version for answer in answers if times[0] <= answer.at < times[-1]]
                found.append(Share(step.weight, during.count(self.version), len(during)))
        return found

    def own(self, answers: Iterable[Answer]) -> list[Answer]:
        """Return the version's answers."""
        return [answer for answer in answers if answer.version == self.version]

    def seconds(self, answers: Iterable[Answer]) -> float | None:
        """Return the seconds from the first wrong answer of the version to its last one of all."""
        own = self.own(answers)
        wrong = [answer.at for answer in own if not answer.right]
        return own[-1].at - wrong[0] if wrong else None

    def told(self, answers: Sequence[Answer]) -> str:
        """Return what became of it, in a line."""
        own, seconds = self.own(answers), self.seconds(answers)
        wrong = sum(not answer.right for answer in own)
        after = f" {seconds:.1f} s after its first wrong answer" if seconds is not None else ""
        shares = ", ".join(f"{_share(each)} at {each.weight:.0%}" for each in self.shares(answers))
        told = f"{self.status}{after if self.status == 'rolled back' else ''}"
        return f"{told}; {wrong} of its {len(own)} answers were wrong; its share was {shares}"


def write(answers: Sequence[Answer], rolled: Sequence[Rolled]) -> str:
    """Return the page."""
    failed = sum(not answer.version for answer in answers)
    back = next((each for each in rolled if each.status == "rolled back"), None)
    seconds = back.seconds(answers) if back is not None else None
    tiles = [(f"{len(answers):,}", "requests"), (f"{failed:,}", "failed")]
    if back is not None and seconds is not None:
        wrong = sum(not answer.right for answer in back.own(answers))
        tiles += [(f"{seconds:.1f} s", f"from version {back.version}'s first wrong answer to its last")]
        tiles += [(f"{wrong:,}", f"wrong answers of version {back.version} that clients got")]
    listed = "".join(f"<li><b>{value}</b> {escape(text)}</li>" for value, text in tiles)
    figure = _figure(answers, rolled).to_html(
        full_html=False, include_plotlyjs=True, div_id="traffic", config={"displayModeBar": False}
    )
    sections = "".join(_section(each, answers) for each in rolled)
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        tiles=listed, figure=figure, sections=sections
    )


def _section(each: Rolled, answers: Sequence[Answer]) -> str:
    began = answers[0].at
    decisions = [(f"{made.at - began:.1f} s", made.what, made.why) for made in each.decisions]
    shares = [
        (f"{share.weight:.0%}", f"{share.requests:,}", f"{share.answered:,}", _share(share))
        for share in each.shares(answers)
    ]
    return (
        f"<section><h2>Version {escape(each.version)}</h2>"
        f"<p>{escape(each.told(answers))}.</p>"
        + _table(("time", "decision", "why"), decisions)
        + _table(("weight of the step", "requests", "answered by it", "share"), shares)
        + "</section>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    columns = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{columns}</tr>{lines}</table>"


def _share(share: Share) -> str:
    return f"{share.answered / max(1, share.requests):.1%}"


def _figure(answers: Sequence[Answer], rolled: Sequence[Rolled]) -> Figure:
    """Return the traffic, the wrong answers and the evidence below each other."""
    began = answers[0].at
    titles = (
        "requests a second, by the version that answered",
        "wrong answers a second",
        "evidence that it is worse",
    )
    figure = make_subplots(
        3, 1, shared_xaxes=True, row_heights=[0.5, 0.22, 0.28], vertical_spacing=0.07, subplot_titles=titles
    )
    for version, color in _colors(answers, rolled).items():
        own = [answer for answer in answers if answer.version == version]
        look = {"name": f"version {version}" if version else "failed", "line": {"color": color, "width": 0}}
        for row, chosen in ((1, own), (2, [answer for answer in own if not answer.right])):
            times, heights = _a_second(chosen, began, answers[-1].at)
            look |= {"fillcolor": color, "stackgroup": row, "showlegend": row == 1}
            figure.add_scatter(x=times, y=heights, row=row, col=1, **look)
    for each in rolled:
        figure.add_scatter(
            x=[look.at - began for look in each.judged],
            y=[max(1.0, look.evidence) for look in each.judged],
            mode="lines",
            line={"color": COLORS[each.status], "width": 2.5},
            showlegend=False,
            row=3,
            col=1,
        )
        for at, text in _marks(each, answers):
            figure.add_vline(at - began, line={"color": GRAY, "width": 1, "dash": "dot"})
            figure.add_annotation(
                x=at - began, y=1, yref="paper", yshift=24, text=text, textangle=-35, xanchor="left",
                yanchor="bottom", showarrow=False,
            )  # fmt: skip
    _dress(figure, rolled)
    return figure


def _colors(answers: Sequence[Answer], rolled: Sequence[Rolled]) -> dict[str, str]:
    """Return the color of each version, of what was served at first and of failures."""
    found = {each.version: COLORS[each.status] for each in rolled}
    first = next(answer.version for answer in answers if answer.version)
    failed = {"": "#000000"} if any(not answer.version for answer in answers) else {}
    return {first: COLORS["served"], **found, **failed}


def _a_second(answers: Iterable[Answer], began: float, ended: float) -> tuple[list[float], list[float]]:
    """Return the middle of each interval, and its answers a second; the last one is not whole."""
    counts = Counter(int((answer.at - began) / BIN_S) for answer in answers)
    bins = range(int((ended - began) / BIN_S))
    return [(each + 0.5) * BIN_S for each in bins], [counts[each] / BIN_S for each in bins]


def _marks(each: Rolled, answers: Iterable[Answer]) -> Iterator[tuple[float, str]]:
    """Yield when the version was started, answered first, and when a decision was made, each with a text."""
    yield each.decisions[0].at, f"start of version {each.version}"
    for answer in each.own(answers)[:1]:
        yield answer.at, f"{each.plan.steps[0].weight:.0%}"
    for made in each.decisions[1:-1]:
        yield made.at, f"{made.numbers['weight']:.0%}" if made.what == "step" else made.what


def _dress(figure: Figure, rolled: Sequence[Rolled]) -> None:
    wanted = rolled[0].plan.wanted
    figure.add_hline(wanted, line={"color": COLORS["rolled back"], "dash": "dash", "width": 1}, row=3, col=1)
    highest = max(look.evidence for each in rolled for look in each.judged)
    figure.update_layout(
        height=760, margin={"l": 56, "r": 24, "t": 110, "b": 44}, hovermode="x unified",
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": -0.05, "traceorder": "normal"},
    )  # fmt: skip
    for title in figure.layout.annotations[:3]:
        title.update(x=0, xanchor="left", font_size=13)
    figure.update_xaxes(zeroline=False)
    figure.update_xaxes(title_text="seconds", row=3, col=1)
    figure.update_yaxes(zeroline=False, rangemode="tozero")
    top = math.log10(max(highest, wanted)) + 0.5
    ticks = [1, 100, wanted]
    figure.update_yaxes(
        type="log",
        range=[-0.1, top],
        tickvals=ticks,
        ticktext=[f"{each:,.0f}" for each in ticks],
        row=3,
        col=1,
    )
