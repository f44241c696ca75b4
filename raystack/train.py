"""`python -m raystack.train config.yaml [key=value ...]`: load, plan, launch, and say where everything is."""

import secrets
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from raystack.cli.arguments import Arguments, parse

if TYPE_CHECKING:
    from raystack.config import RunConfig


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
    from raystack.cli.terminal import show_outcome, show_plan

    asked = config.load(arguments.config, arguments.overrides)
    decided = plan.plan_training(asked, _run_id(asked, arguments))
    if arguments.dry_run:
        show_plan(decided, as_json_text=arguments.json)
        return

    from raystack.cli.progress import shown
    from raystack.launch import local

    with shown() as listen:
        outcome = local.train(decided, listen, resume=arguments.resume, verbose=arguments.verbose)
    show_outcome(outcome, as_json_text=arguments.json)


def _run_id(asked: "RunConfig", arguments: Arguments) -> str:
    if arguments.resume:
        from raystack.launch import runs

        return runs.find(asked, arguments.run)
    from raystack.plan.naming import run_id

    return run_id(asked.experiment.name, datetime.now(), secrets.token_hex(2))


if __name__ == "__main__":
    sys.exit(main())
