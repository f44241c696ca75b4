"""`raystack schema`: the config's JSON Schema for editors, or its reference for docs/config.md."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystack.cli.options import Verbose
from raystack.cli.verb import Verb, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Verbose):
    """Options of `schema`."""

    markdown: bool = option("--markdown", help="print the reference as Markdown instead")


def run(options: Options, terminal: "Terminal") -> None:
    """Print the schema or the reference."""
    from raystack.config.document import json_schema, markdown

    terminal.text(markdown() if options.markdown else json.dumps(json_schema(), indent=2) + "\n")


VERB = Verb(
    name="schema",
    help="print the JSON Schema of a config, or its reference as Markdown",
    options=Options,
    run=run,
    group="files",
)
