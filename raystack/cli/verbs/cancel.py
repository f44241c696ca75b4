"""`raystack cancel KIND/NAME`: stop it and let its resources go; its logs are kept first."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Json, Reference
from raystack.cli.verb import Verb

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Reference):
    """Options of `cancel`."""


def run(options: Options, terminal: "Terminal") -> None:
    """Cancel, and show what became of it."""
    terminal.status(options.handle.cancel())


VERB = Verb(
    name="cancel",
    help="stop it and let its resources go; its logs are kept first",
    options=Options,
    run=run,
    group="what runs elsewhere",
)
