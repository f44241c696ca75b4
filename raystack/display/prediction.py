"""The progress of an offline prediction: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from raystack.display.console import live_or_lines, say, stderr, warn
from raystack.events import (
    PredictionEvent,
    PredictionHalted,
    PredictionListener,
    PredictionStarted,
    RayUp,
    RowsPredicted,
    Warned,
)

QUIET_S = 5.0


@contextmanager
def shown_prediction() -> Iterator[PredictionListener]:
    """Return a listener that shows the events of a prediction until the block ends."""
    with live_or_lines(_Live, _Lines) as listener:
        yield listener


def _headline(event: PredictionStarted) -> str:
    files = f"{event.files:,} file{'s' if event.files > 1 else ''}"
    where = f"{event.workers} worker{'s' if event.workers > 1 else ''}" if event.workers else "this process"
    done = f", {event.done:,} done before" if event.done else ""
    return f"{event.model}: {event.rows:,} rows of {files}{done}, in {where}"


def _halted(event: PredictionHalted) -> str:
    done = f"{event.kept:,} of {event.rows:,} rows are done and stay in {event.out}"
    return f"{done}: the same command goes on from there"


class _Live:
    """rich's progress bar; lines worth keeping scroll by above it."""

    def __init__(self) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=stderr(),
            transient=True,
        )
        self._bar = self.progress.add_task("starting", total=None, rate="")

    def __call__(self, event: PredictionEvent) -> None:
        match event:
            case RayUp():
                say(f"Ray dashboard: {event.dashboard}", self.progress.console)
            case PredictionStarted():
                say(_headline(event), self.progress.console)
                self.progress.update(
                    self._bar, description="predicting", total=event.rows, completed=event.done
                )
            case RowsPredicted():
                self.progress.update(self._bar, completed=event.done, rate=_rate(event))
            case PredictionHalted():
                say(_halted(event), self.progress.console)
            case Warned():
                warn(event.text, self.progress.console)


class _Lines:
    """Plain lines for logs: a line every few seconds, and the last one."""

    def __init__(self) -> None:
        self._rows = 0
        self._shown = 0.0

    def __call__(self, event: PredictionEvent) -> None:
        match event:
            case RayUp():
                say(f"Ray dashboard: {event.dashboard}")
            case PredictionStarted():
                self._rows = event.rows
                say(_headline(event))
            case RowsPredicted():
                self._progress(event)
            case PredictionHalted():
                say(_halted(event))
            case Warned():
                warn(event.text)

    def _progress(self, event: RowsPredicted) -> None:
        now = time.monotonic()
        if event.done < self._rows and now - self._shown < QUIET_S:
            return
        self._shown = now
        left = (self._rows - event.done) / event.rate if event.rate else 0.0
        eta = f"  eta {timedelta(seconds=round(left))}" if left else ""
        percent = 100 * event.done // max(self._rows, 1)
        say(f"rows {event.done:,}/{self._rows:,} ({percent}%)  {_rate(event)}{eta}".rstrip())


def _rate(event: RowsPredicted) -> str:
    return f"{event.rate:,.0f} rows/s" if event.rate else ""
