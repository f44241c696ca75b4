"""`raystack completion SHELL`: a script that completes verbs and options in a shell."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import shtab

from raystack.cli.main import parser
from raystack.cli.options import Verbose
from raystack.cli.verb import Verb, argument

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Verbose):
    """Options of `completion`."""

    shell: str = argument(metavar="SHELL", help="bash, zsh or tcsh", choices=("bash", "zsh", "tcsh"))


def run(options: Options, terminal: "Terminal") -> None:
    """Print the script; `source <(raystack completion bash)` turns it on."""
    terminal.text(shtab.complete(parser(listed=True), options.shell) + "\n")


VERB = Verb(
    name="completion",
    help="print a script that completes verbs and options in a shell",
    options=Options,
    run=run,
    group="files",
)
