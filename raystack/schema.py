"""`python -m raystack schema`: the config's JSON Schema for editors, or its reference for docs/config.md."""

import json
import sys
from collections.abc import Sequence

from raystack.cli.arguments import Arguments, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return run(parse("schema", argv))


def run(arguments: Arguments) -> int:
    from raystack.config.document import json_schema, markdown

    sys.stdout.write(markdown() if arguments.markdown else json.dumps(json_schema(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
