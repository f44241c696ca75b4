"""`raystack resume KIND/NAME`: go on after suspend."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Json, Reference
from raystack.cli.verb import Verb

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Reference):
    """Options of `resume`."""


def run(options: Options, terminal: "Terminal") -> None:
    """Resume, and show what became of it."""
    terminal.status(options.handle.resume())


VERB = Verb(name="resume", help="go on after suspend", options=Options, run=run, group="what runs elsewhere")
