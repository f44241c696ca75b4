"""`raystack diagnose KIND/NAME`: say why it does not run: one cause and one remedy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Json, Reference
from raystack.cli.verb import Verb

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Reference):
    """Options of `diagnose`."""


def run(options: Options, terminal: "Terminal") -> None:
    """Show the diagnosis."""
    terminal.diagnosis(options.handle.diagnose())


VERB = Verb(
    name="diagnose",
    help="say why it does not run: one cause and one remedy",
    options=Options,
    run=run,
    group="what runs elsewhere",
)
