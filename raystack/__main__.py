"""`raystack <verb> ...` and `python -m raystack <verb> ...`: all verbs behind one command."""

import sys
from collections.abc import Sequence

from raystack.cli.arguments import parse


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
        case _:
            from raystack.schema import run
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
