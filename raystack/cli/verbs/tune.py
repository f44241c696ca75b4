"""`raystack tune config.yaml [key=value ...]`: search over a config; `raystack tune ls|show|best`: what was
found.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import raystack
from raystack.cli.options import Json, Placed, Verbose, count
from raystack.cli.submitting import Submitting, hand_over
from raystack.cli.verb import Actions, Group, Verb, argument, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal

HELP = "search over a config: trials of one training, and the best config of them"
GROUP: Group = "train and serve"
OF_ONE = "[options] NAME|CONFIG [key=value ...]"


@dataclass(frozen=True, kw_only=True)
class Options(Submitting, Json, Placed):
    """Options of a search."""

    dry_run: bool = option("--dry-run", help="print the plan and stop")
    resume: bool = option("--resume", help="go on with the study of that name, also with more trials")
    multirun: bool = option(
        "-m", "--multirun", help="try every combination, if the space has values only: a=1,2 b=x,y"
    )

    @property
    def experiment(self) -> "raystack.Experiment":
        """Return the experiment, in which an override with several values is searched."""
        return self.at_place(
            raystack.Experiment(self.config, *self.overrides, sweeps="grid" if self.multirun else "searched")
        )


@dataclass(frozen=True, kw_only=True)
class Listed(Json, Verbose):
    """Options of `ls`."""

    storage: str | None = option(
        "--storage",
        help="experiment.storage of the studies (RAYSTACK_STORAGE, or what configs say by default)",
        default=None,
        metavar="URL",
    )


@dataclass(frozen=True, kw_only=True)
class Named(Listed):
    """A study, by its name, its folder or its config."""

    words: tuple[str, ...] = argument(
        metavar="NAME|CONFIG",
        help="name of a study, its folder, or its config.yaml, followed by the overrides that it had",
        nargs="+",
    )

    @property
    def study(self) -> "raystack.Study":
        """Return the study. Raises ConfigError if there is none."""
        from raystack.tuning.study import Study, find

        name, *overrides = self.words
        if name.endswith(".yaml"):
            self._refuse(None if self.storage is None else "--storage", "the config says where")
            return raystack.Experiment(name, *overrides, sweeps="searched").study
        self._refuse(next(iter(overrides), None), "only a config has overrides")
        return Study.open(name) if "/" in name else find(name, _storage(self))

    @staticmethod
    def _refuse(where: str | None, rule: str) -> None:
        if where is not None:
            raise raystack.ConfigError(raystack.Problem(where, rule=rule, remedy="drop it"))


@dataclass(frozen=True, kw_only=True)
class Shown(Named):
    """Options of `show`."""

    trials: int = option(
        "--trials", help="how many trials, the best first (10)", default=10, type=count, metavar="N"
    )


@dataclass(frozen=True, kw_only=True)
class Best(Named):
    """Options of `best`."""

    trial: int | None = option(
        "--trial", help="this trial and not the best", default=None, type=count, metavar="N"
    )
    out: str | None = option(
        "-o", "--out", help="write a file, not on stdout", default=None, metavar="config.yaml"
    )


def run(options: Options, terminal: "Terminal") -> None:
    """Search, submit, or show the plan."""
    experiment = options.experiment
    elsewhere = experiment.config.target.kind in ("job", "kuberay")
    if not elsewhere:
        options.refuse_waiting("a study on this machine ends with its command")
    options.refuse_force(experiment.config.target.kind)
    if options.dry_run:
        terminal.plan(experiment.plan_tuning(resume=options.resume))
    elif elsewhere:
        hand_over(experiment.submit_tuning(resume=options.resume, force=options.force), options, terminal)
    else:
        terminal.searched(experiment.tune(resume=options.resume, verbose=options.verbose))


def ls(options: Listed, terminal: "Terminal") -> None:
    """Show one line per study."""
    from raystack.tuning.study import studies

    terminal.studies(studies(_storage(options), terminal.warn))


def show(options: Shown, terminal: "Terminal") -> None:
    """Show a study and its best trials."""
    terminal.study(options.study, options.trials)


def best(options: Best, terminal: "Terminal") -> None:
    """Write the config of the best trial."""
    study = options.study
    config = study.best_config if options.trial is None else study.config_of(options.trial)
    if options.out is None:
        terminal.config(config)
        return
    from raystack.config import dump

    Path(options.out).write_text(dump(config), encoding="utf-8")
    terminal.files([options.out])


def _storage(options: Listed) -> str:
    from raystack.config.defaults import default_storage

    return options.storage or default_storage()


VERB = Actions(
    name="tune",
    help=HELP,
    group=GROUP,
    actions=(
        Verb("ls", "one line for each study", Listed, ls, GROUP),
        Verb("show", "what a study has come to, and its best trials", Shown, show, GROUP, usage=OF_ONE),
        Verb(
            "best",
            "write the config of the best trial, which `raystack train` takes as it is",
            Best,
            best,
            GROUP,
            usage=OF_ONE,
        ),
    ),
    otherwise=Verb(
        name="tune",
        help=HELP,
        options=Options,
        run=run,
        group=GROUP,
        usage="[options] config.yaml [key=value ...]",
    ),
)
