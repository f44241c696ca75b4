"""`raystack rollout start|status|pause|resume|abort|promote config.yaml [key=value ...]`: a version takes the
place of another step by step, and goes back by itself.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Config, Json
from raystack.cli.verb import Actions, Group, Verb, option
from raystack.errors import Problem, RolledBackError

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal
    from raystack.rollout.state import State

HELP = "roll a version out step by step; it goes back by itself if it is worse"
GROUP: Group = "train and serve"
USAGE = "[options] config.yaml [key=value ...]"


@dataclass(frozen=True, kw_only=True)
class Start(Json, Config):
    """Options of `start`."""

    dry_run: bool = option("--dry-run", help="print the plan and stop", exclusive="what")
    detach: bool = option("--detach", help="return when it has begun; it goes on", exclusive="what")
    supersede: bool = option("--supersede", help="send a rollout of the same model back that is not over")


@dataclass(frozen=True, kw_only=True)
class Status(Json, Config):
    """Options of `status`."""

    decisions: bool = option("--decisions", help="show every decision; with --json its numbers, too")


@dataclass(frozen=True, kw_only=True)
class Ordered(Json, Config):
    """Options of what is asked of a rollout."""

    why: str = option("--why", help="reason, for the record", default="", metavar="TEXT")


def start(options: Start, terminal: "Terminal") -> None:
    """Start, and stay until the rollout is over."""
    experiment = options.experiment
    if options.dry_run:
        terminal.plan(experiment.plan_rollout())
        return
    handle = experiment.start_rollout(supersede=options.supersede, verbose=options.verbose)
    if options.detach:
        terminal.rollout(handle)
        return
    terminal.say(f"rollout {handle.id}; Ctrl-C leaves it running")
    try:
        last = terminal.watch_rollout(handle)
    except KeyboardInterrupt:
        terminal.say(f"the rollout {handle.id} goes on; `raystack rollout status` and `abort` reach it")
        raise
    _raise_if_back(last)


def status(options: Status, terminal: "Terminal") -> None:
    """Show where it is."""
    handle = options.experiment.rollout
    if options.decisions:
        terminal.decisions(handle.decisions)
    else:
        terminal.rollout(handle)
    _raise_if_back(handle.state)


def pause(options: Ordered, terminal: "Terminal") -> None:
    """Take no further step."""
    terminal.decision(options.experiment.rollout.order("pause", who=_who(), why=options.why))


def resume(options: Ordered, terminal: "Terminal") -> None:
    """Go on, with a new process of the rollout if it has none."""
    decision = options.experiment.resume_rollout(who=_who(), why=options.why, verbose=options.verbose)
    if decision is None:
        terminal.say("it is not paused, and has its process")
    else:
        terminal.decision(decision)


def abort(options: Ordered, terminal: "Terminal") -> None:
    """Send the version back."""
    terminal.decision(options.experiment.rollout.order("abort", who=_who(), why=options.why))


def promote(options: Ordered, terminal: "Terminal") -> None:
    """Take the next step at once."""
    terminal.decision(options.experiment.rollout.order("promote", who=_who(), why=options.why))


def _who() -> str:
    from raystack.registry.gates import whoever

    return whoever()


def _raise_if_back(state: "State") -> None:
    if state.over and state.status != "finished":
        raise RolledBackError(Problem(state.id, rule=f"{state.status}: {state.cause}"))


VERB = Actions(
    name="rollout",
    help=HELP,
    group=GROUP,
    actions=(
        Verb("start", "begin, and show it until it is over", Start, start, GROUP, usage=USAGE),
        Verb("status", "where it is; status 7 if the version went back", Status, status, GROUP, usage=USAGE),
        Verb("pause", "take no further step; the analysis goes on", Ordered, pause, GROUP, usage=USAGE),
        Verb("resume", "go on, also after its process was lost", Ordered, resume, GROUP, usage=USAGE),
        Verb("abort", "send the version back at once", Ordered, abort, GROUP, usage=USAGE),
        Verb("promote", "take the next step, or the last one, at once", Ordered, promote, GROUP, usage=USAGE),
    ),
)
