"""`raystack status [KIND/NAME]`: what is known of something that runs elsewhere, or of everything there."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import raystack
from raystack.cli.options import Json, Reference, seconds
from raystack.cli.verb import Verb, argument, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Reference):
    """Options of `status`."""

    reference: str = argument(
        metavar="KIND/NAME",
        help="rayjob/NAME, rayservice/NAME, raycluster/NAME or raycronjob/NAME in Kubernetes; job/ID on a Ray"
        " cluster; left out: everything there",
        nargs="?",
        default="",
    )
    watch: bool = option(
        "--watch", help="a line for every change, until it has ended; then end with its exit status"
    )
    timeout_s: float | None = option(
        "--timeout", help="with --watch: no longer than that", default=None, type=seconds, metavar="SECONDS"
    )


def run(options: Options, terminal: "Terminal") -> int | None:
    """Show one status, each of its changes, or all statuses."""
    if options.timeout_s is not None and not options.watch:
        problem = raystack.Problem("--timeout", rule="bounds --watch", remedy="add --watch, or drop it")
        raise raystack.ConfigError(problem)
    if not options.reference:
        if options.watch:
            rule, remedy = "one thing is watched", "name it: raystack status KIND/NAME --watch"
            raise raystack.ConfigError(raystack.Problem("--watch", rule=rule, remedy=remedy))
        terminal.statuses(raystack.statuses(options.cluster))
        return None
    handle = options.handle
    if not options.watch:
        status = handle.status()
        terminal.status(status)
        return raystack.LaunchError.exit_code if status.phase == "gone" else None
    last = terminal.wait(handle, timeout_s=options.timeout_s, follow=False)
    if options.json:
        terminal.status(last)
    last.raise_for_status()
    return None


VERB = Verb(
    name="status",
    help="show one line of something that runs elsewhere; without a name: of everything there",
    options=Options,
    run=run,
    group="what runs elsewhere",
)
