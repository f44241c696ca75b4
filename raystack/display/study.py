"""The progress of a study: a live table of running trials on a terminal, a line for each trial elsewhere."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any, Literal

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raystack.display.console import say, stderr, warn
from raystack.display.points import duration, metric_text, short_names, shortened
from raystack.display.study_state import VALUE, State, short
from raystack.events import (
    Alarm,
    Event,
    Listener,
    RayUp,
    Slow,
    StudyStarted,
    TrialEnded,
    TrialExploited,
    TrialStarted,
    Warned,
)

REFRESH_S = 0.25
LEAST_ROWS = 3
AROUND = 7
"""Lines of a screen that are not for trials: the heading, the counts, the best, the table's head, and air."""


@contextmanager
def shown_study() -> Iterator[Listener]:
    """Return a listener that shows the events of a study until the block ends."""
    console = stderr()
    if not console.is_terminal or console.is_jupyter:
        yield _Lines()
        return
    live = _Live(console)
    screen = Live(live, console=console, auto_refresh=False, transient=True)
    with screen, live.drawn_again(screen.refresh):
        yield live


def _leads(state: State, number: int, value: float | None) -> str:
    point = state.values(state.points.get(number, {}))
    what = "on the Pareto front" if state.several else "the best so far"
    return f"trial {number} is {what}: {state.metric} {metric_text(value)}{f', {point}' if point else ''}"


def _took_over(state: State, event: TrialExploited, before: Mapping[str, Any]) -> str:
    changed = {path: given for path, given in event.point.items() if before.get(path) != given}
    values = f": {state.values(changed)}" if changed else ""
    return f"trial {event.number} takes over trial {event.donor} of step {event.step}{values}"


class _Live:
    """A table of the running trials, drawn several times a second; lines worth keeping scroll above it."""

    def __init__(self, console: Console, clock: Callable[[], float] = monotonic) -> None:
        self.console, self.state = console, State(clock)
        # rich moves the cursor up by the lines that it drew last; its own thread may draw a table of another
        # height while a line is printed, and a piece of the old one stays.
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._see(event)

    @contextmanager
    def drawn_again(self, draw: Callable[[], None]) -> Iterator[None]:
        """Call `draw` several times a second until the block ends."""
        over = threading.Event()

        def loop() -> None:
            while not over.wait(REFRESH_S):
                with self._lock:
                    draw()

        thread = threading.Thread(target=loop, name="study-display", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _see(self, event: Event) -> None:
        before = self.state.point(event)
        self.state.see(event)
        match event:
            case RayUp():
                say(f"Ray dashboard: {event.dashboard}", self.console)
            case Warned() | Slow() | Alarm():
                warn(event.text, self.console)
            case TrialEnded(status="failed"):
                warn(f"trial {event.number} failed: {event.reason}", self.console)
            case TrialEnded(status="infeasible", reason=str(reason)) if self.state.is_news(reason):
                say(f"trial {event.number} is infeasible: {reason}", self.console)
            case TrialExploited():
                say(_took_over(self.state, event, before), self.console)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Group(*_drawn(self.state, options.max_width, console.height))


def _drawn(state: State, width: int, height: int) -> Iterator[RenderableType]:
    elapsed = timedelta(seconds=round(state.clock() - state.began)) if state.trials else timedelta()
    eta = state.eta()
    left = "-" if eta is None else str(timedelta(seconds=round(eta)))
    bar = ProgressBar(total=max(1, state.trials), completed=state.over, width=max(6, min(30, width - 58)))
    head = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(4):
        head.add_column(no_wrap=True, overflow="ellipsis")
    done = f"{state.over}/{state.trials} trials"
    name = shortened(state.name or "starting", max(8, width - 56))
    head.add_row(Text(name, "bold"), done, bar, f"{elapsed}, eta {left}")
    yield head
    counts = [f"{len(state.running)} running", *(f"{n} {status}" for status, n in state.counts.items())]
    yield _line(", ".join(counts))
    if state.best is not None:
        yield _line(_leads(state, *state.best), "green")
    if state.running:
        yield from _table(state, width, max(LEAST_ROWS, height - AROUND))


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _table(state: State, width: int, rows: int) -> Iterator[RenderableType]:
    """Return the running trials with as many of their values as there is room for."""
    numbers = list(state.running)[:rows]
    trials = [state.running[number] for number in numbers]
    last = [
        _Column("step", ["-" if trial.step is None else str(trial.step) for trial in trials], "right"),
        _Column(shortened(state.metric, VALUE), [metric_text(trial.value) for trial in trials], "right"),
        _Column("time", [duration(state.clock() - trial.began) for trial in trials], "right"),
    ]
    columns = [_Column("trial", list(map(str, numbers)), "right")]
    names = short_names(state.given)
    room = width - sum(column.width for column in (*columns, *last))
    for path in state.paths():
        texts = [short(trial.point[path]) if path in trial.point else "-" for trial in trials]
        column = _Column(shortened(names[path], VALUE), texts, "left")
        room -= column.width
        if room < 0:
            break
        columns.append(column)
    columns += last
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(Text(column.name), justify=column.justify, no_wrap=True)
    for row in zip(*(column.texts for column in columns), strict=True):
        table.add_row(*map(Text, row))
    yield table
    if len(state.running) > rows:
        yield _line(f"and {len(state.running) - rows} more")


@dataclass(frozen=True)
class _Column:
    """A column of the table."""

    name: str
    texts: list[str]
    justify: Literal["left", "right"]

    @property
    def width(self) -> int:
        """Columns of the screen, with the space behind."""
        return max(len(text) for text in (self.name, *self.texts)) + 2


class _Lines:
    """Plain lines for logs: the start and the end of each trial, and each new best."""

    def __init__(self) -> None:
        self.state = State()

    def __call__(self, event: Event) -> None:
        state, before = self.state, self.state.point(event)
        steps = state.steps(event)
        state.see(event)
        match event:
            case RayUp():
                say(f"Ray dashboard: {event.dashboard}")
            case Warned() | Slow() | Alarm():
                warn(event.text)
            case StudyStarted():
                over = f", {event.over} of them over" if event.over else ""
                goals = ", ".join(f"{metric} ({mode})" for metric, mode in event.objectives)
                say(f"study {event.name}: {event.trials} trials{over}, for {goals}")
            case TrialStarted():
                say(f"trial {event.number}: {state.values(event.point)}")
            case TrialExploited():
                say(_took_over(state, event, before))
            case TrialEnded():
                reached = "" if event.value is None else f", {state.metric} {metric_text(event.value)}"
                ran = f" after {steps} steps and {duration(event.seconds)}" if steps else ""
                reason = "" if event.reason is None else f": {event.reason}"
                say(f"trial {event.number} {event.status}{ran}{reached}{reason}")
                if event.best:
                    say(_leads(state, event.number, event.value))
