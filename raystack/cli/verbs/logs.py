"""`raystack logs KIND/NAME`: the log of its driver, or of all its pods."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Json, Reference
from raystack.cli.verb import Verb, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Reference):
    """Options of `logs`."""

    follow: bool = option("-f", "--follow", help="go on until it has ended")
    everything: bool = option(
        "--all", help="of all pods and containers, or of all attempts of a job/ID, each line with its source"
    )


def run(options: Options, terminal: "Terminal") -> None:
    """Print log lines as they arrive."""
    lines = options.handle.logs(follow=options.follow, everything=options.everything)
    terminal.logs(lines, sources=options.everything)


VERB = Verb(
    name="logs",
    help="show the log of its driver, or of all pods",
    options=Options,
    run=run,
    group="what runs elsewhere",
)
