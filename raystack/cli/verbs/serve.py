"""`raystack serve config.yaml [key=value ...]`: deploy a model, and stay until it is stopped.

On Kubernetes it becomes a RayService, which stays by itself.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Json, Placed
from raystack.cli.submitting import Submitting, hand_over
from raystack.cli.verb import Verb, option
from raystack.outcome import Outcome

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Submitting, Json, Placed):
    """Options of `serve`."""

    dry_run: bool = option("--dry-run", help="print the plan and stop")


def run(options: Options, terminal: "Terminal") -> None:
    """Serve, deploy, or show the plan."""
    experiment = options.experiment
    elsewhere = experiment.config.target.kind in ("job", "kuberay")
    if not elsewhere and options.wait:
        options.refuse_waiting("a model served from this machine is waited for as it is")
    options.refuse_force(experiment.config.target.kind)
    if options.dry_run:
        terminal.plan(experiment.plan_serving())
    elif elsewhere or options.detach:
        deployed = experiment.deploy(verbose=options.verbose, force=options.force)
        if isinstance(deployed, Outcome):
            terminal.outcome(deployed)
        else:
            hand_over(deployed, options, terminal)
    else:
        options.refuse_timeout()
        with experiment.serve(verbose=options.verbose) as model:
            terminal.outcome(model.outcome)
            terminal.say("serving until Ctrl-C")
            terminal.until_interrupted()


VERB = Verb(
    name="serve",
    help="serve a model over HTTP (Open Inference Protocol v2)",
    options=Options,
    run=run,
    group="train and serve",
    usage="[options] config.yaml [key=value ...]",
)
