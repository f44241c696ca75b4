"""`raystack suspend KIND/NAME`: let its resources go and keep it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Json, Reference
from raystack.cli.verb import Verb

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Reference):
    """Options of `suspend`."""


def run(options: Options, terminal: "Terminal") -> None:
    """Suspend, and show what became of it."""
    terminal.status(options.handle.suspend())


VERB = Verb(
    name="suspend",
    help="let its resources go and keep it",
    options=Options,
    run=run,
    group="what runs elsewhere",
)
