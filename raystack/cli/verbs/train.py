"""`raystack train config.yaml [key=value ...]`: plan and train, here or where the target is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Config, Json
from raystack.cli.submitting import Submitting, hand_over
from raystack.cli.verb import Verb, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Submitting, Json, Config):
    """Options of `train`."""

    dry_run: bool = option("--dry-run", help="print the plan and stop")
    memory: bool = option(
        "--memory", help="measure the model, and plan each device's memory under every strategy"
    )
    resume: bool = option(
        "--resume", help="go on from the last good checkpoint of the experiment's newest run"
    )
    run: str | None = option("--run", help="the run to go on with", default=None, metavar="ID")


def run(options: Options, terminal: "Terminal") -> None:
    """Train, submit, or show the plan."""
    experiment = options.experiment
    elsewhere = experiment.config.target.kind in ("job", "kuberay")
    if not elsewhere:
        options.refuse_waiting("a run on this machine ends with its command")
    if options.dry_run:
        terminal.plan(experiment.plan(memory=options.memory, resume=options.resume, run=options.run))
    elif elsewhere:
        submission = experiment.submit(memory=options.memory, resume=options.resume, run=options.run)
        hand_over(submission, options, terminal)
    else:
        outcome = experiment.train(
            memory=options.memory, resume=options.resume, run=options.run, verbose=options.verbose
        )
        terminal.outcome(outcome)


VERB = Verb(
    name="train",
    help="train a model, record it in MLflow and register it",
    options=Options,
    run=run,
    group="train and serve",
    usage="[options] config.yaml [key=value ...]",
)
