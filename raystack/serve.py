"""`python -m raystack.serve config.yaml [key=value ...]`: load, plan, deploy, and stay until it is stopped.

On Kubernetes it becomes a RayService, which stays by itself.
"""

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
    from raystack.config.target import Local
    from raystack.errors import ConfigError, Problem

    asked = config.load(arguments.config, arguments.overrides)
    decided = plan.plan_serving(asked)
    if arguments.dry_run:
        from raystack.launch.remote import planned

        show_plan(decided, planned(decided), as_json_text=arguments.json)
        return
    if not isinstance(asked.target, Local):
        from raystack.submit import submit

        submit(arguments, decided)
        return
    if arguments.wait:
        raise ConfigError(
            Problem(
                "--wait", rule="a model served from this machine is waited for as it is", remedy="drop it"
            )
        )

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
