"""`raystack demote config.yaml [key=value ...]`: have the alias point to the version before."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Config, Json
from raystack.cli.verb import Verb, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Config):
    """Options of `demote`."""

    alias: str | None = option("--alias", help="(registry.alias)", default=None, metavar="NAME")
    why: str | None = option("--why", help="reason, for the audit", default=None, metavar="TEXT")


def run(options: Options, terminal: "Terminal") -> None:
    """Move the alias back."""
    terminal.moves([options.experiment.demote(alias=options.alias, why=options.why)])


VERB = Verb(
    name="demote",
    help="move the alias back to the version that it pointed to before",
    options=Options,
    run=run,
    group="train and serve",
    usage="[options] config.yaml [key=value ...]",
)
