"""The progress of a run: one live line on a terminal and in a notebook, a line now and then elsewhere."""

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
    Alarm,
    EndedEarly,
    Evaluated,
    Event,
    Finished,
    Initialised,
    Listener,
    RayUp,
    Saved,
    Slow,
    Started,
    Stepped,
    Warned,
)

QUIET_S = 5.0


@contextmanager
def shown() -> Iterator[Listener]:
    """Return a listener that shows the events of a run until the block ends."""
    with live_or_lines(_Live, _Lines) as listener:
        yield listener


def _headline(event: Started) -> str:
    evals = f", {event.eval_samples:,} to evaluate on" if event.eval_samples else ""
    workers = f"{event.world_size} worker{'s' if event.world_size > 1 else ''}"
    start = f", from step {event.first_step}" if event.first_step else ""
    samples = "unnumbered" if event.samples is None else f"{event.samples:,}"
    return f"{event.parameters:,} parameters, {samples} samples{evals}, {workers} on {event.device}{start}"


def _rate(event: Stepped) -> str:
    for unit in ("tokens", "samples"):
        if (rate := event.metrics.get(f"speed/{unit}_per_s")) is not None:
            return f"{rate:,.0f} {unit}/s"
    return ""


def _metrics(event: Evaluated) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())


def _stacks(event: Alarm) -> str:
    """Format the stacks of all workers; equal ones once."""
    alike: dict[str, list[str]] = {}
    for rank, text in event.stacks.items():
        alike.setdefault(text, []).append(str(rank))
    return "\n".join(f"rank {', '.join(ranks)}:\n{text}" for text, ranks in alike.items())


class _Live:
    """rich's progress bar; lines worth keeping scroll by above it."""

    def __init__(self) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=stderr(),
            transient=True,
        )
        self._bar = self.progress.add_task("starting", total=None, loss="-", rate="")

    def __call__(self, event: Event) -> None:
        match event:
            case RayUp():
                self.progress.console.print(f"Ray dashboard: {event.dashboard}")
            case Initialised():
                self.progress.console.print(event.text, markup=False)
            case Started():
                self.progress.console.print(_headline(event))
                self.progress.update(
                    self._bar, description="training", total=event.total_steps, completed=event.first_step
                )
            case Stepped():
                loss = f"{event.metrics['train/loss']:.4f}"
                self.progress.update(self._bar, completed=event.step, loss=loss, rate=_rate(event))
            case Evaluated():
                self.progress.console.print(f"step {event.step}: {_metrics(event)}")
            case EndedEarly():
                say(f"step {event.step}: {event.reason}", self.progress.console)
            case Saved():
                self.progress.console.print(f"step {event.step}: checkpoint {event.url}", soft_wrap=True)
            case Warned() | Slow():
                warn(event.text, self.progress.console)
            case Alarm():
                warn(event.text, self.progress.console)
                say(_stacks(event), self.progress.console)
            case Finished(demonstration=str(text)):
                self.progress.console.print(text, markup=False)


class _Lines:
    """Plain lines for logs: all rare events, and a step every few seconds."""

    def __init__(self) -> None:
        self._total = 0
        self._shown = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case RayUp():
                say(f"Ray dashboard: {event.dashboard}")
            case Initialised():
                say(event.text)
            case Started():
                self._total = event.total_steps
                say(_headline(event))
            case Stepped():
                self._step(event)
            case Evaluated():
                say(f"step {event.step}: {_metrics(event)}")
            case EndedEarly():
                say(f"step {event.step}: {event.reason}")
            case Saved():
                say(f"step {event.step}: checkpoint {event.url}")
            case Warned() | Slow():
                warn(event.text)
            case Alarm():
                warn(event.text)
                say(_stacks(event))
            case Finished(demonstration=str(text)):
                say(text)

    def _step(self, event: Stepped) -> None:
        now = time.monotonic()
        if event.step < self._total and now - self._shown < QUIET_S:
            return
        self._shown = now
        left = (self._total - event.step) * event.metrics.get("speed/step_s", 0.0)
        eta = f"  eta {timedelta(seconds=round(left))}" if left else ""
        say(f"step {event.step}/{self._total}  loss {event.metrics['train/loss']:.4f}  {_rate(event)}{eta}")
