"""`raystack <verb> ...` and `python -m raystack <verb> ...`: all verbs behind one command."""

import sys
from collections.abc import Sequence

from raystack.cli.arguments import REMOTES, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = parse(None, argv)
    match arguments.verb:
        case "train":
            from raystack.train import run
        case "serve":
            from raystack.serve import run
        case "checkpoint":
            from raystack.checkpoints import run
        case "render":
            from raystack.render import run
        case "lint":
            from raystack.lint import run
        case verb if verb in REMOTES:
            from raystack.remotes import run
        case _:
            from raystack.schema import run
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
