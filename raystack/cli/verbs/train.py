"""`raystack train config.yaml [key=value ...]`: plan and train, here or where the target is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import raystack
from raystack.cli.options import Json, Placed, seconds
from raystack.cli.submitting import Submitting, hand_over
from raystack.cli.verb import Verb, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal
    from raystack.events import Event, Listener


@dataclass(frozen=True, kw_only=True)
class Options(Submitting, Json, Placed):
    """Options of `train`."""

    dry_run: bool = option("--dry-run", help="print the plan and stop")
    memory: bool = option(
        "--memory", help="measure the model, and plan each device's memory under every strategy"
    )
    resume: bool = option(
        "--resume", help="go on from the last good checkpoint of the experiment's newest run"
    )
    run: str | None = option("--run", help="the run to go on with", default=None, metavar="ID")
    probe_s: float | None = option(
        "--probe",
        help="train for so many seconds, without registering; then --dry-run estimates the run by it",
        type=seconds,
        default=None,
        metavar="SECONDS",
    )
    print_metrics: bool = option(
        "--print-metrics",
        help="print the metrics of each evaluation on stdout, a line name=value each, as Katib reads them",
    )

    def refuse_unprinted(self, *, elsewhere: bool) -> None:
        """Raise ConfigError if --print-metrics was given where nothing is printed or something else is."""
        rule, remedy = None, "drop one of them"
        if elsewhere:
            rule, remedy = "the run's metrics are not measured here", "drop it, or set target=local"
        elif self.dry_run or self.json:
            rule = "stdout has one result, that of --dry-run or --json"
        if self.print_metrics and rule is not None:
            raise raystack.ConfigError(raystack.Problem("--print-metrics", rule=rule, remedy=remedy))

    @property
    def probed(self) -> "raystack.Experiment":
        """Return the experiment, or the probe of it. Raises ConfigError for what a probe cannot be."""
        if self.probe_s is None:
            return self.experiment
        rule, remedy = "a probe is a new run that trains", "drop it or --probe"
        for name, given in (("--dry-run", self.dry_run), ("--resume", self.resume), ("--run", self.run)):
            if given:
                raise raystack.ConfigError(raystack.Problem(name, rule=rule, remedy=remedy))
        return self.experiment.probing(self.probe_s)


def run(options: Options, terminal: "Terminal") -> None:
    """Train, submit, or show the plan."""
    experiment = options.probed
    elsewhere = experiment.config.target.kind in ("job", "kuberay")
    if not elsewhere:
        options.refuse_waiting("a run on this machine ends with its command")
    options.refuse_force(experiment.config.target.kind)
    options.refuse_unprinted(elsewhere=elsewhere)
    if options.dry_run:
        terminal.plan(experiment.plan(memory=options.memory, resume=options.resume, run=options.run))
    elif elsewhere:
        submission = experiment.submit(
            memory=options.memory, resume=options.resume, run=options.run, force=options.force
        )
        hand_over(submission, options, terminal)
    else:
        with _listening(options, terminal) as listen:
            outcome = experiment.train(
                listen, memory=options.memory, resume=options.resume, run=options.run, verbose=options.verbose
            )
        terminal.outcome(outcome)
        if options.probe_s is not None:
            terminal.estimate(options.experiment.plan())


@contextmanager
def _listening(options: Options, terminal: "Terminal") -> "Iterator[Listener | None]":
    """Yield what prints the metrics beside the display; None for the display alone."""
    if not options.print_metrics:
        yield None
        return
    from raystack.display.progress import shown
    from raystack.events import Evaluated

    with shown() as show:

        def listen(event: "Event") -> None:
            show(event)
            if isinstance(event, Evaluated):
                terminal.text("".join(f"{name}={value!r}\n" for name, value in event.metrics.items()))

        yield listen


VERB = Verb(
    name="train",
    help="train a model, record it in MLflow and register it",
    options=Options,
    run=run,
    group="train and serve",
    usage="[options] config.yaml [key=value ...]",
)
