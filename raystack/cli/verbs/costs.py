"""`raystack costs`: what the runs of a storage have used, and all of them together."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import raystack
from raystack.cli.options import Json, Verbose
from raystack.cli.verb import Verb, argument, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Verbose):
    """Options of `costs`."""

    name: str = argument(
        metavar="EXPERIMENT", help="experiment.name; left out: every experiment", nargs="?", default=""
    )
    storage: str | None = option(
        "--storage",
        help="experiment.storage (RAYSTACK_STORAGE, or ~/raystack)",
        default=None,
        metavar="URL",
    )


def run(options: Options, terminal: "Terminal") -> None:
    """Show each run's ledger as a line, and their sum."""
    from raystack.runs.report import report, sums

    lines = report(raystack.ClusterRef(storage=options.storage).runs, options.name or None)
    terminal.costs(lines, sums(lines))


VERB = Verb(
    name="costs",
    help="show the time, the GPU-hours and the money that runs have used",
    options=Options,
    run=run,
    group="files",
)
