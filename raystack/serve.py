"""`python -m raystack.serve config.yaml [key=value ...]`: load, plan, deploy, and stay until it is stopped."""

import sys
from collections.abc import Sequence

from raystack.cli.arguments import Arguments, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return run(parse("serve", argv))


def run(arguments: Arguments) -> int:
    # Imports follow the parsing, so that --help and a mistyped option do not wait for them.
    from raystack import logs
    from raystack.cli.terminal import guard

    logs.setup(verbose=arguments.verbose)
    return guard(lambda: _serve(arguments), verbose=arguments.verbose)


def _serve(arguments: Arguments) -> None:
    from raystack import config, plan
    from raystack.cli.terminal import say, show_outcome, show_plan, wait_for_interrupt

    decided = plan.plan_serving(config.load(arguments.config, arguments.overrides))
    if arguments.dry_run:
        show_plan(decided, as_json_text=arguments.json)
        return

    from raystack.launch import local

    if arguments.detach:
        show_outcome(local.serve_detached(decided, verbose=arguments.verbose), as_json_text=arguments.json)
        return
    with local.serving(decided, verbose=arguments.verbose) as outcome:
        show_outcome(outcome, as_json_text=arguments.json)
        say("serving until Ctrl-C")
        wait_for_interrupt()


if __name__ == "__main__":
    sys.exit(main())
