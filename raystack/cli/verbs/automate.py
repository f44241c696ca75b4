"""`raystack automate config.yaml [key=value ...]`: train again when something calls for it, and stay."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Config, Json
from raystack.cli.verb import Verb, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Config):
    """Options of `automate`."""

    dry_run: bool = option(
        "--dry-run", help="show what it would have done over the recorded past, and stop", exclusive="what"
    )
    history: bool = option("--history", help="show every step that it took, and stop", exclusive="what")
    once: bool = option(
        "--once", help="end when there is nothing more to do now, as for a scheduler", exclusive="what"
    )


def run(options: Options, terminal: "Terminal") -> None:
    """Automate, or show what was done or would have been."""
    experiment = options.experiment
    if options.dry_run:
        assumed, steps = experiment.rehearse_automation()
        terminal.say(assumed)
        terminal.steps(steps)
    elif options.history:
        terminal.steps(experiment.automation_steps)
    else:
        experiment.automate(terminal.step, once=options.once)


VERB = Verb(
    name="automate",
    help="train again on drift, a schedule or new data, and roll out what passes its gates",
    options=Options,
    run=run,
    group="train and serve",
    usage="[options] config.yaml [key=value ...]",
)
