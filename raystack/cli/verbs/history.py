"""`raystack history config.yaml [key=value ...]`: every move of an alias, and every refusal by a gate."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Config, Json
from raystack.cli.verb import Verb

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Config):
    """Options of `history`."""


def run(options: Options, terminal: "Terminal") -> None:
    """Show the audit of the registered model."""
    terminal.moves(options.experiment.moves)


VERB = Verb(
    name="history",
    help="show who moved the aliases of the registered model, when, why, and what was measured",
    options=Options,
    run=run,
    group="train and serve",
    usage="[options] config.yaml [key=value ...]",
)
