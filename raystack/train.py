"""`python -m raystack.train config.yaml [key=value ...]`: load, plan, launch, and say where everything is.

Here and now where the target is local; else it is submitted, and this very module runs there.
"""

import secrets
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from raystack.cli.arguments import Arguments, parse

if TYPE_CHECKING:
    from raystack.config import RunConfig
    from raystack.plan.footprint import ModelProfile


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return run(parse("train", argv))


def run(arguments: Arguments) -> int:
    # Imports follow the parsing, so that --help and a mistyped option do not wait for them.
    from raystack import logs
    from raystack.cli.terminal import guard

    logs.setup(verbose=arguments.verbose)
    return guard(lambda: _train(arguments), verbose=arguments.verbose)


def _train(arguments: Arguments) -> None:
    from raystack import config, plan
    from raystack.cli.terminal import show_outcome, show_plan, warn
    from raystack.config.target import Local

    asked = config.load(arguments.config, arguments.overrides)
    remote = not isinstance(asked.target, Local)
    _refuse_idle_options(arguments, asked)
    decided = plan.plan_training(asked, _run_id(asked, arguments), _measured(asked, arguments))
    if decided.memory is not None and decided.memory.fits is False:
        warn(f"by the memory plan {decided.memory.chosen} does not fit the device: see --dry-run --memory")
    if arguments.dry_run:
        from raystack.launch.remote import planned
        from raystack.submit import resumed

        show_plan(decided, planned(decided, resumed(arguments)), as_json_text=arguments.json)
        return
    if remote:
        from raystack.submit import submit

        submit(arguments, decided)
        return

    from raystack.cli.progress import shown
    from raystack.launch import local

    with shown() as listen:
        outcome = local.train(decided, listen, resume=arguments.resume, verbose=arguments.verbose)
    show_outcome(outcome, as_json_text=arguments.json)


def _refuse_idle_options(arguments: Arguments, config: "RunConfig") -> None:
    """What cannot take effect is refused."""
    from raystack.config.kuberay import KubeRay
    from raystack.config.target import Local
    from raystack.errors import ConfigError, Problem

    if isinstance(config.target, KubeRay) and config.target.cron.schedule is not None and arguments.resume:
        raise ConfigError(
            Problem(
                "--resume",
                rule="a schedule starts a new run each time",
                remedy="drop it, or target.cron.schedule",
            )
        )
    if isinstance(config.target, Local) and (arguments.wait or arguments.detach):
        option = "--wait" if arguments.wait else "--detach"
        raise ConfigError(
            Problem(
                option,
                rule="a run on this machine ends with its command",
                remedy="drop it, or set target=job or kuberay",
            )
        )


def _measured(config: "RunConfig", arguments: Arguments) -> "ModelProfile | None":
    """Of the model, where the plan needs it: that takes seconds, and imports torch in a process of
    its own.
    """
    if not arguments.memory and config.training.batch.micro != "auto":
        return None
    from raystack.cli.terminal import say
    from raystack.plan.memory import micro_batches_to_profile
    from raystack.plan.scale import plan_workers
    from raystack.training.profile import profile_subprocess

    micros = micro_batches_to_profile(config.training.batch, plan_workers(config.resources))
    say("measuring the model")
    return profile_subprocess.measure(config, micros)


def _run_id(config: "RunConfig", arguments: Arguments) -> str:
    """The id of a new run, or of one to go on with. The driver of a remote run looks for it there."""
    from raystack.config.target import Local
    from raystack.plan.naming import run_id

    new = run_id(config.experiment.name, datetime.now(), secrets.token_hex(2))
    if not isinstance(config.target, Local) or (arguments.dry_run and not arguments.resume):
        return new
    from raystack.cli.terminal import say
    from raystack.runs import selection

    return selection.choose(config, new, say, resume=arguments.resume, run=arguments.run)


if __name__ == "__main__":
    sys.exit(main())
