"""Where text for people goes: results to stdout, everything else to stderr."""

from typing import NoReturn

from rich.console import Console
from rich.text import Text


class _Console(Console):
    """rich ends the process itself where nobody reads any more; the verb decides that here."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def stdout() -> Console:
    """For results: copied by people and read by programs."""
    return _Console(highlight=False)


def stderr() -> Console:
    """For everything else."""
    return _Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print a line beside the results."""
    stderr().print(Text(text), soft_wrap=True)


def warn(text: str) -> None:
    """Print something to know that stops nothing."""
    stderr().print(Text("warning: ", "bold yellow") + Text(text), soft_wrap=True)
