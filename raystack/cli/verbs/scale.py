"""`raystack scale KIND/NAME WORKERS`: change the number of its workers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Json, Reference, count
from raystack.cli.verb import Verb, argument, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Reference):
    """Options of `scale`."""

    workers: int = argument(metavar="WORKERS", help="how many worker pods there should be", type=count)
    group: str | None = option(
        "--group", help="of this group of workers, where there are several", default=None, metavar="NAME"
    )
    model: str | None = option(
        "--model",
        help="with replicas of this model, where a service has several",
        default=None,
        metavar="NAME",
    )


def run(options: Options, terminal: "Terminal") -> None:
    """Scale, and show what became of it."""
    terminal.status(options.handle.scale(options.workers, options.group, options.model))


VERB = Verb(
    name="scale",
    help="change the number of its workers",
    options=Options,
    run=run,
    group="what runs elsewhere",
)
