"""`raystack follow config.yaml [key=value ...]`: roll out each version that an alias comes to point to."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Config, Json
from raystack.cli.verb import Verb

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Config):
    """Options of `follow`."""


def run(options: Options, terminal: "Terminal") -> None:
    """Follow until the process is interrupted."""
    options.experiment.follow(terminal.told, verbose=options.verbose)


VERB = Verb(
    name="follow",
    help="roll out each version that an alias in MLflow comes to point to",
    options=Options,
    run=run,
    group="train and serve",
    usage="[options] config.yaml [key=value ...]",
)
