"""What a person reads: plans, outcomes and errors. Results go to stdout, everything else to stderr."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from raystack.errors import PausedError, RaystackError
from raystack.outcome import Outcome
from raystack.plan import KubePlan, ServePlan, TrainPlan
from raystack.plan.describe import as_json, rows

INTERRUPTED = 130
CUT_OFF = 141


def guard(action: Callable[[], int | None], *, verbose: bool) -> int:
    """Run a verb; returns its exit status. An error is told in one line per problem, with a traceback if
    `verbose`.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return action() or 0
    except RaystackError as error:
        if verbose:
            traceback.print_exc()
        elif error.trace is not None:
            _stderr().print(Text(error.trace, "dim"), soft_wrap=True)
        label = (
            Text("paused: ", "bold yellow") if isinstance(error, PausedError) else Text("error: ", "bold red")
        )
        for problem in error.problems:
            _stderr().print(label + Text(str(problem)), soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        _stderr().print("interrupted", style="yellow")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has read enough, as `head` does; the interpreter has to flush it somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CUT_OFF


def show_plan(plan: TrainPlan | ServePlan, kube: KubePlan | None, *, as_json_text: bool) -> None:
    """The plan as a table, or as JSON; with what Kubernetes is asked for where it runs there."""
    if as_json_text:
        sys.stdout.write(as_json(plan, kube) + "\n")
        return
    show_pairs(rows(plan, kube))


def show_outcome(outcome: Outcome, *, as_json_text: bool) -> None:
    """Where things are, and what to do next."""
    if as_json_text:
        sys.stdout.write(json.dumps(asdict(outcome), indent=2) + "\n")
        return
    places = (
        ("checkpoint", outcome.checkpoint),
        ("version", outcome.model_version),
        ("alias", outcome.alias),
    )
    show_pairs(
        [
            *([("run", f"{outcome.run_id}, {outcome.step} steps")] if outcome.run_id else []),
            *((name, f"{value:.4g}") for name, value in outcome.metrics.items()),
            *((what, value) for what, value in places if value is not None),
            *outcome.links.items(),
        ]
    )
    for note in outcome.notes:
        warn(note)


def show_files(paths: Iterable[Path]) -> None:
    """What was written, a line each."""
    show_text("".join(f"{path}\n" for path in paths))


def show_text(text: str) -> None:
    """A result as it is."""
    sys.stdout.write(text)


def wait_for_interrupt() -> None:
    """Sleep until Ctrl-C or SIGTERM. Ray has its own handler by now, and a shell may have ignored one
    for us.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        while True:
            signal.pause()


def say(text: str) -> None:
    """A line for people, beside the results."""
    _stderr().print(Text(text), soft_wrap=True)


def warn(text: str) -> None:
    """Something to know that stops nothing."""
    _stderr().print(Text("warning: ", "bold yellow") + Text(text), soft_wrap=True)


def show_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Two columns, never wrapped: what is shown is copied, and read by other programs."""
    width = max(len(what) for what, _ in pairs)
    for what, value in pairs:
        _stdout().print(Text(f"{what:<{width}}  ", "bold") + Text(value), soft_wrap=True)


def _stdout() -> Console:
    return Console(highlight=False)


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)
