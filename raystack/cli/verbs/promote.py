"""`raystack promote config.yaml [key=value ...]`: have the alias point to a version that passes the gates."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raystack.cli.options import Config, Json, count
from raystack.cli.verb import Verb, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal

REFUSED = 3


@dataclass(frozen=True, kw_only=True)
class Options(Json, Config):
    """Options of `promote`."""

    version: int | None = option(
        "--version", help="number of the version (the newest)", default=None, type=count, metavar="N"
    )
    alias: str | None = option("--alias", help="(registry.alias)", default=None, metavar="NAME")
    force: bool = option("--force", help="whatever the gates say; needs --why")
    why: str | None = option("--why", help="reason, for the audit", default=None, metavar="TEXT")
    commit: str | None = option(
        "--commit",
        help="have the service in the bundle there serve the version, and commit that to Git",
        default=None,
        metavar="FOLDER",
    )


def run(options: Options, terminal: "Terminal") -> int:
    """Check and promote; status 3 if a gate refuses the version."""
    version = None if options.version is None else str(options.version)
    experiment = options.experiment
    bundle = None
    if options.commit is not None:
        from raystack.kuberay.actions.commit import Served

        # What cannot be committed is refused before the alias moves.
        bundle = Served.read(Path(options.commit), experiment.config.registry.model)
    promotion = experiment.promote(version, alias=options.alias, force=options.force, why=options.why)
    if bundle is not None and promotion.done:
        number = bundle.commit(promotion.move.version, promotion.move.why)
        terminal.say(f"commit {number}" if number else f"{options.commit} has this version already")
    terminal.promotion(promotion)
    return 0 if promotion.done else REFUSED


VERB = Verb(
    name="promote",
    help="check a version by registry.gates, and move the alias to it; status 3 if it is refused",
    options=Options,
    run=run,
    group="train and serve",
    usage="[options] config.yaml [key=value ...]",
)
